//! What the server tells of itself, under kube-apiserver's metric names.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loadline_api::kinds::Kind;
use prometheus::{
    Encoder as _, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder, register_histogram_vec,
    register_int_counter_vec, register_int_gauge_vec,
};

/// The process-wide families; several servers in one process share them, as they share the registry.
struct Families {
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    watchers: IntGaugeVec,
    rejected: IntCounterVec,
    objects: IntGaugeVec,
}

#[expect(
    clippy::unwrap_used,
    reason = "names and labels are constants; a clash is a bug that every start would show"
)]
static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    Families {
    requests: register_int_counter_vec!(
        "apiserver_request_total",
        "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"]
    )
    .unwrap(),
    durations: register_histogram_vec!(
        "apiserver_request_duration_seconds",
        "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"],
        vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0]
    )
    .unwrap(),
    in_flight: register_int_gauge_vec!(
        "apiserver_current_inflight_requests",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        &["request_kind"]
    )
    .unwrap(),
    watchers: register_int_gauge_vec!(
        "apiserver_longrunning_requests",
        "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        &["verb", "group", "version", "resource", "subresource", "scope", "component"]
    )
    .unwrap(),
    rejected: register_int_counter_vec!(
        "apiserver_dropped_requests_total",
        "Number of requests dropped because too many were in flight.",
        &["request_kind"]
    )
    .unwrap(),
    objects: register_int_gauge_vec!(
        "apiserver_storage_objects",
        "Number of stored objects at the time of last check split by kind.",
        &["resource"]
    )
    .unwrap(),
}
});

/// What a finished request is counted under.
pub(crate) struct Labels<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Read,
    Write,
}

/// One server's view of the families, and its counts of requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Metrics {
    pub(crate) fn finished(&self, labels: &Labels<'_>, code: u16, took: Duration) {
        let verb = match labels.verb {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            other => other,
        };
        let dry_run = if labels.dry_run { "All" } else { "" };
        let l = labels;
        let (code, buffer) = code_text(code);
        let code = std::str::from_utf8(&buffer[..code]).unwrap_or_default();
        let base = [verb, dry_run, l.group, l.version, l.resource, l.subresource, l.scope, "apiserver"];
        let [a, b, c, d, e, f, g, h] = base;
        FAMILIES.requests.with_label_values(&[a, b, c, d, e, f, g, h, code]).inc();
        if labels.verb != "watch" {
            FAMILIES.durations.with_label_values(&base).observe(took.as_secs_f64());
        }
    }

    /// Counts a request in, unless there are too many of its kind already.
    pub(crate) fn admit(&self, kind: RequestKind, limit: usize) -> Option<InFlight<'_>> {
        let (counter, name) = match kind {
            RequestKind::Read => (&self.reads, "readOnly"),
            RequestKind::Write => (&self.writes, "mutating"),
        };
        if counter.fetch_add(1, Ordering::Relaxed) >= limit {
            counter.fetch_sub(1, Ordering::Relaxed);
            FAMILIES.rejected.with_label_values(&[name]).inc();
            return None;
        }
        Some(InFlight { counter })
    }

    /// Counts an open watch for as long as the guard lives.
    pub(crate) fn watching(&self, kind: &Kind) -> Watching {
        let scope = if kind.namespaced { "namespace" } else { "cluster" };
        let labels = ["WATCH", kind.group, kind.version, kind.resource, "", scope, "apiserver"];
        let gauge = FAMILIES.watchers.with_label_values(&labels);
        gauge.inc();
        Watching(gauge)
    }

    /// The whole process' metrics as text.
    pub(crate) fn text(&self, objects: impl Iterator<Item = (String, usize)>) -> Vec<u8> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        FAMILIES.in_flight.with_label_values(&["readOnly"]).set(count(self.reads.load(Ordering::Relaxed)));
        FAMILIES.in_flight.with_label_values(&["mutating"]).set(count(self.writes.load(Ordering::Relaxed)));
        for (resource, number) in objects {
            FAMILIES.objects.with_label_values(&[resource.as_str()]).set(count(number));
        }
        let mut out = Vec::with_capacity(64 * 1024);
        if let Err(error) = TextEncoder::new().encode(&prometheus::gather(), &mut out) {
            tracing::warn!(%error, "metrics cannot be written");
        }
        out
    }
}

fn code_text(code: u16) -> (usize, [u8; 3]) {
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or_default();
    (3, [digit(code / 100), digit(code / 10), digit(code)])
}

pub(crate) struct InFlight<'a> {
    counter: &'a AtomicUsize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) struct Watching(IntGauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}
