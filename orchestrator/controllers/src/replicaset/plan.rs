//! How many pods to create, which to delete, and what the status says. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::core::Selector;

use crate::meta::{Labels, annotation, labels, uid};
use crate::pods;

/// No more pods at once than upstream's `BurstReplicas`.
const BURST: usize = 500;

pub(crate) const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The parts of either kind's spec and metadata that decide.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) replicas: i32,
    pub(crate) min_ready_seconds: i32,
    pub(crate) selector: Selector,
    pub(crate) template_labels: Labels,
    pub(crate) deleting: bool,
    pub(crate) generation: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Condition {
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_transition_time: Option<Time>,
}

/// The status of either kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: Option<i64>,
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// `pods` are those the controller owns, `related` those of all sets with the same controller (its own included).
pub(crate) fn plan(spec: &Spec, pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Action> {
    if spec.deleting {
        return Vec::new();
    }
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| pods::is_active(p)).collect();
    let wanted = usize::try_from(spec.replicas).unwrap_or_default();
    match active.len().cmp(&wanted) {
        Ordering::Less => vec![Action::Create((wanted - active.len()).min(BURST))],
        Ordering::Greater => {
            let count = (active.len() - wanted).min(BURST);
            vec![Action::Delete(victims(&active, related, count, now))]
        }
        Ordering::Equal => Vec::new(),
    }
}

/// The `count` pods whose loss hurts least.
fn victims(active: &[&Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| pods::is_active(p)) {
        *on_node.entry(pods::node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(Rank<'_>, &Arc<Pod>)> = active
        .iter()
        .map(|pod| (Rank::of(pod, on_node.get(pods::node_name(pod)).copied().unwrap_or_default(), now), *pod))
        .collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().take(count).map(|(_, pod)| pod.clone()).collect()
}

/// Field by field the order of `ActivePodsWithRanks`; what sorts first goes first. Ages count in powers of two, so
/// that pods of about the same age fall in an arbitrary but stable order and not always the newest dies.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    neighbours: Reverse<usize>,
    ready_age: i64,
    restarts: Reverse<(i32, i32)>,
    age: i64,
    uid: &'a str,
}

impl<'a> Rank<'a> {
    fn of(pod: &'a Pod, neighbours: usize, now: Timestamp) -> Self {
        let ready = pods::is_ready(pod);
        Self {
            assigned: !pods::node_name(pod).is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready,
            deletion_cost: annotation(&pod.metadata, POD_DELETION_COST)
                .and_then(|cost| cost.parse().ok())
                .unwrap_or_default(),
            neighbours: Reverse(neighbours),
            ready_age: if ready { age_rank(pods::ready_since(pod), now) } else { 0 },
            restarts: Reverse(restarts(pod)),
            age: age_rank(pod.metadata.creation_timestamp.as_ref().map(|t| t.0), now),
            uid: uid(&pod.metadata),
        }
    }
}

/// ⌊log₂ of the age in nanoseconds⌋, −1 where that is not positive or not known.
fn age_rank(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let nanos = since.map_or(0, |s| now.duration_since(s).as_nanos());
    u128::try_from(nanos).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

/// The highest restart counts of regular and of sidecar containers.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    let regular = status.container_statuses.iter().flatten().map(|c| c.restart_count).max();
    let sidecar = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|c| sidecars.contains(&c.name.as_str()))
        .map(|c| c.restart_count)
        .max();
    (regular.unwrap_or_default(), sidecar.unwrap_or_default())
}

/// What the status should say. `failure` is what went wrong while carrying out the plan, if anything.
pub(crate) fn status(
    spec: &Spec,
    old: &Status,
    pods: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> Status {
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|p| pods::is_active(p)).collect();
    let count = |wanted: &dyn Fn(&Pod) -> bool| to_i32(active.iter().filter(|p| wanted(p)).count());
    let available =
        |p: &Pod| pods::available_in(p, spec.min_ready_seconds, now).is_some_and(|left| left.is_zero());
    let fully_labeled =
        |p: &Pod| spec.template_labels.iter().all(|(k, v)| labels(&p.metadata).get(k) == Some(v));
    let terminating =
        pods.iter().filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_terminal(p)).count();
    Status {
        replicas: to_i32(active.len()),
        fully_labeled: count(&fully_labeled),
        ready: count(&pods::is_ready),
        available: count(&available),
        terminating: Some(to_i32(terminating)),
        observed_generation: spec.generation,
        conditions: conditions(&old.conditions, active.len(), spec.replicas, failure, now),
    }
}

fn conditions(
    old: &[Condition],
    active: usize,
    wanted: i32,
    failure: Option<&str>,
    now: Timestamp,
) -> Vec<Condition> {
    const FAILURE: &str = "ReplicaFailure";
    let had = old.iter().any(|c| c.type_ == FAILURE);
    let mut conditions: Vec<Condition> =
        old.iter().filter(|c| c.type_ != FAILURE || failure.is_some()).cloned().collect();
    if let Some(message) = failure
        && !had
    {
        let reason = if to_i32(active) < wanted { "FailedCreate" } else { "FailedDelete" };
        conditions.push(Condition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
        });
    }
    conditions
}

/// When the next ready pod becomes available merely because time passes.
pub(crate) fn next_availability(spec: &Spec, pods: &[Arc<Pod>], now: Timestamp) -> Option<SignedDuration> {
    pods.iter()
        .filter(|p| pods::is_active(p))
        .filter_map(|p| pods::available_in(p, spec.min_ready_seconds, now))
        .filter(|left| !left.is_zero())
        .min()
}

/// The pod to create from a template. The server completes the name.
pub(crate) fn pod_from_template(
    template: &PodTemplateSpec,
    owner: OwnerReference,
    about: &ObjectReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", about.name.as_deref().unwrap_or_default())),
            namespace: about.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

fn to_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
