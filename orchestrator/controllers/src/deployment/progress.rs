//! The status of a Deployment: counts, and the conditions that tell whether a rollout goes on. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::sets::{Set, Sizes, total, total_available};
use crate::meta::name;

pub(crate) const PROGRESSING: &str = "Progressing";
pub(crate) const AVAILABLE: &str = "Available";
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

pub(crate) fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Keeps what is there if status and reason are the same, and the transition time if only the status is.
pub(crate) fn set_condition(
    status: &mut DeploymentStatus,
    type_: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let old = condition(status, type_);
    if old.is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = old.filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
    let new = DeploymentCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    remove_condition(status, type_);
    status.conditions.get_or_insert_default().push(new);
}

pub(crate) fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// `None` where the Deployment has no deadline; the largest number means none, too.
pub(crate) fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

/// Says in the condition that the deadline does not run while the Deployment is paused.
pub(crate) fn check_paused(
    deployment: &Deployment,
    paused: bool,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = condition(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let was_paused = reason == Some(PAUSED);
    if paused && !was_paused {
        set_condition(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now);
    } else if !paused && was_paused {
        set_condition(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now);
    }
}

/// Counts and the Available condition; the other conditions are those of `base`.
pub(crate) fn calculate(
    deployment: &Deployment,
    base: &DeploymentStatus,
    old: &[Set],
    new: Option<&Set>,
    sizes: &Sizes,
    now: Timestamp,
) -> DeploymentStatus {
    let all: Vec<Set> = old.iter().chain(new).cloned().collect();
    let (replicas, ready) = all.iter().map(Set::status).fold((0, 0), |(r, d), (n, m, _)| (r + n, d + m));
    let available = total_available(&all);
    let terminating: Option<i32> = all
        .iter()
        .filter(|s| !s.is_new)
        .map(|s| s.object.status.as_ref().and_then(|s| s.terminating_replicas))
        .sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(replicas),
        updated_replicas: nonzero(new.map_or(0, |s| s.status().0)),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((total(&all) - available).max(0)),
        terminating_replicas: terminating,
        collision_count: base.collision_count,
        conditions: base.conditions.clone(),
    };
    if available >= sizes.min_available() {
        let message = "Deployment has minimum availability.";
        set_condition(&mut status, AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
    } else {
        let message = "Deployment does not have minimum availability.";
        set_condition(&mut status, AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
    }
    status
}

pub(crate) fn is_complete(deployment: &Deployment, sizes: &Sizes, status: &DeploymentStatus) -> bool {
    let wanted = sizes.replicas;
    status.updated_replicas.unwrap_or_default() == wanted
        && status.replicas.unwrap_or_default() == wanted
        && status.available_replicas.unwrap_or_default() == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let updated = |s: &DeploymentStatus| s.updated_replicas.unwrap_or_default();
    let outdated = |s: &DeploymentStatus| s.replicas.unwrap_or_default() - updated(s);
    updated(after) > updated(before)
        || outdated(after) < outdated(before)
        || after.ready_replicas.unwrap_or_default() > before.ready_replicas.unwrap_or_default()
        || after.available_replicas.unwrap_or_default() > before.available_replicas.unwrap_or_default()
}

fn has_timed_out(deployment: &Deployment, before: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(progressing)) = (deadline(deployment), condition(before, PROGRESSING)) else {
        return false;
    };
    match progressing.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing.last_update_time.as_ref().is_some_and(|t| t.0 + deadline < now),
    }
}

/// The status during and after a rollout. `before` is the status that the server has, `base` that with the conditions
/// that the plan has set since.
pub(crate) fn rollout(
    deployment: &Deployment,
    before: &DeploymentStatus,
    base: &DeploymentStatus,
    old: &[Set],
    new: Option<&Set>,
    sizes: &Sizes,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = calculate(deployment, base, old, new, sizes, now);
    let current = condition(base, PROGRESSING).cloned();
    if deadline(deployment).is_none() {
        remove_condition(&mut status, PROGRESSING);
    } else {
        let was_complete = status.replicas == status.updated_replicas
            && current.as_ref().and_then(|c| c.reason.as_deref()) == Some(NEW_SET_AVAILABLE);
        if !was_complete {
            progress(deployment, before, base, &mut status, new, sizes, now);
        }
    }
    let failure = new.into_iter().chain(old).find_map(|s| {
        s.object.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == REPLICA_FAILURE).cloned()
    });
    match failure {
        Some(c) => {
            let (reason, message) = (c.reason.unwrap_or_default(), c.message.unwrap_or_default());
            set_condition(&mut status, REPLICA_FAILURE, &c.status, &reason, &message, now);
        }
        None => remove_condition(&mut status, REPLICA_FAILURE),
    }
    status
}

fn progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    base: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&Set>,
    sizes: &Sizes,
    now: Timestamp,
) {
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", name(&deployment.metadata)),
    };
    if is_complete(deployment, sizes, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(status, PROGRESSING, "True", NEW_SET_AVAILABLE, &message, now);
    } else if is_progressing(before, status) {
        // Renewed each time, because the deadline counts from the last progress.
        let since = condition(base, PROGRESSING)
            .filter(|c| c.status == "True")
            .and_then(|c| c.last_transition_time.clone());
        remove_condition(status, PROGRESSING);
        let message = format!("{subject} is progressing.");
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
        if let (Some(since), Some(conditions)) = (since, &mut status.conditions) {
            conditions
                .iter_mut()
                .filter(|c| c.type_ == PROGRESSING)
                .for_each(|c| c.last_transition_time = Some(since.clone()));
        }
    } else if has_timed_out(deployment, base, now) {
        let message = format!("{subject} has timed out progressing.");
        set_condition(status, PROGRESSING, "False", TIMED_OUT, &message, now);
    }
}

/// When to look again at a rollout that may get stuck without any event.
pub(crate) fn deadline_in(
    deployment: &Deployment,
    sizes: &Sizes,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<SignedDuration> {
    let deadline = deadline(deployment)?;
    let progressing = condition(status, PROGRESSING)?;
    if is_complete(deployment, sizes, status)
        || matches!(progressing.reason.as_deref(), Some(TIMED_OUT | PAUSED | NEW_SET_AVAILABLE))
    {
        return None;
    }
    let due = progressing.last_update_time.as_ref()?.0 + deadline;
    // A second more, because stored times have lost their fraction.
    Some((due.duration_since(now) + SignedDuration::from_secs(1)).max(SignedDuration::from_secs(1)))
}

fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
