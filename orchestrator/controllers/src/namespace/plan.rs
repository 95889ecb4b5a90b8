//! What is left of a namespace's content, and what its status says of it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta::is_deleting;

pub(crate) const FINALIZER: &str = "kubernetes";

/// What a round of deletions found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Round {
    pub(crate) discovery_errors: Vec<String>,
    pub(crate) content_errors: Vec<String>,
    /// By `resource.group`, how many objects are left.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// By finalizer, how many objects wait for it.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.discovery_errors.is_empty() && self.content_errors.is_empty()
    }
}

/// Only a namespace that is being deleted and still has our finalizer is ours to empty.
pub(crate) fn is_ours(namespace: &Namespace) -> bool {
    is_deleting(&namespace.metadata)
        && namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER)
}

pub(crate) fn status(old: Option<&NamespaceStatus>, round: &Round, now: Timestamp) -> NamespaceStatus {
    let old: Vec<NamespaceCondition> = old.and_then(|s| s.conditions.clone()).unwrap_or_default();
    let ours = conditions(round);
    let mut next: Vec<NamespaceCondition> =
        old.iter().filter(|c| !ours.iter().any(|(type_, ..)| *type_ == c.type_)).cloned().collect();
    for (type_, bad, reason, message) in ours {
        let status = if bad { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == type_);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        next.push(NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(now))),
        });
    }
    NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(next) }
}

fn conditions(round: &Round) -> [(&'static str, bool, &'static str, String); 5] {
    let pick = |bad: bool, reasons: [&'static str; 2]| if bad { reasons[0] } else { reasons[1] };
    let undiscovered = !round.discovery_errors.is_empty();
    let failed = !round.content_errors.is_empty();
    let remains = !round.remaining.is_empty();
    let waits = !round.finalizers.is_empty();
    let listed = |of: &BTreeMap<String, usize>, word: &str| -> String {
        of.iter().map(|(n, c)| format!("{n}{word} {c} resource instances")).collect::<Vec<_>>().join(", ")
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            undiscovered,
            pick(undiscovered, ["DiscoveryFailed", "ResourcesDiscovered"]),
            if undiscovered {
                format!(
                    "Discovery failed for some groups, {} failing: {}",
                    round.discovery_errors.len(),
                    round.discovery_errors.join(", ")
                )
            } else {
                "All resources successfully discovered".to_owned()
            },
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            pick(failed, ["ContentDeletionFailed", "ContentDeleted"]),
            if failed {
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    round.content_errors.len(),
                    round.content_errors.join(", ")
                )
            } else {
                "All content successfully deleted, may be waiting on finalization".to_owned()
            },
        ),
        (
            "NamespaceContentRemaining",
            remains,
            pick(remains, ["SomeResourcesRemain", "ContentRemoved"]),
            if remains {
                format!("Some resources are remaining: {}", listed(&round.remaining, " has"))
            } else {
                "All content successfully removed".to_owned()
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            waits,
            pick(waits, ["SomeFinalizersRemain", "ContentHasNoFinalizers"]),
            if waits {
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    listed(&round.finalizers, " in")
                )
            } else {
                "All content-preserving finalizers finished".to_owned()
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn only_a_namespace_that_goes_and_waits_for_us_is_ours() {
        let cases = [
            (json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}), false),
            (json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
            (
                json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "spec": {"finalizers": ["other", "kubernetes"]}}),
                true,
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(is_ours(&serde_json::from_value(value.clone()).unwrap()), expected, "{value}");
        }
    }

    #[test]
    fn the_status_names_what_is_left() {
        let mut round = Round::default();
        assert!(round.is_empty());
        let clean = status(None, &round, now());
        assert_eq!(clean.phase.as_deref(), Some("Terminating"));
        assert!(clean.conditions.iter().flatten().all(|c| c.status == "False"));
        round.remaining.insert("pods.".to_owned(), 2);
        round.finalizers.insert("example.com/x".to_owned(), 1);
        let left = status(Some(&clean), &round, now());
        let message = |type_: &str| {
            left.conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == type_)
                .and_then(|c| c.message.clone())
                .unwrap()
        };
        assert_eq!(
            message("NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message("NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances"
        );
        assert!(!round.is_empty());
        let later = now() + jiff::SignedDuration::from_secs(60);
        assert_eq!(status(Some(&left), &round, later), left, "times move only with the status");
    }
}
