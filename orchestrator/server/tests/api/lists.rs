//! Lists: pages at one revision, selectors, forms.

use serde_json::Value;

use crate::support::{Client, Cluster, names};

const CMS: &str = "/api/v1/namespaces/ns/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

async fn filled() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    for i in 0..7 {
        admin.config_map("ns", &format!("c{i}"), &(i % 2).to_string()).await;
    }
    (cluster, admin)
}

#[tokio::test]
async fn pages_show_one_moment() {
    let (_cluster, admin) = filled().await;
    let first = admin.get(&format!("{CMS}?limit=3")).await.expect(200);
    assert_eq!(names(&first), ["c0", "c1", "c2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    let revision = &first["metadata"]["resourceVersion"];
    // What happens now is not seen by the pages that follow.
    admin.config_map("ns", "c30", "0").await;
    admin.delete(&format!("{CMS}/c5")).await.expect(200);
    let mut seen: Vec<String> = Vec::new();
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    while !token.is_empty() {
        let page = admin.get(&format!("{CMS}?limit=3&continue={token}")).await.expect(200);
        assert_eq!(&page["metadata"]["resourceVersion"], revision);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(seen, ["c3", "c4", "c5", "c6"]);
    let path = format!("{CMS}?resourceVersion={}&resourceVersionMatch=Exact", revision.as_str().unwrap());
    assert_eq!(names(&admin.get(&path).await.expect(200)).len(), 7);
    assert_eq!(names(&admin.get(CMS).await.expect(200)).len(), 7);
}

#[tokio::test]
async fn pages_without_changes_come_from_the_cache_alike() {
    let (_cluster, admin) = filled().await;
    let first = admin.get(&format!("{CMS}?limit=4&labelSelector=l%3D0")).await.expect(200);
    assert_eq!(names(&first), ["c0", "c2", "c4", "c6"]);
    let second = admin.get(&format!("{CMS}?limit=5")).await.expect(200);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let rest = admin.get(&format!("{CMS}?limit=5&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c5", "c6"]);
    // A token belongs to its list.
    admin.get(&format!("/api/v1/namespaces/other/configmaps?limit=5&continue={token}")).await.expect(400);
}

#[tokio::test]
async fn selectors_select() {
    let (_cluster, admin) = filled().await;
    for (query, want) in [
        ("labelSelector=l%3D1", 3),
        ("labelSelector=l+in+(0,1)", 7),
        ("labelSelector=%21l", 0),
        ("fieldSelector=metadata.name%3Dc3", 1),
        ("fieldSelector=metadata.name%21%3Dc3", 6),
        ("labelSelector=l%3D1&fieldSelector=metadata.name%3Dc3", 1),
    ] {
        let list = admin.get(&format!("{CMS}?{query}")).await.expect(200);
        assert_eq!(names(&list).len(), want, "{query}");
    }
    admin.get(&format!("{CMS}?fieldSelector=data.k%3Dv")).await.expect(400);
    let pods =
        admin.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn,status.phase%21%3DFailed").await.expect(200);
    assert!(names(&pods).is_empty());
}

#[tokio::test]
async fn forms() {
    let (_cluster, admin) = filled().await;
    let table = admin.get_as(CMS, TABLE).await.expect(200);
    assert_eq!(table["rows"].as_array().unwrap().len(), 7);
    assert_eq!(table["rows"][0]["cells"][0], "c0");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = admin.get_as(CMS, partial).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    admin.get_as(CMS, "text/html").await.expect(406);
    let plain = admin.get(CMS).await.expect(200);
    assert_eq!(plain["kind"], "ConfigMapList");
    assert!(plain["items"][0].get("kind").is_none());
    let version: u64 = plain["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let ahead = admin.get(&format!("{CMS}?resourceVersion={}", version + 1000)).await.expect(504);
    assert_eq!(ahead["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn long_lists_are_streamed_whole() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let data = "x".repeat(20_000);
    for i in 0..60 {
        let object = serde_json::json!({"metadata": {"name": format!("c{i:03}")}, "data": {"k": data}});
        admin.post(CMS, &object).await.expect(201);
    }
    let list = admin.get(CMS).await.expect(200);
    assert_eq!(names(&list).len(), 60);
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i: &Value| i["data"]["k"].as_str().unwrap().len() == 20_000)
    );
}

#[tokio::test]
async fn discovery_and_schemas() {
    let (_cluster, admin) = filled().await;
    let groups = admin.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "apps"));
    let core = admin.get("/api/v1").await.expect(200);
    let resources = core["resources"].as_array().unwrap();
    assert!(resources.iter().any(|r| r["name"] == "pods/binding" && r["kind"] == "Binding"));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = admin.get_as("/apis", aggregated).await;
    assert!(answer.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    assert_eq!(answer.expect(200)["kind"], "APIGroupDiscoveryList");
    let index = admin.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = admin.get(url).await;
    assert!(document.headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(document.expect(200)["components"]["schemas"].get("io.k8s.api.apps.v1.Deployment").is_some());
    assert_eq!(admin.get("/openapi/v2").await.expect(200)["swagger"], "2.0");
    assert!(
        admin.get("/version").await.expect(200)["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.36.0+loadline.")
    );
    assert_eq!(admin.get("/readyz").await.expect(200), "ok");
    assert!(admin.get("/readyz?verbose").await.expect(200).as_str().unwrap().contains("[+]caches ok"));
    admin.get("/livez/nope").await.expect(404);
    let metrics = admin.get("/metrics").await.expect(200);
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total{"));
}
