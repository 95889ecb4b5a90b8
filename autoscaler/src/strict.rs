//! The profile `strict`: HorizontalPodAutoscaler v2 of Kubernetes 1.36, with the controller's default flags. Every
//! quirk is kept on purpose; what upstream would do is the specification.

mod limits;
mod metrics;
mod pods;

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec};
use loadline_api::selector::Selector;
use serde::{Deserialize, Serialize};

use crate::behavior::{Behavior, DEFAULT_TOLERANCE};
use crate::decision::{ABLE, ACTIVE, Decision, Status, ZERO};
use crate::policy;
use crate::record::{Read, Record, Scale};
use crate::state::State;

/// How long a recommendation matters where no behaviour is given.
const DOWNSCALE_WINDOW_MS: i64 = 300_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub min_replicas: i32,
    pub max_replicas: i32,
    pub metrics: Vec<MetricSpec>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub behavior: Option<Behavior>,
}

/// Within which ratio nothing changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerances {
    up: f64,
    down: f64,
}

impl Tolerances {
    pub(crate) fn allow(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

impl Policy {
    pub fn from_hpa(hpa: &HorizontalPodAutoscaler) -> Self {
        Self {
            min_replicas: hpa.spec.min_replicas.unwrap_or(1),
            max_replicas: hpa.spec.max_replicas,
            metrics: policy::metrics(hpa),
            behavior: policy::behavior(hpa),
        }
    }

    pub(crate) fn memory(&self) -> (i64, i64) {
        match &self.behavior {
            Some(b) => (b.up.window_ms().max(b.down.window_ms()), b.memory()),
            None => (DOWNSCALE_WINDOW_MS, 0),
        }
    }

    fn tolerances(&self) -> Tolerances {
        let default = DEFAULT_TOLERANCE as f64 / 1e9;
        match &self.behavior {
            Some(b) => Tolerances { up: b.up.tolerance(), down: b.down.tolerance() },
            None => Tolerances { up: default, down: default },
        }
    }

    /// Resource metrics need pods; only these can say anything when there are none.
    fn can_wake(&self) -> bool {
        self.min_replicas == 0 && self.metrics.iter().any(|m| m.type_ == "Object" || m.type_ == "External")
    }
}

pub(crate) fn decide(policy: &Policy, record: &Record, state: &State) -> Decision {
    let mut decision = Decision::default();
    let scale = match &record.scale {
        Read::Value(scale) => scale,
        Read::Error(error) => return no_scale(decision, record, error),
    };
    decision.current = scale.spec_replicas;
    decision.desired = scale.spec_replicas;
    let message = "the HPA controller was able to get the target's current scale";
    decision.condition(ABLE, true, "SucceededGetScale", message);
    let current = scale.spec_replicas;
    if current == 0 && !(record.previous.scaled_to_zero == Some(true) && policy.can_wake()) {
        let message = "scaling is disabled since the replica count of the target is zero";
        decision.condition(ACTIVE, false, "ScalingDisabled", message);
        message.clone_into(&mut decision.summary);
        decision.status = Some(Status::default());
        return decision;
    }
    if current > policy.max_replicas {
        return out_of_range(decision, record, policy.max_replicas, "above Spec.MaxReplicas");
    }
    if current < policy.min_replicas {
        return out_of_range(decision, record, policy.min_replicas, "below Spec.MinReplicas");
    }
    by_metrics(policy, record, scale, state, decision)
}

/// The target could not be read, by either profile.
pub(crate) fn no_scale(mut decision: Decision, record: &Record, error: &str) -> Decision {
    decision.current = record.previous.desired_replicas;
    decision.desired = record.previous.desired_replicas;
    decision.warn("FailedGetScale", error);
    let message = format!("the HPA controller was unable to get the target's current scale: {error}");
    decision.summary.clone_from(&message);
    decision.condition(ABLE, false, "FailedGetScale", message);
    decision
}

fn out_of_range(mut decision: Decision, record: &Record, to: i32, which: &str) -> Decision {
    let current = decision.current;
    let reason = format!("Current number of replicas {which}");
    decision.summary = format!("{reason}: {current} → {to}");
    decision.clamp(
        "range",
        current,
        to,
        "the count is moved into minReplicas … maxReplicas before anything else",
    );
    decision.change_to(to, reason);
    zero_condition(&mut decision, record);
    decision.status = Some(Status { current_replicas: current, desired_replicas: to, current_metrics: None });
    decision
}

fn by_metrics(
    policy: &Policy,
    record: &Record,
    scale: &Scale,
    state: &State,
    mut decision: Decision,
) -> Decision {
    let current = scale.spec_replicas;
    if let Err(error) = selector(record, scale, &mut decision) {
        return failed(decision, record, None, &error);
    }
    let found = metrics::compute(policy, record, scale, &mut decision);
    let Some((proposal, metric)) = found.proposal else {
        let error = found.error.unwrap_or_default();
        return failed(decision, record, Some(found.statuses), &error);
    };
    decision.winner = Some(metric.clone());
    decision.recommendation = Some(proposal);
    let reason = if proposal > current {
        // Upstream names the metric only where it asks for more than none.
        format!("{} above target", if proposal > 0 { metric.as_str() } else { "" })
    } else if proposal < current {
        "All metrics below target".to_owned()
    } else {
        String::new()
    };
    let desired = limits::apply(policy, record, state, current, proposal, &mut decision);
    decision.details.push(record.ages());
    decision.summary = summary(&decision, current, desired);
    if desired != current {
        decision.change_to(desired, reason);
        zero_condition(&mut decision, record);
    }
    decision.status = Some(Status {
        current_replicas: current,
        desired_replicas: desired,
        current_metrics: Some(found.statuses),
    });
    decision
}

fn summary(decision: &Decision, current: i32, desired: i32) -> String {
    let winner = decision.candidates.iter().find(|c| Some(&c.metric) == decision.winner.as_ref());
    let measured = winner.map_or_else(String::new, |w| {
        format!("{} {} against a target of {}", w.metric, w.measured, w.target)
    });
    let limited = decision.clamps.last().map_or_else(String::new, |c| format!(" ({})", c.rule));
    if desired == current {
        format!("{measured}: stays at {current}{limited}")
    } else {
        format!("{measured}: {current} → {desired}{limited}")
    }
}

/// Nothing can be computed: the count stays, the status says why.
fn failed(
    mut decision: Decision,
    record: &Record,
    statuses: Option<Vec<k8s_openapi::api::autoscaling::v2::MetricStatus>>,
    error: &str,
) -> Decision {
    decision.warn("FailedComputeMetricsReplicas", error);
    decision.details.push(record.ages());
    decision.summary = format!("stays at {}: {error}", decision.current);
    decision.status = Some(Status {
        current_replicas: decision.current,
        desired_replicas: record.previous.desired_replicas,
        current_metrics: statuses,
    });
    decision
}

/// Whether the scale's selector selects the target's pods and nobody else does.
pub(crate) fn selector(record: &Record, scale: &Scale, decision: &mut Decision) -> Result<(), String> {
    if scale.selector.is_empty() {
        decision.warn("SelectorRequired", "selector is required");
        decision.condition(ACTIVE, false, "InvalidSelector", "the HPA target's scale is missing a selector");
        return Err("selector is required".to_owned());
    }
    if let Err(error) = Selector::parse(&scale.selector) {
        let message =
            format!("couldn't convert selector into a corresponding internal selector object: {error}");
        decision.warn("InvalidSelector", message.as_str());
        decision.condition(ACTIVE, false, "InvalidSelector", message.as_str());
        return Err(message);
    }
    let rivals = record.conflicting();
    if !rivals.is_empty() {
        let policies = rivals.iter().any(|r| r.kind != "HorizontalPodAutoscaler");
        let names: Vec<&str> = rivals.iter().map(|r| r.name.as_str()).collect();
        let kind = if policies { "autoscalers" } else { "HPAs" };
        let message = format!(
            "pods by selector {} are controlled by multiple {kind}: also by [{}]",
            scale.selector,
            names.join(" ")
        );
        decision.warn("AmbiguousSelector", message.as_str());
        decision.condition(ACTIVE, false, "AmbiguousSelector", message.as_str());
        return Err(message);
    }
    Ok(())
}

/// Remembers in the status that it was the autoscaler who went to zero, so that it may come back by itself.
fn zero_condition(decision: &mut Decision, record: &Record) {
    if decision.current > 0 && decision.desired == 0 {
        decision.condition(ZERO, true, "ScaledToZero", "the HPA controller scaled the workload to zero");
    } else if record.previous.scaled_to_zero.is_some() {
        let message = "the HPA controller did not scale the workload to zero";
        decision.condition(ZERO, false, "NotScaledToZero", message);
    }
}
