//! Events leave through one bounded queue; what it drops is counted.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus::{IntCounterVec, register_int_counter_vec};
use tokio::sync::mpsc;
use tracing::debug;

use crate::supervise::Scope;

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

/// Writes Events about objects without ever making the caller wait. Repeated ones are counted in a series by the
/// recorder behind it.
#[derive(Clone)]
pub struct EventSink {
    queue: mpsc::Sender<(Event, ObjectReference)>,
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
        let (queue, mut events) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let recorder = Recorder::new(client, Reporter { controller: reporter.to_owned(), instance });
        scope.spawn("events", async move {
            while let Some((event, about)) = events.recv().await {
                if let Err(error) = recorder.publish(&event, &about).await {
                    debug!(%error, reason = event.reason, "event not written");
                }
            }
            std::future::pending::<()>().await;
        });
        Self { queue, reporter }
    }

    pub fn normal(&self, about: ObjectReference, reason: &str, action: &str, note: impl Into<String>) {
        self.send(EventType::Normal, about, reason, action, note.into());
    }

    pub fn warning(&self, about: ObjectReference, reason: &str, action: &str, note: impl Into<String>) {
        self.send(EventType::Warning, about, reason, action, note.into());
    }

    fn send(&self, type_: EventType, about: ObjectReference, reason: &str, action: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if self.queue.try_send((event, about)).is_err() {
            DROPPED.with_label_values(&[self.reporter]).inc();
        }
    }
}
