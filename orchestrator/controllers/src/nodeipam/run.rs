//! The shell: one worker, so that no two nodes are given the same range.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, EventSink, Scope, WorkQueue};
use serde_json::json;
use tracing::warn;

use super::plan::{self, Action, Memory, PodCidrs};
use crate::error::{Result, Step, settle};
use crate::meta::{name, reference};
use crate::shared::Shared;

const QUEUE: &str = "node_ipam";

#[derive(Clone)]
struct Controller {
    client: Client,
    nodes: Cache<Node>,
    cidrs: Arc<PodCidrs>,
    memory: Arc<Mutex<Memory>>,
    events: EventSink,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, cidrs: PodCidrs) {
    let controller = Controller {
        client: shared.client.clone(),
        nodes: shared.nodes.clone(),
        cidrs: Arc::new(cidrs),
        memory: Arc::default(),
        events: EventSink::start(scope, shared.client.clone(), "node-ipam-controller", None),
    };
    let queue = WorkQueue::new(QUEUE);
    shared.nodes.on_change({
        let queue = queue.clone();
        move |change| queue.add(name(&change.object().metadata).to_owned())
    });
    scope.spawn(QUEUE, async move {
        controller.nodes.synced().await;
        queue.run(1, |node| settle(controller.reconcile(node))).await;
    });
}

impl Controller {
    async fn reconcile(&self, node: String) -> Result<Next> {
        let action = {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            plan::plan(&self.cidrs, &mut memory, &self.nodes.all(), &node)
        };
        let Some(object) = self.nodes.get("", &node) else { return Ok(Next::Done) };
        match action {
            None => {}
            Some(Action::Exhausted { node }) => {
                // Looked at again when a node goes, because every node's change comes through here only for itself.
                warn!(node, "no range of pod addresses is left");
                let note = format!("Node {node} status is now: CIDRNotAvailable");
                self.events.warning(reference(&*object), "CIDRNotAvailable", "AssignCIDR", note);
                return Ok(Next::After(std::time::Duration::from_secs(30)));
            }
            Some(Action::Assign { node, cidr }) => {
                let patch = json!({
                    "metadata": {"uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version},
                    "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
                });
                let api: Api<Node> = Api::all(self.client.clone());
                api.patch(&node, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .step_or_gone("assign range")?;
            }
        }
        Ok(Next::Done)
    }
}
