//! The shell: a node's taints or pods change, or a toleration runs out.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, EventSink, Scope, WorkQueue};

use super::plan::{self, Fate};
use crate::error::{Error, Result, Step, is_conflict, is_not_found, settle};
use crate::index::Index;
use crate::meta::{name, namespace, reference};
use crate::pods;
use crate::shared::Shared;

const QUEUE: &str = "taint_eviction";
const PARALLEL: usize = 32;

#[derive(Clone)]
struct Controller {
    client: Client,
    nodes: Cache<Node>,
    pods_by_node: Index<Pod>,
    queue: WorkQueue<String>,
    events: EventSink,
    fast: bool,
    started: Timestamp,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, fast: bool) {
    let controller = Controller {
        client: shared.client.clone(),
        nodes: shared.nodes.clone(),
        pods_by_node: shared.pods_by_node.clone(),
        queue: WorkQueue::new(QUEUE),
        events: EventSink::start(scope, shared.client.clone(), "taint-eviction-controller", None),
        fast,
        started: Timestamp::now(),
    };
    let queue = controller.queue.clone();
    shared.nodes.on_change(move |change| {
        let before = match change {
            Change::Applied { old: Some(old), .. } => taints(old),
            _ => &[],
        };
        if taints(change.object()) != before {
            queue.add(name(&change.object().metadata).to_owned());
        }
    });
    let (queue, nodes) = (controller.queue.clone(), controller.nodes.clone());
    shared.pods.on_change(move |change| {
        let node = pods::node_name(change.object());
        if matches!(change, Change::Applied { .. }) && nodes.get("", node).is_some_and(|n| evicts(&n)) {
            queue.add(node.to_owned());
        }
    });
    let pods = shared.pods.clone();
    scope.spawn(QUEUE, async move {
        controller.nodes.synced().await;
        pods.synced().await;
        controller.queue.clone().run(2, |node| settle(controller.reconcile(node))).await;
    });
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn evicts(node: &Node) -> bool {
    taints(node).iter().any(|t| t.effect == crate::nodelifecycle::plan::NO_EXECUTE)
}

impl Controller {
    async fn reconcile(&self, node: String) -> Result<Next> {
        let Some(node) = self.nodes.get("", &node) else { return Ok(Next::Done) };
        if !evicts(&node) {
            return Ok(Next::Done);
        }
        let now = Timestamp::now();
        let mut due: Vec<(Arc<Pod>, bool)> = Vec::new();
        let mut next: Option<Timestamp> = None;
        for pod in self.pods_by_node.group(name(&node.metadata)) {
            let Fate::Evict { at, force } = plan::fate(&pod, taints(&node), self.fast, self.started) else {
                continue;
            };
            // One that is already going needs no second request, unless it can only go by force.
            if pod.metadata.deletion_timestamp.is_some() && !force {
                continue;
            }
            if at <= now {
                due.push((pod, force));
            } else {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        let results: Vec<Result<()>> = stream::iter(due)
            .map(|(pod, force)| self.evict(pod, force))
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        results.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(next
            .and_then(|at| Duration::try_from(at.duration_since(Timestamp::now())).ok())
            .map_or(Next::Done, Next::After))
    }

    async fn evict(&self, pod: Arc<Pod>, force: bool) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&pod.metadata));
        let pod_name = name(&pod.metadata);
        if !force {
            self.announce(&api, &pod).await?;
        }
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let mut params = DeleteParams::default().preconditions(same);
        if force {
            params = params.grace_period(0);
        }
        match api.delete(pod_name, &params).await {
            Ok(_) => {
                let note = format!("Marking for deletion Pod {}/{pod_name}", namespace(&pod.metadata));
                self.events.normal(reference(&*pod), "TaintManagerEviction", "DeletePod", note);
                Ok(())
            }
            // Gone, or another pod by the same name.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(source) => Err(Error::Api { step: "evict pod", source }),
        }
    }

    /// Says in the pod's status that it is not the pod's fault.
    async fn announce(&self, api: &Api<Pod>, pod: &Pod) -> Result<()> {
        let mut next = pod.clone();
        let message = "Taint manager: deleting due to NoExecute taint";
        let reason = Some("DeletionByTaintManager");
        pods::set_condition(
            &mut next,
            pods::DISRUPTION_TARGET,
            "True",
            reason,
            Some(message),
            Timestamp::now(),
        );
        if next == *pod {
            return Ok(());
        }
        api.replace_status(name(&pod.metadata), &PostParams::default(), &next)
            .await
            .step_or_gone("announce eviction")
            .map(drop)
    }
}
