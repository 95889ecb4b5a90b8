//! What becomes of an item, given how its owners and dependents are. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PropagationPolicy;

use super::graph::{FOREGROUND, Item, ORPHAN, has_finalizer};

/// What the server says of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is there, or cannot be told to be gone.
    Solid,
    /// There is no object with this uid.
    Absent,
    /// It waits for its dependents to go first.
    Waiting,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    Keep,
    /// It has other owners: only these are to be struck out.
    DropOwners(Vec<String>),
    /// Owners that block each other in a circle are unblocked first.
    Delete {
        policy: PropagationPolicy,
        unblock: bool,
    },
}

/// `owners` in the order of the item's references.
pub(crate) fn decide(live: &ObjectMeta, owners: &[(String, Owner)], dependents: &[Item]) -> Decision {
    let of = |state: Owner| owners.iter().filter(move |(_, o)| *o == state).map(|(uid, _)| uid.clone());
    let gone: Vec<String> = of(Owner::Absent).chain(of(Owner::Waiting)).collect();
    if owners.is_empty() {
        return Decision::Keep;
    }
    if of(Owner::Solid).next().is_some() {
        return if gone.is_empty() { Decision::Keep } else { Decision::DropOwners(gone) };
    }
    if of(Owner::Waiting).next().is_some() && !dependents.is_empty() {
        // The owner waits for this one, so this one waits for its own; in a circle nobody would ever go.
        let circle = dependents.iter().any(|d| d.foreground);
        return Decision::Delete { policy: PropagationPolicy::Foreground, unblock: circle };
    }
    let policy = if has_finalizer(live, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(live, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    Decision::Delete { policy, unblock: false }
}

/// What an owner that waits for its dependents still waits for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Foreground {
    /// Nothing: its finalizer goes.
    Done,
    /// These are to be looked at again, by uid.
    Wait(Vec<String>),
}

pub(crate) fn foreground(uid: &str, dependents: &[Item]) -> Foreground {
    let blocking: Vec<&Item> = dependents.iter().filter(|d| d.blocks(uid)).collect();
    if blocking.is_empty() {
        return Foreground::Done;
    }
    Foreground::Wait(blocking.into_iter().filter(|d| !d.foreground).map(|d| d.uid.clone()).collect())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
