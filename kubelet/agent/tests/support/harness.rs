//! A real API server in this process with kubelets on simulated runtimes, and helpers that wait and say what they saw.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test file takes what it needs")]

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use loadline_client::Scope;
use loadline_kubelet::{Config, Kubelet, LeaseTimings, Tls};
use loadline_network::SimNetwork;
use loadline_runtime::{SharedRuntime, Sim, SimConfig};
use loadline_server::{Identity, Server};
use loadline_store::{Embedded, EmbeddedOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub client: Client,
    pub server: Server,
    pub scope: Scope,
    dir: TempDir,
}

/// A kubelet with the parts that outlive it.
pub struct TestNode {
    pub name: String,
    pub sim: Sim,
    pub network: Arc<SimNetwork>,
    pub kubelet: Kubelet,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path().join("store"), EmbeddedOptions::default()).unwrap();
        let config = loadline_server::Config::new("127.0.0.1:0".parse().unwrap(), dir.path());
        let server = Server::start(config, Arc::new(store)).await.unwrap();
        let client = Client::new(server.local(Identity::component("test")), "default");
        // What the service account controller does.
        let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        accounts.create(&PostParams::default(), &account).await.unwrap();
        Self { client, server, scope: Scope::new(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, name: &str, runtime: SharedRuntime, network: Arc<SimNetwork>) -> Config {
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        let cert = self
            .server
            .pki()
            .issue_server(&format!("system:node:{name}"), &["127.0.0.1".to_owned()])
            .unwrap();
        let tls = Tls {
            ca_pem: self.server.pki().ca_pem().to_owned(),
            cert_pem: cert.cert_pem,
            key_pem: cert.key_pem,
        };
        let mut config = Config::new(name, ip, self.path(name), tls, runtime, network);
        config.simulated = true;
        config.lease = LeaseTimings::FAST;
        config.capacity =
            [("cpu".to_owned(), "8".to_owned()), ("memory".to_owned(), "16Gi".to_owned())].into();
        config
    }

    /// A ready node; `index` picks its pod network.
    pub async fn node(&self, name: &str, index: u8) -> TestNode {
        let sim = Sim::new(SimConfig { node: name.to_owned(), ..SimConfig::default() });
        self.node_with(name, index, sim, Arc::new(SimNetwork::default())).await
    }

    pub async fn node_with(&self, name: &str, index: u8, sim: Sim, network: Arc<SimNetwork>) -> TestNode {
        let config = self.config(name, Arc::new(sim.clone()), network.clone());
        let kubelet = loadline_kubelet::start(&self.scope, self.client.clone(), config).await.unwrap();
        self.assign_cidr(name, index).await;
        eventually("the node is ready", || self.ready(name)).await;
        TestNode { name: name.to_owned(), sim, network, kubelet }
    }

    /// What the node controller does.
    pub async fn assign_cidr(&self, name: &str, index: u8) {
        let cidr = format!("10.244.{index}.0/24");
        let patch = Patch::Merge(json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}));
        let nodes: Api<Node> = Api::all(self.client.clone());
        eventually("the node is registered", || async {
            match nodes.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => Ok(()),
                Err(e) => Err(e.to_string()),
            }
        })
        .await;
    }

    pub async fn ready(&self, name: &str) -> Result<Node, String> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(name).await.map_err(|e| e.to_string())?;
        let conditions = node.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        match conditions.iter().find(|c| c.type_ == "Ready") {
            Some(c) if c.status == "True" => Ok(node),
            other => Err(format!("{other:?}")),
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// A pod bound to `node`, with the usual single container `app` unless the spec says otherwise.
    pub async fn create(&self, name: &str, node: &str, spec: Value) -> Pod {
        self.create_annotated(name, node, spec, json!({})).await
    }

    pub async fn create_annotated(&self, name: &str, node: &str, spec: Value, annotations: Value) -> Pod {
        let mut full = json!({"nodeName": node, "containers": [{"name": "app", "image": "web:1"}]});
        for (key, value) in spec.as_object().unwrap() {
            full[key] = value.clone();
        }
        let pod = json!({"metadata": {"name": name, "annotations": annotations}, "spec": full});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Waits until `check` holds for the pod.
    pub async fn pod_until(&self, name: &str, what: &str, check: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.pods();
        eventually(&format!("pod {name} {what}"), || async {
            let pod = pods.get(name).await.map_err(|e| e.to_string())?;
            if check(&pod) { Ok(pod) } else { Err(serde_json::to_string(&pod.status).unwrap()) }
        })
        .await
    }

    pub async fn running(&self, name: &str) -> Pod {
        self.pod_until(name, "is ready", |p| phase(p) == "Running" && condition(p, "Ready") == "True").await
    }

    pub async fn delete(&self, name: &str, grace: Option<u32>) {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods().delete(name, &params).await.unwrap();
    }

    pub async fn gone(&self, name: &str) {
        let pods = self.pods();
        eventually(&format!("pod {name} is gone"), || async {
            match pods.get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub async fn event(&self, pod: &str, reason: &str) -> Event {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        eventually(&format!("event {reason} of {pod}"), || async {
            let list = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let mine: Vec<Event> =
                list.items.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(pod)).collect();
            let seen: Vec<_> = mine.iter().map(|e| (e.reason.clone(), e.message.clone())).collect();
            mine.into_iter().find(|e| e.reason.as_deref() == Some(reason)).ok_or(format!("{seen:?}"))
        })
        .await
    }
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> &'a str {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str()).unwrap_or_default()
}

pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|c| c.name == name)
}

pub fn waiting(pod: &Pod, name: &str) -> String {
    let waiting = container(pod, name).and_then(|c| c.state.as_ref()).and_then(|s| s.waiting.as_ref());
    waiting.and_then(|w| w.reason.clone()).unwrap_or_default()
}

/// Polls until it works; shows the last failure when it gives up.
pub async fn eventually<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > PATIENCE => {
                panic!("not in {PATIENCE:?}: {what}; last seen: {last:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
