//! One pod's worker: observes the runtime, asks `plan` what to do, carries it out, and writes the status. Owns the
//! pod's containers; a single task that sleeps until it is woken, and never blocks on what it has started.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use loadline_runtime::{Container, Sandbox};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::context::{Node, Owner, Signal};
use crate::launch::{self, Start};
use crate::metrics;
use crate::names;
use crate::plan::{self, Action, Busy, Inputs, Intent, Memory, Plan, StartError};
use crate::prober::Prober;
use crate::status::{self, Failure, Seen};

/// What the API wants of a pod.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// The object is gone from the API.
    pub(crate) gone: bool,
    pub(crate) rejected: Option<Failure>,
}

/// Containers are always given this long, as upstream does.
const MIN_GRACE: Duration = Duration::from_secs(2);
/// Three decades. A pod may ask for more seconds than a clock can count to.
const MAX_GRACE: Duration = Duration::from_secs(1_000_000_000);
const MAX_SANDBOX_RETRY: i64 = 10;

enum Done {
    Sandbox(Result<(Sandbox, Vec<IpAddr>), String>),
    Adopted(Result<Vec<IpAddr>, String>),
    Started(Vec<(String, Result<(), StartError>)>),
    /// A container or sandbox was ended or removed.
    Ended {
        id: String,
        error: Option<String>,
    },
    Refreshed,
    Written {
        status: Box<PodStatus>,
        result: Result<Option<u64>, kube::Error>,
    },
    Cleaned(Result<(), String>),
    Deleted(Result<(), kube::Error>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Network, volumes and, for a deleted pod, containers are being removed.
    Cleaning,
    Cleaned,
    Deleting,
    Deleted,
}

pub(crate) struct Worker {
    node: Arc<Node>,
    desired: watch::Receiver<Desired>,
    signal: Arc<Signal>,
    ops: FuturesUnordered<BoxFuture<'static, Done>>,
    sandboxes: Vec<Sandbox>,
    containers: Vec<Container>,
    ips: Vec<IpAddr>,
    memory: Memory,
    busy: Busy,
    /// When the grace of each container that is being ended runs out.
    deadlines: BTreeMap<String, Instant>,
    messages: BTreeMap<String, String>,
    prober: Prober,
    /// Ends pulls and the like when the pod is to stop.
    stopping: CancellationToken,
    sandbox_failures: u32,
    adopting: bool,
    /// What was written last, and the resource version that it made.
    written: Option<PodStatus>,
    written_version: Option<u64>,
    writing: bool,
    write_retry_at: Option<Timestamp>,
    ending: Ending,
    /// The containers are removed too, not just ended.
    removed: bool,
    retry_end_at: Option<Timestamp>,
    started_seen: bool,
    /// The attempt for which each container's back-off was told.
    backed_off: BTreeMap<String, u32>,
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, desired: watch::Receiver<Desired>, signal: Arc<Signal>) -> Self {
        Self {
            prober: Prober::new(node.clone(), signal.clone()),
            node,
            desired,
            signal,
            ops: FuturesUnordered::new(),
            sandboxes: Vec::new(),
            containers: Vec::new(),
            ips: Vec::new(),
            memory: Memory::default(),
            busy: Busy::default(),
            deadlines: BTreeMap::new(),
            messages: BTreeMap::new(),
            stopping: CancellationToken::new(),
            sandbox_failures: 0,
            adopting: false,
            written: None,
            written_version: None,
            writing: false,
            write_retry_at: None,
            ending: Ending::No,
            removed: false,
            retry_end_at: None,
            started_seen: false,
            backed_off: BTreeMap::new(),
        }
    }

    /// Until nothing of the pod is left, here and in the API.
    pub(crate) async fn run(mut self) {
        self.signal.runtime_changed();
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let wake_at = self.pass(&desired).await;
            if desired.gone && self.removed && self.ops.is_empty() {
                return;
            }
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep(until(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.signal.woken() => {}
                Some(done) = self.ops.next(), if !self.ops.is_empty() => self.settle(done),
                () = sleep => {}
            }
        }
    }

