//! The loop of one autoscaler: look, decide, act, tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use kube::api::{Patch, PatchParams};
use loadline_api::own::ScalingPolicy;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::Shared;
use super::objects::Object;
use super::observe::observe;
use super::status::{self, Change, Inputs};
use crate::policy::Policy;
use crate::record::Record;
use crate::ring::{Entry, Key, Kind};
use crate::state::{Hold, Outcome, State};
use crate::{Decision, decide, telemetry};

const STRICT_PERIOD: Duration = Duration::from_secs(15);
const FAST_PERIOD: Duration = Duration::from_secs(1);
/// How soon to look again when usage has begun to rise: the first sample of a step shows only a part of it.
const RISING_PERIOD: Duration = Duration::from_millis(500);
/// What counts as rising from one look to the next, in per cent.
const RISING_PER_CENT: i128 = 115;
/// The least time between status writes that change values only.
const VALUES_EVERY: Duration = Duration::from_secs(5);
/// The least time between two equal warnings of a fast autoscaler.
const WARN_EVERY: Duration = Duration::from_secs(60);

struct Worker {
    shared: Arc<Shared>,
    key: Key,
    uid: Option<String>,
    state: State,
    /// The status as we left it; the cache may still show the one before.
    status: Value,
    written: Option<Instant>,
    /// The usage of all pods at the last look, in thousandths, and whether it was rising.
    usage: i128,
    rising: bool,
    warned: HashMap<String, Instant>,
}

pub(super) async fn run(shared: Arc<Shared>, key: Key, notify: Arc<Notify>) {
    let mut worker: Option<Worker> = None;
    loop {
        let Some(object) = shared.object(&key) else {
            if shared.leave(&key) {
                return;
            }
            continue;
        };
        let uid = object.meta().uid.clone();
        let worker = match &mut worker {
            Some(worker) if worker.uid == uid => worker,
            other => other.insert(Worker::new(shared.clone(), key.clone(), &object)),
        };
        let started = Instant::now();
        let period = worker.turn(&object).await;
        tokio::select! {
            () = sleep_until(started + period) => {}
            () = notify.notified() => {}
        }
    }
}

impl Worker {
    fn new(shared: Arc<Shared>, key: Key, object: &Object) -> Self {
        let now = jiff::Timestamp::now().as_millisecond();
        let mut state = State::new(now);
        if let Object::Policy(policy) = object {
            let until = policy.status.as_ref().and_then(|s| s.hold_until.as_ref());
            state.hold = until.map(|t| Hold { since: now, until: t.0.as_millisecond(), replicas: 0 });
        }
        let status = match object {
            Object::Hpa(o) => json!(o.status),
            Object::Policy(o) => json!(o.status),
        };
        let uid = object.meta().uid.clone();
        Self {
            shared,
            key,
            uid,
            state,
            status,
            written: None,
            usage: 0,
            rising: false,
            warned: HashMap::new(),
        }
    }

    /// One decision; returns how long to wait for the next.
    async fn turn(&mut self, object: &Object) -> Duration {
        let policy = object.policy();
        let (mut record, scale) = observe(&self.shared, &self.key, object, &policy, self.rising).await;
        self.correct_previous(&mut record);
        let started = std::time::Instant::now();
        let decision = decide(&policy, &record, &self.state);
        let took = started.elapsed().as_secs_f64();
        let refused = self.act(object, scale.as_ref(), &decision).await;
        let shown = match &refused {
            Some(error) => decision.refused(error, record.previous.desired_replicas),
            None => decision.clone(),
        };
        telemetry::decided(&self.key, policy.profile(), &record, &decision, refused.is_some(), took);
        let outcome = if refused.is_some() { Outcome::Failed } else { Outcome::Done };
        let next = self.state.after(&policy, &record, &decision, outcome);
        let state = std::mem::replace(&mut self.state, next);
        self.tell(object, &policy, &shown);
        self.write_status(object, &policy, &record, &shown).await;
        let entry = Entry { policy, record, state, decision, refused };
        let period = self.period(&entry);
        self.shared.ring.push(&self.key, Arc::new(entry));
        period
    }

