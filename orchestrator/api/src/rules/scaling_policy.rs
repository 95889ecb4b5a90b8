//! What the API does with a ScalingPolicy.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, nonnegative, nonnegative_all, required_text};
use crate::rules::horizontal_pod_autoscaler::{behavior, object_reference};
use crate::rules::path::Path;
use crate::rules::value::{
    at, child, copy, existing, fill, fill_text, get, has, int, list, opt_int, set, text,
};
use crate::rules::{durations, meta, names};

pub static STRATEGY: ScalingPolicyStrategy = ScalingPolicyStrategy;

const MODES: &[&str] = &["Auto", "Paused", "Recommend"];
const OBJECTIVES: [&str; 6] = ["resource", "rate", "latency", "inFlight", "queue", "prometheus"];
const DURATION_WHY: &str = "must be a positive duration such as 200ms, 30s, 5m or 10h";

pub struct ScalingPolicyStrategy;

impl Strategy for ScalingPolicyStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        fill(spec, "minReplicas", 1);
        fill_text(spec, "mode", "Auto");
        if let Some(forecast) = existing(spec, "forecast") {
            fill_text(forecast, "mode", "Off");
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "currentReplicas": 0, "desiredReplicas": 0 }));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"), &Path::root("spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        spec(&mut errs, at(new, "spec"), &Path::root("spec"));
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let counts = ["currentReplicas", "desiredReplicas", "observedGeneration"];
        nonnegative_all(&mut errs, at(new, "status"), &counts, &Path::root("status"));
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::scaling_policy(obj, now)
    }
}

fn spec(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let target = at(spec, "scaleTargetRef");
    let core = text(target, "kind") == "ReplicationController";
    object_reference(errs, target, core, &path.child("scaleTargetRef"));
    limits(errs, spec, path);
    checks::one_of(errs, text(spec, "mode"), MODES, path.child("mode"));
    let objectives = path.child("objectives");
    if list(spec, "objectives").is_empty() {
        errs.push(FieldError::required(objectives, "must specify at least one objective"));
    }
    for (i, o) in list(spec, "objectives").iter().enumerate() {
        objective(errs, o, &objectives.index(i));
    }
    let schedules = path.child("schedules");
    for (i, s) in list(spec, "schedules").iter().enumerate() {
        schedule(errs, s, &schedules.index(i));
    }
    if let Some(forecast) = get(spec, "forecast") {
        checks::one_of(errs, text(forecast, "mode"), &["Auto", "Off"], path.child("forecast").child("mode"));
    }
    if let Some(b) = get(spec, "behavior") {
        behavior(errs, b, &path.child("behavior"));
    }
    if let Some(zero) = get(spec, "scaleToZero") {
        scale_to_zero(errs, spec, zero, &path.child("scaleToZero"));
    }
    if let Some(fallback) = get(spec, "fallback") {
        let path = path.child("fallback");
        duration(errs, fallback, "after", true, &path);
        nonnegative(errs, fallback, "replicas", &path);
    }
}

fn limits(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (min, max) = (opt_int(spec, "minReplicas"), int(spec, "maxReplicas"));
    nonnegative(errs, spec, "minReplicas", path);
    if max <= 0 {
        errs.push(FieldError::invalid(path.child("maxReplicas"), &json!(max), "must be greater than 0"));
    }
    if min.is_some_and(|min| max < min) {
        let why = "must be greater than or equal to `minReplicas`";
        errs.push(FieldError::invalid(path.child("maxReplicas"), &json!(max), why));
    }
}

/// Exactly one kind of objective per entry.
fn objective(errs: &mut Errors, o: &Value, path: &Path<'_>) {
    let mut present = OBJECTIVES.into_iter().filter(|key| has(o, key));
    let Some(first) = present.next() else {
        let why = format!("must specify one of: {}", OBJECTIVES.join(", "));
        errs.push(FieldError::required(path, &why));
        return;
    };
    for key in present {
        errs.push(FieldError::forbidden(path.child(key), "may not specify more than 1 objective type"));
    }
    let (value, path) = (at(o, first), path.child(first));
    match first {
        "resource" => resource(errs, value, &path),
        "latency" => latency(errs, value, &path),
        "prometheus" => {
            prometheus_address(errs, value, &path);
            required_text(errs, value, "query", &path);
            per_pod(errs, value, &path);
        }
        _ => {
            required_text(errs, value, "metric", &path);
            per_pod(errs, value, &path);
            if let Some(object) = get(value, "object") {
                object_reference(errs, object, true, &path.child("object"));
            }
        }
    }
}

