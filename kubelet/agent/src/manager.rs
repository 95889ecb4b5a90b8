//! The pods of this node: one worker for each, fed from the API's watch and the runtime's events, and the clean-up of
//! what belongs to no pod any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use loadline_client::Change;
use loadline_runtime::{Container, RuntimeError, RuntimeEvent, Sandbox};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::admission::{self, NodeFacts};
use crate::context::{Node, Signal};
use crate::metrics::Running;
use crate::names;
use crate::plan;
use crate::status::Failure;
use crate::worker::{Desired, Worker};

pub(crate) struct Manager {
    node: Arc<Node>,
    pods: Arc<Pods>,
}

/// Workers by pod uid.
#[derive(Default)]
pub(crate) struct Pods {
    workers: Mutex<HashMap<String, Handle>>,
}

struct Handle {
    desired: watch::Sender<Desired>,
    signal: Arc<Signal>,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For objects that pods refer to.
    pub(crate) fn config_changed(&self, uids: &BTreeSet<String>) {
        let workers = self.lock();
        for uid in uids {
            if let Some(handle) = workers.get(uid) {
                handle.signal.config_changed();
            }
        }
    }
}

impl Manager {
    pub(crate) fn new(node: Arc<Node>, pods: Arc<Pods>) -> Self {
        Self { node, pods }
    }

    /// Connects the API's watch to the workers.
    fn listen(self: &Arc<Self>) {
        let manager: Weak<Self> = Arc::downgrade(self);
        self.node.pods.on_change(move |change| {
            if let Some(manager) = manager.upgrade() {
                manager.apply(change);
            }
        });
    }

    fn apply(self: &Arc<Self>, change: &Change<Pod>) {
        match change {
            Change::Applied { old, new } => {
                if let Some(old) = old.as_ref().filter(|o| o.metadata.uid != new.metadata.uid) {
                    self.gone(old);
                }
                self.update(new);
            }
            Change::Deleted { old } => self.gone(old),
        }
    }

    fn update(self: &Arc<Self>, pod: &Arc<Pod>) {
        let uid = names::uid(pod).to_owned();
        if let Some(handle) = self.pods.lock().get(&uid) {
            handle.desired.send_modify(|d| d.pod = pod.clone());
            return;
        }
        // Only the cache's own task comes here, so nobody else adds the same pod meanwhile. The lock must not be held
        // across `register`, which may call back into `config_changed`.
        let rejected = self.admit(pod).err();
        if let Some(failure) = &rejected {
            let reference = names::reference(pod);
            self.node.events.warning(reference, &failure.reason, "Admitting", failure.message.clone());
        }
        self.node.objects.register(pod);
        let (desired, receiver) = watch::channel(Desired { pod: pod.clone(), gone: false, rejected });
        let signal = Arc::<Signal>::default();
        let worker = Worker::new(self.node.clone(), receiver, signal.clone());
        self.pods.lock().insert(uid.clone(), Handle { desired, signal });
        let (manager, pod) = (self.clone(), pod.clone());
        self.node.scope.spawn_short(async move {
            let running = Running::new();
            worker.run().await;
            drop(running);
            manager.forget(&uid, &pod);
        });
    }

    fn forget(&self, uid: &str, pod: &Pod) {
        self.pods.lock().remove(uid);
        self.node.lock_admitted().remove(uid);
        self.node.directory.forget(uid);
        self.node.objects.forget(pod);
    }

    fn gone(&self, pod: &Arc<Pod>) {
        if let Some(handle) = self.pods.lock().get(names::uid(pod)) {
            handle.desired.send_modify(|d| {
                d.pod = pod.clone();
                d.gone = true;
            });
        }
    }

