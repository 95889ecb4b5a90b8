//! What the API does with a HorizontalPodAutoscaler in autoscaling/v1, which knows one metric only. Its objects are
//! stored, and so judged, as autoscaling/v2.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::{Strategy, convert};
use crate::printers;
use crate::rules::horizontal_pod_autoscaler::{self as v2, copy_status};
use crate::rules::value::{at, child, copy, fill, has, list, set};

pub static STRATEGY: HorizontalPodAutoscalerV1Strategy = HorizontalPodAutoscalerV1Strategy;

pub struct HorizontalPodAutoscalerV1Strategy;

impl Strategy for HorizontalPodAutoscalerV1Strategy {
    fn default(&self, obj: &mut Value) {
        fill(child(obj, "spec"), "minReplicas", 1);
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "currentReplicas": 0, "desiredReplicas": 0 }));
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
        v2::STRATEGY.validate_create(&stored(obj))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        v2::STRATEGY.validate_update(&stored(new), &stored(old))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        v2::STRATEGY.validate_status_update(&stored(new), &stored(old))
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        v2::STRATEGY.validate_name(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::horizontal_pod_autoscaler_v1(obj, now)
    }

    fn to_stored(&self, obj: Value) -> Value {
        stored(&obj)
    }

    fn from_stored(&self, obj: Value) -> Value {
        convert::autoscaler_v2_to_v1(obj)
    }
}

/// As v2, with the metric that is meant where none is given.
fn stored(obj: &Value) -> Value {
    let mut out = convert::autoscaler_v1_to_v2(obj.clone());
    let spec = child(&mut out, "spec");
    if list(spec, "metrics").is_empty() {
        set(spec, "metrics", vec![v2::default_metric()]);
    }
    if has(&out, "status") && !has(at(&out, "status"), "currentMetrics") {
        fill_null(child(&mut out, "status"), "currentMetrics");
    }
    out
}

/// The field is written even when there is nothing in it.
fn fill_null(v: &mut Value, key: &str) {
    if let Some(o) = v.as_object_mut() {
        o.entry(key).or_insert(Value::Null);
    }
}
