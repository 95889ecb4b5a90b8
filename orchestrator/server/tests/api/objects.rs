//! The life of objects: create, update, patch, apply, delete, and what the server adds.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Cluster, eventually};

const CMS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn a_cluster_begins_with_its_namespaces_and_its_service() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let ns = admin.get(&format!("/api/v1/namespaces/{name}")).await.expect(200);
        assert_eq!(ns["status"]["phase"], "Active");
    }
    let service = admin.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let uid = service["metadata"]["uid"].clone();
    // Starting again changes nothing.
    let dir = cluster.stop().await;
    let again = Cluster::start_in(dir, |_| {}).await;
    let service = again.admin().get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(service["metadata"]["uid"], uid);
}

#[tokio::test]
async fn the_kubernetes_service_leads_to_the_server_also_after_a_move() {
    let mut dir = tempfile::tempdir().unwrap();
    for address in ["192.0.2.7", "192.0.2.7", "192.0.2.8"] {
        let cluster = Cluster::start_in(dir, |c| c.advertise = Some(address.parse().unwrap())).await;
        let admin = cluster.admin();
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        let slice = admin.get(slices).await.expect(200);
        assert_eq!(slice["endpoints"][0]["addresses"], json!([address]));
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes");
        let endpoints = admin.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
        assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], address);
        dir = cluster.stop().await;
    }
}

#[tokio::test]
async fn names_are_generated() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let made = admin.post(CMS, &json!({"metadata": {"generateName": "g-"}})).await.expect(201);
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("g-") && name.len() == 7, "{name}");
        assert!(seen.insert(name));
    }
}

#[tokio::test]
async fn updates_are_guarded() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let first = admin.config_map("ns", "a", "1").await;
    let path = format!("{CMS}/a");
    let mut second = first.clone();
    second["data"]["k"] = json!("w");
    let updated = admin.put(&path, &second).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let conflict = admin.put(&path, &second).await.expect(409);
    assert_eq!(conflict["reason"], "Conflict");
    // Writing what is there already is no write.
    let same = admin.put(&path, &updated).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    let again = admin.post(CMS, &json!({"metadata": {"name": "a"}})).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    admin.config_map("ns", "a", "1").await;
    let patches = (0..40).map(|i| {
        let admin = admin.clone();
        async move {
            let patch = json!({"data": {format!("k{i}"): "x"}});
            admin.merge(&format!("{CMS}/a"), &patch).await.expect(200);
        }
    });
    futures::future::join_all(patches).await;
    let object = admin.get(&format!("{CMS}/a")).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 41);
}

#[tokio::test]
async fn reads_see_every_acknowledged_write() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    for i in 0..200 {
        let name = format!("c{i}");
        let made = admin.config_map("ns", &name, "1").await;
        let read = admin.get(&format!("{CMS}/{name}")).await.expect(200);
        assert_eq!(made, read);
        let list = admin.get(CMS).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), i + 1);
    }
}

