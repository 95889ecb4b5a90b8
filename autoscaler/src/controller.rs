//! The shell around `decide`: one task per object, woken by time and by changes of the object, on shared caches.

mod objects;
mod observe;
mod sources;
mod status;
mod target;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::runtime::watcher;
use loadline_api::own::ScalingPolicy;
use loadline_api::selector::Selector;
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, EventSink, Scope, WorkQueue};
use tokio::sync::Notify;

use crate::ring::{Key, Kind, Ring};
use objects::{Object, PodView};
use sources::Sources;
use target::Targets;

/// What the tasks share.
pub(crate) struct Shared {
    pub(crate) client: kube::Client,
    pub(crate) hpas: Cache<HorizontalPodAutoscaler>,
    pub(crate) policies: Cache<ScalingPolicy>,
    pub(crate) pods: Cache<PodView>,
    pub(crate) sources: Sources,
    pub(crate) targets: Targets,
    pub(crate) events: EventSink,
    pub(crate) ring: Arc<Ring>,
    /// What each autoscaler's target selected last.
    pub(crate) selectors: Mutex<HashMap<Key, Selector>>,
    tasks: Mutex<HashMap<Key, Arc<Notify>>>,
}

pub(crate) fn start(scope: &Scope, client: kube::Client, ring: Arc<Ring>) {
    let shared = Arc::new(Shared {
        hpas: Cache::start(scope, Api::all(client.clone()), watcher::Config::default()),
        policies: Cache::start(scope, Api::all(client.clone()), watcher::Config::default()),
        pods: Cache::start(scope, Api::all(client.clone()), watcher::Config::default()),
        sources: Sources::new(client.clone()),
        targets: Targets::new(client.clone()),
        events: EventSink::start(scope, client.clone(), "horizontal-pod-autoscaler", None),
        ring,
        selectors: Mutex::default(),
        tasks: Mutex::default(),
        client,
    });
    scope.spawn("autoscaler", run(scope.clone(), shared));
}

async fn run(scope: Scope, shared: Arc<Shared>) {
    shared.pods.synced().await;
    shared.hpas.synced().await;
    shared.policies.synced().await;
    let queue: WorkQueue<Key> = WorkQueue::new("autoscaler");
    let adding = queue.clone();
    shared.hpas.on_change(move |change| wake(change, |o| &o.spec, Kind::Hpa, &adding));
    let adding = queue.clone();
    shared.policies.on_change(move |change| wake(change, |o| &o.spec, Kind::ScalingPolicy, &adding));
    queue
        .run(1, |key| {
            shared.look_at(&scope, key);
            async { Ok::<_, Infallible>(Next::Done) }
        })
        .await;
}

/// A status that was written, by us or by others, is no reason to decide again.
fn wake<K, S>(change: &Change<K>, spec: impl Fn(&K) -> &S, kind: Kind, queue: &WorkQueue<Key>)
where
    K: kube::Resource,
    S: PartialEq,
{
    if let Change::Applied { old: Some(old), new } = change {
        let same = spec(old) == spec(new)
            && old.meta().annotations == new.meta().annotations
            && old.meta().uid == new.meta().uid;
        if same {
            return;
        }
    }
    let meta = change.object().meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    queue.add(Key { kind, namespace, name: meta.name.clone().unwrap_or_default() });
}

impl Shared {
    pub(crate) fn object(&self, key: &Key) -> Option<Object> {
        match key.kind {
            Kind::Hpa => self.hpas.get(&key.namespace, &key.name).map(Object::Hpa),
            Kind::ScalingPolicy => self.policies.get(&key.namespace, &key.name).map(Object::Policy),
        }
    }

    /// Wakes the object's task, or starts it.
    fn look_at(self: &Arc<Self>, scope: &Scope, key: Key) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = tasks.get(&key) {
            task.notify_one();
        } else if self.object(&key).is_some() {
            self.ring.open(&key);
            let notify = Arc::new(Notify::new());
            tasks.insert(key.clone(), notify.clone());
            scope.spawn_short(worker::run(self.clone(), key, notify));
        }
    }

    /// Ends the object's task unless the object is back; true if it ended.
    pub(crate) fn leave(&self, key: &Key) -> bool {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.object(key).is_some() {
            return false;
        }
        tasks.remove(key);
        self.ring.remove(key);
        self.selectors.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        crate::telemetry::forget(key);
        true
    }
}