    fn period(&mut self, entry: &Entry) -> Duration {
        if matches!(entry.policy, Policy::Strict(_)) {
            return STRICT_PERIOD;
        }
        let usage = entry.record.pods.iter().filter_map(|p| p.usage("cpu", None)).map(i128::from).sum();
        let before = std::mem::replace(&mut self.usage, usage);
        // A change that was just made is answered by pods, not by another look.
        self.rising =
            entry.decision.rescale.is_none() && before > 0 && usage * 100 > before * RISING_PER_CENT;
        if self.rising { RISING_PERIOD } else { FAST_PERIOD }
    }

    /// The cache may not show our last status yet.
    fn correct_previous(&self, record: &mut Record) {
        if let Some(desired) = self.status["desiredReplicas"].as_i64().and_then(|d| i32::try_from(d).ok()) {
            record.previous.desired_replicas = desired;
        }
        let conditions = self.status["conditions"].as_array().into_iter().flatten();
        let mut zero = conditions.filter(|c| c["type"] == crate::decision::ZERO);
        record.previous.scaled_to_zero = zero.next().map(|c| c["status"] == "True");
    }

    /// Carries out the change, if there is one; an error is why it could not be.
    async fn act(&self, object: &Object, scale: Option<&v1::Scale>, decision: &Decision) -> Option<String> {
        let (rescale, scale) = (decision.rescale.as_ref()?, scale?);
        let Key { namespace, name, .. } = &self.key;
        let (from, to) = (decision.current, rescale.to);
        match self.shared.targets.set(namespace, &object.target(), scale, to).await {
            Ok(()) => {
                let why = decision.summary.as_str();
                info!(kind = self.key.kind.as_str(), namespace, name, from, to, why, "target scaled");
                None
            }
            Err(error) => {
                warn!(%error, kind = self.key.kind.as_str(), namespace, name, from, to, "target not scaled");
                Some(error.to_string())
            }
        }
    }

    fn tell(&mut self, object: &Object, policy: &Policy, decision: &Decision) {
        let now = Instant::now();
        self.warned.retain(|_, at| now - *at < WARN_EVERY);
        for event in &decision.events {
            if !event.warning {
                self.shared.events.normal(
                    object.reference(),
                    &event.reason,
                    "Scaling",
                    event.message.as_str(),
                );
                continue;
            }
            // Upstream warns on every turn; a turn a second would be noise.
            if matches!(policy, Policy::Fast(_)) && self.warned.contains_key(&event.reason) {
                continue;
            }
            self.warned.insert(event.reason.clone(), now);
            self.shared.events.warning(object.reference(), &event.reason, "Scaling", event.message.as_str());
        }
    }

    async fn write_status(&mut self, object: &Object, policy: &Policy, record: &Record, decision: &Decision) {
        let generation = object.meta().generation;
        let inputs = Inputs { old: &self.status, decision, now: record.time, generation };
        let patch = match self.key.kind {
            Kind::Hpa => status::hpa(&inputs),
            Kind::ScalingPolicy => status::scaling_policy(&inputs),
        };
        let recent = self.written.is_some_and(|at| at.elapsed() < VALUES_EVERY);
        match status::compare(&self.status, &patch) {
            Change::None => return,
            Change::Values if recent && matches!(policy, Policy::Fast(_)) => return,
            Change::Values | Change::Matters => {}
        }
        match self.patch_status(&json!({"status": patch})).await {
            Ok(status) => {
                self.status = status;
                self.written = Some(Instant::now());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => debug!("the object is gone"),
            Err(error) => {
                let Key { namespace, name, .. } = &self.key;
                warn!(%error, kind = self.key.kind.as_str(), namespace, name, "status not written");
                self.shared.events.warning(
                    object.reference(),
                    "FailedUpdateStatus",
                    "Scaling",
                    error.to_string(),
                );
            }
        }
    }

    async fn patch_status(&self, patch: &Value) -> Result<Value, kube::Error> {
        let (client, Key { kind, namespace, name }) = (self.shared.client.clone(), &self.key);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match kind {
            Kind::Hpa => {
                let api: Api<HorizontalPodAutoscaler> = Api::namespaced(client, namespace);
                api.patch_status(name, &params, &patch).await.map(|o| json!(o.status))
            }
            Kind::ScalingPolicy => {
                let api: Api<ScalingPolicy> = Api::namespaced(client, namespace);
                api.patch_status(name, &params, &patch).await.map(|o| json!(o.status))
            }
        }
    }
}
