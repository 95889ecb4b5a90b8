//! A pod's status as the kubelet writes it: a pure function from what is seen to `PodStatus`, and the patch that
//! turns the old status into the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadline_runtime::{Container, ContainerState, Sandbox};
use serde_json::{Map, Value, json};

use crate::names;
use crate::plan::{self, Probes, Verdict, Waiting};
use crate::resources;

/// Why the whole pod failed, whatever its containers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

pub(crate) struct Seen<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) sandboxes: &'a [Sandbox],
    pub(crate) containers: &'a [Container],
    pub(crate) probes: &'a BTreeMap<String, Probes>,
    pub(crate) waiting: &'a BTreeMap<String, Waiting>,
    /// Termination messages by container id.
    pub(crate) messages: &'a BTreeMap<String, String>,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) host_ip: IpAddr,
    /// The runtime's name, which heads container ids: `docker`.
    pub(crate) runtime: &'a str,
    pub(crate) failure: Option<&'a Failure>,
    /// Nothing of the pod runs any more, and nothing will.
    pub(crate) ended: bool,
    pub(crate) now: Timestamp,
}

pub(crate) fn pod_status(seen: &Seen<'_>) -> PodStatus {
    let pod = seen.pod;
    let old = pod.status.clone().unwrap_or_default();
    let inits = container_statuses(seen, names::init_containers(pod), true);
    let mut mains = container_statuses(seen, names::containers(pod), false);
    let initialized = is_initialized(pod, &inits, &mains);
    let phase = final_phase(seen, &old, phase(pod, &inits, &mains, seen.ended, initialized));
    let conditions = conditions(seen, &old, &phase, &inits, &mains, initialized);
    mains.sort_by(|a, b| a.name.cmp(&b.name));

    let host_network = names::host_network(pod);
    let host_ips = [seen.host_ip];
    let ips: &[IpAddr] = match (host_network, seen.ips) {
        (true, _) => &host_ips,
        (false, ips) => ips,
    };
    let pod_ips: Option<Vec<PodIP>> = match ips {
        [] => old.pod_ips.clone(),
        ips => Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
    };
    PodStatus {
        conditions: Some(conditions),
        container_statuses: (!mains.is_empty()).then_some(mains),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        host_ip: Some(seen.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: seen.host_ip.to_string() }]),
        message: seen.failure.map(|f| f.message.clone()).or_else(|| kept(&phase, &old.message)),
        reason: seen.failure.map(|f| f.reason.clone()).or_else(|| kept(&phase, &old.reason)),
        phase: Some(phase),
        pod_ip: pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone()),
        pod_ips,
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| resources::qos_class(pod).to_owned())),
        start_time: Some(old.start_time.clone().unwrap_or(Time(whole(seen.now)))),
        observed_generation: pod.metadata.generation,
        ..old
    }
}

/// The status of a pod that this node refuses.
pub(crate) fn rejected(pod: &Pod, failure: &Failure, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(failure.reason.clone()),
        message: Some(format!("Pod was rejected: {}", failure.message)),
        start_time: Some(old.start_time.clone().unwrap_or(Time(whole(now)))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| resources::qos_class(pod).to_owned())),
        observed_generation: pod.metadata.generation,
        ..old
    }
}

fn kept(phase: &str, old: &Option<String>) -> Option<String> {
    if names::is_terminal_phase(phase) { old.clone() } else { None }
}

/// `metav1.Time` has whole seconds.
pub(crate) fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn container_statuses(seen: &Seen<'_>, specs: &[Spec], init: bool) -> Vec<ContainerStatus> {
    specs.iter().map(|spec| container_status(seen, spec, init)).collect()
}

