//! What the API does with a ReplicationController.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{Errors, nonnegative};
use crate::rules::labels;
use crate::rules::path::Path;
use crate::rules::value::{at, child, copy, entries, existing, fill, get, int, set};
use crate::rules::{meta, names, pod_template, workload};

pub static STRATEGY: ReplicationControllerStrategy = ReplicationControllerStrategy;

pub struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        fill(spec, "replicas", 1);
        let Some(template) = existing(spec, "template") else { return };
        pod_template::default(template);
        let Some(labels) = get(at(template, "metadata"), "labels").cloned() else { return };
        if entries(spec, "selector").next().is_none() {
            set(spec, "selector", labels.clone());
        }
        let metadata = child(obj, "metadata");
        if entries(metadata, "labels").next().is_none() {
            set(metadata, "labels", labels);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "replicas": 0 }));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        spec(&mut errs, at(new, "spec"));
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::status(&mut errs, at(new, "status"), &parts, &["observedGeneration"]);
        errs
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        workload::warnings(obj)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable(&self, obj: &Value, _field: &str) -> String {
        int(at(obj, "status"), "replicas").to_string()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::replication_controller(obj, now)
    }
}

fn spec(errs: &mut Errors, spec: &Value) {
    let path = Path::root("spec");
    nonnegative(errs, spec, "minReadySeconds", &path);
    if entries(spec, "selector").next().is_none() {
        errs.push(FieldError::required(path.child("selector"), ""));
    }
    nonnegative(errs, spec, "replicas", &path);
    let path = path.child("template");
    let Some(template) = get(spec, "template") else {
        errs.push(FieldError::required(path, ""));
        return;
    };
    let labels = at(at(template, "metadata"), "labels");
    if entries(spec, "selector").any(|(k, v)| labels.get(k) != Some(v)) {
        errs.push(labels::mismatch_error(template, &path));
    }
    pod_template::validate(errs, template, "ReplicationController", &path);
}
