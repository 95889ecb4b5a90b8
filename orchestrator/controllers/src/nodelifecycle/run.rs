//! The shell: hears every Lease renewal and node status as it comes, looks at the clocks while there are nodes, and
//! asks the server once more before it calls a node silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, EventSink, Scope, WorkQueue};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::plan::{self, Action, Memory, Settings};
use crate::error::{Result, Step, settle};
use crate::index::Index;
use crate::meta::{name, namespace, reference};
use crate::pods;
use crate::shared::Shared;

const LEASES: &str = "kube-node-lease";
/// Writes in flight at once when a node's pods are marked.
const PARALLEL: usize = 16;
const COALESCE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Controller {
    client: Client,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods_by_node: Index<Pod>,
    pods_to_mark: WorkQueue<String>,
    memory: Arc<Mutex<Memory>>,
    started: Instant,
    settings: Arc<Settings>,
    wake: Arc<Notify>,
    events: EventSink,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, settings: Settings) {
    let controller = Controller {
        client: shared.client.clone(),
        nodes: shared.nodes.clone(),
        leases: shared.leases.clone(),
        pods_by_node: shared.pods_by_node.clone(),
        pods_to_mark: WorkQueue::new("node_lifecycle_pods"),
        memory: Arc::default(),
        started: Instant::now(),
        settings: Arc::new(settings),
        wake: Arc::default(),
        events: EventSink::start(scope, shared.client.clone(), "node-controller", None),
    };
    shared.leases.on_change({
        let controller = controller.clone();
        move |change| controller.lease_changed(change)
    });
    shared.nodes.on_change({
        let controller = controller.clone();
        move |change| controller.node_changed(change)
    });
    let pods = shared.pods.clone();
    scope.spawn("node_lifecycle_pods", {
        let controller = controller.clone();
        async move {
            pods.synced().await;
            controller.pods_to_mark.clone().run(2, |node| settle(controller.mark_pods(node))).await;
        }
    });
    scope.spawn("node_lifecycle", async move {
        controller.nodes.synced().await;
        controller.leases.synced().await;
        controller.watch_clocks().await;
    });
}

fn heartbeat(node: &Node) -> Option<&Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready")?.last_heartbeat_time.as_ref()
}

fn renewed(lease: &Lease) -> Option<&MicroTime> {
    lease.spec.as_ref()?.renew_time.as_ref()
}

impl Controller {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, node: &str) {
        self.memory().heard(node, self.started.elapsed());
    }

    fn lease_changed(&self, change: &Change<Lease>) {
        let Change::Applied { old, new } = change else { return };
        if old.as_ref().is_none_or(|o| renewed(o) != renewed(new)) {
            self.heard(name(&new.metadata));
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        if let Change::Applied { old, new } = change
            && old.as_ref().is_none_or(|o| heartbeat(o) != heartbeat(new))
        {
            self.heard(name(&new.metadata));
        }
        self.wake.notify_one();
    }

    /// Time passes without events, so this is the one loop with a timer, and it rests while there is no node.
    async fn watch_clocks(&self) {
        loop {
            let nodes = self.nodes.all();
            if nodes.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let now = self.started.elapsed();
            let actions = plan::plan(&self.settings, &mut self.memory(), &nodes, now, Timestamp::now());
            let acted = !actions.is_empty();
            for action in actions {
                self.execute(action).await;
            }
            self.memory().looked(self.started.elapsed());
            let pause = tokio::time::sleep(self.settings.period);
            if acted {
                // Our own writes come back as changes: no need to look at them before the next period.
                pause.await;
            } else {
                tokio::select! {
                    () = pause => {}
                    // Many nodes report at about the same time; one look is enough for all of them.
                    () = self.wake.notified() => tokio::time::sleep(COALESCE).await,
                }
            }
        }
    }

    async fn execute(&self, action: Action) {
        match action {
            Action::MarkPods(node) => self.pods_to_mark.add(node),
            Action::Update { node, silent, conditions, taints } => {
                if silent && conditions.is_some() && !self.is_silent(&node).await {
                    return;
                }
                if let Err(error) = self.update(&node, conditions, taints).await {
                    // The next look plans it again.
                    debug!(%error, node = name(&node.metadata), "node not updated");
                }
            }
        }
    }

    /// Asks the server: our watch may be what is silent. When it does not answer, the fault is not the node's.
    async fn is_silent(&self, node: &Node) -> bool {
        let node_name = name(&node.metadata);
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let cached = self.leases.get(LEASES, node_name);
        match api.get_opt(node_name).await {
            Ok(live) => {
                let news = live.as_ref().and_then(renewed) != cached.as_deref().and_then(renewed);
                if news {
                    self.heard(node_name);
                }
                !news
            }
            Err(error) => {
                warn!(%error, node = node_name, "lease not read, node not judged");
                false
            }
        }
    }

    async fn update(
        &self,
        node: &Node,
        conditions: Option<Vec<NodeCondition>>,
        taints: Option<Vec<Taint>>,
    ) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node_name = name(&node.metadata);
        let mut version = node.metadata.resource_version.clone();
        if let Some(conditions) = conditions {
            let mut next = node.clone();
            next.status.get_or_insert_default().conditions = Some(conditions);
            let written = api
                .replace_status(node_name, &PostParams::default(), &next)
                .await
                .step("write conditions")?;
            version = written.metadata.resource_version;
            info!(node = node_name, "node is silent");
            let note = format!("Node {node_name} status is now: NodeNotReady");
            self.events.normal(reference(node), "NodeNotReady", "NodeNotReady", note);
        }
        if let Some(taints) = taints {
            let patch = json!({
                "metadata": {"uid": node.metadata.uid, "resourceVersion": version},
                "spec": {"taints": if taints.is_empty() { None } else { Some(taints) }},
            });
            api.patch(node_name, &PatchParams::default(), &Patch::Merge(patch)).await.step("write taints")?;
        }
        Ok(())
    }

    /// Takes the pods of an unfit node out of their Services by their Ready condition.
    async fn mark_pods(&self, node: String) -> Result<Next> {
        let Some(current) = self.nodes.get("", &node) else { return Ok(Next::Done) };
        if plan::ready_status(&current) == Some("True") && !self.memory_says_silent(&current) {
            return Ok(Next::Done);
        }
        let ready: Vec<Arc<Pod>> =
            self.pods_by_node.group(&node).into_iter().filter(|p| pods::is_ready(p)).collect();
        let results: Vec<Result<()>> =
            stream::iter(ready).map(|pod| self.mark(pod)).buffer_unordered(PARALLEL).collect().await;
        results.into_iter().collect::<Result<Vec<()>>>().map(|_| Next::Done)
    }

    /// The status that says so may still be on its way through the cache.
    fn memory_says_silent(&self, node: &Node) -> bool {
        self.memory().is_silent(name(&node.metadata))
    }

    async fn mark(&self, pod: Arc<Pod>) -> Result<()> {
        let mut next = (*pod).clone();
        pods::set_condition(&mut next, "Ready", "False", None, None, Timestamp::now());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&pod.metadata));
        let written = api
            .replace_status(name(&pod.metadata), &PostParams::default(), &next)
            .await
            .step_or_gone("mark pod not ready")?;
        if written.is_some() {
            let about = reference(&*pod);
            self.events.warning(about, "NodeNotReady", "MarkPodNotReady", "Node is not ready");
        }
        Ok(())
    }
}
