//! The autoscaler's own metrics, in the process-wide registry.

use std::sync::LazyLock;

use prometheus::{
    GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, exponential_buckets, register_gauge_vec,
    register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};

use crate::decision::{ACTIVE, Decision};
use crate::record::{Read, Record};
use crate::ring::Key;

struct Metrics {
    decisions: IntCounterVec,
    duration: HistogramVec,
    desired: IntGaugeVec,
    current: IntGaugeVec,
    age: GaugeVec,
}

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let object = &["kind", "namespace", "name"];
    Metrics {
        decisions: register_int_counter_vec!(
            "loadline_autoscaler_decisions_total",
            "Decisions, by profile and by what was done: up, down, none, held, failed.",
            &["profile", "action"]
        )
        .unwrap(),
        duration: register_histogram_vec!(
            "loadline_autoscaler_decision_duration_seconds",
            "How long the decision itself takes, reading excluded.",
            &["profile"],
            exponential_buckets(1e-6, 10.0, 7).unwrap()
        )
        .unwrap(),
        desired: register_int_gauge_vec!(
            "loadline_autoscaler_desired_replicas",
            "Replicas that the last decision asks for.",
            object
        )
        .unwrap(),
        current: register_int_gauge_vec!(
            "loadline_autoscaler_current_replicas",
            "Replicas in the target's spec at the last decision.",
            object
        )
        .unwrap(),
        age: register_gauge_vec!(
            "loadline_autoscaler_input_age_seconds",
            "Age of the oldest sample that the last decision saw.",
            object
        )
        .unwrap(),
    }
});

pub(crate) fn decided(
    key: &Key,
    profile: &str,
    record: &Record,
    decision: &Decision,
    refused: bool,
    seconds: f64,
) {
    let action = match &decision.rescale {
        Some(_) if refused => "failed",
        Some(rescale) if rescale.to > decision.current => "up",
        Some(_) => "down",
        None if decision.hold.is_some() => "held",
        None if matches!(record.scale, Read::Error(_)) => "failed",
        None if decision.find(ACTIVE).is_some_and(|c| c.status == "False") => "failed",
        None => "none",
    };
    METRICS.decisions.with_label_values(&[profile, action]).inc();
    METRICS.duration.with_label_values(&[profile]).observe(seconds);
    let labels = labels(key);
    METRICS.desired.with_label_values(&labels).set(i64::from(decision.desired));
    METRICS.current.with_label_values(&labels).set(i64::from(decision.current));
    let oldest = record.pods.iter().filter_map(|p| p.sample.as_ref()).map(|s| s.age).max();
    if let Some(age) = oldest {
        METRICS.age.with_label_values(&labels).set(age as f64 / 1000.0);
    }
}

/// The object is gone; a series that never changes again would look alive.
pub(crate) fn forget(key: &Key) {
    let labels = labels(key);
    // An error means that there was no such series.
    let _ = METRICS.desired.remove_label_values(&labels);
    let _ = METRICS.current.remove_label_values(&labels);
    let _ = METRICS.age.remove_label_values(&labels);
}

fn labels(key: &Key) -> [&str; 3] {
    [key.kind.as_str(), &key.namespace, &key.name]
}
