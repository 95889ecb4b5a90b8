//! The annotations by which a Deployment and its ReplicaSets remember revisions and sizes. Pure.

use crate::meta::Labels;

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.revision";

/// How many characters of old revisions a set remembers.
const HISTORY_CHARS: usize = 2000;

/// Annotations that belong to the one object and are not handed down.
fn is_own(key: &str) -> bool {
    matches!(key, LAST_APPLIED | REVISION | REVISION_HISTORY | DESIRED | MAX | ROLLBACK_TO)
}

pub(crate) fn number(annotations: &Labels, key: &str) -> Option<i64> {
    annotations.get(key)?.parse().ok()
}

/// The revision, 0 where there is none.
pub(crate) fn revision(annotations: &Labels) -> i64 {
    number(annotations, REVISION).unwrap_or_default()
}

/// Brings the annotations of the set for the current template up to date: the Deployment's own ones, and `revision`,
/// unless the set has a later one already. A set that had a revision before keeps it in its history.
pub(crate) fn set_current(set: &mut Labels, deployment: &Labels, revision: i64) {
    for (key, value) in deployment.iter().filter(|(key, _)| !is_own(key)) {
        set.insert(key.clone(), value.clone());
    }
    let old = set.get(REVISION).cloned();
    let old_number = old.as_deref().and_then(|r| r.parse::<i64>().ok());
    if old_number.unwrap_or_default() >= revision {
        return;
    }
    set.insert(REVISION.to_owned(), revision.to_string());
    if let Some(old) = old.filter(|_| old_number.is_some()) {
        let history = set.get(REVISION_HISTORY).cloned().unwrap_or_default();
        set.insert(REVISION_HISTORY.to_owned(), remember(&history, &old));
    }
}

/// Appends to the comma-separated history and drops its oldest entries where it grows too long.
fn remember(history: &str, revision: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|e| !e.is_empty()).collect();
    entries.push(revision);
    let mut length: usize = entries.iter().map(|e| e.len() + 1).sum::<usize>() - 1;
    let mut drop = 0;
    while length > HISTORY_CHARS && drop + 1 < entries.len() {
        length -= entries[drop].len() + 1;
        drop += 1;
    }
    entries[drop..].join(",")
}

/// The sizes that the set was last scaled for; proportional scaling starts from them.
pub(crate) fn set_sizes(set: &mut Labels, desired: i32, max: i32) {
    set.insert(DESIRED.to_owned(), desired.to_string());
    set.insert(MAX.to_owned(), max.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_rollback_moves_the_old_revision_into_the_history() {
        let mut set = map(&[(REVISION, "1")]);
        set_current(&mut set, &map(&[]), 3);
        assert_eq!(set, map(&[(REVISION, "3"), (REVISION_HISTORY, "1")]));
        set_current(&mut set, &map(&[]), 5);
        assert_eq!(set[REVISION_HISTORY], "1,3");
        set_current(&mut set, &map(&[]), 4);
        assert_eq!(set[REVISION], "5", "never goes back");
    }

    #[test]
    fn own_annotations_are_not_handed_down() {
        let mut set = map(&[]);
        let deployment = map(&[
            ("kubernetes.io/change-cause", "v2"),
            (LAST_APPLIED, "{}"),
            (REVISION, "9"),
            (DESIRED, "4"),
        ]);
        set_current(&mut set, &deployment, 2);
        assert_eq!(set, map(&[("kubernetes.io/change-cause", "v2"), (REVISION, "2")]));
    }

    #[test]
    fn a_long_history_forgets_its_oldest() {
        let history = (100..600).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let kept = remember(&history, "600");
        assert!(kept.len() <= HISTORY_CHARS);
        assert!(kept.ends_with(",599,600") && !kept.contains("100"));
    }
}
