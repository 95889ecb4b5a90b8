//! Which pods go, and why. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::meta::{created, is_deleting, name};
use crate::nodelifecycle::plan::ready_status;
use crate::pods;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The node does not exist any more; to be verified.
    NodeGone,
    OutOfService,
    NeverScheduled,
    TooManyFinished,
}

impl Why {
    /// The reason and words of the condition that tells the user that it was not the pod's fault.
    pub(crate) fn disruption(self) -> Option<&'static str> {
        match self {
            Self::NodeGone => Some("PodGC: node no longer exists"),
            Self::OutOfService => Some("PodGC: node is out of service"),
            Self::NeverScheduled | Self::TooManyFinished => None,
        }
    }
}

pub(crate) struct Observed<'a> {
    pub(crate) pods: &'a [Arc<Pod>],
    pub(crate) nodes: &'a HashMap<String, Arc<Node>>,
    /// Since when nodes that pods are bound to have been missing.
    pub(crate) missing: &'a HashMap<String, Timestamp>,
    pub(crate) quarantine: SignedDuration,
    pub(crate) terminated_threshold: usize,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) remove: Vec<(Arc<Pod>, Why)>,
    pub(crate) look_again: Option<SignedDuration>,
}

/// Nodes that pods are bound to and that are not there.
pub(crate) fn missing_nodes<'a>(pods: &'a [Arc<Pod>], nodes: &HashMap<String, Arc<Node>>) -> Vec<&'a str> {
    let mut missing: Vec<&str> = pods
        .iter()
        .map(|p| pods::node_name(p))
        .filter(|n| !n.is_empty() && !nodes.contains_key(*n))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

pub(crate) fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    for pod in observed.pods {
        let node = pods::node_name(pod);
        let why = if node.is_empty() {
            is_deleting(&pod.metadata).then_some(Why::NeverScheduled)
        } else {
            match observed.nodes.get(node) {
                Some(n) => (is_deleting(&pod.metadata) && is_out_of_service(n)).then_some(Why::OutOfService),
                None => orphan(observed, node, &mut plan.look_again),
            }
        };
        plan.remove.extend(why.map(|why| (pod.clone(), why)));
    }
    let doomed: Vec<Option<&str>> = plan.remove.iter().map(|(p, _)| p.metadata.uid.as_deref()).collect();
    let mut finished: Vec<&Arc<Pod>> = observed
        .pods
        .iter()
        .filter(|p| pods::is_terminal(p) && !doomed.contains(&p.metadata.uid.as_deref()))
        .collect();
    let excess = finished.len().saturating_sub(observed.terminated_threshold);
    if excess > 0 {
        finished
            .sort_by_key(|p| (!is_evicted(p), created(&p.metadata).cloned(), name(&p.metadata).to_owned()));
        plan.remove.extend(finished.into_iter().take(excess).map(|p| (p.clone(), Why::TooManyFinished)));
    }
    plan
}

fn orphan(observed: &Observed<'_>, node: &str, look_again: &mut Option<SignedDuration>) -> Option<Why> {
    // A node may be re-registering; what is missing for the first time now is looked at again after the quarantine.
    let since = observed.missing.get(node).copied().unwrap_or(observed.now);
    let left = observed.quarantine - observed.now.duration_since(since);
    if !left.is_positive() {
        return Some(Why::NodeGone);
    }
    *look_again = Some(look_again.map_or(left, |l| l.min(left)));
    None
}

fn is_out_of_service(node: &Node) -> bool {
    let tainted = node.spec.iter().flat_map(|s| s.taints.iter().flatten()).any(|t| t.key == OUT_OF_SERVICE);
    tainted && ready_status(node) != Some("True")
}

fn is_evicted(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
