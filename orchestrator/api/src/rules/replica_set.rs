//! What the API does with a ReplicaSet.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{Errors, immutable, nonnegative};
use crate::rules::labels::{self, Mismatch};
use crate::rules::path::Path;
use crate::rules::value::{at, child, copy, fill, get, int, set};
use crate::rules::{meta, names, pod_template, workload};

pub static STRATEGY: ReplicaSetStrategy = ReplicaSetStrategy;

pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        pod_template::default(child(spec, "template"));
        fill(spec, "replicas", 1);
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
        let [now, before] = [new, old].map(|o| get(at(o, "spec"), "selector"));
        immutable(&mut errs, now, before, "spec.selector");
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
        printers::replica_set(obj, now)
    }
}

fn spec(errs: &mut Errors, spec: &Value) {
    let path = Path::root("spec");
    nonnegative(errs, spec, "replicas", &path);
    nonnegative(errs, spec, "minReadySeconds", &path);
    let template = at(spec, "template");
    let mismatch = labels::workload_selector(errs, spec, &path);
    if mismatch == Mismatch::Yes {
        errs.push(labels::mismatch_error(template, &path.child("template")));
    }
    if mismatch != Mismatch::Unknown {
        pod_template::validate(errs, template, "ReplicaSet", &path.child("template"));
    }
}
