//! Who owns whom, as the watches show it. A change says what to look at; nothing is decided here. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::meta::{Key, is_deleting, owners, uid};
use crate::monitors::Kind;

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: Arc<Kind>,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) deleting: bool,
    /// Waits for its dependents to go first.
    pub(crate) foreground: bool,
    /// Waits for its dependents to be let go.
    pub(crate) orphaning: bool,
}

impl Item {
    pub(crate) fn new(kind: &Arc<Kind>, meta: &ObjectMeta) -> Self {
        let deleting = is_deleting(meta);
        Self {
            kind: kind.clone(),
            key: Key::of(meta),
            uid: uid(meta).to_owned(),
            owners: owners(meta).to_vec(),
            deleting,
            foreground: deleting && has_finalizer(meta, FOREGROUND),
            orphaning: deleting && has_finalizer(meta, ORPHAN),
        }
    }

    /// Whether the owner with this uid must wait for the item.
    pub(crate) fn blocks(&self, owner: &str) -> bool {
        self.owners.iter().any(|o| o.uid == owner && o.block_owner_deletion == Some(true))
    }
}

pub(crate) fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Something to look at, by uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Should it be deleted, or released from owners that are gone?
    Delete(String),
    /// Its dependents are to be let go.
    Orphan(String),
}

#[derive(Default)]
pub(crate) struct Graph {
    items: HashMap<String, Item>,
    /// By the owner's uid, whether or not that owner has been seen.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    pub(crate) fn dependents(&self, uid: &str) -> Vec<Item> {
        let uids = self.dependents.get(uid);
        uids.into_iter().flatten().filter_map(|u| self.items.get(u)).cloned().collect()
    }

    /// The item as it is now; what that asks to be looked at.
    pub(crate) fn observe(&mut self, item: Item) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = item.uid.clone();
        let old = self.items.get(&uid).cloned();
        let old_owners = old.as_ref().map(|o| o.owners.as_slice()).unwrap_or_default();
        for owner in &item.owners {
            if old_owners.iter().any(|o| o.uid == owner.uid) {
                continue;
            }
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            // An owner that nobody has seen may be gone; one that is going may have to wait for this one.
            if self.items.get(&owner.uid).is_none_or(|o| o.foreground) {
                work.push(Work::Delete(uid.clone()));
            }
        }
        for owner in old_owners {
            let still = item.owners.iter().find(|o| o.uid == owner.uid);
            if still.is_none() {
                self.unlink(&owner.uid, &uid);
            }
            let unblocked = owner.block_owner_deletion == Some(true)
                && still.is_none_or(|o| o.block_owner_deletion != Some(true));
            if unblocked && self.items.get(&owner.uid).is_some_and(|o| o.foreground) {
                work.push(Work::Delete(owner.uid.clone()));
            }
        }
        if item.foreground && !old.as_ref().is_some_and(|o| o.foreground) {
            let dependents = self.dependents.get(&uid);
            work.extend(dependents.into_iter().flatten().cloned().map(Work::Delete));
            work.push(Work::Delete(uid.clone()));
        }
        if item.orphaning && !old.as_ref().is_some_and(|o| o.orphaning) {
            work.push(Work::Orphan(uid.clone()));
        }
        self.items.insert(uid, item);
        work.dedup();
        work
    }

    /// The item is gone: its dependents may be garbage now, and owners that waited for it may go.
    pub(crate) fn forget(&mut self, uid: &str) -> Vec<Work> {
        let mut work = Vec::new();
        if let Some(item) = self.items.remove(uid) {
            for owner in &item.owners {
                self.unlink(&owner.uid, uid);
                if self.items.get(&owner.uid).is_some_and(|o| o.foreground) {
                    work.push(Work::Delete(owner.uid.clone()));
                }
            }
        }
        let dependents = self.dependents.get(uid);
        work.extend(dependents.into_iter().flatten().cloned().map(Work::Delete));
        work
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
