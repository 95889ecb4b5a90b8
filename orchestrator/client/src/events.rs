//! Events leave through one bounded queue; what it drops is counted.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ObjectReference;
use prometheus::{IntCounterVec, register_int_counter_vec};
use tokio::sync::mpsc;
use tracing::debug;

use crate::supervise::Scope;

mod series;

use series::{Occurrence, Writer};

const QUEUE: usize = 1000;

#[expect(clippy::unwrap_used, reason = "the name is constant and registered once")]
static DROPPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!(
        "loadline_events_dropped_total",
        "Events that found the queue full.",
        &["reporter"]
    )
    .unwrap()
});

/// Writes Events about objects without ever making the caller wait. What is said again of the same object in the same
/// words is counted in a series.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<Occurrence>,
    reporter: &'static str,
}

impl EventSink {
    /// `reporter` is the component (`deployment-controller`), `instance` the node for per-node components.
    pub fn start(
        scope: &Scope,
        client: kube::Client,
        reporter: &'static str,
        instance: Option<String>,
    ) -> Self {
        let (queue, mut events) = mpsc::channel::<Occurrence>(QUEUE);
        let mut writer = Writer::new(client, reporter, instance);
        scope.spawn("events", async move {
            while let Some(event) = events.recv().await {
                let reason = event.reason.clone();
                if let Err(error) = writer.write(event).await {
                    debug!(%error, reason, "event not written");
                }
            }
            std::future::pending::<()>().await;
        });
        Self { queue, reporter }
    }

    pub fn normal(&self, about: ObjectReference, reason: &str, action: &str, note: impl Into<String>) {
        self.send("Normal", about, reason, action, note.into());
    }

    pub fn warning(&self, about: ObjectReference, reason: &str, action: &str, note: impl Into<String>) {
        self.send("Warning", about, reason, action, note.into());
    }

    fn send(&self, type_: &'static str, about: ObjectReference, reason: &str, action: &str, note: String) {
        let (reason, action) = (reason.to_owned(), action.to_owned());
        if self.queue.try_send(Occurrence { about, type_, reason, action, note }).is_err() {
            DROPPED.with_label_values(&[self.reporter]).inc();
        }
    }
}
