//! The shell: draws the graph from the monitors, and looks everything up on the server before it acts.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use loadline_client::queue::Next;
use loadline_client::{EventSink, Scope, WorkQueue};
use serde_json::{Value, json};
use tracing::{debug, info};

use super::graph::{FOREGROUND, Graph, Item, ORPHAN, Work, has_finalizer};
use super::plan::{Decision, Foreground, Owner, decide, foreground};
use crate::adoption::{owners_patch, release_patch};
use crate::error::{Error, Result, Step, settle};
use crate::meta::{is_deleting, owners, uid};
use crate::monitors::{Kind, Monitors, Seen};

const QUEUE: &str = "garbage_collector";
const WORKERS: usize = 20;
/// Uids that are known to be gone. They never come back, so this only saves requests.
const ABSENT: usize = 5000;

#[derive(Default)]
struct Absent {
    uids: HashSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    fn insert(&mut self, uid: &str) {
        if self.uids.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
            if self.order.len() > ABSENT
                && let Some(oldest) = self.order.pop_front()
            {
                self.uids.remove(&oldest);
            }
        }
    }
}

/// What the monitors write and the workers read.
#[derive(Clone)]
pub(crate) struct Shape {
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Work>,
}

impl Shape {
    pub(crate) fn new() -> Self {
        Self { graph: Arc::default(), queue: WorkQueue::new(QUEUE) }
    }

    pub(crate) fn seen(&self, kind: &Arc<Kind>, meta: &ObjectMeta, seen: Seen) {
        let work = match seen {
            Seen::Applied => self.graph().observe(Item::new(kind, meta)),
            Seen::Deleted => self.graph().forget(uid(meta)),
        };
        work.into_iter().for_each(|w| self.queue.add(w));
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Controller {
    client: Client,
    shape: Shape,
    monitors: Monitors,
    absent: Arc<Mutex<Absent>>,
    events: EventSink,
}

pub(crate) fn start(scope: &Scope, client: Client, shape: Shape, monitors: Monitors) {
    let controller = Controller {
        shape,
        monitors,
        absent: Arc::default(),
        events: EventSink::start(scope, client.clone(), "garbage-collector-controller", None),
        client,
    };
    scope.spawn(QUEUE, async move {
        // Who is not seen yet is not gone, and dependents not seen yet still hold their owner back.
        controller.monitors.synced().await;
        controller.shape.queue.clone().run(WORKERS, |work| settle(controller.reconcile(work))).await;
    });
}

impl Controller {
    async fn reconcile(&self, work: Work) -> Result<Next> {
        match work {
            Work::Delete(uid) => self.look(&uid).await,
            Work::Orphan(uid) => self.orphan(&uid).await,
        }
        .map(|()| Next::Done)
    }

    fn item(&self, uid: &str) -> Option<Item> {
        self.shape.graph().get(uid).cloned()
    }

    /// The item's metadata on the server; an item that is not there any more is forgotten.
    async fn live(&self, item: &Item) -> Result<Option<ObjectMeta>> {
        let api = item.kind.api(&self.client, &item.key.namespace);
        let live = api.get_metadata_opt(&item.key.name).await.step("read object")?.map(|o| o.metadata);
        match live {
            Some(live) if uid(&live) == item.uid => Ok(Some(live)),
            _ => {
                let work = self.shape.graph().forget(&item.uid);
                work.into_iter().for_each(|w| self.shape.queue.add(w));
                Ok(None)
            }
        }
    }

    async fn look(&self, uid: &str) -> Result<()> {
        let Some(item) = self.item(uid) else { return Ok(()) };
        if item.deleting && !item.foreground {
            return Ok(());
        }
        let Some(live) = self.live(&item).await? else { return Ok(()) };
        if is_deleting(&live) {
            return if has_finalizer(&live, FOREGROUND) {
                self.finish_foreground(&item, &live).await
            } else {
                Ok(())
            };
        }
        let mut states = Vec::new();
        for owner in owners(&live) {
            states.push((owner.uid.clone(), self.owner(&item, owner).await?));
        }
        let dependents = self.shape.graph().dependents(uid);
        match decide(&live, &states, &dependents) {
            Decision::Keep => Ok(()),
            Decision::DropOwners(gone) => {
                let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
                self.patch(&item, release_patch(&live, &gone)).await
            }
            Decision::Delete { policy, unblock } => {
                let mut version = live.resource_version.clone();
                if unblock {
                    version = None;
                    self.patch(&item, unblock_patch(&live)).await?;
                }
                self.delete(&item, version, policy).await
            }
        }
    }

    /// Whether an owner is there, from the server unless it is known to be gone.
    async fn owner(&self, item: &Item, owner: &OwnerReference) -> Result<Owner> {
        if self.absent().uids.contains(&owner.uid) {
            return Ok(Owner::Absent);
        }
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = self.monitors.find(group, &owner.kind) else {
            // Nobody can say that an object of an unknown kind is gone.
            self.monitors.refresh();
            return Err(Error::Discovery(format!("unknown kind {} of {}", owner.kind, owner.api_version)));
        };
        if kind.namespaced && !item.kind.namespaced {
            self.refuse(item, owner);
            return Ok(Owner::Solid);
        }
        let elsewhere =
            self.item(&owner.uid).is_some_and(|o| o.kind.namespaced && o.key.namespace != item.key.namespace);
        if elsewhere {
            self.refuse(item, owner);
        }
        let api = kind.api(&self.client, &item.key.namespace);
        let live = api.get_metadata_opt(&owner.name).await.step("read owner")?.map(|o| o.metadata);
        match live.filter(|l| uid(l) == owner.uid) {
            None => {
                self.absent().insert(&owner.uid);
                Ok(Owner::Absent)
            }
            Some(live) if is_deleting(&live) && has_finalizer(&live, FOREGROUND) => Ok(Owner::Waiting),
            Some(_) => Ok(Owner::Solid),
        }
    }

    fn absent(&self) -> MutexGuard<'_, Absent> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Owners are looked up in the dependent's own namespace only; the user should know that this one does not count.
    fn refuse(&self, item: &Item, owner: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(item.kind.api.api_version.clone()),
            kind: Some(item.kind.api.kind.clone()),
            name: Some(item.key.name.clone()),
            namespace: Some(item.key.namespace.clone()).filter(|n| !n.is_empty()),
            uid: Some(item.uid.clone()),
            ..ObjectReference::default()
        };
        let note = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version, owner.kind, item.key.namespace, owner.name, owner.uid, item.key.namespace
        );
        self.events.warning(about, "OwnerRefInvalidNamespace", "Collect", note);
    }

