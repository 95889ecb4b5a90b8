//! What the API does with a HorizontalPodAutoscaler in autoscaling/v2, the version that is stored.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, invalid_each, nonnegative_all};
use crate::rules::path::Path;
use crate::rules::value::{at, child, copy, existing, fill, get, has, int, list, object, opt_int, set, text};
use crate::rules::{labels, meta, names, resources};

pub static STRATEGY: HorizontalPodAutoscalerStrategy = HorizontalPodAutoscalerStrategy;

const CPU_UTILIZATION: i64 = 80;
const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const METRIC_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
/// The sources of a metric in the order in which they are looked at, and the `type` of each.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

pub struct HorizontalPodAutoscalerStrategy;

impl Strategy for HorizontalPodAutoscalerStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        fill(spec, "minReplicas", 1);
        if list(spec, "metrics").is_empty() {
            set(spec, "metrics", vec![default_metric()]);
        }
        if let Some(behavior) = existing(spec, "behavior") {
            scaling_rules(behavior);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "desiredReplicas": 0, "currentMetrics": null }));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy_status(new, old);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"), 1);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let zero = opt_int(at(old, "spec"), "minReplicas") == Some(0);
        spec(&mut errs, at(new, "spec"), i64::from(!zero));
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let counts = ["currentReplicas", "desiredReplicas"];
        nonnegative_all(&mut errs, at(new, "status"), &counts, &Path::root("status"));
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::horizontal_pod_autoscaler(obj, now)
    }
}

/// Keeps `status` as it is, `null` included.
pub fn copy_status(new: &mut Value, old: &Value) {
    match old.get("status") {
        Some(status) => set(new, "status", status.clone()),
        None => {
            object(new).remove("status");
        }
    }
}

pub fn default_metric() -> Value {
    json!({
        "type": "Resource",
        "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": CPU_UTILIZATION } },
    })
}

/// Where there is a behavior, both directions are spelt out. Scaling down has no window of its own by default.
fn scaling_rules(behavior: &mut Value) {
    let up = child(behavior, "scaleUp");
    fill(up, "stabilizationWindowSeconds", 0);
    fill(up, "selectPolicy", "Max");
    fill(
        up,
        "policies",
        json!([
            { "type": "Pods", "value": 4, "periodSeconds": 15 },
            { "type": "Percent", "value": 100, "periodSeconds": 15 },
        ]),
    );
    let down = child(behavior, "scaleDown");
    fill(down, "selectPolicy", "Max");
    fill(down, "policies", json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]));
}

