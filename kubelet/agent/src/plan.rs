//! What to do next about one pod: a pure function from what is wanted and what is seen to actions. It follows the
//! kubelet's `computePodActions`. It never waits, reads no clock and does no IO; the shell in `worker` carries out
//! the actions and asks again after each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use loadline_runtime::{Container, ContainerState, Sandbox};

use crate::backoff::{Backoff, go_duration};
use crate::names;

/// Verdict of one kind of probe on one container instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failure,
}

/// What the probes of a container instance say; `None` while they have not said anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    pub(crate) startup: Option<Verdict>,
    pub(crate) liveness: Option<Verdict>,
    pub(crate) readiness: Option<Verdict>,
}

/// Why a container does not run, as `state.waiting` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Waiting {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// A start that failed, and when to try it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartError {
    pub(crate) waiting: Waiting,
    pub(crate) retry_at: Timestamp,
}

/// What the worker remembers between two looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// By container name.
    pub(crate) crashes: Backoff,
    /// By container name.
    pub(crate) errors: BTreeMap<String, StartError>,
    /// When the sandbox may be tried again after a failure.
    pub(crate) sandbox_retry_at: Option<Timestamp>,
}

/// Operations under way, which must not be ordered twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    /// A sandbox or containers are being started.
    pub(crate) starting: bool,
    /// Ids of containers and sandboxes that are being ended or removed.
    pub(crate) ending: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Run,
    /// End everything; containers are granted this long.
    Stop {
        grace: Duration,
    },
}

pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) sandboxes: &'a [Sandbox],
    pub(crate) containers: &'a [Container],
    /// By container id.
    pub(crate) probes: &'a BTreeMap<String, Probes>,
    pub(crate) memory: &'a Memory,
    pub(crate) busy: &'a Busy,
    pub(crate) intent: Intent,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    CreateSandbox {
        attempt: u32,
    },
    /// `after`: when the instance before it ended, which counts towards the back-off.
    Start {
        name: String,
        attempt: u32,
        after: Option<Timestamp>,
    },
    Kill {
        id: String,
        name: String,
        grace: Duration,
        message: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// By container name; what is missing waits for the default reason or does not wait.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    pub(crate) wake_at: Option<Timestamp>,
    /// Nothing runs and nothing will: the pod has ended on this node.
    pub(crate) ended: bool,
    /// The sandbox died and takes its containers with it.
    pub(crate) sandbox_changed: bool,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

/// The newest instance of a container.
pub(crate) fn latest<'a>(containers: &'a [Container], name: &str) -> Option<&'a Container> {
    containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created_at))
}

/// The sandbox that counts: the newest one, running before not running.
pub(crate) fn current_sandbox(sandboxes: &[Sandbox]) -> Option<&Sandbox> {
    sandboxes.iter().max_by_key(|s| (s.ready, s.attempt, s.created_at))
}

pub(crate) fn is_running(container: &Container) -> bool {
    container.state == ContainerState::Running
}

/// Ended, or never got as far as running.
pub(crate) fn is_dead(container: &Container) -> bool {
    container.state == ContainerState::Exited
        || container.state == ContainerState::Created && !container.error.is_empty()
}

/// A container that could not be started counts as failed whatever its exit code says.
pub(crate) fn exit_code(container: &Container) -> i32 {
    match container.exit_code {
        0 if !container.error.is_empty() => 128,
        code => code,
    }
}

/// Running and past its startup probe.
pub(crate) fn is_started(spec: &Spec, container: &Container, probes: &BTreeMap<String, Probes>) -> bool {
    is_running(container)
        && (spec.startup_probe.is_none()
            || probes.get(&container.id).and_then(|p| p.startup) == Some(Verdict::Success))
}

