//! Who is silent, whether that is the nodes' fault or ours, and what conditions and taints follow. Time comes in as a
//! duration since this controller started, so no node's clock counts. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta::name;

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";

/// Conditions that make a node unfit for new pods while they are True, and their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that only the kubelet knows; when it is silent, nobody does.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Between two looks.
    pub(crate) period: Duration,
    /// Silence that is forgiven.
    pub(crate) grace: Duration,
    /// The same for a node that flaps, and for one that has not reported yet.
    pub(crate) long_grace: Duration,
    pub(crate) startup_grace: Duration,
    /// Between two nodes whose eviction begins.
    pub(crate) eviction_interval: Duration,
}

const FLAPS: usize = 3;
const FLAP_WINDOW: Duration = Duration::from_secs(300);
/// Of the nodes unhealthy at once, in percent, beyond which the fault is taken to be ours.
const TOO_MANY: usize = 55;

#[derive(Clone, Debug, Default)]
struct Record {
    heard: Duration,
    silent: bool,
    recoveries: VecDeque<Duration>,
    may_evict: bool,
    pods_marked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disruption {
    #[default]
    None,
    /// Too many at once: nobody is evicted.
    Partial,
    /// All of them: nobody is evicted, and no endpoint is withdrawn.
    Full,
}

/// What is remembered between looks; lost on a restart, and every clock then starts again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    nodes: HashMap<String, Record>,
    disruption: Disruption,
    last_look: Option<Duration>,
    last_eviction: Option<Duration>,
}

impl Memory {
    /// A sign of life.
    pub(crate) fn heard(&mut self, node: &str, now: Duration) {
        let record = self.nodes.entry(node.to_owned()).or_default();
        record.heard = now;
        if std::mem::take(&mut record.silent) {
            record.recoveries.push_back(now);
        }
    }

    /// A look and all that followed from it is over: time that our own writes took is not lateness.
    pub(crate) fn looked(&mut self, now: Duration) {
        self.last_look = Some(now);
    }

    pub(crate) fn is_silent(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|r| r.silent)
    }

    #[cfg(test)]
    pub(crate) fn disruption(&self) -> Disruption {
        self.disruption
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// New conditions and taints, where they differ from what is there. `silent` ones are to be verified first.
    Update {
        node: Arc<Node>,
        silent: bool,
        conditions: Option<Vec<NodeCondition>>,
        taints: Option<Vec<Taint>>,
    },
    /// The node's pods are not ready, whatever they last said.
    MarkPods(String),
}

pub(crate) fn ready_status(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|c| c.status.as_str())
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// One look at all nodes.
pub(crate) fn plan(
    settings: &Settings,
    memory: &mut Memory,
    nodes: &[Arc<Node>],
    now: Duration,
    wall: Timestamp,
) -> Vec<Action> {
    let names: HashSet<&str> = nodes.iter().map(|n| name(&n.metadata)).collect();
    memory.nodes.retain(|n, _| names.contains(n.as_str()));
    for node in &names {
        memory.nodes.entry((*node).to_owned()).or_insert_with(|| Record { heard: now, ..Record::default() });
    }
    // A look that comes late says that we were asleep, not the nodes.
    let late = memory.last_look.is_some_and(|last| now - last > settings.period * 3 + Duration::from_secs(1));
    memory.last_look = Some(now);
    if late {
        restart_clocks(memory, now);
    }
    note_silence(settings, memory, nodes, now);
    let disruption = assess(memory, nodes);
    if disruption == Disruption::None && memory.disruption != Disruption::None {
        restart_clocks(memory, now);
    }
    memory.disruption = disruption;
    nodes.iter().flat_map(|node| look(settings, memory, node, now, wall)).collect()
}

fn restart_clocks(memory: &mut Memory, now: Duration) {
    for record in memory.nodes.values_mut() {
        record.heard = now;
        record.silent = false;
    }
}