    /// One look at the pod; when to look again at the latest.
    async fn pass(&mut self, desired: &Desired) -> Option<Timestamp> {
        let timer = metrics::worker_timer();
        let pod = &desired.pod;
        if self.signal.take_stale() && !self.observe(pod).await {
            self.signal.runtime_changed();
            // Tried again soon rather than at once: the runtime is away.
            return Some(Timestamp::now() + SignedDuration::from_secs(1));
        }
        let now = Timestamp::now();
        if self.signal.take_config() {
            self.config_changed(pod, now);
        }
        self.recover_addresses(pod);
        let intent = self.intent(desired, now);
        if matches!(intent, Intent::Stop { .. }) {
            self.stopping.cancel();
        }
        let mut containers = self.containers.clone();
        containers.extend(status::recall(&self.base(pod), &self.containers, now));
        let probes = self.prober.results();
        let inputs = Inputs {
            pod,
            sandboxes: &self.sandboxes,
            containers: &containers,
            probes: &probes,
            memory: &self.memory,
            busy: &self.busy,
            intent,
            now,
        };
        let plan = plan::decide(&inputs);
        let running: Vec<&Container> = self.containers.iter().filter(|c| plan::is_running(c)).collect();
        self.prober.watch(pod, &running, &self.ips);
        self.read_messages(pod, &containers).await;
        self.tell_back_off(pod, &plan, &containers);
        let mut wake_at = plan.wake_at;
        if !desired.gone {
            self.write(desired, &plan, &containers, &probes, now);
        }
        self.execute(pod, &plan, intent, now);
        self.finish(desired, &plan, now);
        for at in [self.deadline(pod), self.write_retry_at, self.retry_end_at].into_iter().flatten() {
            if at > now {
                wake_at = Some(wake_at.map_or(at, |w| w.min(at)));
            }
        }
        timer.observe_duration();
        wake_at
    }

    /// Whether the runtime answered.
    async fn observe(&mut self, pod: &Pod) -> bool {
        let uid = names::uid(pod);
        let runtime = &self.node.config.runtime;
        let (sandboxes, containers) = tokio::join!(runtime.sandboxes(), runtime.containers(Some(uid)));
        match (sandboxes, containers) {
            (Ok(sandboxes), Ok(containers)) => {
                self.sandboxes = sandboxes.into_iter().filter(|s| s.uid == uid).collect();
                self.containers = containers;
            }
            (Err(error), _) | (_, Err(error)) => {
                debug!(%error, pod = names::name(pod), "runtime did not answer");
                return false;
            }
        }
        let owner = |c: &Container| Owner {
            uid: uid.to_owned(),
            namespace: names::namespace(pod).to_owned(),
            pod: names::name(pod).to_owned(),
            container: c.name.clone(),
            started_at: c.started_at,
        };
        let running = self.containers.iter().filter(|c| plan::is_running(c));
        self.node.directory.set(uid, running.map(|c| (c.id.clone(), owner(c))));
        true
    }

    /// Missing objects may be there now, and mounted ones may have changed.
    fn config_changed(&mut self, pod: &Arc<Pod>, now: Timestamp) {
        self.memory.sandbox_retry_at = None;
        for error in self.memory.errors.values_mut() {
            if error.waiting.reason.starts_with("CreateContainer") {
                error.retry_at = now;
            }
        }
        if self.containers.iter().any(plan::is_running) && self.ending == Ending::No {
            let (node, pod, ips) = (self.node.clone(), pod.clone(), self.ips.clone());
            self.ops.push(Box::pin(async move {
                // A failure is told in an event; what is mounted stays as it is.
                let _ = launch::volumes(&node, &pod, &ips).await;
                Done::Refreshed
            }));
        }
    }