fn container_status(seen: &Seen<'_>, spec: &Spec, init: bool) -> ContainerStatus {
    let mut instances: Vec<&Container> = seen.containers.iter().filter(|c| c.name == spec.name).collect();
    instances.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    let Some(current) = instances.first() else {
        let waiting = seen.waiting.get(&spec.name).cloned().unwrap_or_else(|| {
            let pending = !init && !names::init_containers(seen.pod).is_empty();
            Waiting::new(if pending { "PodInitializing" } else { "ContainerCreating" }, "")
        });
        return ContainerStatus {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            state: Some(waiting_state(&waiting)),
            last_state: Some(State::default()),
            started: Some(false),
            ..ContainerStatus::default()
        };
    };
    let dead = plan::is_dead(current);
    let waiting = seen.waiting.get(&spec.name).filter(|_| dead && !seen.ended);
    let state = match (waiting, current.state) {
        (Some(waiting), _) => waiting_state(waiting),
        (None, _) if dead => terminated_state(seen, current),
        (None, ContainerState::Running) => State {
            running: Some(ContainerStateRunning { started_at: current.started_at.map(|t| Time(whole(t))) }),
            ..State::default()
        },
        _ => waiting_state(&Waiting::new("ContainerCreating", "")),
    };
    let last = if waiting.is_some() { Some(current) } else { instances.get(1).filter(|c| plan::is_dead(c)) };
    let long_running = !init || names::is_sidecar(spec);
    let started = long_running && plan::is_started(spec, current, seen.probes);
    let ready = if long_running {
        started && is_ready(spec, current, seen.probes)
    } else {
        dead && plan::exit_code(current) == 0
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: if current.image.is_empty() {
            spec.image.clone().unwrap_or_default()
        } else {
            current.image.clone()
        },
        image_id: current.image_id.clone(),
        container_id: Some(container_id(seen, current)),
        state: Some(state),
        last_state: Some(last.map(|c| terminated_state(seen, c)).unwrap_or_default()),
        restart_count: i32::try_from(current.attempt).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
        resources: Some(spec.resources.clone().unwrap_or_default()),
        volume_mounts: mount_statuses(spec),
        ..ContainerStatus::default()
    }
}

fn mount_statuses(spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts: Vec<VolumeMountStatus> = spec
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| VolumeMountStatus {
            mount_path: m.mount_path.clone(),
            name: m.name.clone(),
            read_only: m.read_only,
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

fn is_ready(spec: &Spec, current: &Container, probes: &BTreeMap<String, Probes>) -> bool {
    spec.readiness_probe.is_none()
        || probes.get(&current.id).and_then(|p| p.readiness) == Some(Verdict::Success)
}

fn container_id(seen: &Seen<'_>, c: &Container) -> String {
    // What only the old status remembers keeps the id that it had there.
    if c.id.contains("://") { c.id.clone() } else { format!("{}://{}", seen.runtime, c.id) }
}

fn waiting_state(waiting: &Waiting) -> State {
    let message = (!waiting.message.is_empty()).then(|| waiting.message.clone());
    State {
        waiting: Some(ContainerStateWaiting { reason: Some(waiting.reason.clone()), message }),
        ..State::default()
    }
}

fn terminated_state(seen: &Seen<'_>, c: &Container) -> State {
    let code = plan::exit_code(c);
    let lost = c.labels.get(names::LOST);
    let reason = match lost {
        Some(reason) if !reason.is_empty() => reason.as_str(),
        _ if c.oom_killed => "OOMKilled",
        _ if !c.error.is_empty() => "StartError",
        _ if code == 0 => "Completed",
        _ => "Error",
    };
    let message = seen.messages.get(&c.id).filter(|m| !m.is_empty()).cloned();
    let message = message.or_else(|| (!c.error.is_empty()).then(|| c.error.clone()));
    State {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(seen, c)),
            exit_code: code,
            finished_at: c
                .finished_at
                .or(Some(c.created_at).filter(|_| lost.is_none()))
                .map(|t| Time(whole(t))),
            started_at: c
                .started_at
                .or(Some(c.created_at).filter(|_| lost.is_none()))
                .map(|t| Time(whole(t))),
            message,
            reason: Some(reason.to_owned()),
            signal: (c.signal != 0).then_some(c.signal),
        }),
        ..State::default()
    }
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_none_or(|s| s.waiting.is_some())
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// The last run's end while the container waits for the next.
fn last_terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

