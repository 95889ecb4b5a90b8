//! Metadata of everything: one metadata-only watch per kind that the server serves. The garbage collector draws its
//! graph from it; the end of a namespace is woken by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiResource, Discovery, Scope as KindScope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use loadline_client::Scope;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::meta::{Key, uid};

/// Nothing announces that the set of served kinds has changed, so discovery is repeated this often, as upstream does.
const REDISCOVER: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) api: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

impl Kind {
    #[cfg(test)]
    pub(crate) fn new(api: ApiResource, namespaced: bool) -> Self {
        Self { api, namespaced, verbs: Vec::new() }
    }

    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    pub(crate) fn is_event(&self) -> bool {
        self.api.kind == "Event" && matches!(self.api.group.as_str(), "" | "events.k8s.io")
    }

    /// `namespace` is ignored for cluster-scoped kinds.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

/// Every kind that the server serves, each in its most stable version.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Arc<Kind>>> {
    let found = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .map_err(|error| Error::Discovery(format!("discovery failed: {error}")))?;
    let mut kinds = Vec::new();
    for group in found.groups() {
        for (api, capabilities) in group.resources_by_stability() {
            let namespaced = capabilities.scope == KindScope::Namespaced;
            kinds.push(Arc::new(Kind { api, namespaced, verbs: capabilities.operations }));
        }
    }
    Ok(kinds)
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Applied,
    Deleted,
}

type Listener = Box<dyn Fn(&Arc<Kind>, &ObjectMeta, Seen) + Send + Sync>;

struct Inner {
    client: Client,
    listeners: Vec<Listener>,
    kinds: Mutex<Vec<Arc<Kind>>>,
    refresh: Notify,
    /// How many of the watches have not had their first full state; `None` before the first discovery.
    behind: watch::Sender<Option<usize>>,
}

#[derive(Clone)]
pub(crate) struct Monitors(Arc<Inner>);

impl Monitors {
    /// Listeners are called in the order of each kind's changes, from the kind's own task; they must be quick.
    pub(crate) fn start(scope: &Scope, client: Client, listeners: Vec<Listener>) -> Self {
        let inner = Inner {
            client,
            listeners,
            kinds: Mutex::default(),
            refresh: Notify::new(),
            behind: watch::Sender::new(None),
        };
        let monitors = Self(Arc::new(inner));
        scope.spawn("monitors", monitors.clone().keep_watching(scope.clone()));
        monitors
    }

    /// The kinds as last discovered.
    pub(crate) fn find(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds().iter().find(|k| k.api.group == group && k.api.kind == kind).cloned()
    }

    /// Somebody met a kind that is not known.
    pub(crate) fn refresh(&self) {
        self.0.refresh.notify_one();
    }

    /// Returns once everything that there is has been seen.
    pub(crate) async fn synced(&self) {
        let _ = self.0.behind.subscribe().wait_for(|behind| *behind == Some(0)).await;
    }

    fn kinds(&self) -> MutexGuard<'_, Vec<Arc<Kind>>> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_watching(self, scope: Scope) {
        let mut running: HashMap<ApiResource, Scope> = HashMap::new();
        loop {
            match discover(&self.0.client).await {
                Ok(kinds) => self.follow(&scope, &mut running, kinds),
                Err(error) => warn!(%error, "kinds not discovered, trying again"),
            }
            // The first one matters most: without it nothing is collected.
            let pause = if self.0.behind.borrow().is_none() { Duration::from_secs(1) } else { REDISCOVER };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.refresh.notified() => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    fn follow(&self, scope: &Scope, running: &mut HashMap<ApiResource, Scope>, kinds: Vec<Arc<Kind>>) {
        let wanted: Vec<&Arc<Kind>> = kinds
            .iter()
            .filter(|k| ["list", "watch", "delete"].iter().all(|verb| k.can(verb)) && !k.is_event())
            .collect();
        running.retain(|api, task| {
            let kept = wanted.iter().any(|k| k.api == *api);
            if !kept {
                info!(kind = api.kind, group = api.group, "kind is served no longer");
                task.cancel();
            }
            kept
        });
        let new: Vec<&Arc<Kind>> = wanted.into_iter().filter(|k| !running.contains_key(&k.api)).collect();
        self.0.behind.send_modify(|behind| *behind = Some(behind.unwrap_or_default() + new.len()));
        for kind in new {
            let task = scope.child();
            task.spawn("monitor", self.clone().monitor(kind.clone()));
            running.insert(kind.api.clone(), task);
        }
        *self.kinds() = kinds;
    }

    /// Keeps names and uids to tell what vanished while the watch was interrupted.
    async fn monitor(self, kind: Arc<Kind>) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.0.client.clone(), &kind.api);
        let mut known: HashMap<Key, ObjectMeta> = HashMap::new();
        let mut incoming: Option<HashMap<Key, ObjectMeta>> = None;
        let mut synced = false;
        let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
        while let Some(event) = stream.next().await {
            match event {
                Err(error) => warn!(%error, kind = kind.api.kind, "metadata watch failed, trying again"),
                Ok(Event::Init) => incoming = Some(HashMap::new()),
                Ok(Event::InitApply(object)) => {
                    incoming.get_or_insert_default().insert(Key::of(&object.metadata), object.metadata);
                }
                Ok(Event::InitDone) => {
                    let now = incoming.take().unwrap_or_default();
                    for (key, old) in &known {
                        if now.get(key).is_none_or(|new| uid(new) != uid(old)) {
                            self.tell(&kind, old, Seen::Deleted);
                        }
                    }
                    now.values().for_each(|meta| self.tell(&kind, meta, Seen::Applied));
                    known = now;
                    if !std::mem::replace(&mut synced, true) {
                        self.0.behind.send_modify(|b| *b = b.map(|n| n.saturating_sub(1)));
                    }
                }
                Ok(Event::Apply(object)) => {
                    self.tell(&kind, &object.metadata, Seen::Applied);
                    known.insert(Key::of(&object.metadata), object.metadata);
                }
                Ok(Event::Delete(object)) => {
                    known.remove(&Key::of(&object.metadata));
                    self.tell(&kind, &object.metadata, Seen::Deleted);
                }
            }
        }
    }

    fn tell(&self, kind: &Arc<Kind>, meta: &ObjectMeta, seen: Seen) {
        self.0.listeners.iter().for_each(|listener| listener(kind, meta, seen));
    }
}
