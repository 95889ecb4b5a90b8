//! What the API does with a Deployment.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{Errors, immutable, invalid_each, nonnegative};
use crate::rules::labels::{self, Mismatch};
use crate::rules::path::Path;
use crate::rules::value::{at, child, copy, fill, fill_text, get, has, int, opt_int, same, set, text};
use crate::rules::{meta, names, pod_template, workload};

pub static STRATEGY: DeploymentStrategy = DeploymentStrategy;

pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        pod_template::default(child(spec, "template"));
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        let strategy = child(spec, "strategy");
        fill_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = child(strategy, "rollingUpdate");
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
        copy(child(new, "metadata"), at(old, "metadata"), "labels");
    }

    /// Annotations count: rollbacks and revision histories are written there.
    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec") || !same(at(new, "metadata"), at(old, "metadata"), "annotations")
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"), &Path::root("spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let path = Path::root("spec");
        spec(&mut errs, at(new, "spec"), &path);
        let [now, before] = [new, old].map(|o| get(at(o, "spec"), "selector"));
        immutable(&mut errs, now, before, path.child("selector"));
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let (now, before) = (at(new, "status"), at(old, "status"));
        let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        let counts = ["observedGeneration", "unavailableReplicas", "collisionCount"];
        workload::status(&mut errs, now, &parts, &counts);
        if has(before, "collisionCount") && int(now, "collisionCount") < int(before, "collisionCount") {
            let shown = json!(int(now, "collisionCount"));
            errs.push(FieldError::invalid("status.collisionCount", &shown, "cannot be decremented"));
        }
        errs
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        workload::warnings(obj)
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::deployment(obj, now)
    }
}

fn spec(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    nonnegative(errs, spec, "replicas", path);
    let template = at(spec, "template");
    let mismatch = labels::workload_selector(errs, spec, path);
    if mismatch == Mismatch::Yes {
        errs.push(labels::mismatch_error(template, &path.child("template")));
    }
    if mismatch != Mismatch::Unknown {
        pod_template::validate(errs, template, "ReplicaSet", &path.child("template"));
    }
    strategy(errs, at(spec, "strategy"), &path.child("strategy"));
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        nonnegative(errs, spec, key, path);
    }
    let ready = int(spec, "minReadySeconds");
    if let Some(deadline) = opt_int(spec, "progressDeadlineSeconds").filter(|d| *d <= ready) {
        let why = "must be greater than minReadySeconds";
        errs.push(FieldError::invalid(path.child("progressDeadlineSeconds"), &json!(deadline), why));
    }
}

fn strategy(errs: &mut Errors, strategy: &Value, path: &Path<'_>) {
    let rolling = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if has(strategy, "rollingUpdate") {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errs.push(FieldError::forbidden(rolling, why));
            }
        }
        "RollingUpdate" => match get(strategy, "rollingUpdate") {
            None => errs.push(FieldError::required(rolling, "this should be defaulted and never be nil")),
            Some(r) => rolling_update(errs, r, &rolling),
        },
        _ => errs.push(FieldError::not_supported(path, strategy, &["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(errs: &mut Errors, r: &Value, path: &Path<'_>) {
    let (unavailable, surge) = (at(r, "maxUnavailable"), at(r, "maxSurge"));
    count_or_percent(errs, unavailable, path.child("maxUnavailable"));
    count_or_percent(errs, surge, path.child("maxSurge"));
    if amount(unavailable) == 0 && amount(surge) == 0 {
        let why = "may not be 0 when `maxSurge` is 0";
        errs.push(FieldError::invalid(path.child("maxUnavailable"), unavailable, why));
    }
    if percent(unavailable).is_some_and(|p| p > 100) {
        let why = "must not be greater than 100%";
        errs.push(FieldError::invalid(path.child("maxUnavailable"), unavailable, why));
    }
}

fn count_or_percent(errs: &mut Errors, v: &Value, path: Path<'_>) {
    if let Some(text) = v.as_str() {
        invalid_each(errs, path, text, names::percent(text));
    } else if v.as_i64().is_some_and(|n| n < 0) {
        errs.push(FieldError::invalid(path, v, "must be greater than or equal to 0"));
    }
}

fn percent(v: &Value) -> Option<i64> {
    v.as_str().filter(|t| names::percent(t).is_empty())?.strip_suffix('%')?.parse().ok()
}

/// The number, of pods or per cent. Anything else counts as 0, as in Go.
fn amount(v: &Value) -> i64 {
    percent(v).or_else(|| v.as_i64()).or_else(|| v.as_str()?.parse().ok()).unwrap_or_default()
}