fn is_initialized(pod: &Pod, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> bool {
    let started =
        mains.iter().any(|s| is_running(s) || terminated(s).is_some() || last_terminated(s).is_some());
    started || incomplete(pod, inits).is_empty()
}

/// The init containers that still hold the pod back.
fn incomplete(pod: &Pod, inits: &[ContainerStatus]) -> Vec<String> {
    let open = |(spec, status): &(&Spec, &ContainerStatus)| {
        if names::is_sidecar(spec) {
            status.started != Some(true)
        } else {
            terminated(status).is_none_or(|t| t.exit_code != 0)
        }
    };
    names::init_containers(pod).iter().zip(inits).filter(open).map(|(spec, _)| spec.name.clone()).collect()
}

/// `getPhase` of the kubelet.
fn phase(
    pod: &Pod,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
    ended: bool,
    initialized: bool,
) -> &'static str {
    let mut pending = 0;
    let mut failed_for_good = false;
    for (spec, status) in names::init_containers(pod).iter().zip(inits) {
        if names::is_sidecar(spec) {
            if status.started != Some(true) && (is_running(status) || last_terminated(status).is_none()) {
                pending += usize::from(!initialized);
            }
            continue;
        }
        match terminated(status).or_else(|| last_terminated(status).filter(|_| is_waiting(status))) {
            Some(t) if t.exit_code != 0 => {
                failed_for_good |= !plan::restarts(pod, spec, t.exit_code);
                pending += usize::from(!initialized);
            }
            Some(_) => {}
            None => pending += usize::from(!initialized),
        }
    }
    if failed_for_good && !initialized {
        return "Failed";
    }
    let running = mains.iter().filter(|s| is_running(s)).count();
    let stopped: Vec<&ContainerStateTerminated> = mains
        .iter()
        .filter_map(|s| terminated(s).or_else(|| last_terminated(s).filter(|_| is_waiting(s))))
        .collect();
    let waiting = mains.len() - running - stopped.len();
    let succeeded = mains.iter().filter(|s| terminated(s).is_some_and(|t| t.exit_code == 0)).count();
    if pending > 0 || waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped.is_empty() {
        return "Pending";
    }
    if ended {
        return if stopped.len() == succeeded { "Succeeded" } else { "Failed" };
    }
    let again = names::containers(pod).iter().zip(mains).any(|(spec, status)| {
        terminated(status)
            .or_else(|| last_terminated(status))
            .is_none_or(|t| plan::restarts(pod, spec, t.exit_code))
    });
    match again {
        true => "Running",
        false if stopped.len() == succeeded => "Succeeded",
        false => "Failed",
    }
}

/// A terminal phase never changes again; a pod that ended without one has failed.
fn final_phase(seen: &Seen<'_>, old: &PodStatus, computed: &str) -> String {
    match old.phase.as_deref() {
        Some(phase) if names::is_terminal_phase(phase) => return phase.to_owned(),
        _ => {}
    }
    if seen.failure.is_some() || seen.ended && !names::is_terminal_phase(computed) {
        return "Failed".to_owned();
    }
    computed.to_owned()
}

fn conditions(
    seen: &Seen<'_>,
    old: &PodStatus,
    phase: &str,
    inits: &[ContainerStatus],
    mains: &[ContainerStatus],
    initialized: bool,
) -> Vec<PodCondition> {
    let pod = seen.pod;
    let sandbox = plan::current_sandbox(seen.sandboxes).is_some_and(|s| s.ready);
    let connected = sandbox && (names::host_network(pod) || !seen.ips.is_empty());
    let unready: Vec<String> = unready(pod, inits, mains);
    let containers_ready = ready_condition(phase, &unready);
    let gates = gates(pod, old);
    let ready = match (&containers_ready, gates) {
        ((true, _, _), Some(message)) => (false, "ReadinessGatesNotReady", message),
        (containers, _) => containers.clone(),
    };
    let init = match (phase, initialized) {
        ("Succeeded", _) => (true, "PodCompleted", String::new()),
        (_, true) => (true, "", String::new()),
        (_, false) => {
            let names = incomplete(pod, inits).join(" ");
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{names}]"))
        }
    };
    let ours = [
        ("PodReadyToStartContainers", (connected, "", String::new())),
        ("Initialized", init),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, "", String::new())),
    ];
    let foreign =
        old.conditions.iter().flatten().filter(|c| !ours.iter().any(|(t, _)| *t == c.type_)).cloned();
    let mut all: Vec<PodCondition> =
        ours.iter().map(|(type_, value)| condition(seen, old, type_, value)).collect();
    all.extend(foreign);
    all
}

