//! The controller against a real API server in this process, with metrics that the tests make up.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use loadline_api::own::ScalingPolicy;
use loadline_autoscaler::{Autoscaler, Decision, Policy, Record, State, decide};
use loadline_client::{Delegated, Scope};
use loadline_server::{Identity, Server};
use loadline_store::{Embedded, EmbeddedOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the metrics API answers: milli-cores by namespace and pod, or nothing at all.
#[derive(Clone, Default)]
struct Metrics(Arc<Mutex<HashMap<String, HashMap<String, i64>>>>, Arc<Mutex<bool>>, Arc<Mutex<Vec<String>>>);

impl Metrics {
    fn set(&self, namespace: &str, pods: &[(&str, i64)]) {
        let pods = pods.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        self.0.lock().unwrap().insert(namespace.to_owned(), pods);
    }

    fn away(&self, away: bool) {
        *self.1.lock().unwrap() = away;
    }

    fn delegate(&self) -> Delegated {
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods";
        Delegated {
            group: "metrics.k8s.io",
            version: "v1beta1",
            kind: "PodMetrics",
            resource: "pods",
            singular: "",
            subresource: None,
            namespaced: true,
            verbs: &["get", "list"],
            router: Router::new().route(path, get(list)).with_state(self.clone()),
        }
    }
}

async fn list(
    Shared(metrics): Shared<Metrics>,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if *metrics.1.lock().unwrap() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let window = query.get("window").cloned().unwrap_or_else(|| "15s".to_owned());
    metrics.2.lock().unwrap().push(format!("{namespace} {window}"));
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let pods = metrics.0.lock().unwrap().get(&namespace).cloned().unwrap_or_default();
    let items: Vec<Value> = pods
        .iter()
        .map(|(name, cpu)| {
            json!({"metadata": {"name": name, "namespace": namespace}, "timestamp": now.to_string(), "window": window,
                "containers": [{"name": "c", "usage": {"cpu": format!("{}n", cpu * 1_000_000), "memory": "1Mi"}}]})
        })
        .collect();
    Json(json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items}))
        .into_response()
}