#[tokio::test]
async fn dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let made =
        admin.post(&format!("{CMS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.expect(201);
    assert!(made["metadata"]["uid"].is_string() && made["metadata"].get("resourceVersion").is_none());
    admin.get(&format!("{CMS}/a")).await.expect(404);
    admin.config_map("ns", "a", "1").await;
    let patched = admin.merge(&format!("{CMS}/a?dryRun=All"), &json!({"data": {"k": "w"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "w");
    admin.delete(&format!("{CMS}/a?dryRun=All")).await.expect(200);
    assert_eq!(admin.get(&format!("{CMS}/a")).await.expect(200)["data"]["k"], "v");
}

#[tokio::test]
async fn finalizers_hold_and_let_go() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let path = format!("{CMS}/f");
    admin.post(CMS, &json!({"metadata": {"name": "f", "finalizers": ["a.b/c"]}})).await.expect(201);
    let ending = admin.delete(&path).await.expect(200);
    assert!(ending["metadata"]["deletionTimestamp"].is_string());
    admin.delete(&path).await.expect(200);
    let refused =
        admin.merge(&path, &json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.finalizers");
    admin.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn deletions_mind_their_preconditions() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let made = admin.config_map("ns", "a", "1").await;
    let path = format!("{CMS}/a");
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(admin.delete_with(&path, &wrong).await.expect(409)["reason"], "Conflict");
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    admin.delete_with(&path, &stale).await.expect(409);
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    assert_eq!(admin.delete_with(&path, &right).await.expect(200)["status"], "Success");
    admin.delete(&path).await.expect(404);
}

#[tokio::test]
async fn namespaces_end_when_they_are_empty() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let ending = admin.delete("/api/v1/namespaces/ns").await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    let late = admin.post(CMS, &json!({"metadata": {"name": "late"}})).await.expect(403);
    assert_eq!(late["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut done = ending;
    done["spec"]["finalizers"] = json!([]);
    admin.put("/api/v1/namespaces/ns/finalize", &done).await.expect(200);
    admin.get("/api/v1/namespaces/ns").await.expect(404);
    admin.delete("/api/v1/namespaces/kube-system").await.expect(403);
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let object = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let path = |manager: &str| format!("{CMS}/a?fieldManager={manager}");
    let made = admin.apply(&path("one"), &object("1")).await.expect(201);
    let again = admin.apply(&path("one"), &object("1")).await.expect(200);
    assert_eq!(made["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    let conflict = admin.apply(&path("two"), &object("2")).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["field"], ".data.k");
    let forced = admin.apply(&format!("{}&force=true", path("two")), &object("2")).await.expect(200);
    assert_eq!(forced["data"]["k"], "2");
    admin.apply(&format!("{CMS}/a"), &object("1")).await.expect(422);
}

#[tokio::test]
async fn scale_and_status_change_only_their_part() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let deployments = "/apis/apps/v1/namespaces/ns/deployments";
    let object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template":
        {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    admin.post(deployments, &object).await.expect(201);
    let scale = format!("{deployments}/d/scale");
    assert_eq!(admin.get(&scale).await.expect(200)["spec"]["replicas"], 1);
    admin.merge(&scale, &json!({"spec": {"replicas": 4}})).await.expect(200);
    let scaled = admin.get(&format!("{deployments}/d")).await.expect(200);
    assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(4), &json!(2)));
    let patch = json!({"spec": {"replicas": 9}, "status": {"replicas": 4}});
    let status = admin.merge(&format!("{deployments}/d/status"), &patch).await.expect(200);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(4), &json!(4)));
    assert_eq!(admin.get(&scale).await.expect(200)["status"], json!({"replicas": 4, "selector": "a=b"}));
    admin.merge(&scale, &json!({"spec": {"replicas": -1}})).await.expect(422);
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let services = "/api/v1/namespaces/ns/services";
    let made = futures::future::join_all((0..30).map(|i| {
        let admin = admin.clone();
        async move {
            let object = json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            admin.post(services, &object).await.expect(201)
        }
    }))
    .await;
    let of = |path: &str| {
        made.iter().map(|s| s.pointer(path).unwrap().to_string()).collect::<std::collections::HashSet<_>>()
    };
    assert_eq!(of("/spec/clusterIP").len(), 30);
    assert_eq!(of("/spec/ports/0/nodePort").len(), 30);
    let taken = json!({"metadata": {"name": "t"}, "spec": {"clusterIP": made[0]["spec"]["clusterIP"], "ports": [{"port": 80}]}});
    let refused = admin.post(services, &taken).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"), "{refused}");
    admin.delete(&format!("{services}/s0")).await.expect(200);
    // The address is free as soon as the deletion is known.
    eventually(|| async {
        let answer = admin.post(services, &taken).await;
        if answer.code == 201 { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test]
async fn pods_are_bound_once_and_end_gracefully() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let pods = "/api/v1/namespaces/ns/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post(pods, &pod).await.expect(201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    admin.post(&format!("{pods}/p/binding"), &binding).await.expect(201);
    admin.post(&format!("{pods}/p/binding"), &binding).await.expect(409);
    let evicted = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    admin.post(&format!("{pods}/p/eviction"), &evicted).await.expect(201);
    let ending = admin.get(&format!("{pods}/p")).await.expect(200);
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let gone = admin.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
    admin.get(&format!("{pods}/p")).await.expect(404);
    // Without its service account there is no pod.
    admin.delete("/api/v1/namespaces/ns/serviceaccounts/default").await.expect(200);
    let refused = admin.post(pods, &pod).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("error looking up service account ns/default"));
}

#[tokio::test]
async fn versions_share_their_objects() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let v1 = "/apis/autoscaling/v1/namespaces/ns/horizontalpodautoscalers";
    let v2 = "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers";
    let object = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let made = admin.post(v1, &object).await.expect(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    let other = admin.get(&format!("{v2}/h")).await.expect(200);
    assert_eq!(other["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let list = admin.get(v1).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 60);
    let patched = admin.merge(&format!("{v1}/h"), &json!({"spec": {"maxReplicas": 7}})).await.expect(200);
    assert_eq!(patched["spec"]["maxReplicas"], 7);
    assert_eq!(admin.get(&format!("{v2}/h")).await.expect(200)["spec"]["maxReplicas"], 7);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        admin.config_map("ns", name, label).await;
    }
    let deleted = admin.delete(&format!("{CMS}?labelSelector=l%3D1")).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = admin.get(CMS).await.expect(200);
    assert_eq!(crate::support::names(&left), ["b"]);
    admin.call(Method::DELETE, "/api/v1/configmaps", "application/json", "").await.expect(405);
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let object = json!({"metadata": {"name": "a"}, "bogus": 1});
    let answer = admin.post(CMS, &object).await;
    assert_eq!(answer.warnings(), [r#"299 - "unknown field \"bogus\"""#]);
    assert_eq!(answer.expect(201).get("bogus"), None::<&Value>);
    let strict = admin.post(&format!("{CMS}?fieldValidation=Strict"), &object).await.expect(400);
    assert!(strict["message"].as_str().unwrap().contains("strict decoding error"));
}