fn condition(seen: &Seen<'_>, old: &PodStatus, type_: &str, value: &(bool, &str, String)) -> PodCondition {
    let (ok, reason, message) = value;
    let status = if *ok { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|c| c.type_ == type_);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| (*reason).to_owned()),
        message: (!message.is_empty()).then(|| message.clone()),
        last_transition_time: Some(since.unwrap_or(Time(whole(seen.now)))),
        observed_generation: seen.pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn unready(pod: &Pod, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> Vec<String> {
    let sidecars = names::init_containers(pod).iter().zip(inits).filter(|(spec, _)| names::is_sidecar(spec));
    let sidecars = sidecars.map(|(_, status)| status);
    sidecars.chain(mains).filter(|s| !s.ready).map(|s| s.name.clone()).collect()
}

fn ready_condition(phase: &str, unready: &[String]) -> (bool, &'static str, String) {
    match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => {
            (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
        }
    }
}

/// What is missing for the readiness gates.
fn gates(pod: &Pod, old: &PodStatus) -> Option<String> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let mut missing = Vec::new();
    for gate in gates {
        let wanted = &gate.condition_type;
        match old.conditions.iter().flatten().find(|c| c.type_ == *wanted) {
            Some(c) if c.status == "True" => {}
            Some(c) => missing.push(format!(
                "the status of pod readiness gate {wanted:?} is not \"True\", but {}",
                c.status
            )),
            None => missing
                .push(format!("corresponding condition of pod readiness gate {wanted:?} does not exist.")),
        }
    }
    match missing.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// Instances that the runtime no longer knows but the pod's status does, so that neither restart counts nor ends
/// get lost with a container that somebody removed.
pub(crate) fn recall(pod: &Pod, containers: &[Container], now: Timestamp) -> Vec<Container> {
    let Some(status) = &pod.status else { return Vec::new() };
    let known: BTreeSet<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let statuses =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    statuses.filter(|s| !known.contains(s.name.as_str())).filter_map(|s| lost(s, now)).collect()
}

fn lost(status: &ContainerStatus, now: Timestamp) -> Option<Container> {
    let id = status.container_id.clone()?;
    let ended = terminated(status).or_else(|| last_terminated(status).filter(|_| is_waiting(status)));
    if ended.is_none() && !is_running(status) {
        return None;
    }
    let time = |t: &Option<Time>| t.as_ref().map(|t| t.0);
    let reason = ended.map_or("ContainerStatusUnknown", |t| t.reason.as_deref().unwrap_or_default());
    Some(Container {
        id,
        sandbox_id: String::new(),
        name: status.name.clone(),
        attempt: u32::try_from(status.restart_count).unwrap_or_default(),
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        state: ContainerState::Exited,
        created_at: ended.and_then(|t| time(&t.started_at)).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: ended.and_then(|t| time(&t.started_at)),
        finished_at: ended.map_or(Some(now), |t| time(&t.finished_at)),
        exit_code: ended.map_or(137, |t| t.exit_code),
        signal: ended.and_then(|t| t.signal).unwrap_or_default(),
        oom_killed: false,
        error: String::new(),
        pid: None,
        labels: [(names::LOST.to_owned(), reason.to_owned())].into(),
        annotations: BTreeMap::new(),
    })
}

/// The strategic merge patch from `old` to `new`, or `None` when there is nothing to write. Conditions merge by
/// type, so those of others stay as they are.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
        (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return None;
    };
    let mut changes = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => match changed_conditions(before, value) {
                Some(changed) => changed,
                None => continue,
            },
            "podIPs" | "hostIPs" if before.is_some() => replaced(value),
            _ => value.clone(),
        };
        changes.insert(key.clone(), value);
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changes}))
}

/// Whether the API shows another state of the pod than this one, in what only the kubelet should say.
pub(crate) fn differs(api: &PodStatus, ours: &PodStatus) -> bool {
    let verdict = |s: &PodStatus, type_: &str| {
        s.conditions.iter().flatten().find(|c| c.type_ == type_).map(|c| c.status.clone())
    };
    api.phase != ours.phase
        || api.pod_ip != ours.pod_ip
        || ["Ready", "ContainersReady", "Initialized"].iter().any(|t| verdict(api, t) != verdict(ours, t))
}

fn changed_conditions(before: Option<&Value>, after: &Value) -> Option<Value> {
    let empty = Vec::new();
    let before = before.and_then(Value::as_array).unwrap_or(&empty);
    let mut changed = Vec::new();
    for condition in after.as_array()? {
        let old = before.iter().find(|c| c["type"] == condition["type"]);
        if old == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        // A reason that no longer holds has to be taken away by name.
        for key in ["reason", "message"] {
            if old.is_some_and(|o| o.get(key).is_some()) && condition.get(key).is_none() {
                condition[key] = Value::Null;
            }
        }
        changed.push(condition);
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

fn replaced(list: &Value) -> Value {
    let mut items = list.as_array().cloned().unwrap_or_default();
    items.push(json!({"$patch": "replace"}));
    Value::Array(items)
}

#[cfg(test)]
mod tests;
