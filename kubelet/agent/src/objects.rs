//! ConfigMaps and Secrets that pods of this node refer to: one watch per referenced object, shared by its pods and
//! ended with the last of them. Never lists what no pod refers to.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::Api;
use kube::runtime::watcher;
use loadline_client::{Cache, Scope};
use serde::de::DeserializeOwned;

use crate::env::Objects;
use crate::names;

/// Called with the uids of the pods that refer to a changed object.
type Waker = Arc<dyn Fn(&BTreeSet<String>) + Send + Sync>;

/// (namespace, name)
type Key = (String, String);

pub(crate) struct Watched<K: kube::runtime::reflector::Lookup<DynamicType = ()> + 'static> {
    scope: Scope,
    client: kube::Client,
    wake: Waker,
    entries: Mutex<HashMap<Key, Entry<K>>>,
}

struct Entry<K: kube::runtime::reflector::Lookup<DynamicType = ()> + 'static> {
    cache: Cache<K>,
    scope: Scope,
    users: Arc<Mutex<BTreeSet<String>>>,
}

impl<K> Watched<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    fn new(scope: Scope, client: kube::Client, wake: Waker) -> Self {
        Self { scope, client, wake, entries: Mutex::default() }
    }

    /// Makes `uid` a user of exactly these objects of its namespace.
    fn set_users(&self, uid: &str, namespace: &str, wanted: &BTreeSet<String>) {
        let mut entries = self.lock();
        entries.retain(|(ns, name), entry| {
            if ns == namespace && wanted.contains(name) {
                return true;
            }
            let mut users = entry.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.remove(uid);
            if users.is_empty() {
                entry.scope.cancel();
            }
            !users.is_empty()
        });
        for name in wanted {
            let key = (namespace.to_owned(), name.clone());
            let entry = entries.entry(key).or_insert_with(|| self.watch(namespace, name));
            entry.users.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        }
    }

    fn watch(&self, namespace: &str, name: &str) -> Entry<K> {
        let scope = self.scope.child();
        let api = Api::namespaced(self.client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let cache = Cache::start(&scope, api, config);
        let users: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (wake, listening) = (self.wake.clone(), users.clone());
        cache.on_change(move |_| {
            let users = listening.lock().unwrap_or_else(PoisonError::into_inner).clone();
            wake(&users);
        });
        Entry { cache, scope, users }
    }

    fn cache(&self, namespace: &str, name: &str) -> Option<Cache<K>> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).map(|e| e.cache.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry<K>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of the ConfigMaps and Secrets that a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

pub(crate) fn references(pod: &Pod) -> References {
    let mut refs = References::default();
    for container in names::all_containers(pod) {
        for source in container.env_from.iter().flatten() {
            refs.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            refs.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            refs.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
            refs.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    let Some(spec) = &pod.spec else { return refs };
    refs.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        refs.config_maps.extend(volume.config_map.iter().map(|v| v.name.clone()));
        refs.secrets.extend(volume.secret.iter().filter_map(|v| v.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            refs.config_maps.extend(source.config_map.iter().map(|v| v.name.clone()));
            refs.secrets.extend(source.secret.iter().map(|v| v.name.clone()));
        }
    }
    refs.config_maps.remove("");
    refs.secrets.remove("");
    refs
}

/// All that pods of this node refer to.
pub(crate) struct Store {
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
    services: Cache<Service>,
}

impl Store {
    pub(crate) fn new(scope: &Scope, client: &kube::Client, services: Cache<Service>, wake: Waker) -> Self {
        Self {
            config_maps: Watched::new(scope.clone(), client.clone(), wake.clone()),
            secrets: Watched::new(scope.clone(), client.clone(), wake),
            services,
        }
    }

    pub(crate) fn register(&self, pod: &Pod) {
        let refs = references(pod);
        let (uid, namespace) = (names::uid(pod), names::namespace(pod));
        self.config_maps.set_users(uid, namespace, &refs.config_maps);
        self.secrets.set_users(uid, namespace, &refs.secrets);
    }

    pub(crate) fn forget(&self, pod: &Pod) {
        let none = BTreeSet::new();
        self.config_maps.set_users(names::uid(pod), names::namespace(pod), &none);
        self.secrets.set_users(names::uid(pod), names::namespace(pod), &none);
    }

    /// Waits until everything that the pod refers to has been read at least once; the error names what has not.
    pub(crate) async fn synced(&self, pod: &Pod) -> Result<(), String> {
        let refs = references(pod);
        let namespace = names::namespace(pod);
        let all = async {
            self.services.synced().await;
            for name in &refs.config_maps {
                if let Some(cache) = self.config_maps.cache(namespace, name) {
                    cache.synced().await;
                }
            }
            for name in &refs.secrets {
                if let Some(cache) = self.secrets.cache(namespace, name) {
                    cache.synced().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.map_err(|_| {
            "failed to sync services, configmaps or secrets cache: timed out waiting for the condition"
                .to_owned()
        })
    }

    pub(crate) fn of<'a>(&'a self, pod: &Pod) -> PodObjects<'a> {
        PodObjects { store: self, namespace: names::namespace(pod).to_owned() }
    }
}

/// The objects of one pod's namespace.
pub(crate) struct PodObjects<'a> {
    store: &'a Store,
    namespace: String,
}

impl Objects for PodObjects<'_> {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.store.config_maps.cache(&self.namespace, name)?.get(&self.namespace, name)
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.store.secrets.cache(&self.namespace, name)?.get(&self.namespace, name)
    }

    fn services(&self) -> Vec<Arc<Service>> {
        let mine = |s: &Arc<Service>| {
            let namespace = s.metadata.namespace.as_deref().unwrap_or_default();
            namespace == self.namespace
                || namespace == "default" && s.metadata.name.as_deref() == Some("kubernetes")
        };
        self.store.services.all().into_iter().filter(mine).collect()
    }
}