    /// After a restart of the agent: the addresses that the pod had, confirmed by the network.
    fn recover_addresses(&mut self, pod: &Arc<Pod>) {
        let adopted = plan::current_sandbox(&self.sandboxes).filter(|s| s.ready).cloned();
        let Some(sandbox) = adopted else { return };
        if names::host_network(pod) || !self.ips.is_empty() || self.adopting || self.busy.starting {
            return;
        }
        let known = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
        self.ips = known.filter_map(|ip| ip.ip.parse().ok()).collect();
        self.adopting = true;
        let (node, pod, stopping) = (self.node.clone(), pod.clone(), self.stopping.clone());
        self.ops.push(Box::pin(async move {
            loop {
                if stopping.is_cancelled() {
                    return Done::Adopted(Err("the pod is being stopped".to_owned()));
                }
                if node.config.network.ready().await.is_ok() {
                    let added =
                        node.config.network.add(&launch::pod_ref(&pod), sandbox.netns.as_deref()).await;
                    return Done::Adopted(added.map_err(|e| e.to_string()));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }));
    }

    fn intent(&self, desired: &Desired, now: Timestamp) -> Intent {
        let pod = &desired.pod;
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let over =
            self.written.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(names::is_terminal_phase);
        let stop = desired.gone
            || desired.rejected.is_some()
            || pod.metadata.deletion_timestamp.is_some()
            || names::is_terminal_phase(phase)
            || over
            || self.failure(desired, now).is_some();
        if stop {
            let grace = Duration::from_secs(names::grace_seconds(pod).unsigned_abs());
            Intent::Stop { grace: grace.max(MIN_GRACE) }
        } else {
            Intent::Run
        }
    }

    fn deadline(&self, pod: &Pod) -> Option<Timestamp> {
        let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
        let start = pod.status.as_ref()?.start_time.as_ref()?.0;
        start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn failure(&self, desired: &Desired, now: Timestamp) -> Option<Failure> {
        if let Some(failure) = &desired.rejected {
            return Some(failure.clone());
        }
        let exceeded = self.deadline(&desired.pod).is_some_and(|at| at <= now);
        exceeded.then(|| Failure {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
        })
    }

    async fn read_messages(&mut self, pod: &Pod, containers: &[Container]) {
        let known: BTreeSet<&str> = containers.iter().map(|c| c.id.as_str()).collect();
        self.messages.retain(|id, _| known.contains(id.as_str()));
        for c in &self.containers {
            if plan::is_dead(c) && !self.messages.contains_key(&c.id) {
                let message = launch::termination_message(&self.node, pod, c).await;
                self.messages.insert(c.id.clone(), message);
            }
        }
    }

    /// One event for each time that a container has to wait.
    fn tell_back_off(&mut self, pod: &Pod, plan: &Plan, containers: &[Container]) {
        for (name, waiting) in plan.waiting.iter().filter(|(_, w)| w.reason == "CrashLoopBackOff") {
            let attempt = plan::latest(containers, name).map_or(0, |c| c.attempt);
            if self.backed_off.insert(name.clone(), attempt) != Some(attempt) {
                debug!(pod = names::name(pod), container = name, message = waiting.message, "backing off");
                let note = format!("Back-off restarting failed container {name} in pod {}", names::full(pod));
                self.node.events.warning(
                    names::container_reference(pod, name),
                    "BackOff",
                    "Restarting",
                    note,
                );
            }
        }
    }

    /// Whether the API's copy shows what was written last.
    fn caught_up(&self, pod: &Pod) -> bool {
        self.written_version.is_none_or(|v| version(pod).is_some_and(|seen| seen >= v))
    }

    /// The pod with the status that it has by now: the API's copy lags behind what was written last; once it has
    /// caught up, it is what counts. An end that was written must not be taken for a container that got lost.
    fn base<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        match self.written.as_ref().filter(|_| !self.caught_up(pod)) {
            None => Cow::Borrowed(pod),
            Some(written) => {
                let mut base = pod.clone();
                base.status = Some(merged(pod.status.clone().unwrap_or_default(), written));
                Cow::Owned(base)
            }
        }
    }

    /// Starts a status patch if there is something new and none is under way.
    fn write(
        &mut self,
        desired: &Desired,
        plan: &Plan,
        containers: &[Container],
        probes: &BTreeMap<String, plan::Probes>,
        now: Timestamp,
    ) {
        if self.writing || self.write_retry_at.is_some_and(|at| at > now) || self.ending == Ending::Deleted {
            return;
        }
        let pod = &desired.pod;
        let caught_up = self.caught_up(pod);
        let base = self.base(pod);
        let failure = self.failure(desired, now);
        let new = match &desired.rejected {
            Some(failure) => status::rejected(&base, failure, now),
            None => status::pod_status(&Seen {
                pod: &base,
                sandboxes: &self.sandboxes,
                containers,
                probes,
                waiting: &plan.waiting,
                messages: &self.messages,
                ips: &self.ips,
                host_ip: self.node.config.node_ip,
                runtime: &self.node.runtime_name,
                failure: failure.as_ref(),
                ended: plan.ended && !self.busy.starting,
                now,
            }),
        };
        let api = pod.status.clone().unwrap_or_default();
        // Somebody else wrote over it: the node controller does, when it has not heard of the node for a while.
        let overwritten = caught_up && status::differs(&api, &new);
        let old = if overwritten { api } else { self.written.clone().unwrap_or(api) };
        let Some(patch) = status::patch(names::uid(pod), &old, &new) else { return };
        if !self.started_seen && new.phase.as_deref() == Some("Running") {
            self.started_seen = true;
            metrics::pod_started(pod, now);
        }
        self.writing = true;
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), names::namespace(pod));
        let name = names::name(pod).to_owned();
        self.ops.push(Box::pin(async move {
            let result = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            Done::Written { status: Box::new(new), result: result.map(|pod| version(&pod)) }
        }));
    }

