//! The kubelet's own metrics, shared by all kubelets of the process.

use std::sync::LazyLock;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use prometheus::{
    Histogram, HistogramTimer, IntGauge, histogram_opts, register_histogram, register_int_gauge,
};

struct Metrics {
    running_pods: IntGauge,
    worker: Histogram,
    start: Histogram,
}

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    running_pods: register_int_gauge!("kubelet_running_pods", "Number of pods that have a worker.").unwrap(),
    worker: register_histogram!(histogram_opts!(
        "kubelet_pod_worker_duration_seconds",
        "Duration in seconds of one look at a pod.",
        vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
    ))
    .unwrap(),
    start: register_histogram!(histogram_opts!(
        "kubelet_pod_start_duration_seconds",
        "Duration in seconds from a pod's creation to its running.",
        vec![
            0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0,
            360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0
        ]
    ))
    .unwrap(),
});

pub(crate) fn worker_timer() -> HistogramTimer {
    METRICS.worker.start_timer()
}

pub(crate) fn pod_started(pod: &Pod, now: Timestamp) {
    if let Some(created) = &pod.metadata.creation_timestamp {
        METRICS.start.observe(now.duration_since(created.0).as_secs_f64().max(0.0));
    }
}

/// Counts a worker for as long as it lives.
pub(crate) struct Running;

impl Running {
    pub(crate) fn new() -> Self {
        METRICS.running_pods.inc();
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        METRICS.running_pods.dec();
    }
}
