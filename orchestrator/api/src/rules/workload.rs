//! What Deployment, ReplicaSet and ReplicationController have in common.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{Errors, nonnegative_all};
use crate::rules::path::Path;
use crate::rules::value::{at, int, text};
use crate::rules::{names, pod_warnings};

/// The counts in the status of a workload. `parts` may not exceed `status.replicas`.
pub(super) fn status(errs: &mut Errors, status: &Value, parts: &[&str], counts: &[&str]) {
    let path = Path::root("status");
    nonnegative_all(errs, status, &["replicas"], &path);
    nonnegative_all(errs, status, parts, &path);
    nonnegative_all(errs, status, counts, &path);
    for part in parts {
        greater(errs, status, part, "replicas", "cannot be greater than status.replicas", &path);
    }
    let why = "cannot be greater than readyReplicas";
    greater(errs, status, "availableReplicas", "readyReplicas", why, &path);
}

fn greater(errs: &mut Errors, status: &Value, key: &str, max: &str, why: &str, path: &Path<'_>) {
    if int(status, key) > int(status, max) {
        errs.push(FieldError::invalid(path.child(key), &json!(int(status, key)), why));
    }
}

/// Warnings for a workload: its name ends up in host names, and its template in pods.
pub(super) fn warnings(obj: &Value) -> Vec<String> {
    let mut out = name_warning(obj, "this is used in Pod names and hostnames");
    let template = at(at(obj, "spec"), "template");
    let spec = Path::root("spec");
    let path = spec.child("template");
    out.extend(pod_warnings::warnings(at(template, "metadata"), at(template, "spec"), Some(&path)));
    out
}

/// Said once, when the object is created, which is when it has no revision yet.
pub(super) fn name_warning(obj: &Value, used: &str) -> Vec<String> {
    let metadata = at(obj, "metadata");
    let complaints = names::dns1123_label(text(metadata, "name"));
    if complaints.is_empty() || !text(metadata, "resourceVersion").is_empty() {
        return Vec::new();
    }
    let complaints = complaints.join(" ");
    vec![format!(
        "metadata.name: {used}, which can result in surprising behavior; a DNS label is recommended: [{complaints}]"
    )]
}
