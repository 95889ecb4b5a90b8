//! The fate of a pod under the taints of its node. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use crate::meta::controller_of;
use crate::nodelifecycle::plan::{NO_EXECUTE, NOT_READY, UNREACHABLE};
use crate::pods;

/// What admission adds to every pod that has nothing of its own to say.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stay,
    /// From then on it is to be deleted; `force` without waiting for a kubelet that cannot answer.
    Evict {
        at: Timestamp,
        force: bool,
    },
}

/// `since` is the earliest moment that a clock may count from: when this controller started.
pub(crate) fn fate(pod: &Pod, taints: &[Taint], fast: bool, since: Timestamp) -> Fate {
    let taints: Vec<&Taint> = taints.iter().filter(|t| t.effect == NO_EXECUTE).collect();
    if taints.is_empty() || pods::is_terminal(pod) {
        return Fate::Stay;
    }
    let force = fast && is_replicated(pod) && taints.iter().any(|t| t.key == UNREACHABLE);
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut at: Option<Timestamp> = None;
    for taint in taints {
        let start = taint.time_added.as_ref().map_or(since, |t| t.0.max(since));
        let matching = tolerations.iter().filter(|t| tolerates(t, taint) && !(force && is_default(t)));
        // Of several matching tolerations the shortest counts; one without seconds sets no limit of its own.
        let mut tolerated = false;
        let mut shortest: Option<i64> = None;
        for toleration in matching {
            tolerated = true;
            if let Some(seconds) = toleration.toleration_seconds {
                shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
            }
        }
        let due = match (tolerated, shortest) {
            (false, _) => Some(start),
            (true, None) => None,
            (true, Some(seconds)) => start.checked_add(SignedDuration::from_secs(seconds.max(0))).ok(),
        };
        at = [at, due].into_iter().flatten().min();
    }
    at.map_or(Fate::Stay, |at| Fate::Evict { at, force })
}

/// Its controller replaces it with another one that shares nothing with it.
fn is_replicated(pod: &Pod) -> bool {
    controller_of(&pod.metadata)
        .is_some_and(|o| matches!(o.kind.as_str(), "ReplicaSet" | "ReplicationController"))
}

fn is_default(toleration: &Toleration) -> bool {
    matches!(toleration.key.as_deref(), Some(NOT_READY | UNREACHABLE))
        && toleration.operator.as_deref() == Some("Exists")
        && toleration.effect.as_deref() == Some(NO_EXECUTE)
        && toleration.toleration_seconds == Some(DEFAULT_TOLERATION_SECONDS)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |o: &Option<String>| o.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        Some(_) => false,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