    fn execute(&mut self, pod: &Arc<Pod>, plan: &Plan, intent: Intent, now: Timestamp) {
        if plan.sandbox_changed
            && let Some(Action::CreateSandbox { .. }) =
                plan.actions.iter().find(|a| matches!(a, Action::CreateSandbox { .. }))
        {
            let note = "Pod sandbox changed, it will be killed and re-created.";
            self.node.events.normal(names::reference(pod), "SandboxChanged", "Starting", note);
        }
        let mut starts = Vec::new();
        for action in &plan.actions {
            match action {
                Action::CreateSandbox { attempt } => self.create_sandbox(pod, *attempt),
                Action::Start { name, attempt, after } => {
                    if let Some(after) = after {
                        self.memory.crashes.next(name, *after);
                    }
                    starts.push((name.clone(), *attempt));
                }
                Action::Kill { id, name, grace, message } => self.kill(pod, id, name, *grace, message),
                Action::StopSandbox { id } => self.stop_sandbox(pod, id),
                Action::RemoveContainer { id } => {
                    let (runtime, id) = (self.node.config.runtime.clone(), id.clone());
                    self.end(&id.clone(), async move {
                        runtime.remove_container(&id).await.err().map(|e| e.to_string())
                    });
                }
                Action::RemoveSandbox { id } => {
                    let (runtime, id) = (self.node.config.runtime.clone(), id.clone());
                    self.end(&id.clone(), async move {
                        runtime.remove_sandbox(&id).await.err().map(|e| e.to_string())
                    });
                }
            }
        }
        if !starts.is_empty() {
            self.start(pod, starts);
        }
        if let Intent::Stop { grace } = intent {
            self.hasten(grace, now);
        }
    }

