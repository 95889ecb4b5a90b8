//! The shell: one task owns snapshot and queue, wakes on events, decides, and sends binds on their way.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use loadline_client::{Cache, Change, EventSink, Scope};
use prometheus::{
    HistogramVec, IntCounterVec, IntGauge, exponential_buckets, register_histogram_vec,
    register_int_counter_vec, register_int_gauge,
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::plan::decide;
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::snapshot::Snapshot;

/// Binds that may be under way at once.
const MAX_BINDS: usize = 64;

#[derive(Clone, Debug)]
pub struct Config {
    /// Pods with this `schedulerName` are ours.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned() }
    }
}

struct Metrics {
    attempts: IntCounterVec,
    duration: HistogramVec,
    pending: IntGauge,
}

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    attempts: register_int_counter_vec!(
        "scheduler_schedule_attempts_total",
        "Attempts to schedule pods, by result.",
        &["result", "profile"]
    )
    .unwrap(),
    duration: register_histogram_vec!(
        "scheduler_scheduling_attempt_duration_seconds",
        "How long one decision takes, without the bind.",
        &["result", "profile"],
        exponential_buckets(1e-5, 2.0, 18).unwrap()
    )
    .unwrap(),
    pending: register_int_gauge!("scheduler_pending_pods", "Pods that wait for a node.").unwrap(),
});

enum Message {
    Pod(Change<Pod>),
    Node(Change<Node>),
    Namespace(Change<Namespace>),
    /// A bind ended; the error if it failed.
    Bound(Arc<PodInfo>, Option<kube::Error>),
}