struct Cluster {
    client: Client,
    server: Server,
    scope: Scope,
    metrics: Metrics,
    autoscaler: Autoscaler,
    _dir: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path().join("store"), EmbeddedOptions::default()).unwrap();
        let mut config = loadline_server::Config::new("127.0.0.1:0".parse().unwrap(), dir.path());
        let (metrics, autoscaler) = (Metrics::default(), Autoscaler::new());
        config.delegates.push(delegate(metrics.delegate()));
        config.delegates.extend(autoscaler.delegates().into_iter().map(delegate));
        let server = Server::start(config, Arc::new(store)).await.unwrap();
        let client = Client::new(server.local(Identity::component("test")), "default");
        let cluster = Self { client, server, scope: Scope::new(), metrics, autoscaler, _dir: dir };
        cluster.autoscaler.start(&cluster.scope, cluster.component());
        cluster
    }

    fn component(&self) -> Client {
        Client::new(self.server.local(Identity::component("system:loadline-autoscaler")), "default")
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A namespace with a Deployment `web` of so many pods that have been ready for an hour.
    async fn workload(&self, namespace: &str, replicas: i32) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let new = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        namespaces.create(&PostParams::default(), &new).await.unwrap();
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        self.api::<ServiceAccount>(namespace).create(&PostParams::default(), &account).await.unwrap();
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "c", "image": "web", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}]}});
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}}, "template": template}});
        let deployment = serde_json::from_value(deployment).unwrap();
        self.api::<Deployment>(namespace).create(&PostParams::default(), &deployment).await.unwrap();
        for i in 0..replicas {
            self.pod(namespace, &format!("web-{i}"), &template).await;
        }
    }

    async fn pod(&self, namespace: &str, name: &str, template: &Value) {
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!(name);
        let pods: Api<Pod> = self.api(namespace);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let ago =
            jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - 3600).unwrap().to_string();
        let status = json!({"status": {"phase": "Running", "startTime": ago,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago}]}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    async fn replicas(&self, namespace: &str) -> i32 {
        self.api::<Deployment>(namespace).get("web").await.unwrap().spec.unwrap().replicas.unwrap()
    }

    async fn scale_by_hand(&self, namespace: &str, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        let api = self.api::<Deployment>(namespace);
        api.patch_scale("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn policy(&self, namespace: &str, name: &str, change: Value) {
        let mut policy = json!({"apiVersion": "autoscaling.loadline.io/v1alpha1", "kind": "ScalingPolicy",
            "metadata": {"name": name}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1,
            "maxReplicas": 10, "objectives": [{"resource": {"name": "cpu", "utilization": 70}}]}});
        merge(&mut policy, &change);
        let policy = serde_json::from_value(policy).unwrap();
        self.api::<ScalingPolicy>(namespace).create(&PostParams::default(), &policy).await.unwrap();
    }

    async fn hpa(&self, namespace: &str, change: Value) {
        let mut hpa = json!({"metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1,
            "maxReplicas": 10, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
        merge(&mut hpa, &change);
        let hpa = serde_json::from_value(hpa).unwrap();
        self.api::<HorizontalPodAutoscaler>(namespace).create(&PostParams::default(), &hpa).await.unwrap();
    }

    async fn status<K>(&self, namespace: &str, name: &str) -> Value
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        json!(self.api::<K>(namespace).get(name).await.unwrap())["status"].clone()
    }

    /// `Type=Status:Reason` of each condition.
    async fn conditions(&self, namespace: &str, name: &str) -> Vec<String> {
        let status = match name {
            "web"
                if self.api::<HorizontalPodAutoscaler>(namespace).get_opt("web").await.unwrap().is_some() =>
            {
                self.status::<HorizontalPodAutoscaler>(namespace, name).await
            }
            _ => self.status::<ScalingPolicy>(namespace, name).await,
        };
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let of = |c: &Value| format!("{}={}:{}", text(&c["type"]), text(&c["status"]), text(&c["reason"]));
        status["conditions"].as_array().into_iter().flatten().map(of).collect()
    }

    async fn until_condition(&self, namespace: &str, name: &str, want: &str) {
        eventually(want, || self.conditions(namespace, name), |c| c.iter().any(|c| c == want)).await;
    }

    async fn decisions(&self, namespace: &str, resource: &str, name: &str) -> Value {
        let path = format!("/apis/{resource}/{name}/decisions").replace("{ns}", namespace);
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        match self.client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) => json!({"code": status.code, "message": status.message}),
            answer => answer.unwrap(),
        }
    }

    async fn stop(self) {
        self.scope.shutdown().await;
        self.server.shutdown().await;
    }
}

const POLICIES: &str = "autoscaling.loadline.io/v1alpha1/namespaces/{ns}/scalingpolicies";
const HPAS: &str = "autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers";

