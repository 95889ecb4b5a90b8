//! Watches: every event once and in order, from any moment, for any selection.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Cluster, pair};

const CMS: &str = "/api/v1/namespaces/ns/configmaps";

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), |c| {
        c.limits.bookmark_every = Duration::from_millis(200);
        c.limits.history_events = 50;
    })
    .await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    (cluster, admin)
}

async fn revision(admin: &Client) -> String {
    let list = admin.get(CMS).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn from_a_list_on() {
    let (_cluster, admin) = cluster().await;
    admin.config_map("ns", "a", "1").await;
    let from = revision(&admin).await;
    let mut watch = admin.watch(&format!("{CMS}?watch=1&resourceVersion={from}")).await;
    admin.config_map("ns", "b", "1").await;
    admin.merge(&format!("{CMS}/a"), &json!({"data": {"k": "w"}})).await.expect(200);
    admin.delete(&format!("{CMS}/b")).await.expect(200);
    assert_eq!(watch.brief().await, pair("ADDED", "b"));
    assert_eq!(watch.brief().await, pair("MODIFIED", "a"));
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let version: u64 = deleted["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(version > from.parse::<u64>().unwrap() + 2);
    // The same once more, afterwards.
    let mut again = admin.watch(&format!("{CMS}?watch=1&resourceVersion={from}")).await;
    for want in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(again.brief().await.0, want);
    }
}

#[tokio::test]
async fn the_present_first() {
    let (_cluster, admin) = cluster().await;
    admin.config_map("ns", "a", "1").await;
    admin.config_map("ns", "b", "1").await;
    for query in ["watch=1", "watch=true&resourceVersion=0"] {
        let mut watch = admin.watch(&format!("{CMS}?{query}")).await;
        assert_eq!(watch.brief().await, pair("ADDED", "a"));
        assert_eq!(watch.brief().await, pair("ADDED", "b"));
    }
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = admin.watch(&format!("{CMS}?{query}")).await;
    assert_eq!(watch.brief().await, pair("ADDED", "a"));
    assert_eq!(watch.brief().await, pair("ADDED", "b"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"].as_str().unwrap(), revision(&admin).await);
    admin.config_map("ns", "c", "1").await;
    loop {
        let event = watch.brief().await;
        if event.0 != "BOOKMARK" {
            assert_eq!(event, pair("ADDED", "c"));
            break;
        }
    }
    admin.get(&format!("{CMS}?watch=1&sendInitialEvents=true")).await.expect(422);
}

#[tokio::test]
async fn selections_change() {
    let (_cluster, admin) = cluster().await;
    admin.config_map("ns", "a", "1").await;
    let from = revision(&admin).await;
    let mut watch = admin.watch(&format!("{CMS}?watch=1&resourceVersion={from}&labelSelector=l%3D2")).await;
    admin.config_map("ns", "other", "1").await;
    let label = |l: &str| json!({"metadata": {"labels": {"l": l}}});
    admin.merge(&format!("{CMS}/a"), &label("2")).await.expect(200);
    admin.merge(&format!("{CMS}/a"), &json!({"data": {"k": "w"}})).await.expect(200);
    let left = admin.merge(&format!("{CMS}/a"), &label("3")).await.expect(200);
    admin.delete(&format!("{CMS}/a")).await.expect(200);
    admin.config_map("ns", "last", "2").await;
    assert_eq!(watch.brief().await, pair("ADDED", "a"));
    assert_eq!(watch.brief().await, pair("MODIFIED", "a"));
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    // The object as it was when it was last seen, with the revision of the change.
    assert_eq!(gone["object"]["metadata"]["labels"]["l"], "2");
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(watch.brief().await, pair("ADDED", "last"));
}

#[tokio::test]
async fn bookmarks_and_ends() {
    let (_cluster, admin) = cluster().await;
    let query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut watch = admin.watch(&format!("{CMS}?{query}")).await;
    let mut marks = 0;
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK");
        marks += 1;
    }
    assert!(marks >= 2, "{marks}");
}

#[tokio::test]
async fn a_time_out_beyond_every_clock_is_a_long_one() {
    let (_cluster, admin) = cluster().await;
    let from = revision(&admin).await;
    let query = format!("watch=1&resourceVersion={from}&timeoutSeconds={}", i64::MAX);
    let mut watch = admin.watch(&format!("{CMS}?{query}")).await;
    admin.config_map("ns", "a", "1").await;
    assert_eq!(watch.brief().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn too_early_and_too_late() {
    let (_cluster, admin) = cluster().await;
    let from = revision(&admin).await;
    let mut ahead = admin.watch(&format!("{CMS}?watch=1&resourceVersion=99999999")).await;
    let error = ahead.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(error["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    for i in 0..60 {
        admin.config_map("ns", &format!("c{i}"), "1").await;
    }
    let mut late = admin.watch(&format!("{CMS}?watch=1&resourceVersion={from}")).await;
    let error = late.next().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    assert_eq!(error["object"]["code"], 410);
    assert!(late.next().await.is_none());
    admin.get(&format!("{CMS}?watch=1&resourceVersion=x")).await.expect(500);
}

#[tokio::test]
async fn a_thousand_changes_and_none_lost() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let from = revision(&admin).await;
    let mut watch = admin.watch(&format!("{CMS}?watch=1&resourceVersion={from}")).await;
    let writer = tokio::spawn({
        let admin = admin.clone();
        async move {
            for i in 0..250 {
                let name = format!("c{i}");
                admin.config_map("ns", &name, "1").await;
                for n in 0..2 {
                    let patch = json!({"data": {"n": n.to_string()}});
                    admin.merge(&format!("{CMS}/{name}"), &patch).await.expect(200);
                }
                admin.delete(&format!("{CMS}/{name}")).await.expect(200);
            }
        }
    });
    let mut last = 0;
    for i in 0..250 {
        for want in ["ADDED", "MODIFIED", "MODIFIED", "DELETED"] {
            let event = watch.next().await.unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&json!(want), &json!(format!("c{i}")))
            );
            let version: u64 =
                event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(version > last);
            last = version;
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn tables_and_metadata() {
    let (_cluster, admin) = cluster().await;
    admin.config_map("ns", "a", "1").await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = |accept: &str| {
        axum::http::Request::builder()
            .uri(format!("{CMS}?watch=1&timeoutSeconds=1"))
            .header("accept", accept)
            .body(axum::body::Body::empty())
            .unwrap()
    };
    let text = |response: axum::http::Response<axum::body::Body>| async {
        use http_body_util::BodyExt as _;
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let lines = text(admin.send(request(table)).await).await;
    assert!(lines.contains(r#""kind":"Table""#) && lines.contains("columnDefinitions"), "{lines}");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let lines = text(admin.send(request(partial)).await).await;
    assert!(lines.contains("PartialObjectMetadata") && !lines.contains("\"data\""), "{lines}");
}
