//! From what the metrics propose to what may be done: windows, rates, minimum and maximum.

use super::{DOWNSCALE_WINDOW_MS, Policy};
use crate::behavior::{Behavior, Way};
use crate::decision::{ABLE, Decision, LIMITED};
use crate::record::Record;
use crate::state::State;

const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

pub(super) fn apply(
    policy: &Policy,
    record: &Record,
    state: &State,
    current: i32,
    proposal: i32,
    decision: &mut Decision,
) -> i32 {
    let (stable, reason) = match &policy.behavior {
        None => highest(record.time, state, current, proposal),
        Some(behavior) => between(behavior, record.time, state, current, proposal),
    };
    if stable == proposal {
        decision.condition(ABLE, true, "ReadyForNewScale", "recommended size matches current size");
    } else {
        let how = if reason == "ScaleUpStabilized" { ("lower", "lowest") } else { ("higher", "highest") };
        let message = format!(
            "recent recommendations were {} than current one, applying the {} recent recommendation",
            how.0, how.1
        );
        decision.clamp("stabilization window", proposal, stable, message.as_str());
        decision.condition(ABLE, true, reason, message);
    }
    let (desired, (reason, message)) = match &policy.behavior {
        None => plain(policy, current, stable),
        Some(behavior) => rated(policy, behavior, record.time, state, current, stable),
    };
    decision.clamp(reason, stable, desired, message);
    decision.condition(LIMITED, desired != stable, reason, message);
    desired
}

/// Without behaviour: the highest recommendation of the last five minutes.
fn highest(now: i64, state: &State, current: i32, proposal: i32) -> (i32, &'static str) {
    let recent = state.recommendations_or(now, current).into_iter();
    let recent = recent.filter(|r| r.at >= now - DOWNSCALE_WINDOW_MS).map(|r| r.replicas);
    (recent.max().unwrap_or(proposal).max(proposal), "ScaleDownStabilized")
}

/// With behaviour: the current count, moved into what the windows of both directions have recommended.
fn between(behavior: &Behavior, now: i64, state: &State, current: i32, proposal: i32) -> (i32, &'static str) {
    let (mut up, mut down) = (proposal, proposal);
    for r in state.recommendations_or(now, current) {
        if r.at > now - behavior.up.window_ms() {
            up = up.min(r.replicas);
        }
        if r.at > now - behavior.down.window_ms() {
            down = down.max(r.replicas);
        }
    }
    let stable = current.max(up).min(down);
    (stable, if proposal >= current { "ScaleUpStabilized" } else { "ScaleDownStabilized" })
}

fn plain(policy: &Policy, current: i32, stable: i32) -> (i32, (&'static str, &'static str)) {
    let rate = current.saturating_mul(2).max(4);
    let (most, why) =
        if policy.max_replicas > rate { (rate, UP_LIMIT) } else { (policy.max_replicas, TOO_MANY) };
    if stable < policy.min_replicas {
        (policy.min_replicas, TOO_FEW)
    } else if stable > most {
        (most, why)
    } else {
        (stable, WITHIN)
    }
}

fn rated(
    policy: &Policy,
    behavior: &Behavior,
    now: i64,
    state: &State,
    current: i32,
    stable: i32,
) -> (i32, (&'static str, &'static str)) {
    if stable > current {
        let rate = behavior.up.limit(Way::Up, current, now, &state.ups, &state.downs);
        let (most, why) =
            if policy.max_replicas > rate { (rate, UP_LIMIT) } else { (policy.max_replicas, TOO_MANY) };
        if stable > most {
            return (most, why);
        }
    } else if stable < current {
        let rate = behavior.down.limit(Way::Down, current, now, &state.ups, &state.downs);
        let (fewest, why) =
            if policy.min_replicas < rate { (rate, DOWN_LIMIT) } else { (policy.min_replicas, TOO_FEW) };
        if stable < fewest {
            return (fewest, why);
        }
    }
    (stable, WITHIN)
}