fn delegate(of: Delegated) -> loadline_server::Delegate {
    loadline_server::Delegate {
        group: of.group.to_owned(),
        version: of.version.to_owned(),
        kind: of.kind.to_owned(),
        resource: of.resource.to_owned(),
        singular: of.singular.to_owned(),
        short_names: Vec::new(),
        subresource: of.subresource.map(str::to_owned),
        namespaced: of.namespaced,
        verbs: of.verbs.iter().map(|v| (*v).to_owned()).collect(),
        service: tower::util::BoxCloneSyncService::new(of.router.into_service()),
    }
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

async fn eventually<T: Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    good: impl Fn(&T) -> bool,
) -> T {
    let started = Instant::now();
    loop {
        let seen = look().await;
        if good(&seen) {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_follows_a_step_and_says_why() {
    let cluster = Cluster::start().await;
    let ns = "step";
    cluster.workload(ns, 2).await;
    cluster.metrics.set(ns, &[("web-0", 52), ("web-1", 52)]);
    cluster.policy(ns, "web-policy", json!({})).await;
    cluster.until_condition(ns, "web-policy", "ScalingActive=True:ValidMetricFound").await;
    assert_eq!(cluster.replicas(ns).await, 2);

    let step = Instant::now();
    cluster.metrics.set(ns, &[("web-0", 210), ("web-1", 210)]);
    eventually("six replicas", || cluster.replicas(ns), |r| *r == 6).await;
    println!("scaled {} ms after the metrics showed the step", step.elapsed().as_millis());
    let status = eventually(
        "a status",
        || cluster.status::<ScalingPolicy>(ns, "web-policy"),
        |s| s["desiredReplicas"] == 6,
    )
    .await;
    let reason = status["lastDecision"]["reason"].as_str().unwrap();
    assert!(reason.contains("cpu 210% of requests over 2 s against a target of 70%"), "{reason}");
    assert!(status["lastScaleTime"].is_string(), "{status}");

    let events: Api<Event> = cluster.api(ns);
    let told = eventually(
        "an event",
        || async { events.list(&ListParams::default()).await.unwrap().items },
        |e| !e.is_empty(),
    )
    .await;
    assert_eq!(told[0].reason.as_deref(), Some("SuccessfulRescale"));
    assert!(told[0].message.as_deref().unwrap().starts_with("New size: 6; reason: cpu resource"), "{told:?}");

    // Every record that is served gives its decision again.
    let list = cluster.decisions(ns, POLICIES, "web-policy").await;
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("DecisionList"), &json!("autoscaling.loadline.io/v1alpha1"))
    );
    let items = list["items"].as_array().unwrap();
    let change = items.iter().find(|i| i["currentReplicas"] != i["desiredReplicas"]).unwrap();
    assert_eq!(
        (&change["profile"], &change["currentReplicas"], &change["desiredReplicas"]),
        (&json!("fast"), &json!(2), &json!(6))
    );
    assert!(!change["details"].as_array().unwrap().is_empty());
    for item in items {
        let policy: Policy = serde_json::from_value(item["policy"].clone()).unwrap();
        let record: Record = serde_json::from_value(item["record"].clone()).unwrap();
        let state: State = serde_json::from_value(item["state"].clone()).unwrap();
        let again: Decision = decide(&policy, &record, &state);
        assert_eq!(json!(again), item["decision"]);
    }
    let asked = cluster.metrics.2.lock().unwrap().clone();
    assert!(asked.iter().any(|a| a == "step 2s"), "{asked:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_set_by_hand_is_respected_and_handed_back() {
    let cluster = Cluster::start().await;
    let ns = "hand";
    cluster.workload(ns, 2).await;
    cluster.metrics.set(ns, &[("web-0", 70), ("web-1", 70)]);
    cluster.policy(ns, "p", json!({})).await;
    cluster.until_condition(ns, "p", "AbleToScale=True:ReadyForNewScale").await;
    cluster.scale_by_hand(ns, 5).await;
    cluster.metrics.set(ns, &[("web-0", 300), ("web-1", 300)]);
    cluster.until_condition(ns, "p", "AbleToScale=False:ManualHold").await;
    let status = cluster.status::<ScalingPolicy>(ns, "p").await;
    assert!(status["holdUntil"].is_string(), "{status}");
    assert_eq!(cluster.replicas(ns).await, 5);

    // It outlives a restart of the autoscaler.
    cluster.scope.shutdown().await;
    let second = (Scope::new(), Autoscaler::new());
    second.1.start(&second.0, cluster.component());
    let before = jiff::Timestamp::now().to_string();
    eventually(
        "a decision after the restart",
        || cluster.status::<ScalingPolicy>(ns, "p"),
        |s| s["lastDecision"]["time"].as_str().is_some_and(|t| t > before.as_str()),
    )
    .await;
    assert!(cluster.conditions(ns, "p").await.contains(&"AbleToScale=False:ManualHold".to_owned()));
    assert_eq!(cluster.replicas(ns).await, 5);

    // The user hands it back before its time.
    let now = jiff::Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {"autoscaling.loadline.io/hold-until": now}}});
    let api: Api<ScalingPolicy> = cluster.api(ns);
    api.patch("p", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    eventually("more replicas", || cluster.replicas(ns), |r| *r == 9).await;
    eventually(
        "no hold",
        || cluster.status::<ScalingPolicy>(ns, "p"),
        |s| s.get("holdUntil").is_none_or(Value::is_null),
    )
    .await;
    second.0.shutdown().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hpa_scales_fails_and_recovers() {
    let cluster = Cluster::start().await;
    let ns = "strict";
    cluster.workload(ns, 2).await;
    cluster.metrics.set(ns, &[("web-0", 100), ("web-1", 100)]);
    cluster.hpa(ns, json!({})).await;
    eventually("four replicas", || cluster.replicas(ns), |r| *r == 4).await;
    let status = eventually(
        "a status",
        || cluster.status::<HorizontalPodAutoscaler>(ns, "web"),
        |s| s["desiredReplicas"] == 4,
    )
    .await;
    assert_eq!(status["currentReplicas"], 2);
    assert_eq!(
        status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 100, "averageValue": "100m"})
    );
    assert!(status["lastScaleTime"].is_string());
    assert_eq!(
        cluster.conditions(ns, "web").await,
        [
            "AbleToScale=True:SucceededRescale",
            "ScalingActive=True:ValidMetricFound",
            "ScalingLimited=False:DesiredWithinRange"
        ]
    );
    let list = cluster.decisions(ns, HPAS, "web").await;
    assert_eq!(list["items"][0]["profile"], "strict");

    // A changed spec wakes it; metrics that are away stop it.
    cluster.metrics.away(true);
    let api: Api<HorizontalPodAutoscaler> = cluster.api(ns);
    let mut max = 9;
    eventually(
        "metrics missed",
        || {
            max += 1;
            let (api, cluster, patch) = (&api, &cluster, json!({"spec": {"maxReplicas": max}}));
            async move {
                api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                cluster.conditions(ns, "web").await
            }
        },
        |c| c.iter().any(|c| c == "ScalingActive=False:FailedGetResourceMetric"),
    )
    .await;
    let patch = json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"}}});
    api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    cluster.until_condition(ns, "web", "AbleToScale=False:FailedGetScale").await;
    let status = cluster.status::<HorizontalPodAutoscaler>(ns, "web").await;
    assert_eq!(
        status["conditions"][0]["message"],
        "the HPA controller was unable to get the target's current scale: deployments.apps \"absent\" not found"
    );
    let events: Api<Event> = cluster.api(ns);
    eventually(
        "events",
        || async {
            events
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .into_iter()
                .filter_map(|e| e.reason)
                .collect::<Vec<_>>()
        },
        |r| {
            ["SuccessfulRescale", "FailedGetResourceMetric", "FailedComputeMetricsReplicas", "FailedGetScale"]
                .iter()
                .all(|w| r.iter().any(|r| r == w))
        },
    )
    .await;
    api.delete("web", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("no decisions", || cluster.decisions(ns, HPAS, "web"), |l| l["code"] == 404).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_done_is_refused() {
    let cluster = Cluster::start().await;
    let ns = "refused";
    cluster.workload(ns, 2).await;
    cluster.metrics.set(ns, &[("web-0", 300), ("web-1", 300)]);
    let rate = json!([{"resource": {"name": "cpu", "utilization": 70}}, {"rate": {"metric": "requests", "perPod": "10"}}]);
    cluster.policy(ns, "first", json!({"spec": {"objectives": rate}})).await;
    cluster.until_condition(ns, "first", "ScalingActive=False:UnsupportedObjective").await;
    // Creation times have whole seconds; the name decides between equal ones.
    cluster.policy(ns, "second", json!({})).await;
    cluster.until_condition(ns, "second", "ScalingActive=False:AmbiguousSelector").await;
    cluster.policy(ns, "watcher", json!({"spec": {"mode": "Recommend"}})).await;
    cluster.until_condition(ns, "watcher", "AbleToScale=True:RecommendOnly").await;
    let status = cluster.status::<ScalingPolicy>(ns, "watcher").await;
    assert_eq!(status["desiredReplicas"], 9);
    assert_eq!(cluster.replicas(ns).await, 2);
    let api: Api<ScalingPolicy> = cluster.api(ns);
    api.delete("first", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("the second takes over", || cluster.replicas(ns), |r| *r == 9).await;
    cluster.stop().await;
}
