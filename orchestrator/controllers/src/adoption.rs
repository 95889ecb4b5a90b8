//! Who belongs to a controller: what it owns, what it may adopt, what it must let go. Pure.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::Selector;
use serde_json::{Value, json};

use crate::meta::{controller_uid, is_deleting, owners, selects, uid};

#[derive(Debug)]
pub(crate) struct Claim<K> {
    /// Owned and selected.
    pub(crate) owned: Vec<Arc<K>>,
    /// Selected, and nobody's.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Owned, and no longer selected.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts `objects` (all of the owner's namespace) by what `owner` has to do with them. An owner that is being deleted
/// neither adopts nor releases; `adoptable` says which orphans are worth having.
pub(crate) fn claim<K: Resource<DynamicType = ()>>(
    owner: &ObjectMeta,
    selector: &Selector,
    objects: Vec<Arc<K>>,
    adoptable: impl Fn(&K) -> bool,
) -> Claim<K> {
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in objects {
        let meta = object.meta();
        match controller_uid(meta) {
            Some(controller) if controller == uid(owner) => {
                if selects(selector, meta) {
                    claim.owned.push(object);
                } else if !is_deleting(owner) {
                    claim.release.push(object);
                }
            }
            Some(_) => {}
            None => {
                let may = !is_deleting(owner) && !is_deleting(meta) && selects(selector, meta);
                if may && adoptable(&object) {
                    claim.adopt.push(object);
                }
            }
        }
    }
    claim
}

/// A merge patch that makes `owner` the controller of the object, unless the object has changed since.
pub(crate) fn adopt_patch(meta: &ObjectMeta, owner: OwnerReference) -> Value {
    let mut list: Vec<OwnerReference> = owners(meta).iter().filter(|o| o.uid != owner.uid).cloned().collect();
    list.push(owner);
    owners_patch(meta, list)
}

/// A merge patch that removes the owners with these uids, unless the object has changed since.
pub(crate) fn release_patch(meta: &ObjectMeta, uids: &[&str]) -> Value {
    let list = owners(meta).iter().filter(|o| !uids.contains(&o.uid.as_str())).cloned().collect();
    owners_patch(meta, list)
}

pub(crate) fn owners_patch(meta: &ObjectMeta, list: Vec<OwnerReference>) -> Value {
    let list = if list.is_empty() { Value::Null } else { json!(list) };
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": list,
    }})
}