fn note_silence(settings: &Settings, memory: &mut Memory, nodes: &[Arc<Node>], now: Duration) {
    for node in nodes {
        let Some(record) = memory.nodes.get_mut(name(&node.metadata)) else { continue };
        while record.recoveries.front().is_some_and(|at| now - *at > FLAP_WINDOW) {
            record.recoveries.pop_front();
        }
        let mut grace = settings.grace;
        if record.recoveries.len() >= FLAPS {
            grace = grace.max(settings.long_grace);
        }
        if ready_status(node).is_none() {
            grace = grace.max(settings.startup_grace);
        }
        record.silent = now.saturating_sub(record.heard) > grace;
    }
}

fn assess(memory: &Memory, nodes: &[Arc<Node>]) -> Disruption {
    let unhealthy = nodes
        .iter()
        .filter(|n| {
            let silent = memory.nodes.get(name(&n.metadata)).is_some_and(|r| r.silent);
            silent || ready_status(n).is_some_and(|s| s != "True")
        })
        .count();
    if unhealthy > 0 && unhealthy == nodes.len() {
        Disruption::Full
    } else if unhealthy > 2 && unhealthy * 100 > TOO_MANY * nodes.len() {
        Disruption::Partial
    } else {
        Disruption::None
    }
}

fn look(
    settings: &Settings,
    memory: &mut Memory,
    node: &Arc<Node>,
    now: Duration,
    wall: Timestamp,
) -> Vec<Action> {
    let disruption = memory.disruption;
    let last_eviction = memory.last_eviction;
    let Some(record) = memory.nodes.get_mut(name(&node.metadata)) else { return Vec::new() };
    let silent = record.silent;
    let ready = if silent { Some("Unknown") } else { ready_status(node) };
    if ready == Some("True") {
        record.may_evict = false;
        record.pods_marked = false;
    }
    let unfit = matches!(ready, Some("False" | "Unknown"));
    // A node that reads Unknown but whose clock has just started again gets its grace before anything more is done.
    let certain = silent || ready == Some("False");
    if unfit && certain && !record.may_evict && disruption == Disruption::None {
        let turn = last_eviction.is_none_or(|last| now - last >= settings.eviction_interval);
        if turn {
            record.may_evict = true;
            memory.last_eviction = Some(now);
        }
    }
    let mut actions = Vec::new();
    let conditions = silent.then(|| silenced(node, wall)).flatten();
    let taints = taints(node, ready, record.may_evict, disruption, wall);
    if conditions.is_some() || taints.is_some() {
        actions.push(Action::Update { node: node.clone(), silent, conditions, taints });
    }
    if unfit && certain && !record.pods_marked && disruption != Disruption::Full {
        record.pods_marked = true;
        actions.push(Action::MarkPods(name(&node.metadata).to_owned()));
    }
    actions
}

/// The conditions with everything that only the kubelet knows set to Unknown; `None` where they are so already.
fn silenced(node: &Node, wall: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut changed = false;
    for type_ in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".to_owned();
                c.reason = Some("NodeStatusUnknown".to_owned());
                c.message = Some("Kubelet stopped posting node status.".to_owned());
                c.last_transition_time = Some(Time(wall));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: type_.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(wall)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(conditions)
}

/// The taints that the node should have; `None` where it has them. Taints that are not ours stay as they are.
fn taints(
    node: &Node,
    ready: Option<&str>,
    may_evict: bool,
    disruption: Disruption,
    wall: Timestamp,
) -> Option<Vec<Taint>> {
    let before = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let key = match ready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    let mut wanted: Vec<(&str, &str)> = key.map(|k| (k, NO_SCHEDULE)).into_iter().collect();
    for (type_, taint) in PRESSURES {
        // Pressure that a silent kubelet last reported is not known to be there, nor to be gone.
        let status = condition(node, type_).map(|c| c.status.as_str());
        if status == Some("True") && ready != Some("Unknown") {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let was_evicting =
        before.iter().any(|t| t.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&t.key.as_str()));
    if let Some(key) = key
        && disruption != Disruption::Full
        && (may_evict || was_evicting)
    {
        wanted.push((key, NO_EXECUTE));
    }
    let mut after: Vec<Taint> =
        before.iter().filter(|t| !is_ours(t) || wanted.contains(&(&t.key, &t.effect))).cloned().collect();
    for (key, effect) in wanted {
        if !after.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = Some(Time(wall));
            after.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    (after != before).then_some(after)
}

fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_EXECUTE => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        NO_SCHEDULE => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