fn resource(errs: &mut Errors, r: &Value, path: &Path<'_>) {
    checks::required_one_of(errs, text(r, "name"), &["cpu", "memory"], path.child("name"));
    match (opt_int(r, "utilization"), get(r, "averageValue")) {
        (None, None) => {
            let why = "must set either utilization or averageValue";
            errs.push(FieldError::required(path.child("utilization"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both utilization and averageValue";
            errs.push(FieldError::forbidden(path.child("averageValue"), why));
        }
        (Some(n), None) if n < 1 => {
            errs.push(FieldError::invalid(path.child("utilization"), &json!(n), "must be greater than 0"));
        }
        (Some(_), None) => {}
        (None, Some(amount)) => {
            checks::positive_quantity(errs, amount, path.child("averageValue"));
        }
    }
}

fn latency(errs: &mut Errors, l: &Value, path: &Path<'_>) {
    required_text(errs, l, "metric", path);
    duration(errs, l, "target", true, path);
    let quantile = text(l, "quantile");
    if !quantile.parse::<f64>().is_ok_and(|q| q > 0.0 && q < 1.0) {
        let why = "must be a number between 0 and 1, such as \"0.95\"";
        errs.push(FieldError::invalid(path.child("quantile"), &json!(quantile), why));
    }
}

fn prometheus_address(errs: &mut Errors, p: &Value, path: &Path<'_>) {
    let address = text(p, "serverAddress");
    let host = ["http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    if address.is_empty() {
        errs.push(FieldError::required(path.child("serverAddress"), ""));
    } else if host.is_none_or(str::is_empty) {
        let why = "must be an address such as http://prometheus:9090";
        errs.push(FieldError::invalid(path.child("serverAddress"), &json!(address), why));
    }
}

fn per_pod(errs: &mut Errors, o: &Value, path: &Path<'_>) {
    match get(o, "perPod") {
        None => errs.push(FieldError::required(path.child("perPod"), "")),
        Some(amount) => {
            checks::positive_quantity(errs, amount, path.child("perPod"));
        }
    }
}

fn schedule(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let cron = text(s, "cron");
    if cron.is_empty() {
        errs.push(FieldError::required(path.child("cron"), ""));
    } else if !durations::is_cron(cron) {
        let why = "must have five cron fields: minute, hour, day of month, month, day of week";
        errs.push(FieldError::invalid(path.child("cron"), &json!(cron), why));
    }
    let zone = text(s, "timeZone");
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-');
    if has(s, "timeZone") && (zone.is_empty() || !zone.chars().all(allowed)) {
        let why = "must be a name of the tz database, such as Asia/Shanghai";
        errs.push(FieldError::invalid(path.child("timeZone"), &json!(zone), why));
    }
    duration(errs, s, "duration", true, path);
    nonnegative_all(errs, s, &["minReplicas", "maxReplicas"], path);
    let (min, max) = (opt_int(s, "minReplicas"), opt_int(s, "maxReplicas"));
    match (min, max) {
        (None, None) => {
            let why = "must set minReplicas or maxReplicas";
            errs.push(FieldError::required(path.child("minReplicas"), why));
        }
        (Some(min), Some(max)) if max < min => {
            let why = "must be greater than or equal to `minReplicas`";
            errs.push(FieldError::invalid(path.child("maxReplicas"), &json!(max), why));
        }
        _ => {}
    }
}

fn scale_to_zero(errs: &mut Errors, spec: &Value, zero: &Value, path: &Path<'_>) {
    duration(errs, zero, "after", true, path);
    duration(errs, zero, "hold", false, path);
    if int(spec, "minReplicas") != 0 {
        errs.push(FieldError::forbidden(path, "may only be specified when `minReplicas` is 0"));
    }
}

fn duration(errs: &mut Errors, v: &Value, key: &str, required: bool, path: &Path<'_>) {
    let value = text(v, key);
    if value.is_empty() {
        if required || has(v, key) {
            errs.push(FieldError::required(path.child(key), ""));
        }
    } else if durations::parse(value).is_none_or(|d| d.is_zero()) {
        errs.push(FieldError::invalid(path.child(key), &json!(value), DURATION_WHY));
    }
}