    fn create_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) {
        self.busy.starting = true;
        let (node, pod, stopping) = (self.node.clone(), pod.clone(), self.stopping.clone());
        self.ops.push(Box::pin(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => Done::Sandbox(Err("the pod is being stopped".to_owned())),
                made = launch::sandbox(&node, &pod, attempt) => Done::Sandbox(made),
            }
        }));
    }

    /// Starts containers one after the other; one that fails does not hold up the next.
    fn start(&mut self, pod: &Arc<Pod>, starts: Vec<(String, u32)>) {
        let Some(sandbox) = plan::current_sandbox(&self.sandboxes).cloned() else { return };
        self.busy.starting = true;
        let start = Start { node: self.node.clone(), pod: pod.clone(), sandbox, ips: self.ips.clone() };
        let (stopping, signal) = (self.stopping.clone(), self.signal.clone());
        self.ops.push(Box::pin(async move {
            let mut outcomes = Vec::new();
            for (name, attempt) in starts {
                let Some(spec) = names::container(&start.pod, &name) else { continue };
                let result = tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    result = start.run(spec, attempt) => result,
                };
                signal.runtime_changed();
                outcomes.push((name, result));
            }
            Done::Started(outcomes)
        }));
    }

    fn end(&mut self, id: &str, work: impl Future<Output = Option<String>> + Send + 'static) {
        self.busy.ending.insert(id.to_owned());
        let id = id.to_owned();
        self.ops.push(Box::pin(async move { Done::Ended { error: work.await, id } }));
    }

    fn kill(&mut self, pod: &Arc<Pod>, id: &str, name: &str, grace: Duration, message: &str) {
        let grace = grace.clamp(MIN_GRACE, MAX_GRACE);
        self.node.events.normal(names::container_reference(pod, name), "Killing", "Stopping", message);
        self.deadlines.insert(id.to_owned(), Instant::now() + grace);
        let (node, pod, ips) = (self.node.clone(), pod.clone(), self.ips.clone());
        let (id, name) = (id.to_owned(), name.to_owned());
        self.end(&id.clone(), async move {
            let began = Instant::now();
            let spec = names::container(&pod, &name);
            let pre_stop = spec.and_then(|s| s.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
            if let (Some(spec), Some(handler)) = (spec, pre_stop) {
                let run = launch::hook(&node, &pod, spec, &id, &ips, handler, grace);
                if !matches!(tokio::time::timeout(grace, run).await, Ok(Ok(()))) {
                    let about = names::container_reference(&pod, &name);
                    node.events.warning(about, "FailedPreStopHook", "Stopping", "PreStopHook failed");
                }
            }
            let left = grace.saturating_sub(began.elapsed()).max(MIN_GRACE);
            node.config.runtime.stop_container(&id, left).await.err().map(|e| e.to_string())
        });
    }

    /// A second, shorter grace overrules the first.
    fn hasten(&mut self, grace: Duration, _now: Timestamp) {
        let grace = grace.min(MAX_GRACE);
        let new = Instant::now() + grace;
        let late: Vec<String> = self
            .deadlines
            .iter()
            .filter(|(id, at)| **at > new + Duration::from_secs(1) && self.busy.ending.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.deadlines.insert(id.clone(), new);
            let runtime = self.node.config.runtime.clone();
            self.ops.push(Box::pin(async move {
                let error = runtime.stop_container(&id, grace).await.err().map(|e| e.to_string());
                Done::Ended { id, error }
            }));
        }
    }

    fn stop_sandbox(&mut self, pod: &Arc<Pod>, id: &str) {
        let (node, pod, id) = (self.node.clone(), pod.clone(), id.to_owned());
        let last = self.sandboxes.iter().filter(|s| s.ready).count() == 1;
        self.end(&id.clone(), async move {
            if last
                && !names::host_network(&pod)
                && let Err(error) = node.config.network.remove(names::uid(&pod)).await
            {
                return Some(error.to_string());
            }
            node.config.runtime.stop_sandbox(&id).await.err().map(|e| e.to_string())
        });
    }

    /// What is left to do once nothing runs: clean up, and take a deleted pod out of the API.
    fn finish(&mut self, desired: &Desired, plan: &Plan, now: Timestamp) {
        let deleting = desired.gone || desired.pod.metadata.deletion_timestamp.is_some();
        if !plan.ended || self.busy.starting || self.retry_end_at.is_some_and(|at| at > now) {
            return;
        }
        let settled = !self.writing && (desired.gone || self.is_terminal());
        match self.ending {
            Ending::No if !deleting && settled => self.clean(&desired.pod, false),
            Ending::No if deleting && settled => self.clean(&desired.pod, true),
            Ending::Cleaned if deleting && !self.removed => self.clean(&desired.pod, true),
            Ending::Cleaned if deleting && !desired.gone && !self.writing => self.delete(&desired.pod),
            _ => {}
        }
    }

    /// The terminal status has reached the API.
    fn is_terminal(&self) -> bool {
        self.written.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(names::is_terminal_phase)
    }

    /// Network and volumes go when the pod is over; containers stay for their logs until it is deleted.
    fn clean(&mut self, pod: &Arc<Pod>, everything: bool) {
        self.ending = Ending::Cleaning;
        let (node, pod) = (self.node.clone(), pod.clone());
        let containers: Vec<String> = self.containers.iter().map(|c| c.id.clone()).collect();
        let sandboxes: Vec<String> = self.sandboxes.iter().map(|s| s.id.clone()).collect();
        node.lock_admitted().remove(names::uid(&pod));
        if everything {
            self.removed = true;
        }
        self.ops.push(Box::pin(async move {
            let work = async {
                let text = |e: &dyn std::fmt::Display| e.to_string();
                let runtime = &node.config.runtime;
                if everything {
                    for id in &containers {
                        runtime.remove_container(id).await.map_err(|e| text(&e))?;
                    }
                }
                if !names::host_network(&pod) {
                    node.config.network.remove(names::uid(&pod)).await.map_err(|e| text(&e))?;
                }
                if everything {
                    for id in &sandboxes {
                        runtime.remove_sandbox(id).await.map_err(|e| text(&e))?;
                    }
                    node.volumes.tear_down(names::uid(&pod)).await?;
                }
                Ok(())
            };
            Done::Cleaned(work.await)
        }));
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        self.ending = Ending::Deleting;
        let api: Api<Pod> = Api::namespaced(self.node.client.clone(), names::namespace(pod));
        let name = names::name(pod).to_owned();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        self.ops.push(Box::pin(async move { Done::Deleted(api.delete(&name, &params).await.map(drop)) }));
    }

    fn settle(&mut self, done: Done) {
        let now = Timestamp::now();
        match done {
            Done::Sandbox(result) => self.sandbox_made(result, now),
            Done::Adopted(Ok(ips)) => self.ips = ips,
            Done::Adopted(Err(error)) => {
                warn!(error, "network of an adopted pod could not be confirmed");
            }
            Done::Started(outcomes) => {
                self.busy.starting = false;
                self.signal.runtime_changed();
                for (name, result) in outcomes {
                    match result {
                        Ok(()) => drop(self.memory.errors.remove(&name)),
                        Err(error) => drop(self.memory.errors.insert(name, error)),
                    }
                }
            }
            Done::Ended { id, error } => {
                self.signal.runtime_changed();
                self.busy.ending.remove(&id);
                self.deadlines.remove(&id);
                if let Some(error) = error {
                    warn!(error, id, "ending a container or sandbox failed");
                    // The plan asks again at the next look; not at once.
                    self.retry_end_at = Some(now + SignedDuration::from_secs(1));
                }
            }
            Done::Refreshed => {}
            Done::Written { status, result } => self.status_written(*status, result, now),
            Done::Cleaned(Ok(())) => {
                self.ending = Ending::Cleaned;
                self.signal.runtime_changed();
            }
            Done::Cleaned(Err(error)) => {
                warn!(error, "cleaning up after a pod failed");
                self.ending = Ending::No;
                self.removed = false;
                self.retry_end_at = Some(now + SignedDuration::from_secs(2));
            }
            Done::Deleted(Ok(())) => self.ending = Ending::Deleted,
            Done::Deleted(Err(kube::Error::Api(s))) if s.code == 404 || s.code == 409 => {
                self.ending = Ending::Deleted;
            }
            Done::Deleted(Err(error)) => {
                debug!(%error, "pod could not be deleted from the API");
                self.ending = Ending::Cleaned;
                self.retry_end_at = Some(now + SignedDuration::from_secs(1));
            }
        }
    }

    fn sandbox_made(&mut self, result: Result<(Sandbox, Vec<IpAddr>), String>, now: Timestamp) {
        self.busy.starting = false;
        self.signal.runtime_changed();
        match result {
            Ok((_, ips)) => {
                self.ips = ips;
                self.sandbox_failures = 0;
                self.memory.sandbox_retry_at = None;
            }
            Err(error) => {
                debug!(error, "sandbox not made");
                let delay = (1_i64 << self.sandbox_failures.min(4)).min(MAX_SANDBOX_RETRY);
                self.sandbox_failures += 1;
                self.memory.sandbox_retry_at = Some(now + SignedDuration::from_secs(delay));
            }
        }
    }

    fn status_written(&mut self, status: PodStatus, result: kube::Result<Option<u64>>, now: Timestamp) {
        self.writing = false;
        self.write_retry_at = None;
        match result {
            Ok(version) => {
                self.written = Some(status);
                self.written_version = version;
            }
            // Gone or replaced by another pod of the same name; the watch will say so.
            Err(kube::Error::Api(s)) if s.code == 404 || s.code == 409 => {
                debug!(reason = s.reason, message = s.message, "status refused");
                self.written = Some(status);
            }
            Err(error) => {
                debug!(%error, "status patch failed");
                self.write_retry_at = Some(now + SignedDuration::from_secs(1));
            }
        }
    }
}

/// Resource versions of one kind are numbers that grow.
fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}

/// The API's status with what this worker wrote last on top; conditions of others come from the API.
fn merged(api: PodStatus, written: &PodStatus) -> PodStatus {
    let mut status = written.clone();
    let ours = |type_: &str| {
        matches!(
            type_,
            "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled"
        )
    };
    let own = written.conditions.iter().flatten().filter(|c| ours(&c.type_)).cloned();
    let others = api.conditions.into_iter().flatten().filter(|c| !ours(&c.type_));
    status.conditions = Some(own.chain(others).collect());
    status
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
