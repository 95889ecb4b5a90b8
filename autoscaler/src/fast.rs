//! The profile `fast`: evaluated every second. Demand is what the pods use together, so the count that it needs does not
//! depend on how many pods are there; growing is at once, shrinking waits and is slow.
//!
//! Serves objectives on resources. Anything else that is asked for is refused aloud: a policy that is half obeyed is
//! worse than one that is not obeyed.

mod demand;
mod limits;
mod policy;

use crate::decision::{ABLE, ACTIVE, Decision, Status};
use crate::record::{Read, Record, Scale};
use crate::state::{Hold, State};
use crate::strict;

pub use policy::{Fallback, Objective, Policy, Target};

/// The time over which usage is asked for.
pub const WINDOW_S: i64 = 2;
/// Samples older than this do not allow to shrink.
pub const FRESH_MS: i64 = 5_000;
/// Samples older than this count for nothing.
pub const STALE_MS: i64 = 30_000;
/// How long the highest need keeps the count up.
pub const MEMORY_MS: i64 = 60_000;
/// How long a count that somebody set by hand is respected.
pub const HOLD_MS: i64 = 300_000;

pub(crate) fn decide(policy: &Policy, record: &Record, state: &State) -> Decision {
    let mut decision = Decision::default();
    let scale = match &record.scale {
        Read::Value(scale) => scale,
        Read::Error(error) => {
            decision.hold = state.hold;
            return strict::no_scale(decision, record, error);
        }
    };
    let current = scale.spec_replicas;
    decision.current = current;
    decision.desired = current;
    let message = "the HPA controller was able to get the target's current scale";
    decision.condition(ABLE, true, "SucceededGetScale", message);
    decision.status =
        Some(Status { current_replicas: current, desired_replicas: current, current_metrics: None });
    if let Some((reason, message)) = policy.refusal() {
        return inactive(decision, reason, message);
    }
    if let Err(error) = strict::selector(record, scale, &mut decision) {
        decision.summary = format!("stays at {current}: {error}");
        return decision;
    }
    // Whoever only watches does not hold, and neither does one whose target is another's.
    decision.hold = if policy.recommend_only { None } else { hold(record, state, current) };
    if current == 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        return inactive(decision, "ScalingDisabled", message.to_owned());
    }
    let demand = demand::measure(policy, record, &mut decision);
    if let Some(status) = &mut decision.status {
        status.current_metrics = Some(demand.statuses.clone());
    }
    let desired = match demand.need {
        Some(need) => {
            decision.recommendation = Some(need);
            let message = format!(
                "the HPA was able to successfully calculate a replica count from {}",
                decision.winner.as_deref().unwrap_or_default()
            );
            decision.condition(ACTIVE, true, "ValidMetricFound", message);
            limits::apply(policy, record, state, &demand, current, &mut decision)
        }
        None => without_metrics(policy, record, state, &demand, scale, &mut decision),
    };
    finish(policy, record, current, desired, decision)
}

/// Says why, and carries out the change unless somebody asked not to.
fn finish(policy: &Policy, record: &Record, current: i32, desired: i32, mut decision: Decision) -> Decision {
    decision.desired = desired;
    if let Some(status) = &mut decision.status {
        status.desired_replicas = desired;
    }
    let what = std::mem::take(&mut decision.summary);
    let change =
        if desired == current { format!("stays at {current}") } else { format!("{current} → {desired}") };
    let last = decision.clamps.last().map_or_else(String::new, |c| format!(" ({})", c.rule));
    decision.summary = if what.is_empty() { change } else { format!("{what}: {change}{last}") };
    if let Some(hold) = decision.hold {
        let until = when(hold.until);
        let message = format!(
            "somebody set {} replicas; that is respected until {until}, then handed back",
            hold.replicas
        );
        decision.condition(ABLE, false, "ManualHold", message.as_str());
        decision.summary = format!("{message}; without that: {}", decision.summary);
        decision.clamp("manual hold", desired, current, message);
        decision.desired = current;
        if let Some(status) = &mut decision.status {
            status.desired_replicas = current;
        }
    } else if policy.recommend_only {
        let message = "mode is Recommend: the decision is recorded and not carried out";
        decision.condition(ABLE, true, "RecommendOnly", message);
        if desired != current {
            decision.summary = format!("would be {} (mode Recommend)", decision.summary);
            decision.details.push(message.to_owned());
        }
    } else if desired != current {
        let reason = match (&decision.winner, desired > current) {
            (Some(metric), true) => format!("{metric} above target"),
            (_, true) => "no metrics; fallback".to_owned(),
            (_, false) => "All metrics below target".to_owned(),
        };
        decision.change_to(desired, reason);
    } else if decision.find(ABLE).is_some_and(|c| c.reason == "SucceededGetScale") {
        decision.condition(ABLE, true, "ReadyForNewScale", "recommended size matches current size");
    }
    decision.details.push(record.ages());
    decision
}

fn inactive(mut decision: Decision, reason: &str, message: String) -> Decision {
    decision.summary = format!("stays at {}: {message}", decision.current);
    if reason == "UnsupportedObjective" {
        decision.warn(reason, message.as_str());
    }
    decision.condition(ACTIVE, false, reason, message);
    decision
}

/// No objective could be measured: the count stays, and after `fallback.after` is at least the fallback.
fn without_metrics(
    policy: &Policy,
    record: &Record,
    state: &State,
    demand: &demand::Demand,
    scale: &Scale,
    decision: &mut Decision,
) -> i32 {
    let current = scale.spec_replicas;
    let error = demand.error.clone().unwrap_or_default();
    let message = format!("the HPA was unable to compute the replica count: {error}");
    decision.warn("FailedGetResourceMetric", error.as_str());
    decision.condition(ACTIVE, false, "FailedGetResourceMetric", message);
    let since = state.measured_at.unwrap_or(state.since);
    let lost = record.time - since;
    decision.summary = format!("no usable metrics for {} s ({error})", lost / 1000);
    let mut desired = current;
    if let Some(fallback) = policy.fallback.filter(|f| lost >= f.after) {
        desired = current.max(fallback.replicas);
        let why = format!("no metrics for {} s: at least the fallback of {}", lost / 1000, fallback.replicas);
        decision.clamp("fallback", current, desired, why);
    }
    limits::range(policy, desired, decision)
}

/// The count that somebody else set: respected until the annotation's time, or for a while after it was seen.
fn hold(record: &Record, state: &State, current: i32) -> Option<Hold> {
    let now = record.time;
    let seen = match state.expected {
        Some(expected) if expected != current => {
            Some(Hold { since: now, until: now + HOLD_MS, replicas: current })
        }
        _ => state.hold.map(|h| Hold { replicas: current, ..h }),
    };
    match record.hold_until {
        Some(until) if until > now => {
            Some(Hold { since: seen.map_or(now, |h| h.since), until, replicas: current })
        }
        // A time that has passed hands back what was held before it, at once.
        Some(until) => seen.filter(|h| h.until > now && h.since > until),
        None => seen.filter(|h| h.until > now),
    }
}

/// RFC 3339 with milliseconds.
pub(crate) fn when(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| format!("{t:.3}"))
}
