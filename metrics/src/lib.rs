//! Gathers what kubelets measure, keeps a window of it, and serves it as `metrics.k8s.io`.
//!
//! No value is ever invented: a pod without two samples in the window is absent, and every answer says when it was
//! measured and over how long.

mod api;
mod exposition;
mod gather;
mod window;

use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use loadline_client::{Cache, Delegated, Scope};

use window::Window;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

type Pods = Cache<PartialObjectMeta<Pod>>;

/// The metrics component. Its API can be handed to the server before it has a client itself.
#[derive(Clone, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    window: RwLock<Window>,
    /// For labels; there once gathering has started.
    pods: RwLock<Option<Pods>>,
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// `nodes` and `pods` of `metrics.k8s.io/v1beta1`.
    pub fn delegates(&self) -> Vec<Delegated> {
        let of = |kind, resource, singular, namespaced| Delegated {
            group: GROUP,
            version: VERSION,
            kind,
            resource,
            singular,
            subresource: None,
            namespaced,
            verbs: &["get", "list"],
            router: api::router(self.shared.clone()),
        };
        vec![of("NodeMetrics", "nodes", "", false), of("PodMetrics", "pods", "", true)]
    }

    /// Polls every kubelet once a second until the scope ends. `tls` carries the client certificate that kubelets ask for.
    pub fn start(&self, scope: &Scope, client: kube::Client, tls: rustls::ClientConfig) {
        let pods = Cache::start(scope, Api::all(client.clone()), watcher::Config::default());
        *self.shared.pods.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(pods);
        gather::start(scope, client, tls, self.shared.clone());
    }
}