    async fn finish_foreground(&self, item: &Item, live: &ObjectMeta) -> Result<()> {
        let dependents = self.shape.graph().dependents(&item.uid);
        match foreground(&item.uid, &dependents) {
            Foreground::Done => self.patch(item, finalizer_patch(live, FOREGROUND)).await,
            Foreground::Wait(uids) => {
                uids.into_iter().for_each(|uid| self.shape.queue.add(Work::Delete(uid)));
                Ok(())
            }
        }
    }

    /// Strikes the owner out of all its dependents, then lets it go.
    async fn orphan(&self, uid: &str) -> Result<()> {
        let Some(item) = self.item(uid).filter(|i| i.orphaning) else { return Ok(()) };
        let dependents = self.shape.graph().dependents(uid);
        for dependent in dependents {
            if let Some(live) = self.live(&dependent).await?
                && owners(&live).iter().any(|o| o.uid == uid)
            {
                self.patch(&dependent, release_patch(&live, &[uid])).await?;
            }
        }
        let Some(live) = self.live(&item).await? else { return Ok(()) };
        if has_finalizer(&live, ORPHAN) {
            self.patch(&item, finalizer_patch(&live, ORPHAN)).await?;
        }
        Ok(())
    }

    async fn patch(&self, item: &Item, patch: Value) -> Result<()> {
        let api = item.kind.api(&self.client, &item.key.namespace);
        let params = PatchParams::default();
        api.patch_metadata(&item.key.name, &params, &Patch::Merge(patch))
            .await
            .step_or_gone("patch metadata")
            .map(drop)
    }

    async fn delete(
        &self,
        item: &Item,
        resource_version: Option<String>,
        policy: PropagationPolicy,
    ) -> Result<()> {
        let api = item.kind.api(&self.client, &item.key.namespace);
        let same = Preconditions { uid: Some(item.uid.clone()), resource_version };
        let params =
            DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default().preconditions(same) };
        if api.delete(&item.key.name, &params).await.step_or_gone("delete object")?.is_some() {
            info!(kind = item.kind.api.kind, object = %item.key, "collected");
        } else {
            debug!(kind = item.kind.api.kind, object = %item.key, "was gone already");
        }
        Ok(())
    }
}

fn finalizer_patch(meta: &ObjectMeta, finalizer: &str) -> Value {
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": if left.is_empty() { Value::Null } else { json!(left) },
    }})
}

fn unblock_patch(meta: &ObjectMeta) -> Value {
    let list = owners(meta)
        .iter()
        .cloned()
        .map(|o| OwnerReference { block_owner_deletion: o.block_owner_deletion.map(|_| false), ..o })
        .collect();
    owners_patch(meta, list)
}