/// Starts the scheduler in `scope`.
pub fn start(scope: &Scope, client: kube::Client, config: Config) {
    let (sender, inbox) = mpsc::unbounded_channel();
    let pods = Cache::start(scope, Api::<Pod>::all(client.clone()), watcher::Config::default());
    let nodes = Cache::start(scope, Api::<Node>::all(client.clone()), watcher::Config::default());
    let namespaces = Cache::start(scope, Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let events = EventSink::start(scope, client.clone(), "default-scheduler", None);
    let scheduler = Scheduler {
        scope: scope.clone(),
        client,
        name: config.name,
        events,
        binds: Arc::new(Semaphore::new(MAX_BINDS)),
        sender: sender.clone(),
        snapshot: Snapshot::default(),
        queue: Queue::default(),
        assumed: HashMap::new(),
        last_failure: HashMap::new(),
    };
    scope.spawn("scheduler", async move {
        // Decisions before everything is known would be wrong ones.
        pods.synced().await;
        nodes.synced().await;
        namespaces.synced().await;
        let send = |sender: &mpsc::UnboundedSender<Message>, message| {
            // The scheduler's task is gone only when the scope ends.
            let _ = sender.send(message);
        };
        let to = sender.clone();
        namespaces.on_change(move |c| send(&to, Message::Namespace(c.clone())));
        let to = sender.clone();
        nodes.on_change(move |c| send(&to, Message::Node(c.clone())));
        pods.on_change(move |c| send(&sender, Message::Pod(c.clone())));
        scheduler.run(inbox).await;
    });
}

struct Scheduler {
    scope: Scope,
    client: kube::Client,
    name: String,
    events: EventSink,
    binds: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Message>,
    snapshot: Snapshot,
    queue: Queue,
    /// Decided, but not yet seen in the watch.
    assumed: HashMap<String, Arc<PodInfo>>,
    /// The message that the pod's condition and last event carry.
    last_failure: HashMap<String, String>,
}

impl Scheduler {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            // All that has happened comes before the next decision.
            while let Ok(message) = inbox.try_recv() {
                self.handle(message);
            }
            METRICS.pending.set(self.queue.len() as i64);
            if let Some(pod) = self.queue.take(Instant::now()) {
                self.schedule(pod);
                tokio::task::yield_now().await;
                continue;
            }
            let message = match self.queue.next_deadline() {
                Some(at) => tokio::select! {
                    message = inbox.recv() => message,
                    () = tokio::time::sleep_until(at) => continue,
                },
                None => inbox.recv().await,
            };
            match message {
                Some(message) => self.handle(message),
                None => return,
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Pod(Change::Applied { new, .. }) => self.pod_changed(&new),
            Message::Pod(Change::Deleted { old }) => self.pod_gone(&old.uid().unwrap_or_default()),
            Message::Node(Change::Applied { new, .. }) => {
                if self.snapshot.set_node(&new) {
                    self.queue.cluster_changed(Instant::now());
                }
            }
            Message::Node(Change::Deleted { old }) => self.snapshot.remove_node(&old.name_any()),
            Message::Namespace(Change::Applied { new, .. }) => {
                let before = self.snapshot.namespaces.insert(new.name_any(), new.labels().clone());
                // A namespace selector of an affinity may select it now.
                if before.as_ref() != Some(new.labels()) {
                    self.queue.cluster_changed(Instant::now());
                }
            }
            Message::Namespace(Change::Deleted { old }) => {
                self.snapshot.namespaces.remove(&old.name_any());
            }
            Message::Bound(pod, error) => self.bound(&pod, error),
        }
    }

    fn pod_changed(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return self.pod_gone(&uid);
        }
        let Some(spec) = &pod.spec else { return };
        if spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
            self.queue.remove(&uid);
            self.last_failure.remove(&uid);
            self.assumed.remove(&uid);
            let info = PodInfo::shared(pod);
            let was = self.snapshot.node_of(&uid).map(str::to_owned);
            if was.as_deref() != Some(info.node.as_str()) {
                // A newly placed pod may be what another's affinity waits for.
                self.queue.cluster_changed(Instant::now());
            }
            self.snapshot.set_pod(info);
            return;
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        let ours = spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.name;
        if pod.metadata.deletion_timestamp.is_some() || gated || !ours {
            self.queue.remove(&uid);
        } else if !self.assumed.contains_key(&uid) {
            self.queue.update(PodInfo::shared(pod), Instant::now());
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        self.last_failure.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.queue.cluster_changed(Instant::now());
        }
    }

    fn schedule(&mut self, pod: Arc<PodInfo>) {
        let started = std::time::Instant::now();
        let decision = decide(&pod, &self.snapshot, rand::random());
        let result = if decision.is_ok() { "scheduled" } else { "unschedulable" };
        let labels = [result, self.name.as_str()];
        METRICS.attempts.with_label_values(&labels).inc();
        METRICS.duration.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
        match decision {
            Ok(node) => {
                let mut placed = PodInfo::clone(&pod);
                placed.node = node;
                let placed = Arc::new(placed);
                self.snapshot.set_pod(placed.clone());
                self.assumed.insert(pod.uid.clone(), placed.clone());
                self.bind(placed);
            }
            Err(error) => {
                let message = error.to_string();
                debug!(pod = pod.name, message, "no node fits");
                self.queue.unschedulable(&pod.uid, Instant::now());
                self.report_failure(&pod, message);
            }
        }
    }

    fn bind(&self, pod: Arc<PodInfo>) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let (binds, sender) = (self.binds.clone(), self.sender.clone());
        self.scope.spawn_short(async move {
            let _permit = binds.acquire_owned().await;
            let error = bind(&api, &pod).await.err();
            let _ = sender.send(Message::Bound(pod, error));
        });
    }

    fn bound(&mut self, pod: &Arc<PodInfo>, error: Option<kube::Error>) {
        let about = reference(pod);
        match error {
            None => {
                let note = format!("Successfully assigned {}/{} to {}", pod.namespace, pod.name, pod.node);
                self.events.normal(about, "Scheduled", "Binding", note);
            }
            // Gone or bound by somebody else: the watch tells the rest.
            Some(kube::Error::Api(status)) if status.code == 404 => self.pod_gone(&pod.uid),
            Some(error) => {
                warn!(%error, pod = pod.name, node = pod.node, "bind failed");
                if self.assumed.remove(&pod.uid).is_some() {
                    self.snapshot.remove_pod(&pod.uid);
                    self.queue.retry(&pod.uid, Instant::now());
                }
            }
        }
    }

    /// Once for each new reason: an event, and the pod's condition.
    fn report_failure(&mut self, pod: &Arc<PodInfo>, message: String) {
        if self.last_failure.get(&pod.uid) == Some(&message) {
            return;
        }
        self.last_failure.insert(pod.uid.clone(), message.clone());
        self.events.warning(reference(pod), "FailedScheduling", "Scheduling", message.clone());
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let name = pod.name.clone();
        let patch = json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": Time(Timestamp::now()),
            }]},
        });
        self.scope.spawn_short(async move {
            if let Err(error) =
                api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await
            {
                debug!(%error, pod = name, "condition not written");
            }
        });
    }
}

async fn bind(api: &Api<Pod>, pod: &PodInfo) -> Result<(), kube::Error> {
    let binding = Binding {
        metadata: kube::api::ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..Default::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(pod.node.clone()),
            ..Default::default()
        },
    };
    let _: serde_json::Value =
        api.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await?;
    Ok(())
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some(Pod::api_version(&()).into_owned()),
        kind: Some(Pod::kind(&()).into_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..Default::default()
    }
}
