//! Requests that no honest client sends. Each gets the right Status, and the server is as well as before.

use axum::http::Method;
use serde_json::json;

use crate::support::{Client, Cluster};

const CMS: &str = "/api/v1/namespaces/ns/configmaps";

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    admin.config_map("ns", "a", "1").await;
    (cluster, admin)
}

#[tokio::test]
async fn bodies() {
    let (_cluster, admin) = cluster().await;
    let nested = format!(r#"{{"metadata":{{"name":"x"}},"data":{}}}"#, "[".repeat(100_000));
    let aliases = {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        text
    };
    let huge = format!(r#"{{"metadata":{{"name":"x"}},"data":{{"k":"{}"}}}}"#, "x".repeat(3 * 1024 * 1024));
    let large = format!(r#"{{"metadata":{{"name":"x"}},"data":{{"k":"{}"}}}}"#, "x".repeat(2 * 1024 * 1024));
    let json = "application/json";
    let cases: Vec<(&str, String, u16)> = vec![
        (json, String::new(), 400),
        (json, "{".to_owned(), 400),
        (json, "[]".to_owned(), 400),
        (json, "null".to_owned(), 422),
        (json, "\"x\"".to_owned(), 400),
        (json, "{} trailing".to_owned(), 400),
        (json, "\u{0}".to_owned(), 400),
        (json, nested, 400),
        (json, huge, 413),
        (json, large, 422),
        (json, r#"{"metadata":[]}"#.to_owned(), 400),
        (json, r#"{"metadata":{"name":5}}"#.to_owned(), 400),
        (json, r#"{"metadata":{"name":"x","labels":{"a":1}}}"#.to_owned(), 400),
        (json, r#"{"metadata":{"name":"x","labels":{"a b":"c"}}}"#.to_owned(), 422),
        (json, r#"{"metadata":{"name":"../x"}}"#.to_owned(), 422),
        (json, r#"{"metadata":{"name":".."}}"#.to_owned(), 422),
        (json, r#"{"metadata":{"name":"a/b"}}"#.to_owned(), 422),
        (json, "{\"metadata\":{\"name\":\"a\\u0000b\"}}".to_owned(), 422),
        (json, r#"{"metadata":{"name":"x","namespace":"other"}}"#.to_owned(), 400),
        (json, r#"{"metadata":{"name":"x","resourceVersion":"5"}}"#.to_owned(), 500),
        (json, r#"{"kind":"Pod","metadata":{"name":"x"}}"#.to_owned(), 400),
        (json, r#"{"apiVersion":"v9","metadata":{"name":"x"}}"#.to_owned(), 400),
        (json, r#"{"metadata":{"name":"x"},"data":{"a/b":"c"}}"#.to_owned(), 422),
        (json, format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(300)), 422),
        ("application/yaml", aliases, 400),
        ("application/yaml", "a: [".to_owned(), 400),
        ("application/yaml", "- a".to_owned(), 400),
        ("application/yaml", format!("a: {}", "[".repeat(50_000)), 400),
        ("text/plain", "x".to_owned(), 415),
        ("application/xml", "<x/>".to_owned(), 415),
        ("application/vnd.kubernetes.protobuf", "k8s\u{0}junk".to_owned(), 400),
        ("application/vnd.kubernetes.protobuf", "{}".to_owned(), 400),
    ];
    for (ty, body, code) in cases {
        let shown: String = body.chars().take(80).collect();
        let answer = admin.call(Method::POST, CMS, ty, body).await;
        assert_eq!(answer.code.as_u16(), code, "{ty} {shown}: {:#}", answer.body);
        assert_eq!(answer.body["kind"], "Status", "{shown}");
    }
    admin.get(&format!("{CMS}/a")).await.expect(200);
}

#[tokio::test]
async fn patches() {
    let (_cluster, admin) = cluster().await;
    let path = format!("{CMS}/a");
    let many = json!(vec![json!({"op": "add", "path": "/data/x", "value": "1"}); 10_001]).to_string();
    let cases: Vec<(&str, &str, u16)> = vec![
        ("application/json-patch+json", "not json", 400),
        ("application/json-patch+json", "{}", 400),
        ("application/json-patch+json", r#"[{"op":"remove","path":"/data/none"}]"#, 422),
        ("application/json-patch+json", r#"[{"op":"test","path":"/data/k","value":"no"}]"#, 422),
        ("application/json-patch+json", r#"[{"op":"replace","path":"","value":5}]"#, 422),
        ("application/json-patch+json", &many, 413),
        ("application/merge-patch+json", "[]", 400),
        ("application/merge-patch+json", r#"{"data":{"k":5}}"#, 422),
        ("application/merge-patch+json", r#"{"metadata":{"name":"b"}}"#, 400),
        ("application/merge-patch+json", r#"{"metadata":{"resourceVersion":"1"},"data":{"q":"1"}}"#, 409),
        ("application/merge-patch+json", r#"{"metadata":{"uid":"x"}}"#, 422),
        ("application/strategic-merge-patch+json", r#"{"data":[]}"#, 422),
        ("application/apply-patch+yaml", "a: [", 400),
        ("application/xml", "<x/>", 415),
        ("application/json", "{}", 415),
    ];
    for (ty, body, code) in cases {
        let query = if ty.contains("apply") { "?fieldManager=m" } else { "" };
        let answer = admin.call(Method::PATCH, &format!("{path}{query}"), ty, body.to_owned()).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(answer.code.as_u16(), code, "{ty} {shown}: {:#}", answer.body);
    }
    assert_eq!(admin.get(&path).await.expect(200)["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn paths_and_queries() {
    let (_cluster, admin) = cluster().await;
    for (path, code) in [
        ("/api/v1/namespaces/ns/configmaps/..", 400),
        ("/api/v1/namespaces/../secrets", 400),
        ("/api/v1/namespaces/ns/configmaps/%2e%2e", 400),
        ("/api/v1/namespaces/ns/configmaps/a%2fb", 400),
        ("/api/v1/namespaces/ns/configmaps/a%00", 400),
        ("/api/v1/namespaces//configmaps", 400),
        ("/api/v1/namespaces/ns/nothings", 404),
        ("/api/v1/namespaces/ns/configmaps/a/status", 404),
        ("/api/v1/configmaps/a", 404),
        ("/apis/nope/v1/things", 404),
        ("/nothing", 404),
        ("/api/v1/namespaces/ns/configmaps?limit=x", 400),
        ("/api/v1/namespaces/ns/configmaps?continue=x", 400),
        ("/api/v1/namespaces/ns/configmaps?resourceVersion=-1", 400),
        ("/api/v1/namespaces/ns/configmaps?resourceVersion=18446744073709551616", 400),
        ("/api/v1/namespaces/ns/configmaps?labelSelector=a+b", 400),
        ("/api/v1/namespaces/ns/configmaps?labelSelector=%00", 400),
        ("/api/v1/namespaces/ns/configmaps?fieldSelector=a.b%3Dc", 400),
        ("/api/v1/namespaces/ns/configmaps?watch=1&resourceVersionMatch=Exact", 422),
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.code.as_u16(), code, "{path}: {:#}", answer.body);
    }
    for (method, path, code) in [
        (Method::PUT, CMS, 405),
        (Method::PATCH, CMS, 405),
        (Method::POST, "/api/v1/namespaces/ns/configmaps/a", 405),
        (Method::POST, "/api/v1/configmaps", 405),
        (Method::OPTIONS, CMS, 405),
        (Method::DELETE, "/api/v1/namespaces", 405),
        (Method::POST, "/version", 405),
    ] {
        let answer = admin.call(method.clone(), path, "application/json", "{}").await;
        assert_eq!(answer.code.as_u16(), code, "{method} {path}: {:#}", answer.body);
    }
    assert_eq!(admin.get("/healthz").await.expect(200), "ok");
}

#[tokio::test]
async fn options() {
    let (_cluster, admin) = cluster().await;
    let object = json!({"metadata": {"name": "b"}});
    for (query, code) in [("dryRun=Some", 422), ("fieldValidation=Maybe", 422), ("fieldManager=%01", 422)] {
        let answer = admin.post(&format!("{CMS}?{query}"), &object).await;
        assert_eq!(answer.code.as_u16(), code, "{query}: {:#}", answer.body);
    }
    for (options, code) in [
        (json!({"propagationPolicy": "Sideways"}), 422),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
        (json!({"gracePeriodSeconds": "soon"}), 400),
        (json!([]), 400),
    ] {
        let answer = admin.delete_with(&format!("{CMS}/a"), &options).await;
        assert_eq!(answer.code.as_u16(), code, "{options}: {:#}", answer.body);
    }
    admin.get(&format!("{CMS}/a")).await.expect(200);
}
