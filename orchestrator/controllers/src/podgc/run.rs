//! The shell: looks at all pods when one of them, or a node, changes in a way that matters here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, Scope, WorkQueue};
use tracing::info;

use super::plan::{self, Observed, Why};
use crate::error::{Error, Result, Step, is_conflict, is_not_found, settle};
use crate::meta::{is_deleting, name, namespace};
use crate::pods;
use crate::shared::Shared;

const QUEUE: &str = "pod_gc";

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) quarantine: SignedDuration,
    pub(crate) terminated_threshold: usize,
}

#[derive(Clone)]
struct Controller {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    settings: Settings,
    missing: Arc<Mutex<HashMap<String, Timestamp>>>,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, settings: Settings) {
    let controller = Controller {
        client: shared.client.clone(),
        pods: shared.pods.clone(),
        nodes: shared.nodes.clone(),
        settings,
        missing: Arc::default(),
    };
    let queue: WorkQueue<()> = WorkQueue::new(QUEUE);
    shared.pods.on_change({
        let (queue, nodes) = (queue.clone(), shared.nodes.clone());
        move |change| {
            let Change::Applied { new, .. } = change else { return };
            let lost = || nodes.is_synced() && nodes.get("", pods::node_name(new)).is_none();
            if is_deleting(&new.metadata)
                || pods::is_terminal(new)
                || (!pods::node_name(new).is_empty() && lost())
            {
                queue.add(());
            }
        }
    });
    shared.nodes.on_change({
        let queue = queue.clone();
        move |change| {
            let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
            match change {
                Change::Applied { old: Some(old), new } if taints(old) == taints(new) => {}
                _ => queue.add(()),
            }
        }
    });
    scope.spawn(QUEUE, async move {
        controller.nodes.synced().await;
        controller.pods.synced().await;
        queue.add(());
        queue.run(1, |()| settle(controller.reconcile())).await;
    });
}

impl Controller {
    async fn reconcile(&self) -> Result<Next> {
        let pods = self.pods.all();
        let nodes: HashMap<String, Arc<Node>> =
            self.nodes.all().into_iter().map(|n| (name(&n.metadata).to_owned(), n)).collect();
        let now = Timestamp::now();
        let missing = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = plan::missing_nodes(&pods, &nodes);
            missing.retain(|n, _| gone.contains(&n.as_str()));
            for node in gone {
                missing.entry(node.to_owned()).or_insert(now);
            }
            missing.clone()
        };
        let plan = plan::plan(&Observed {
            pods: &pods,
            nodes: &nodes,
            missing: &missing,
            quarantine: self.settings.quarantine,
            terminated_threshold: self.settings.terminated_threshold,
            now,
        });
        let mut verified: HashMap<String, bool> = HashMap::new();
        let mut failed = None;
        for (pod, why) in plan.remove {
            if why == Why::NodeGone && !self.is_gone(pods::node_name(&pod), &mut verified).await? {
                continue;
            }
            // One that cannot be removed must not keep the others.
            if let Err(error) = self.remove(&pod, why).await {
                failed = Some(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(plan.look_again.and_then(|left| Duration::try_from(left).ok()).map_or(Next::Done, Next::After))
    }

    /// Asks the server, once per node and look.
    async fn is_gone(&self, node: &str, verified: &mut HashMap<String, bool>) -> Result<bool> {
        if let Some(gone) = verified.get(node) {
            return Ok(*gone);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let gone = api.get_metadata_opt(node).await.step("read node")?.is_none();
        verified.insert(node.to_owned(), gone);
        Ok(gone)
    }

    async fn remove(&self, pod: &Pod, why: Why) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&pod.metadata));
        let pod_name = name(&pod.metadata);
        if let Some(message) = why.disruption().filter(|_| !pods::is_terminal(pod)) {
            let mut next = pod.clone();
            next.status.get_or_insert_default().phase = Some("Failed".to_owned());
            let reason = Some("DeletionByPodGC");
            pods::set_condition(
                &mut next,
                pods::DISRUPTION_TARGET,
                "True",
                reason,
                Some(message),
                Timestamp::now(),
            );
            api.replace_status(pod_name, &PostParams::default(), &next).await.step_or_gone("fail pod")?;
        }
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        match api.delete(pod_name, &DeleteParams::default().grace_period(0).preconditions(same)).await {
            Ok(_) => {
                info!(pod = pod_name, namespace = namespace(&pod.metadata), ?why, "pod removed");
                Ok(())
            }
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(source) => Err(Error::Api { step: "remove pod", source }),
        }
    }
}
