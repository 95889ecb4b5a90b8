//! What is written, against a server that remembers what it was asked.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Server {
    events: HashSet<String>,
    /// Created: name, note. Patched: name, count.
    log: Vec<String>,
    down: bool,
}

fn answer(server: &Mutex<Server>, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let mut server = server.lock().unwrap();
    let fail = |code: StatusCode, reason: &str| {
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason}),
        )
    };
    if server.down {
        return fail(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
    }
    let (collection, rest) = path.split_at("/apis/events.k8s.io/v1/namespaces/".len());
    assert_eq!(collection, "/apis/events.k8s.io/v1/namespaces/");
    let (namespace, rest) = rest.split_once("/events").unwrap();
    if method == Method::POST {
        assert_eq!(body["metadata"]["namespace"], namespace);
        assert_eq!(body["reportingController"], "tester");
        assert_eq!(body["reportingInstance"], "n1");
        assert!(body["eventTime"].is_string() && body["series"].is_null(), "{body}");
        let name = body["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 253 && server.events.insert(name.to_owned()), "{name}");
        let (object, _) = name.rsplit_once('.').unwrap();
        let object: String = object.chars().take(5).collect();
        server.log.push(format!(
            "{namespace}/{object}: {} {}",
            body["type"].as_str().unwrap(),
            body["note"].as_str().unwrap()
        ));
        return (StatusCode::CREATED, body.clone());
    }
    let name = rest.trim_start_matches('/');
    if !server.events.contains(name) {
        return fail(StatusCode::NOT_FOUND, "NotFound");
    }
    assert!(body["series"]["lastObservedTime"].is_string(), "{body}");
    let (object, _) = name.rsplit_once('.').unwrap();
    server.log.push(format!("{namespace}/{object} ×{}", body["series"]["count"]));
    (StatusCode::OK, json!({"metadata": {"name": name}}))
}

fn start() -> (Writer, Arc<Mutex<Server>>) {
    let server: Arc<Mutex<Server>> = Arc::default();
    let service = tower::service_fn({
        let server = server.clone();
        move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
                let (code, answer) = answer(&server, &parts.method, parts.uri.path(), &body);
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        }
    });
    (Writer::new(Client::new(service, "default"), "tester", Some("n1".to_owned())), server)
}

fn seen(name: &str, revision: &str, note: &str) -> Occurrence {
    Occurrence {
        about: ObjectReference {
            kind: Some("Deployment".to_owned()),
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            resource_version: Some(revision.to_owned()),
            ..ObjectReference::default()
        },
        type_: "Normal",
        reason: "ScalingReplicaSet".to_owned(),
        action: "Scale".to_owned(),
        note: note.to_owned(),
    }
}

fn log(server: &Mutex<Server>) -> Vec<String> {
    std::mem::take(&mut server.lock().unwrap().log)
}

#[tokio::test(start_paused = true)]
async fn only_what_says_the_same_of_the_same_object_is_counted() {
    let (mut writer, server) = start();
    for (name, revision, note) in [
        ("web", "1", "1 to 2"),
        ("web", "2", "2 to 3"),
        ("web", "3", "1 to 2"),
        ("api", "4", "1 to 2"),
        ("web", "5", "1 to 2"),
    ] {
        writer.write(seen(name, revision, note)).await.unwrap();
    }
    writer.write(Occurrence { type_: "Warning", ..seen("web", "6", "1 to 2") }).await.unwrap();
    let mut node = seen("n1", "7", "ready");
    node.about.namespace = None;
    writer.write(node).await.unwrap();
    writer.write(seen(&"x".repeat(253), "8", "long")).await.unwrap();
    assert_eq!(
        log(&server),
        [
            "ns/web: Normal 1 to 2",
            "ns/web: Normal 2 to 3",
            "ns/web ×2",
            "ns/api: Normal 1 to 2",
            "ns/web ×3",
            "ns/web: Warning 1 to 2",
            "default/n1: Normal ready",
            "ns/xxxxx: Normal long",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_series_ends_by_age_by_deletion_and_by_number() {
    let (mut writer, server) = start();
    writer.remembered = 2;
    let again = |note| seen("web", "1", note);
    writer.write(again("a")).await.unwrap();
    tokio::time::advance(EXPIRY - Duration::from_secs(1)).await;
    writer.write(again("a")).await.unwrap();
    tokio::time::advance(EXPIRY - Duration::from_secs(1)).await;
    writer.write(again("a")).await.unwrap();
    assert_eq!(log(&server), ["ns/web: Normal a", "ns/web ×2", "ns/web ×3"], "each prolongs it");
    tokio::time::advance(EXPIRY).await;
    writer.write(again("a")).await.unwrap();
    assert_eq!(log(&server), ["ns/web: Normal a"], "too long ago");
    server.lock().unwrap().events.clear();
    writer.write(again("a")).await.unwrap();
    writer.write(again("a")).await.unwrap();
    assert_eq!(log(&server), ["ns/web: Normal a", "ns/web ×2"], "deleted in between");
    for note in ["b", "c", "b", "a"] {
        tokio::time::advance(Duration::from_secs(1)).await;
        writer.write(again(note)).await.unwrap();
    }
    assert_eq!(
        log(&server),
        ["ns/web: Normal b", "ns/web: Normal c", "ns/web ×2", "ns/web: Normal a"],
        "two are kept"
    );
    assert_eq!(writer.series.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_not_counted() {
    let (mut writer, server) = start();
    server.lock().unwrap().down = true;
    writer.write(seen("web", "1", "a")).await.expect_err("down");
    server.lock().unwrap().down = false;
    writer.write(seen("web", "1", "a")).await.unwrap();
    server.lock().unwrap().down = true;
    writer.write(seen("web", "1", "a")).await.expect_err("down");
    server.lock().unwrap().down = false;
    writer.write(seen("web", "1", "a")).await.unwrap();
    assert_eq!(log(&server), ["ns/web: Normal a", "ns/web ×2"]);
}
