//! From the need to the count: tolerance, the slow way down, rates, minimum and maximum.

use super::demand::Demand;
use super::policy::Policy;
use crate::behavior::{DEFAULT_TOLERANCE, Rules, Way};
use crate::decision::{ABLE, Decision, LIMITED};
use crate::record::Record;
use crate::state::State;

/// Scale-in removes at most this share in per cent, at least one pod, in each step.
const STEP_PER_CENT: i32 = 15;
pub(super) const STEP_MS: i64 = 2_000;
/// A surplus below this share in per cent, and below one pod, is not worth a change.
const SURPLUS_PER_CENT: i32 = 10;

pub(super) fn apply(
    policy: &Policy,
    record: &Record,
    state: &State,
    demand: &Demand,
    current: i32,
    decision: &mut Decision,
) -> i32 {
    let need = demand.need.unwrap_or(current);
    let desired = if need > current {
        up(policy, record, state, need, current, decision)
    } else {
        down(policy, record, state, demand, need, current, decision)
    };
    range(policy, desired, decision)
}

fn up(
    policy: &Policy,
    record: &Record,
    state: &State,
    need: i32,
    current: i32,
    decision: &mut Decision,
) -> i32 {
    let tolerance = policy.up.as_ref().map_or(DEFAULT_TOLERANCE, |r| r.tolerance);
    // need ≤ current × (1 + tolerance), without floating point.
    let most = i128::from(current) * (1_000_000_000 + i128::from(tolerance));
    if i128::from(need) * 1_000_000_000 <= most {
        decision.clamp("tolerance", need, current, "too little above the target to matter");
        return current;
    }
    let Some(rules) = &policy.up else { return need };
    let recent = state.recommendations.iter().filter(|r| r.at > record.time - rules.window_ms());
    let lowest = recent.map(|r| r.replicas).min().map_or(need, |r| r.min(need).max(current));
    if lowest != need {
        decision.condition(ABLE, true, "ScaleUpStabilized", window_message("lower", "lowest"));
        decision.clamp("scaleUp window", need, lowest, window_message("lower", "lowest"));
    }
    let most = rules.limit(Way::Up, current, record.time, &state.ups, &state.downs);
    let desired = lowest.min(most);
    if desired != lowest {
        let why = "the desired replica count is increasing faster than the maximum scale rate";
        decision.clamp("ScaleUpLimit", lowest, desired, why);
        decision.condition(LIMITED, true, "ScaleUpLimit", why);
    }
    desired
}

fn down(
    policy: &Policy,
    record: &Record,
    state: &State,
    demand: &Demand,
    need: i32,
    current: i32,
    decision: &mut Decision,
) -> i32 {
    if need == current {
        return current;
    }
    let mut stay = |rule: &str, why: String| {
        decision.condition(ABLE, true, "ScaleDownStabilized", why.as_str());
        decision.clamp(rule, need, current, why);
        current
    };
    if let Some(why) = &demand.no_scale_in {
        return stay("no scale-in", why.clone());
    }
    let window = policy.down_window();
    let seen = record.time - state.since;
    if seen < window {
        let why = format!("only {} s of history, scale-in looks back {} s", seen / 1000, window / 1000);
        return stay("no scale-in", why);
    }
    let floor = state.highest(record.time, window).map_or(need, |h| h.max(need));
    let tolerance = policy.down.as_ref().map_or(i64::from(SURPLUS_PER_CENT) * 10_000_000, |r| r.tolerance);
    let surplus = current - floor;
    let least = (i128::from(current) * i128::from(tolerance) + 999_999_999) / 1_000_000_000;
    if i128::from(surplus) < least.max(1) {
        let why =
            format!("the last {} s needed {floor}; a surplus below {} is kept", window / 1000, least.max(1));
        return stay("highest recent need", why);
    }
    if state.downs.iter().any(|e| e.at > record.time - STEP_MS) {
        return stay("step", "pods were removed less than 2 s ago".to_owned());
    }
    let step = (i64::from(current) * i64::from(STEP_PER_CENT) / 100).max(1) as i32;
    decision.clamp(
        "highest recent need",
        need,
        floor,
        format!("the highest of the last {} s", window / 1000),
    );
    let stepped = floor.max(current - step);
    decision.clamp("step", floor, stepped, format!("at most {STEP_PER_CENT} % (at least one pod) every 2 s"));
    let Some(rules) = &policy.down else { return stepped };
    rate_down(rules, record, state, current, stepped, decision)
}

fn rate_down(
    rules: &Rules,
    record: &Record,
    state: &State,
    current: i32,
    stepped: i32,
    decision: &mut Decision,
) -> i32 {
    let fewest = rules.limit(Way::Down, current, record.time, &state.ups, &state.downs);
    let desired = stepped.max(fewest);
    if desired != stepped {
        let why = "the desired replica count is decreasing faster than the maximum scale rate";
        decision.clamp("ScaleDownLimit", stepped, desired, why);
        decision.condition(LIMITED, true, "ScaleDownLimit", why);
    }
    desired
}

/// Into minReplicas … maxReplicas; resources cannot wake a target, so at least one pod stays.
pub(super) fn range(policy: &Policy, desired: i32, decision: &mut Decision) -> i32 {
    let min = policy.min_replicas.max(1);
    if desired < min {
        let why = "the desired replica count is less than the minimum replica count";
        decision.condition(LIMITED, true, "TooFewReplicas", why);
        decision.clamp("minReplicas", desired, min, why);
        return min.min(policy.max_replicas);
    }
    if desired > policy.max_replicas {
        let why = "the desired replica count is more than the maximum replica count";
        decision.condition(LIMITED, true, "TooManyReplicas", why);
        decision.clamp("maxReplicas", desired, policy.max_replicas, why);
        return policy.max_replicas;
    }
    if decision.find(LIMITED).is_none() {
        let why = "the desired count is within the acceptable range";
        decision.condition(LIMITED, false, "DesiredWithinRange", why);
    }
    desired
}

fn window_message(recent: &str, applied: &str) -> String {
    format!(
        "recent recommendations were {recent} than current one, applying the {applied} recent recommendation"
    )
}
