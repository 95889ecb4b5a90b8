//! A shared cache of one kind: one watch, one copy of each object, any number of readers and listeners.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use kube::Api;
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector::store::Writer};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;

use crate::supervise::Scope;

/// What became of one object. It says "look again"; listeners take keys from it, not instructions.
#[derive(Clone, Debug)]
pub enum Change<K> {
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    Deleted { old: Arc<K> },
}

impl<K> Change<K> {
    /// The latest known state, the last one before a deletion included.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted { old } => old,
        }
    }
}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send>;

/// Cloning is cheap and shares the cache.
pub struct Cache<K: Lookup + 'static>
where
    K::DynamicType: Eq + Hash,
{
    store: Store<K>,
    listeners: Arc<Mutex<Vec<Listener<K>>>>,
    synced: watch::Receiver<bool>,
}

impl<K: Lookup + 'static> Clone for Cache<K>
where
    K::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), listeners: self.listeners.clone(), synced: self.synced.clone() }
    }
}

impl<K> Cache<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts the watch in `scope`. Lost connections are taken up again with back-off for ever.
    pub fn start(scope: &Scope, api: Api<K>, config: watcher::Config) -> Self {
        let (reader, writer) = reflector::store();
        let (synced_tx, synced) = watch::channel(false);
        let listeners: Arc<Mutex<Vec<Listener<K>>>> = Arc::default();
        let cache = Self { store: reader.clone(), listeners: listeners.clone(), synced };
        scope.spawn("cache", run(api, config, reader, writer, listeners, synced_tx));
        cache
    }

    /// Returns once the first full state is here.
    pub async fn synced(&self) {
        // An error means that the watch task is gone because its scope ended; the caller's will end too.
        let _ = self.synced.clone().wait_for(|s| *s).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectRef::new(name);
        self.store.get(&if namespace.is_empty() { key } else { key.within(namespace) })
    }

    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Calls `listener` for every object that is here and for every change from now on, in order, from the cache's
    /// own task: it must be quick (put a key on a queue) and must not call back into `on_change`.
    pub fn on_change(&self, listener: impl Fn(&Change<K>) + Send + 'static) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for new in self.store.state() {
            listener(&Change::Applied { old: None, new });
        }
        listeners.push(Box::new(listener));
    }
}

async fn run<K>(
    api: Api<K>,
    config: watcher::Config,
    reader: Store<K>,
    mut writer: Writer<K>,
    listeners: Arc<Mutex<Vec<Listener<K>>>>,
    synced: watch::Sender<bool>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    // The list that replaces the state is applied in one step when it is complete, so readers never see half of it.
    let mut incoming: Option<Vec<K>> = None;
    let mut stream = watcher(api, config).default_backoff().boxed();
    while let Some(item) = stream.next().await {
        let event = match item {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, kind = %K::kind(&()), "watch failed, trying again");
                continue;
            }
        };
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        match &event {
            Event::Init => incoming = Some(Vec::new()),
            Event::InitApply(object) => incoming.get_or_insert_default().push(object.clone()),
            Event::InitDone => {
                let objects = incoming.take().unwrap_or_default();
                let kept: HashSet<ObjectRef<K>> = objects.iter().map(ObjectRef::from).collect();
                for old in reader.state() {
                    if !kept.contains(&ObjectRef::from(&*old)) {
                        changes.push(Change::Deleted { old });
                    }
                }
                for object in objects {
                    let old = reader.get(&ObjectRef::from(&object));
                    if old
                        .as_ref()
                        .is_none_or(|o| o.meta().resource_version != object.meta().resource_version)
                    {
                        changes.push(Change::Applied { old, new: Arc::new(object) });
                    }
                }
            }
            Event::Apply(object) => {
                let old = reader.get(&ObjectRef::from(object));
                changes.push(Change::Applied { old, new: Arc::new(object.clone()) });
            }
            Event::Delete(object) => changes.push(Change::Deleted { old: Arc::new(object.clone()) }),
        }
        writer.apply_watcher_event(&event);
        for change in &changes {
            for listener in listeners.iter() {
                listener(change);
            }
        }
        if matches!(event, Event::InitDone) {
            synced.send_replace(true);
        }
    }
}