fn spec(errs: &mut Errors, spec: &Value, min_bound: i64) {
    let path = Path::root("spec");
    let (min, max) = (opt_int(spec, "minReplicas"), int(spec, "maxReplicas"));
    if let Some(min) = min.filter(|m| *m < min_bound) {
        let why = format!("must be greater than or equal to {min_bound}");
        errs.push(FieldError::invalid(path.child("minReplicas"), &json!(min), &why));
    }
    let max_path = path.child("maxReplicas");
    if max == 0 {
        errs.push(FieldError::required(max_path, "must be set and greater than 0"));
    } else if max < 0 {
        errs.push(FieldError::invalid(max_path, &json!(max), "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        let why = "must be greater than or equal to `minReplicas`";
        errs.push(FieldError::invalid(max_path, &json!(max), why));
    }
    let target = at(spec, "scaleTargetRef");
    // The only scalable kind of the core group.
    let core = text(target, "kind") == "ReplicationController";
    object_reference(errs, target, core, &path.child("scaleTargetRef"));
    metrics(errs, spec, min == Some(0), &path.child("metrics"));
    if let Some(b) = get(spec, "behavior") {
        behavior(errs, b, &path.child("behavior"));
    }
}

/// A reference to an object of any version. Only some may be of the core group, which has no name.
pub fn object_reference(errs: &mut Errors, r: &Value, core: bool, path: &Path<'_>) {
    for key in ["kind", "name"] {
        let value = text(r, key);
        if value.is_empty() {
            errs.push(FieldError::required(path.child(key), ""));
        } else {
            invalid_each(errs, path.child(key), value, names::path_segment(value));
        }
    }
    let version = text(r, "apiVersion");
    let why = match version.split('/').count() {
        _ if version == "/" || version.is_empty() => {
            (!core).then(|| "apiVersion must specify API group".to_owned())
        }
        1 => (!core).then(|| "apiVersion must specify API group".to_owned()),
        2 if version.starts_with('/') && !core => Some("apiVersion must specify API group".to_owned()),
        2 => None,
        _ => Some(format!("unexpected GroupVersion string: {version}")),
    };
    if let Some(why) = why {
        errs.push(FieldError::invalid(path.child("apiVersion"), &json!(version), &why));
    }
}

fn metrics(errs: &mut Errors, spec: &Value, to_zero: bool, path: &Path<'_>) {
    let metrics = list(spec, "metrics");
    for (i, m) in metrics.iter().enumerate() {
        metric(errs, m, &path.index(i));
    }
    if to_zero && !metrics.iter().any(|m| matches!(text(m, "type"), "Object" | "External")) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errs.push(FieldError::forbidden(path, why));
    }
}

fn metric(errs: &mut Errors, m: &Value, path: &Path<'_>) {
    let kind = text(m, "type");
    if kind.is_empty() {
        errs.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(key, _)| *key).filter(|key| has(m, key)).collect();
    checks::one_of(errs, kind, METRIC_TYPES, path.child("type"));
    if let Some(first) = present.first() {
        source(errs, first, at(m, first), &path.child(first));
    }
    let expected = SOURCES.iter().find(|(_, k)| *k == kind).map(|(key, _)| *key);
    match expected {
        Some(key) if !has(m, key) => {
            let why = "must populate information for the given metric source";
            errs.push(FieldError::required(path.child(key), why));
        }
        Some(_) => {}
        None => checks::one_of(errs, kind, METRIC_TYPES, path.child("type")),
    }
    if present.len() != 1 {
        for key in present.iter().filter(|key| Some(**key) != expected) {
            errs.push(FieldError::forbidden(path.child(key), "must populate the given metric source only"));
        }
    }
}

fn source(errs: &mut Errors, kind: &str, s: &Value, path: &Path<'_>) {
    match kind {
        "object" => {
            object_reference(errs, at(s, "describedObject"), true, &path.child("describedObject"));
            identifier(errs, s, path);
        }
        "external" | "pods" => identifier(errs, s, path),
        _ => resource_source(errs, kind, s, path),
    }
    let target = at(s, "target");
    let path = path.child("target");
    target_values(errs, target, &path);
    let [value, average, utilization] =
        ["value", "averageValue", "averageUtilization"].map(|key| has(target, key));
    match kind {
        "object" if !value && !average => {
            let why = "must set either a target value or averageValue";
            errs.push(FieldError::required(path.child("averageValue"), why));
        }
        "external" if !value && !average => {
            let why = "must set either a target value for metric or a per-pod target";
            errs.push(FieldError::required(path.child("averageValue"), why));
        }
        "external" if value && average => {
            let why = "may not set both a target value for metric and a per-pod target";
            errs.push(FieldError::forbidden(path.child("value"), why));
        }
        "pods" if !average => {
            let why = "must specify a positive target averageValue";
            errs.push(FieldError::required(path.child("averageValue"), why));
        }
        "resource" | "containerResource" if !utilization && !average => {
            let why = "must set either a target raw value or a target utilization";
            errs.push(FieldError::required(path.child("averageUtilization"), why));
        }
        "resource" | "containerResource" if utilization && average => {
            let why = "may not set both a target raw value and a target utilization";
            errs.push(FieldError::forbidden(path.child("averageValue"), why));
        }
        _ => {}
    }
}

fn resource_source(errs: &mut Errors, kind: &str, s: &Value, path: &Path<'_>) {
    let name = text(s, "name");
    if name.is_empty() {
        errs.push(FieldError::required(path.child("name"), "must specify a resource name"));
    } else if kind == "containerResource" {
        resources::metric_resource_name(errs, name, path.child("name"));
    }
    if kind != "containerResource" {
        return;
    }
    let container = text(s, "container");
    if container.is_empty() {
        errs.push(FieldError::required(path.child("container"), "must specify a container"));
    } else {
        invalid_each(errs, path.child("container"), container, names::dns1123_label(container));
    }
}

fn identifier(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let metric = at(s, "metric");
    let path = path.child("metric");
    let name = text(metric, "name");
    if name.is_empty() {
        errs.push(FieldError::required(path.child("name"), "must specify a metric name"));
    } else {
        invalid_each(errs, path.child("name"), name, names::path_segment(name));
    }
    labels::selector(errs, metric, "selector", &path);
}

fn target_values(errs: &mut Errors, target: &Value, path: &Path<'_>) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errs.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errs.push(FieldError::invalid(path.child("type"), &json!(kind), why));
    }
    for key in ["value", "averageValue"] {
        let Some(amount) = get(target, key) else { continue };
        let q = checks::quantity(amount);
        if q.is_negative() || q.is_zero() {
            errs.push(FieldError::invalid(path.child(key), amount, "must be positive"));
        }
    }
    if let Some(n) = opt_int(target, "averageUtilization").filter(|n| *n < 1) {
        errs.push(FieldError::invalid(path.child("averageUtilization"), &json!(n), "must be greater than 0"));
    }
}

/// Rates and windows of scaling; ScalingPolicies have them too.
pub fn behavior(errs: &mut Errors, b: &Value, path: &Path<'_>) {
    for key in ["scaleUp", "scaleDown"] {
        if let Some(r) = get(b, key) {
            rules(errs, r, &path.child(key));
        }
    }
}

fn rules(errs: &mut Errors, r: &Value, path: &Path<'_>) {
    let key = "stabilizationWindowSeconds";
    if let Some(window) = opt_int(r, key) {
        if window < 0 {
            let why = "must be greater than or equal to zero";
            errs.push(FieldError::invalid(path.child(key), &json!(window), why));
        }
        if window > WINDOW_SECONDS_MAX {
            let why = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errs.push(FieldError::invalid(path.child(key), &json!(window), &why));
        }
    }
    checks::optional_one_of(errs, r, "selectPolicy", &["Disabled", "Max", "Min"], path);
    let policies = path.child("policies");
    if list(r, "policies").is_empty() {
        errs.push(FieldError::required(policies, "must specify at least one Policy"));
    }
    for (i, p) in list(r, "policies").iter().enumerate() {
        policy(errs, p, &policies.index(i));
    }
    if let Some(tolerance) = get(r, "tolerance") {
        checks::nonnegative_quantity(errs, tolerance, path.child("tolerance"));
    }
}

fn policy(errs: &mut Errors, p: &Value, path: &Path<'_>) {
    checks::one_of(errs, text(p, "type"), &["Percent", "Pods"], path.child("type"));
    checks::positive_int(errs, int(p, "value"), path.child("value"));
    let period = int(p, "periodSeconds");
    checks::positive_int(errs, period, path.child("periodSeconds"));
    if period > PERIOD_SECONDS_MAX {
        let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
        errs.push(FieldError::invalid(path.child("periodSeconds"), &json!(period), &why));
    }
}
