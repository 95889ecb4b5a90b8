//! The status of an autoscaler after a decision, as a merge patch. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::decision::Decision;
use crate::fast::when;

/// How urgent a new status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Only texts and measured values differ.
    Values,
    /// Replicas or the outcome of a condition differ.
    Matters,
}

pub(super) struct Inputs<'a> {
    pub(super) old: &'a Value,
    pub(super) decision: &'a Decision,
    pub(super) now: i64,
    pub(super) generation: Option<i64>,
}

/// The status of a HorizontalPodAutoscaler.
pub(super) fn hpa(inputs: &Inputs<'_>) -> Value {
    let mut status = inputs.base();
    if let Some(new) = &inputs.decision.status {
        status.insert("currentReplicas".to_owned(), json!(new.current_replicas));
        status.insert("desiredReplicas".to_owned(), json!(new.desired_replicas));
        // A merge patch keeps what it does not name.
        status.insert("currentMetrics".to_owned(), json!(new.current_metrics));
    }
    status.insert("conditions".to_owned(), inputs.conditions(None));
    Value::Object(status)
}

/// The status of a ScalingPolicy.
pub(super) fn scaling_policy(inputs: &Inputs<'_>) -> Value {
    let decision = inputs.decision;
    let mut status = inputs.base();
    if let Some(new) = &decision.status {
        status.insert("currentReplicas".to_owned(), json!(new.current_replicas));
        status.insert("desiredReplicas".to_owned(), json!(new.desired_replicas));
    }
    status.insert("observedGeneration".to_owned(), json!(inputs.generation));
    status.insert("holdUntil".to_owned(), json!(decision.hold.map(|h| seconds(h.until))));
    let time =
        Timestamp::from_millisecond(inputs.now).map_or_else(|_| when(inputs.now), |t| format!("{t:.6}"));
    let last = json!({"time": time, "reason": decision.summary, "replicas": decision.desired});
    status.insert("lastDecision".to_owned(), last);
    status.insert("conditions".to_owned(), inputs.conditions(inputs.generation));
    Value::Object(status)
}

impl Inputs<'_> {
    fn base(&self) -> Map<String, Value> {
        let mut status = Map::new();
        if self.decision.rescale.is_some() {
            status.insert("lastScaleTime".to_owned(), json!(seconds(self.now)));
        }
        status
    }

    /// The old conditions with the new ones over them; the transition time moves only when the status does.
    fn conditions(&self, generation: Option<i64>) -> Value {
        let mut all: Vec<Value> = self.old["conditions"].as_array().cloned().unwrap_or_default();
        for new in &self.decision.conditions {
            let old = all.iter_mut().find(|c| c["type"] == new.type_.as_str());
            let since = old
                .as_ref()
                .filter(|o| o["status"] == new.status.as_str())
                .map(|o| o["lastTransitionTime"].clone());
            let mut condition = json!({
                "type": new.type_, "status": new.status, "reason": new.reason, "message": new.message,
                "lastTransitionTime": since.filter(Value::is_string).unwrap_or_else(|| json!(seconds(self.now))),
            });
            if let Some(generation) = generation {
                condition["observedGeneration"] = json!(generation);
            }
            match old {
                Some(old) => *old = condition,
                None => all.push(condition),
            }
        }
        Value::Array(all)
    }
}

/// How the patch would change the old status.
pub(super) fn compare(old: &Value, patch: &Value) -> Change {
    let fields = patch.as_object().into_iter().flatten();
    let mut change = Change::None;
    for (name, new) in fields {
        let old = &old[name.as_str()];
        let same = match name.as_str() {
            // The time of a decision that says the same is not news.
            "lastDecision" => old["reason"] == new["reason"] && old["replicas"] == new["replicas"],
            _ => old == new,
        };
        if same {
            continue;
        }
        let matters = match name.as_str() {
            "conditions" => outcomes(old) != outcomes(new),
            "lastDecision" => old["replicas"] != new["replicas"],
            "currentMetrics" => false,
            _ => true,
        };
        if matters {
            return Change::Matters;
        }
        change = Change::Values;
    }
    change
}

fn outcomes(conditions: &Value) -> Vec<(&Value, &Value, &Value)> {
    conditions.as_array().into_iter().flatten().map(|c| (&c["type"], &c["status"], &c["reason"])).collect()
}

fn seconds(ms: i64) -> String {
    Timestamp::from_second(ms.div_euclid(1000)).map_or_else(|_| when(ms), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Status;

    fn decision(replicas: i32) -> Decision {
        let mut decision =
            Decision { summary: "cpu 50%".to_owned(), desired: replicas, ..Decision::default() };
        decision.condition("AbleToScale", true, "ReadyForNewScale", "fine");
        decision.status =
            Some(Status { current_replicas: replicas, desired_replicas: replicas, current_metrics: None });
        decision
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = decision(2);
        let inputs = Inputs { old: &Value::Null, decision: &first, now: 1_000_000, generation: Some(1) };
        let old = scaling_policy(&inputs);
        assert_eq!(old["conditions"][0]["lastTransitionTime"], "1970-01-01T00:16:40Z");
        assert_eq!(compare(&Value::Null, &old), Change::Matters);

        let mut second = decision(2);
        let again = Inputs { old: &old, decision: &second, now: 2_000_000, generation: Some(1) };
        assert_eq!(compare(&old, &scaling_policy(&again)), Change::None);

        second.summary = "cpu 51%".to_owned();
        second.condition("AbleToScale", true, "ReadyForNewScale", "also fine");
        let values = Inputs { old: &old, decision: &second, now: 3_000_000, generation: Some(1) };
        let patch = scaling_policy(&values);
        assert_eq!(compare(&old, &patch), Change::Values);
        assert_eq!(patch["conditions"][0]["lastTransitionTime"], "1970-01-01T00:16:40Z");

        second.condition("AbleToScale", false, "FailedGetScale", "gone");
        let failed = Inputs { old: &old, decision: &second, now: 3_000_000, generation: Some(1) };
        let patch = scaling_policy(&failed);
        assert_eq!(compare(&old, &patch), Change::Matters);
        assert_eq!(patch["conditions"][0]["lastTransitionTime"], "1970-01-01T00:50:00Z");
    }

    #[test]
    fn a_failed_read_of_the_scale_keeps_the_counts() {
        let mut failed = Decision::default();
        failed.condition("AbleToScale", false, "FailedGetScale", "gone");
        let old = json!({"currentReplicas": 3, "conditions": [{"type": "ScalingActive", "status": "True"}]});
        let inputs = Inputs { old: &old, decision: &failed, now: 0, generation: None };
        let patch = hpa(&inputs);
        assert!(patch.get("currentReplicas").is_none());
        assert_eq!(patch["conditions"].as_array().map(Vec::len), Some(2));
    }
}
