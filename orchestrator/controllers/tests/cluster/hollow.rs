//! The stage: a server, the controllers, and nodes that exist only as objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use loadline_client::Scope;
use loadline_controllers::{Config, Profile};
use loadline_server::{Identity, LocalService, Server};
use loadline_store::{Embedded, EmbeddedOptions as Options};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    pub(crate) alive: Arc<Mutex<BTreeSet<String>>>,
    controllers: Scope,
    server: Option<Server>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, |service| Client::new(service, "default")).await
    }

    /// `controllers` makes the controllers' client.
    pub(crate) async fn start_with(nodes: &[&str], controllers: impl Fn(LocalService) -> Client) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("error").try_init();
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(dir.path().join("store"), Options::default()).unwrap());
        let mut config = loadline_server::Config::new("127.0.0.1:0".parse().unwrap(), dir.path());
        config.bootstrap = true;
        let server = Server::start(config, store).await.unwrap();
        let client = |name: &str| Client::new(server.local(Identity::component(name)), "default");
        let scope = Scope::new();
        let alive = Arc::new(Mutex::new(nodes.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>()));
        let mut cluster = Self {
            client: client("test"),
            controllers: scope.child(),
            scope,
            alive,
            server: None,
            _dir: dir,
        };
        for node in nodes {
            cluster.register(node).await;
        }
        let (kubelets, alive) = (client("kubelets"), cluster.alive.clone());
        cluster.scope.spawn("pods", play_pods(kubelets.clone(), alive.clone()));
        cluster.scope.spawn("leases", play_leases(kubelets, alive));
        let service = server.local(Identity::component("system:kube-controller-manager"));
        cluster.server = Some(server);
        cluster.start_controllers(controllers(service));
        // Pods are admitted once the account that they run under is there.
        let accounts: Api<ServiceAccount> = cluster.api();
        eventually("service account", || async { accounts.get("default").await.map_err(|e| e.to_string()) })
            .await;
        cluster
    }

    fn start_controllers(&self, client: Client) {
        let config =
            Config { profile: Profile::Fast, ca_certificate: Some("PEM".to_owned()), ..Config::default() };
        loadline_controllers::start(&self.controllers, client, config);
    }

    /// Ends the controllers wherever they are, and starts them anew with nothing but the API to go by.
    pub(crate) async fn restart_controllers(&mut self) {
        self.controllers.shutdown().await;
        self.controllers = self.scope.child();
        let server = self.server.as_ref().unwrap();
        let service = server.local(Identity::component("system:kube-controller-manager"));
        self.start_controllers(Client::new(service, "default"));
    }

    pub(crate) async fn stop(mut self) {
        self.controllers.shutdown().await;
        self.scope.shutdown().await;
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(value).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.api().list(&Default::default()).await.unwrap().items
    }

    async fn register(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        ready(&self.client, name).await;
    }
}

async fn ready(client: &Client, node: &str) {
    let status = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": Timestamp::now().to_string(),
            "lastTransitionTime": Timestamp::now().to_string()}]}});
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Schedules every pod to the living node with the fewest pods, starts it, and ends it when it is told to go.
async fn play_pods(client: Client, alive: Arc<Mutex<BTreeSet<String>>>) {
    let mut load: BTreeMap<String, u32> = BTreeMap::new();
    let mut serial = 1u32;
    let all: Api<Pod> = Api::all(client.clone());
    let mut stream = watcher(all, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(event) = stream.next().await {
        let Ok(pod) = event else { continue };
        let meta = &pod.metadata;
        let name = meta.name.as_deref().unwrap();
        let api: Api<Pod> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap());
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
        let living: Vec<String> = alive.lock().unwrap().iter().cloned().collect();
        match node {
            None if meta.deletion_timestamp.is_none() => {
                let Some(node) = living.into_iter().min_by_key(|n| load.get(n).copied().unwrap_or_default())
                else {
                    continue;
                };
                *load.entry(node.clone()).or_default() += 1;
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
                let _: Result<Value, _> =
                    api.create_subresource("binding", name, &PostParams::default(), &binding).await;
            }
            Some(node) if living.contains(&node) => {
                if meta.deletion_timestamp.is_some() {
                    let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
                } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending") {
                    serial += 1;
                    let ip = format!("10.244.{}.{}", serial / 250, serial % 250 + 1);
                    let broken = pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("broken");
                    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                        "conditions": [{"type": "Ready", "status": if broken { "False" } else { "True" },
                            "lastTransitionTime": Timestamp::now().to_string()}]}});
                    let _ = api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
                }
            }
            _ => {}
        }
    }
}

/// Every living node renews its Lease each second, and says that it is ready when somebody said otherwise.
async fn play_leases(client: Client, alive: Arc<Mutex<BTreeSet<String>>>) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let nodes: Api<Node> = Api::all(client.clone());
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let living: Vec<String> = alive.lock().unwrap().iter().cloned().collect();
        for node in living {
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now());
            let renewed =
                json!({"metadata": {"name": node}, "spec": {"renewTime": now, "holderIdentity": node}});
            if leases.patch(&node, &PatchParams::default(), &Patch::Merge(renewed.clone())).await.is_err() {
                let lease = serde_json::from_value(renewed).unwrap();
                let _ = leases.create(&PostParams::default(), &lease).await;
            }
            let object = nodes.get(&node).await.ok();
            let conditions = object.and_then(|n| n.status).and_then(|s| s.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Ready" && c.status != "True") {
                ready(&client, &node).await;
            }
        }
    }
}

/// Looks until `check` is content; says what it saw last when it gives up.
pub(crate) async fn eventually<T, F, Fut>(what: &str, check: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = tokio::time::Instant::now() + Duration::from_secs(40);
    loop {
        match check().await {
            Ok(value) => return value,
            Err(seen) if tokio::time::Instant::now() > deadline => {
                panic!("{what}: gave up, last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// `Ok` when equal, else both as text.
pub(crate) fn is<T: PartialEq + Debug>(seen: T, wanted: T) -> Result<(), String> {
    if seen == wanted { Ok(()) } else { Err(format!("{seen:?}, want {wanted:?}")) }
}

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "web", "containerPort": 8080}]}]},
            },
        },
    })
}
