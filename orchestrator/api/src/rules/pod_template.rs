//! The pod template of a workload: Deployment, ReplicaSet and ReplicationController.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::Errors;
use crate::rules::path::Path;
use crate::rules::pod_spec::{self, Scope};
use crate::rules::value::{at, has, list, text};
use crate::rules::{meta, pod, pod_defaults};

/// Fills in the defaults of a template.
pub fn default(template: &mut Value) {
    pod_defaults::pod_template(template);
}

/// Checks the template of a workload whose pods run for ever. `owner` is the kind in Kubernetes' messages.
pub fn validate(errs: &mut Errors, template: &Value, owner: &str, path: &Path<'_>) {
    let metadata = at(template, "metadata");
    meta::labels(errs, metadata, "labels", path);
    meta::annotations(errs, metadata, path.child("annotations"));
    let spec = at(template, "spec");
    let spec_path = path.child("spec");
    pod::annotations(errs, metadata, spec, path.child("annotations"));
    pod_spec::validate(errs, spec, Scope::Template, &spec_path);
    if !list(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errs.push(FieldError::forbidden(spec_path.child("ephemeralContainers"), why));
    }
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errs.push(FieldError::not_supported(spec_path.child("restartPolicy"), &json!(policy), &["Always"]));
    }
    if has(spec, "activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {owner} is not Supported");
        errs.push(FieldError::forbidden(spec_path.child("activeDeadlineSeconds"), &why));
    }
}
