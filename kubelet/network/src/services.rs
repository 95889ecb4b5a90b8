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
            move |change| apply(&mut index.write().unwrap_or_else(PoisonError::into_inner), change)
        });
        Self { services, slices, index }
    }

    /// Whether the first full state is here.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced() && self.slices.is_synced()
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
            // A slice may have been given to another Service: both must look again.
            let before = previous(change).and_then(|old| service_of(old));
            let now = service_of(change.object());
            if before != now {
                before.into_iter().for_each(&of_slices);
            }
            now.into_iter().for_each(&of_slices);
        });
        self.services.on_change(move |change| {
            let service = change.object();
            listener((service.namespace().unwrap_or_default(), service.name_any()));
        });
    }
}

fn previous(change: &Change<EndpointSlice>) -> Option<&Arc<EndpointSlice>> {
    match change {
        Change::Applied { old, .. } => old.as_ref(),
        Change::Deleted { old } => Some(old),
    }
}

fn apply(index: &mut Index, change: &Change<EndpointSlice>) {
    if let Some(old) = previous(change)
        && let Some(key) = service_of(old)
        && let Some(own) = index.get_mut(&key)
    {
        own.remove(&old.name_any());
        if own.is_empty() {
            index.remove(&key);
        }
    }
    if let Change::Applied { new, .. } = change
        && let Some(key) = service_of(new)
    {
        index.entry(key).or_default().insert(new.name_any(), new.clone());
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    Some((slice.namespace().unwrap_or_default(), slice.labels().get(SERVICE_NAME)?.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(service: Option<&str>) -> Arc<EndpointSlice> {
        let labels = service.map(|s| json!({ SERVICE_NAME: s })).unwrap_or_else(|| json!({}));
        let slice = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": labels},
            "addressType": "IPv4", "endpoints": []});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn a_slice_belongs_to_the_service_that_it_names_now() {
        let mut index = Index::new();
        let key = |name: &str| ("n".to_owned(), name.to_owned());
        apply(&mut index, &Change::Applied { old: None, new: slice(Some("a")) });
        apply(&mut index, &Change::Applied { old: Some(slice(Some("a"))), new: slice(Some("b")) });
        assert_eq!(index.keys().collect::<Vec<_>>(), [&key("b")]);
        apply(&mut index, &Change::Applied { old: Some(slice(Some("b"))), new: slice(None) });
        assert!(index.is_empty());
        apply(&mut index, &Change::Applied { old: None, new: slice(Some("a")) });
        apply(&mut index, &Change::Deleted { old: slice(Some("a")) });
        assert!(index.is_empty());
    }
}
