//! The kubelet of one node: it runs the pods that the API binds to it on a container runtime, and says how they and
//! the node are. Several kubelets run in one process without knowing of each other.
//!
//! It owns the node's containers, pod directories, Node object and Lease. It never schedules, never touches objects
//! of other nodes, and keeps no state that it cannot rebuild from the API and the runtime: when it ends, containers go
//! on, and the next one adopts them.

mod admission;
mod backoff;
pub mod config;
mod context;
mod env;
mod fields;
mod files;
mod http_probe;
mod images;
mod launch;
mod machine;
mod manager;
mod metrics;
mod names;
mod node;
mod objects;
mod plan;
mod probe;
mod prober;
mod resources;
mod security;
mod server;
mod stats;
mod status;
mod volumes;
mod worker;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node as ApiNode, Pod, Service};
use kube::Api;
use kube::runtime::watcher;
use loadline_client::{Cache, EventSink, Scope};
use tracing::info;

pub use config::{Config, KubeletError, LeaseTimings, Tls};

use crate::context::{Directory, Node};
use crate::manager::{Manager, Pods};

/// A running kubelet. Dropping it changes nothing; it lives in the scope that it was started in.
pub struct Kubelet {
    /// Where its API listens.
    pub addr: SocketAddr,
    pub node_name: String,
    scope: Scope,
}

impl Kubelet {
    /// Ends the kubelet and waits for its tasks. Containers keep running.
    pub async fn shutdown(&self) {
        self.scope.shutdown().await;
    }
}

/// Starts the kubelet of one node. It returns once the kubelet API listens; the node registers itself as soon as the
/// API server answers. A task that fails takes `scope` down.
pub async fn start(scope: &Scope, client: kube::Client, config: Config) -> Result<Kubelet, KubeletError> {
    if config.node_name.is_empty() {
        return Err(KubeletError::Config("the node has no name".to_owned()));
    }
    if !config.simulated {
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|source| KubeletError::DataDir { path: config.data_dir.clone(), source })?;
    }
    let own = scope.child();
    let listener = server::listen(&config).await?;
    let addr = listener.addr;
    let node = node_context(&own, client, config).await?;
    own.spawn("kubelet-node", node::keep(node.0.clone(), addr));
    own.spawn("kubelet-lease", node::renew(node.0.clone()));
    let manager = Arc::new(Manager::new(node.0.clone(), node.1));
    own.spawn("kubelet-pods", manager.run());
    let sampler = Arc::new(stats::Sampler::new(node.0.clone()));
    own.spawn("kubelet-api", server::serve(listener, node.0.clone(), sampler));
    scope.spawn("kubelet", {
        let own = own.clone();
        async move {
            match own.ended().await {
                // A failed task: ending here fails the outer scope too.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    });
    info!(node = node.0.config.node_name, %addr, "kubelet started");
    Ok(Kubelet { addr, node_name: node.0.config.node_name.clone(), scope: own })
}

async fn node_context(
    scope: &Scope,
    client: kube::Client,
    config: Config,
) -> Result<(Arc<Node>, Arc<Pods>), KubeletError> {
    let capacity = machine::capacity(&config)?;
    let allocatable = machine::allocatable(&config, &capacity)?;
    let runtime_version = config.runtime.version().await?;
    let runtime_name = runtime_version.split("://").next().unwrap_or_default().to_owned();
    let resolv_conf = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let name = config.node_name.clone();

    let only = |field: &str| watcher::Config::default().fields(&format!("{field}={name}"));
    let pods = Cache::start(scope, Api::<Pod>::all(client.clone()), only("spec.nodeName"));
    let api_node = Cache::start(scope, Api::<ApiNode>::all(client.clone()), only("metadata.name"));
    let services = config.services.clone().unwrap_or_else(|| {
        Cache::start(scope, Api::<Service>::all(client.clone()), watcher::Config::default())
    });
    let workers = Arc::<Pods>::default();
    let wake = {
        let workers = workers.clone();
        Arc::new(move |uids: &BTreeSet<String>| workers.config_changed(uids))
    };
    let node = Arc::new(Node {
        events: EventSink::start(scope, client.clone(), "kubelet", Some(name.clone())),
        objects: objects::Store::new(scope, &client, services, wake),
        volumes: volumes::Volumes::new(&config.data_dir, config.simulated),
        images: images::Images::default(),
        memory_capacity: capacity.get("memory").map_or(0, |q| q.value()),
        directory: Directory::default(),
        admitted: Default::default(),
        node_wake: tokio::sync::Notify::new(),
        scope: scope.clone(),
        client,
        api_node,
        pods,
        runtime_name,
        capacity,
        allocatable,
        resolv_conf,
        config,
    });
    // Weak, for the node owns the cache that owns the listener.
    let woken = Arc::downgrade(&node);
    node.api_node.on_change(move |_| {
        if let Some(node) = woken.upgrade() {
            node.node_wake.notify_one();
        }
    });
    Ok((node, workers))
}