    /// Pods that this node has started already keep their place whatever has changed since.
    fn admit(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if names::is_terminal_phase(phase) {
            return Ok(());
        }
        let mut admitted = self.node.lock_admitted();
        let known =
            status.is_some_and(|s| s.start_time.is_some()) || pod.metadata.deletion_timestamp.is_some();
        if !known {
            let api_node = self.node.api_node.get("", &self.node.config.node_name);
            let labels = api_node.as_ref().and_then(|n| n.metadata.labels.clone());
            let taints = api_node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.taints.clone());
            let labels = labels.unwrap_or_else(|| crate::node::labels(&self.node.config));
            let facts = NodeFacts {
                name: &self.node.config.node_name,
                labels: &labels,
                taints: taints.as_deref().unwrap_or_default(),
                allocatable: &self.node.allocatable,
            };
            admission::admit(pod, &facts, admitted.values().map(|p| &**p))?;
        }
        admitted.insert(names::uid(pod).to_owned(), pod.clone());
        Ok(())
    }

    /// Follows the runtime for ever, and looks at everything again now and then in case an event was missed.
    pub(crate) async fn run(self: Arc<Self>) {
        let runtime = self.node.config.runtime.clone();
        let mut events = runtime.events();
        self.node.pods.synced().await;
        self.free_addresses().await;
        self.listen();
        self.clean_orphans().await;
        let mut relist = tokio::time::interval(self.node.config.relist_interval);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        relist.tick().await;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(RuntimeEvent::Changed { pod_uid, .. }) => {
                        if let Some(handle) = self.pods.lock().get(&pod_uid) {
                            handle.signal.runtime_changed();
                        }
                    }
                    Some(RuntimeEvent::Lost) => {
                        self.wake_all();
                        self.node.node_wake.notify_one();
                    }
                    None => {
                        warn!("the runtime's events ended, subscribing again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        events = runtime.events();
                        self.wake_all();
                    }
                },
                _ = relist.tick() => {
                    self.wake_all();
                    self.clean_orphans().await;
                }
            }
        }
    }

    fn wake_all(&self) {
        for handle in self.pods.lock().values() {
            handle.signal.runtime_changed();
        }
    }

    /// Ends what belongs to pods that are not in the API: they were deleted while nobody looked.
    async fn clean_orphans(self: &Arc<Self>) {
        let runtime = &self.node.config.runtime;
        let (sandboxes, containers) = match tokio::join!(runtime.sandboxes(), runtime.containers(None)) {
            (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
            (Err(error), _) | (_, Err(error)) => {
                warn!(%error, "orphans could not be looked for");
                return;
            }
        };
        let known: BTreeSet<String> = self.pods.lock().keys().cloned().collect();
        let uid_of = |c: &Container| c.labels.get(names::POD_UID).cloned().unwrap_or_default();
        let mut orphans: BTreeSet<String> = sandboxes.iter().map(|s| s.uid.clone()).collect();
        orphans.extend(containers.iter().map(uid_of));
        orphans.extend(self.node.volumes.known().await);
        orphans.retain(|uid| !uid.is_empty() && !known.contains(uid));
        for uid in orphans {
            let sandboxes: Vec<Sandbox> = sandboxes.iter().filter(|s| s.uid == uid).cloned().collect();
            let containers: Vec<Container> =
                containers.iter().filter(|c| uid_of(c) == uid).cloned().collect();
            info!(uid, containers = containers.len(), "cleaning up after a pod that is not in the API");
            let node = self.node.clone();
            self.node.scope.spawn_short(async move {
                if let Err(error) = end_orphan(&node, &uid, sandboxes, containers).await {
                    warn!(error, uid, "orphan could not be cleaned up, trying again later");
                }
            });
        }
    }

    /// Frees addresses of pods that vanished in a crash. Only before the first worker runs: later a pod could get its
    /// address between the question who lives and the answer.
    async fn free_addresses(&self) {
        if self.node.config.network.ready().await.is_err() {
            return;
        }
        let live: Vec<String> = self.node.pods.all().iter().map(|p| names::uid(p).to_owned()).collect();
        if let Err(error) = self.node.config.network.retain(&live).await {
            warn!(%error, "addresses of vanished pods could not be freed");
        }
    }
}

async fn end_orphan(
    node: &Node,
    uid: &str,
    sandboxes: Vec<Sandbox>,
    containers: Vec<Container>,
) -> Result<(), String> {
    let runtime = &node.config.runtime;
    let text = |e: RuntimeError| e.to_string();
    let stops = containers.iter().filter(|c| plan::is_running(c)).map(|c| {
        let grace = c.annotations.get(names::GRACE).and_then(|g| g.parse().ok()).unwrap_or(30);
        runtime.stop_container(&c.id, Duration::from_secs(grace))
    });
    for result in futures::future::join_all(stops).await {
        result.map_err(text)?;
    }
    for c in &containers {
        runtime.remove_container(&c.id).await.map_err(text)?;
    }
    node.config.network.remove(uid).await.map_err(|e| e.to_string())?;
    for s in &sandboxes {
        runtime.stop_sandbox(&s.id).await.map_err(text)?;
        runtime.remove_sandbox(&s.id).await.map_err(text)?;
    }
    node.volumes.tear_down(uid).await
}