/// Whether the rules allow another run after `exit_code`.
pub(crate) fn restarts(pod: &Pod, spec: &Spec, exit_code: i32) -> bool {
    for rule in spec.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        if rule.action == "Restart" && listed == (codes.operator == "In") {
            return true;
        }
    }
    match spec.restart_policy.as_deref().unwrap_or_else(|| names::restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// All containers have ended for good, or an init container has.
pub(crate) fn is_finished(pod: &Pod, containers: &[Container]) -> bool {
    let over = |spec: &Spec| {
        latest(containers, &spec.name).is_some_and(|c| is_dead(c) && !restarts(pod, spec, exit_code(c)))
    };
    let init_failed = names::init_containers(pod).iter().any(|spec| {
        // An init container whose pod policy is Always runs again until it succeeds.
        !names::is_sidecar(spec)
            && latest(containers, &spec.name)
                .is_some_and(|c| is_dead(c) && exit_code(c) != 0 && !init_restarts(pod, spec, exit_code(c)))
    });
    let mains = names::containers(pod);
    let started = mains.iter().any(|s| latest(containers, &s.name).is_some());
    (init_failed && !started) || (!mains.is_empty() && mains.iter().all(over))
}

fn init_restarts(pod: &Pod, spec: &Spec, code: i32) -> bool {
    code != 0 && restarts(pod, spec, code)
}

pub(crate) fn decide(inputs: &Inputs<'_>) -> Plan {
    let mut plan = Plan::default();
    match inputs.intent {
        Intent::Stop { grace } => stop(inputs, grace, &mut plan),
        Intent::Run if is_finished(inputs.pod, inputs.containers) => {
            stop(inputs, pod_grace(inputs.pod), &mut plan)
        }
        Intent::Run => run(inputs, &mut plan),
    }
    prune(inputs, &mut plan);
    plan.actions.retain(|a| match a {
        Action::Kill { id, .. }
        | Action::StopSandbox { id }
        | Action::RemoveContainer { id }
        | Action::RemoveSandbox { id } => !inputs.busy.ending.contains(id),
        Action::CreateSandbox { .. } | Action::Start { .. } => !inputs.busy.starting,
    });
    plan
}

fn pod_grace(pod: &Pod) -> Duration {
    Duration::from_secs(names::grace_seconds(pod).unsigned_abs())
}

/// Containers first, sidecars after them, then the sandboxes.
fn stop(inputs: &Inputs<'_>, grace: Duration, plan: &mut Plan) {
    let alive: Vec<&Container> = inputs.containers.iter().filter(|c| is_running(c)).collect();
    let sidecar = |c: &&&Container| names::container(inputs.pod, &c.name).is_some_and(names::is_sidecar);
    let first: Vec<&&Container> = alive.iter().filter(|c| !sidecar(c)).collect();
    let victims = if first.is_empty() { alive.iter().collect() } else { first };
    for c in victims {
        plan.actions.push(kill(c, grace, format!("Stopping container {}", c.name)));
    }
    if !alive.is_empty() || inputs.busy.starting {
        return;
    }
    let ready: Vec<&Sandbox> = inputs.sandboxes.iter().filter(|s| s.ready).collect();
    plan.ended = ready.is_empty();
    plan.actions.extend(ready.into_iter().map(|s| Action::StopSandbox { id: s.id.clone() }));
}

fn kill(c: &Container, grace: Duration, message: String) -> Action {
    Action::Kill { id: c.id.clone(), name: c.name.clone(), grace, message }
}

fn run(inputs: &Inputs<'_>, plan: &mut Plan) {
    let Some(sandbox) = current_sandbox(inputs.sandboxes).filter(|s| s.ready) else {
        return renew_sandbox(inputs, plan);
    };
    for other in inputs.sandboxes.iter().filter(|s| s.ready && s.id != sandbox.id) {
        plan.actions.push(Action::StopSandbox { id: other.id.clone() });
    }
    for c in inputs.containers.iter().filter(|c| is_running(c) && c.sandbox_id != sandbox.id) {
        plan.actions.push(kill(
            c,
            pod_grace(inputs.pod),
            "Pod sandbox changed, it will be killed and re-created.".into(),
        ));
    }
    if !initialized(inputs, sandbox, plan) {
        for spec in names::containers(inputs.pod) {
            plan.waiting.insert(spec.name.clone(), Waiting::new("PodInitializing", ""));
        }
        return;
    }
    for spec in names::containers(inputs.pod) {
        keep(inputs, sandbox, spec, plan);
    }
}

/// No sandbox runs: end what is left of the old one, then make a new one.
fn renew_sandbox(inputs: &Inputs<'_>, plan: &mut Plan) {
    let newest = inputs.sandboxes.iter().map(|s| s.attempt).max();
    plan.sandbox_changed = newest.is_some();
    let mut alive = false;
    for c in inputs.containers.iter().filter(|c| is_running(c)) {
        alive = true;
        plan.actions.push(kill(c, pod_grace(inputs.pod), format!("Stopping container {}", c.name)));
    }
    if alive {
        return;
    }
    match inputs.memory.sandbox_retry_at {
        Some(at) if at > inputs.now => plan.wake(at),
        _ => plan.actions.push(Action::CreateSandbox { attempt: newest.map_or(0, |a| a + 1) }),
    }
}

/// Brings the init containers forward, one after the other; whether the pod's own containers may run.
fn initialized(inputs: &Inputs<'_>, sandbox: &Sandbox, plan: &mut Plan) -> bool {
    let inits = names::init_containers(inputs.pod);
    let past = names::containers(inputs.pod)
        .iter()
        .any(|s| latest(inputs.containers, &s.name).is_some_and(|c| c.sandbox_id == sandbox.id));
    if past {
        for spec in inits.iter().filter(|s| names::is_sidecar(s)) {
            keep(inputs, sandbox, spec, plan);
        }
        return true;
    }
    for (index, spec) in inits.iter().enumerate() {
        let here = latest(inputs.containers, &spec.name).filter(|c| c.sandbox_id == sandbox.id);
        let done = if names::is_sidecar(spec) {
            keep(inputs, sandbox, spec, plan);
            here.is_some_and(|c| is_started(spec, c, inputs.probes))
        } else {
            match here {
                Some(c) if is_running(c) => false,
                Some(c) if is_dead(c) && exit_code(c) == 0 => true,
                _ => {
                    start(inputs, sandbox, spec, plan);
                    false
                }
            }
        };
        if !done {
            for later in &inits[index + 1..] {
                plan.waiting.insert(later.name.clone(), Waiting::new("PodInitializing", ""));
            }
            return false;
        }
    }
    true
}

/// Keeps one long-running container as it should be.
fn keep(inputs: &Inputs<'_>, sandbox: &Sandbox, spec: &Spec, plan: &mut Plan) {
    let Some(c) =
        latest(inputs.containers, &spec.name).filter(|c| is_running(c) && c.sandbox_id == sandbox.id)
    else {
        return start(inputs, sandbox, spec, plan);
    };
    let probes = inputs.probes.get(&c.id).copied().unwrap_or_default();
    let image_changed = match (c.annotations.get(names::SPEC_IMAGE), &spec.image) {
        (Some(old), Some(new)) => old != new,
        _ => false,
    };
    let (why, probe) = if image_changed {
        (format!("Container {} definition changed, will be restarted", spec.name), None)
    } else if probes.startup == Some(Verdict::Failure) {
        (
            format!("Container {} failed startup probe, will be restarted", spec.name),
            spec.startup_probe.as_ref(),
        )
    } else if probes.liveness == Some(Verdict::Failure) {
        (
            format!("Container {} failed liveness probe, will be restarted", spec.name),
            spec.liveness_probe.as_ref(),
        )
    } else {
        return;
    };
    let grace = probe
        .and_then(|p| p.termination_grace_period_seconds)
        .map_or_else(|| pod_grace(inputs.pod), |s| Duration::from_secs(s.max(0).unsigned_abs()));
    plan.actions.push(kill(c, grace, why));
}

/// Starts a container that does not run, unless its policy, a back-off or an earlier error says otherwise.
fn start(inputs: &Inputs<'_>, sandbox: &Sandbox, spec: &Spec, plan: &mut Plan) {
    let last = latest(inputs.containers, &spec.name);
    let (attempt, after) = match last {
        // Still running in a sandbox that is gone: it is being killed.
        Some(c) if is_running(c) => return,
        // Made but not started, because the agent died between the two.
        Some(c) if !is_dead(c) && c.sandbox_id == sandbox.id => (c.attempt, None),
        Some(c) => {
            let init = names::init_containers(inputs.pod).iter().any(|i| i.name == spec.name)
                && !names::is_sidecar(spec);
            // Init containers run again in a new sandbox whatever they did in the old one.
            let anew = init && c.sandbox_id != sandbox.id;
            if !anew && !restarts(inputs.pod, spec, exit_code(c)) {
                return;
            }
            (c.attempt + 1, Some(c.finished_at.unwrap_or(c.created_at)))
        }
        None => (0, None),
    };
    if let Some(error) = inputs.memory.errors.get(&spec.name) {
        plan.waiting.insert(spec.name.clone(), error.waiting.clone());
        if error.retry_at > inputs.now {
            plan.wake(error.retry_at);
            return;
        }
    }
    if inputs.busy.starting && after.is_some_and(|at| inputs.memory.crashes.counted(&spec.name, at)) {
        // The restart for this very end is under way; the back-off that it set is for the next one.
        return;
    }
    if let Some((until, delay)) = after.and_then(|at| inputs.memory.crashes.until(&spec.name, at, inputs.now))
    {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(delay),
            spec.name,
            names::full(inputs.pod)
        );
        plan.waiting.insert(spec.name.clone(), Waiting::new("CrashLoopBackOff", message));
        plan.wake(until);
        return;
    }
    plan.actions.push(Action::Start { name: spec.name.clone(), attempt, after });
}

/// Keeps two dead instances of each container (the last state and its predecessor) and removes the rest, then the
/// dead sandboxes that nothing refers to.
fn prune(inputs: &Inputs<'_>, plan: &mut Plan) {
    let mut kept: Vec<&Container> = Vec::new();
    let names: BTreeSet<&str> = inputs.containers.iter().map(|c| c.name.as_str()).collect();
    for name in names {
        let mut dead: Vec<&Container> =
            inputs.containers.iter().filter(|c| c.name == name && is_dead(c)).collect();
        dead.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        for old in dead.iter().skip(2) {
            if !old.labels.contains_key(names::LOST) {
                plan.actions.push(Action::RemoveContainer { id: old.id.clone() });
            }
        }
        kept.extend(dead.into_iter().take(2));
    }
    kept.extend(inputs.containers.iter().filter(|c| !is_dead(c)));
    let Some(current) = current_sandbox(inputs.sandboxes) else { return };
    for s in inputs.sandboxes.iter().filter(|s| !s.ready && s.id != current.id) {
        if !kept.iter().any(|c| c.sandbox_id == s.id) {
            plan.actions.push(Action::RemoveSandbox { id: s.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
