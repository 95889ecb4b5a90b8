//! What a terminating claim or volume is still needed for. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controller_uid, is_deleting, name, namespace, uid};
use crate::pods;

pub(crate) const CLAIM: &str = "kubernetes.io/pvc-protection";
pub(crate) const VOLUME: &str = "kubernetes.io/pv-protection";

/// It is being deleted and `finalizer` is one of those that keep it.
pub(crate) fn is_kept(meta: &ObjectMeta, finalizer: &str) -> bool {
    is_deleting(meta) && meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// The finalizers without `finalizer`.
pub(crate) fn others(meta: &ObjectMeta, finalizer: &str) -> Vec<String> {
    meta.finalizers.iter().flatten().filter(|f| *f != finalizer).cloned().collect()
}

/// The claim may go: none of `pods` can still have it mounted, or mount it.
pub(crate) fn frees_claim<'a>(
    claim: &PersistentVolumeClaim,
    pods: impl IntoIterator<Item = &'a Pod>,
) -> bool {
    is_kept(&claim.metadata, CLAIM) && !pods.into_iter().any(|pod| uses(pod, claim))
}

/// The volume may go: no claim is bound to it.
pub(crate) fn frees_volume(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    is_kept(&volume.metadata, VOLUME) && phase != Some("Bound")
}

/// The names of the claims that the pod's volumes stand on, its own ones included.
pub(crate) fn claim_names(pod: &Pod) -> Vec<String> {
    volumes(pod).filter_map(|v| named_claim(v).map(str::to_owned).or_else(|| own_claim(pod, v))).collect()
}

/// Pods without a node count too: nothing refuses to start one because its claim is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let claim_name = name(&claim.metadata);
    if namespace(&pod.metadata) != namespace(&claim.metadata) || pods::is_terminal(pod) {
        return false;
    }
    // A claim of that name that somebody else made is not the ephemeral volume's.
    let is_own = controller_uid(&claim.metadata) == Some(uid(&pod.metadata)) && !is_shut_down(pod);
    volumes(pod).any(|v| {
        named_claim(v) == Some(claim_name) || (is_own && own_claim(pod, v).as_deref() == Some(claim_name))
    })
}

/// Only finalizers keep it. Its own claims must not wait for it then: it may be waiting for them.
fn is_shut_down(pod: &Pod) -> bool {
    is_deleting(&pod.metadata) && pod.metadata.deletion_grace_period_seconds == Some(0)
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten())
}

fn named_claim(volume: &Volume) -> Option<&str> {
    volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str())
}

/// The claim that is made for an ephemeral volume.
fn own_claim(pod: &Pod, volume: &Volume) -> Option<String> {
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", name(&pod.metadata), volume.name))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
