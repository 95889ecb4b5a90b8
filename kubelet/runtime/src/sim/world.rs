//! The simulated node: what is there and what has happened by a given time. No clock, no tasks: time is passed in
//! as the duration since the simulation began, and `settle` lets everything happen that was due.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::behaviour::{Behaviour, CpuCurve, CpuTime};
use crate::{
    Container, ContainerConfig, ContainerState, ContainerStats, Image, Resources, Result, RuntimeError,
    RuntimeEvent, Sandbox, SandboxConfig,
};

/// CFS periods are 100 ms; quotas are µs of CPU per period, so 100 µs are one millicore.
const PERIOD_NANOS: u128 = 100_000_000;
const KILLED: i32 = 137;
/// What container runtimes report for a process that could not be started.
const NOT_STARTED: i32 = 128;

#[derive(Debug, Default)]
pub(super) struct World {
    node: String,
    epoch: Timestamp,
    start_delay: Duration,
    default: Behaviour,
    pub(super) by_image: HashMap<String, Behaviour>,
    pub(super) images: HashMap<String, ImageState>,
    pub(super) unavailable: bool,
    pub(super) fail_next_start: Option<String>,
    made: u64,
    sandboxes: HashMap<String, Sandbox>,
    containers: HashMap<String, SimContainer>,
    /// When planned exits are due.
    deadlines: BTreeSet<(Duration, String)>,
    pub(super) outbox: Vec<RuntimeEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageState {
    Present,
    Missing,
    /// Pulling it fails with these words.
    Unpullable(String),
}

#[derive(Debug)]
pub(super) struct SimContainer {
    /// As listed; its state, times and codes are brought up to date by what happens.
    pub(super) shown: Container,
    pub(super) pod: (String, String, String),
    behaviour: Behaviour,
    resources: Resources,
    started: Option<Duration>,
    /// When it will end, and how.
    plan: Option<(Duration, Exit)>,
    cpu: Cpu,
    ready: bool,
    log: Vec<(Duration, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exit {
    code: i32,
    oom: bool,
}

/// CPU time so far: a sum, and the curve since.
#[derive(Debug, Default)]
struct Cpu {
    curve: CpuCurve,
    /// The curve's offset 0.
    from: Duration,
    counted_to: Duration,
    sum: CpuTime,
}

impl Cpu {
    fn at(&self, now: Duration, limit: Option<u64>) -> CpuTime {
        let offset = |at: Duration| at.saturating_sub(self.from);
        let more = self.curve.integrate(offset(self.counted_to), offset(now), limit);
        CpuTime {
            used: self.sum.used + more.used,
            throttled: self.sum.throttled + more.throttled,
            throttled_wall: self.sum.throttled_wall + more.throttled_wall,
        }
    }

    fn change(&mut self, curve: CpuCurve, now: Duration, limit: Option<u64>) {
        self.sum = self.at(now, limit);
        (self.curve, self.from, self.counted_to) = (curve, now, now);
    }
}

impl SimContainer {
    fn cpu_limit(&self) -> Option<u64> {
        self.resources.cpu_quota.and_then(|quota| u64::try_from(quota / 100).ok())
    }

    fn over_limit(&self) -> bool {
        let limit = self.resources.memory_limit.and_then(|limit| u64::try_from(limit).ok());
        limit.is_some_and(|limit| limit > 0 && self.behaviour.memory > limit)
    }

    pub(super) fn running(&self) -> bool {
        self.shown.state == ContainerState::Running
    }

    pub(super) fn ended(&self) -> bool {
        self.shown.state == ContainerState::Exited
    }

    pub(super) fn answers_probes(&self, now: Duration) -> bool {
        self.ready && self.started.is_some_and(|started| now >= started + self.behaviour.ready_after)
    }

    /// Log lines from the one with this number on.
    pub(super) fn log_from(&self, index: usize) -> &[(Duration, String)] {
        self.log.get(index..).unwrap_or_default()
    }

    fn stats(&self, now: Duration, at: Timestamp) -> ContainerStats {
        let limit = self.cpu_limit();
        let cpu = self.cpu.at(now, limit);
        let memory = Some(self.behaviour.memory);
        let wall = now.saturating_sub(self.started.unwrap_or(now)).as_nanos();
        let whole = |value: u128| u64::try_from(value).ok();
        ContainerStats {
            at,
            cpu_usage_nanos: whole(cpu.used / 1000),
            cfs_periods: limit.and_then(|_| whole(wall / PERIOD_NANOS)),
            cfs_throttled_periods: limit.and_then(|_| whole(cpu.throttled_wall / PERIOD_NANOS)),
            cfs_throttled_nanos: limit.and_then(|_| whole(cpu.throttled / 1000)),
            memory_usage: memory,
            memory_working_set: memory,
            memory_rss: memory,
            memory_limit: self.resources.memory_limit.and_then(|limit| u64::try_from(limit).ok()),
            processes: Some(1),
            ..ContainerStats::default()
        }
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

impl World {
    /// A node without pods at `epoch`. `start_delay` and `default` are for what nothing else is said about.
    pub(super) fn new(node: &str, epoch: Timestamp, start_delay: Duration, default: Behaviour) -> Self {
        Self { node: node.to_owned(), epoch, start_delay, default, ..Self::default() }
    }

    pub(super) fn timestamp(&self, at: Duration) -> Timestamp {
        let at = SignedDuration::try_from(at).unwrap_or(SignedDuration::MAX);
        self.epoch.checked_add(at).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Lets everything happen that was due by now, in order.
    pub(super) fn settle(&mut self, now: Duration) {
        while self.next_deadline().is_some_and(|at| at <= now) {
            let Some((at, id)) = self.deadlines.pop_first() else { return };
            let due = self.containers.get(&id).and_then(|container| container.plan);
            if let Some((planned, exit)) = due
                && planned == at
            {
                self.end(&id, at, exit);
            }
        }
    }

    /// Plans an exit, unless an earlier one is planned already.
    pub(super) fn plan_exit(&mut self, id: &str, at: Duration, code: i32, oom: bool) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.running() && container.plan.is_none_or(|(planned, _)| at < planned) {
            container.plan = Some((at, Exit { code, oom }));
            self.deadlines.insert((at, id.to_owned()));
        }
    }

    fn end(&mut self, id: &str, at: Duration, exit: Exit) {
        let finished_at = self.timestamp(at);
        let Some(container) = self.containers.get_mut(id).filter(|container| container.running()) else {
            return;
        };
        container.plan = None;
        container.shown.state = ContainerState::Exited;
        container.shown.finished_at = Some(finished_at);
        container.shown.exit_code = exit.code;
        container.shown.oom_killed = exit.oom;
        container.log.push((at, format!("simulated container exited with code {}", exit.code)));
        let (sandbox_id, pod_uid) = (container.shown.sandbox_id.clone(), container.pod.2.clone());
        self.outbox.push(RuntimeEvent::Changed { sandbox_id, pod_uid });
    }

    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:016x}{:048x}", hash(&self.node), self.made)
    }

    fn changed(&mut self, sandbox: &Sandbox) {
        let (sandbox_id, pod_uid) = (sandbox.id.clone(), sandbox.uid.clone());
        self.outbox.push(RuntimeEvent::Changed { sandbox_id, pod_uid });
    }

    pub(super) fn run_sandbox(&mut self, config: &SandboxConfig, now: Duration) -> Sandbox {
        let same = |one: &&Sandbox| one.uid == config.uid && one.attempt == config.attempt;
        if let Some(existing) = self.sandboxes.values().find(same) {
            return existing.clone();
        }
        let sandbox = Sandbox {
            id: self.id(),
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            uid: config.uid.clone(),
            attempt: config.attempt,
            ready: true,
            created_at: self.timestamp(now),
            netns: None,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        self.changed(&sandbox);
        sandbox
    }

    pub(super) fn stop_sandbox(&mut self, id: &str, now: Duration) {
        for member in self.members(id) {
            self.end(&member, now, Exit { code: KILLED, oom: false });
        }
        let Some(sandbox) = self.sandboxes.get_mut(id).filter(|sandbox| sandbox.ready) else { return };
        sandbox.ready = false;
        let sandbox = sandbox.clone();
        self.changed(&sandbox);
    }

    pub(super) fn remove_sandbox(&mut self, id: &str, now: Duration) {
        self.stop_sandbox(id, now);
        for member in self.members(id) {
            self.remove_container(&member);
        }
        if let Some(sandbox) = self.sandboxes.remove(id) {
            self.changed(&sandbox);
        }
    }

    pub(super) fn sandboxes(&self) -> Vec<Sandbox> {
        self.sandboxes.values().cloned().collect()
    }

    fn members(&self, sandbox_id: &str) -> Vec<String> {
        let of_it = self.containers.iter().filter(|(_, one)| one.shown.sandbox_id == sandbox_id);
        of_it.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn create_container(
        &mut self,
        sandbox_id: &str,
        config: &ContainerConfig,
        now: Duration,
    ) -> Result<String> {
        let sandbox = self.sandboxes.get(sandbox_id).cloned();
        let sandbox = sandbox.ok_or_else(|| RuntimeError::NotFound(sandbox_id.to_owned()))?;
        let same = |(_, one): &(&String, &SimContainer)| {
            let shown = &one.shown;
            shown.sandbox_id == sandbox_id && shown.name == config.name && shown.attempt == config.attempt
        };
        if let Some((id, _)) = self.containers.iter().find(same) {
            return Ok(id.clone());
        }
        let image = self.image(&config.image);
        let image = image.ok_or_else(|| RuntimeError::ImageNotPresent(config.image.clone()))?;
        let behaviour = self.by_image.get(&config.image).unwrap_or(&self.default).clone();
        let behaviour = behaviour
            .annotate(&sandbox.annotations)
            .and_then(|behaviour| behaviour.annotate(&config.annotations))
            .map_err(RuntimeError::Invalid)?;
        let id = self.id();
        let shown = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            image_id: image.id,
            state: ContainerState::Created,
            created_at: self.timestamp(now),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            signal: 0,
            oom_killed: false,
            error: String::new(),
            pid: None,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let container = SimContainer {
            shown,
            pod: (sandbox.namespace, sandbox.name, sandbox.uid),
            behaviour,
            resources: config.resources.clone(),
            started: None,
            plan: None,
            cpu: Cpu::default(),
            ready: true,
            log: Vec::new(),
        };
        self.containers.insert(id.clone(), container);
        Ok(id)
    }

    pub(super) fn get(&self, id: &str) -> Result<&SimContainer> {
        self.containers.get(id).ok_or_else(|| RuntimeError::NotFound(id.to_owned()))
    }

    /// For commands and attaching.
    pub(super) fn get_running(&self, step: &'static str, id: &str) -> Result<&SimContainer> {
        let container = self.get(id)?;
        if container.running() {
            return Ok(container);
        }
        Err(RuntimeError::Failed { step, reason: format!("container {id} is not running") })
    }

    /// How long starting it will take; `None` when there is nothing left to start.
    pub(super) fn start_delay(&self, id: &str) -> Result<Option<Duration>> {
        let container = self.get(id)?;
        let waiting = container.shown.state == ContainerState::Created;
        Ok(waiting.then(|| container.behaviour.start.unwrap_or(self.start_delay)))
    }

    pub(super) fn start_container(&mut self, id: &str, now: Duration) -> Result<()> {
        let started_at = self.timestamp(now);
        let container = self.get(id)?;
        if container.shown.state != ContainerState::Created {
            return Ok(());
        }
        let sandbox_id = container.shown.sandbox_id.clone();
        let failure = container.behaviour.fail_start.clone().or_else(|| self.fail_next_start.take());
        if !self.sandboxes.get(&sandbox_id).is_some_and(|sandbox| sandbox.ready) {
            let reason = format!("sandbox {sandbox_id} is not running");
            return Err(RuntimeError::Failed { step: "start container", reason });
        }
        let Some(container) = self.containers.get_mut(id) else {
            return Err(RuntimeError::NotFound(id.to_owned()));
        };
        if let Some(reason) = failure {
            container.shown.state = ContainerState::Exited;
            container.shown.exit_code = NOT_STARTED;
            container.shown.error.clone_from(&reason);
            return Err(RuntimeError::Invalid(reason));
        }
        container.shown.state = ContainerState::Running;
        container.shown.started_at = Some(started_at);
        container.started = Some(now);
        container.cpu.change(container.behaviour.cpu.clone(), now, None);
        container.log.push((now, "simulated container started: no process runs".into()));
        let exit = container.behaviour.exit_after.map(|after| (now + after, container.behaviour.exit_code));
        let (over, pod_uid) = (container.over_limit(), container.pod.2.clone());
        self.outbox.push(RuntimeEvent::Changed { sandbox_id, pod_uid });
        if let Some((at, code)) = exit {
            self.plan_exit(id, at, code, false);
        }
        if over {
            self.plan_exit(id, now, KILLED, true);
        }
        self.settle(now);
        Ok(())
    }

    /// Plans what asking and then killing will do.
    pub(super) fn stop_container(&mut self, id: &str, grace: Duration, now: Duration) {
        let Some(container) = self.containers.get(id) else { return };
        let behaviour = &container.behaviour;
        let (after, code) = if grace.is_zero() || behaviour.ignore_term || behaviour.stop > grace {
            (grace, KILLED)
        } else {
            (behaviour.stop, behaviour.term_exit_code)
        };
        self.plan_exit(id, now + after, code, false);
        self.settle(now);
    }

    pub(super) fn remove_container(&mut self, id: &str) {
        if let Some(container) = self.containers.remove(id) {
            let (sandbox_id, pod_uid) = (container.shown.sandbox_id, container.pod.2);
            self.outbox.push(RuntimeEvent::Changed { sandbox_id, pod_uid });
        }
    }

    pub(super) fn containers(&self, pod_uid: Option<&str>) -> Vec<Container> {
        let wanted = self.containers.values().filter(|one| pod_uid.is_none_or(|uid| one.pod.2 == uid));
        wanted.map(|one| one.shown.clone()).collect()
    }

    pub(super) fn stats(&self, now: Duration) -> Vec<(String, ContainerStats)> {
        let at = self.timestamp(now);
        let running = self.containers.iter().filter(|(_, one)| one.running());
        running.map(|(id, one)| (id.clone(), one.stats(now, at))).collect()
    }

    /// Present unless declared otherwise; asking for an image makes it known to `images`.
    pub(super) fn image(&mut self, reference: &str) -> Option<Image> {
        let state = self.images.entry(reference.to_owned()).or_insert(ImageState::Present);
        (*state == ImageState::Present).then(|| simulated_image(reference))
    }

    pub(super) fn images(&self) -> Vec<Image> {
        let present = self.images.iter().filter(|(_, state)| **state == ImageState::Present);
        present.map(|(reference, _)| simulated_image(reference)).collect()
    }

    /// Ids of the containers of a pod, given as uid or `namespace/name`.
    pub(super) fn of_pod(&self, pod: &str) -> Vec<String> {
        let is_it = |(namespace, name, uid): &(String, String, String)| {
            uid == pod || pod.split_once('/') == Some((namespace.as_str(), name.as_str()))
        };
        self.containers.iter().filter(|(_, one)| is_it(&one.pod)).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn set_cpu(&mut self, id: &str, curve: &CpuCurve, now: Duration) {
        if let Some(container) = self.containers.get_mut(id) {
            let limit = container.cpu_limit();
            if container.running() {
                container.cpu.change(curve.clone(), now, limit);
            }
            container.behaviour.cpu = curve.clone();
        }
    }

    pub(super) fn set_memory(&mut self, id: &str, bytes: u64, now: Duration) {
        if let Some(container) = self.containers.get_mut(id) {
            container.behaviour.memory = bytes;
            if container.over_limit() {
                self.end(id, now, Exit { code: KILLED, oom: true });
            }
        }
    }

    pub(super) fn set_ready(&mut self, id: &str, ready: bool) {
        if let Some(container) = self.containers.get_mut(id) {
            container.ready = ready;
        }
    }

    pub(super) fn crash(&mut self, id: &str, code: i32, now: Duration) {
        self.end(id, now, Exit { code, oom: false });
    }

    pub(super) fn kill_all(&mut self, now: Duration) {
        let sandboxes: Vec<String> = self.sandboxes.keys().cloned().collect();
        for id in sandboxes {
            self.stop_sandbox(&id, now);
        }
    }
}

/// Nothing is stored, so it takes no room.
fn simulated_image(reference: &str) -> Image {
    Image {
        id: format!("sha256:{:064x}", hash(reference)),
        tags: vec![reference.to_owned()],
        digests: Vec::new(),
        size: 0,
    }
}
