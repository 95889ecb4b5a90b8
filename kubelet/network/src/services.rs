//! The Services and endpoints that the proxy and DNS share: one watch each, slices indexed by their Service.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use loadline_client::{Cache, Change, Scope};

/// The label that ties a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub type Key = (String, String);

type Index = BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>;

#[derive(Clone)]
pub struct Services {
    pub services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    index: Arc<RwLock<Index>>,
}

impl Services {
    pub fn start(scope: &Scope, client: kube::Client) -> Self {
        let services = Cache::start(scope, Api::all(client.clone()), watcher::Config::default());
        let slices = Cache::start(scope, Api::<EndpointSlice>::all(client), watcher::Config::default());
        let index: Arc<RwLock<Index>> = Arc::default();
        slices.on_change({
            let index = index.clone();
            move |change| {
                let slice = change.object();
                let Some(key) = service_of(slice) else { return };
                let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
                let own = index.entry(key.clone()).or_default();
                match change {
                    Change::Applied { new, .. } => own.insert(new.name_any(), new.clone()),
                    Change::Deleted { old } => own.remove(&old.name_any()),
                };
                if own.is_empty() {
                    index.remove(&key);
                }
            }
        });
        Self { services, slices, index }
    }

    pub async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }

    pub fn slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(key).map(|own| own.values().cloned().collect()).unwrap_or_default()
    }

    /// Calls `listener` with the key of every Service that changed, or whose endpoints did.
    pub fn on_change(&self, listener: impl Fn(Key) + Clone + Send + 'static) {
        let of_slices = listener.clone();
        self.slices.on_change(move |change| {
            if let Some(key) = service_of(change.object()) {
                of_slices(key);
            }
        });
        self.services.on_change(move |change| {
            let service = change.object();
            listener((service.namespace().unwrap_or_default(), service.name_any()));
        });
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    Some((slice.namespace().unwrap_or_default(), slice.labels().get(SERVICE_NAME)?.clone()))
}
