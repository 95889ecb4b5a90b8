//! What a fast policy asks for, from a ScalingPolicy or an annotated HorizontalPodAutoscaler.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricTarget};
use loadline_api::own::{self, ForecastMode, Mode, ScalingPolicy};
use serde::{Deserialize, Serialize};

use super::{MEMORY_MS, WINDOW_S};
use crate::amount::milli;
use crate::behavior::{Rules, Way};
use crate::policy::{behavior, metrics};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    pub min_replicas: i32,
    pub max_replicas: i32,
    pub objectives: Vec<Objective>,
    /// What is asked for and not served, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<String>,
    pub recommend_only: bool,
    pub paused: bool,
    /// Only where given: the fast rules have their own rates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// A resource of which each pod shall use so much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    pub resource: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    pub target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Per cent of the requests.
    Utilization(i32),
    /// Thousandths of the resource's unit.
    AverageValue(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Milliseconds without metrics.
    pub after: i64,
    pub replicas: i32,
}

impl Policy {
    pub fn from_scaling_policy(policy: &ScalingPolicy) -> Self {
        let spec = &policy.spec;
        let mut unsupported = Vec::new();
        let mut objectives = Vec::new();
        for (i, objective) in spec.objectives.iter().enumerate() {
            match objective_of(objective) {
                Ok(objective) => objectives.push(objective),
                Err(what) => unsupported.push(format!("objectives[{i}]: {what}")),
            }
        }
        if spec.forecast.as_ref().is_some_and(|f| f.mode == ForecastMode::Auto) {
            unsupported.push("forecast: mode Auto".to_owned());
        }
        if spec.scale_to_zero.is_some() {
            unsupported.push("scaleToZero".to_owned());
        }
        if !spec.schedules.is_empty() {
            unsupported.push("schedules".to_owned());
        }
        let given = spec.behavior.as_ref();
        Self {
            min_replicas: spec.min_replicas.unwrap_or(1),
            max_replicas: spec.max_replicas,
            objectives,
            unsupported,
            recommend_only: spec.mode == Mode::Recommend,
            paused: spec.mode == Mode::Paused,
            up: given.and_then(|b| b.scale_up.as_ref()).map(|r| Rules::resolve(Some(r), Way::Up)),
            down: given.and_then(|b| b.scale_down.as_ref()).map(|r| Rules::resolve(Some(r), Way::Down)),
            fallback: spec.fallback.as_ref().and_then(|f| {
                let after = i64::try_from(own::duration(&f.after)?.as_millis()).ok()?;
                Some(Fallback { after, replicas: f.replicas })
            }),
        }
    }

    pub fn from_hpa(hpa: &HorizontalPodAutoscaler) -> Self {
        let mut unsupported = Vec::new();
        let mut objectives = Vec::new();
        for (i, metric) in metrics(hpa).iter().enumerate() {
            let objective = match (&metric.resource, &metric.container_resource) {
                (Some(r), _) => from_target(&r.name, None, &r.target),
                (_, Some(c)) => from_target(&c.name, Some(&c.container), &c.target),
                _ => None,
            };
            match objective {
                Some(objective) => objectives.push(objective),
                None => unsupported.push(format!("metrics[{i}]: {}", metric.type_)),
            }
        }
        let behavior = behavior(hpa);
        Self {
            min_replicas: hpa.spec.min_replicas.unwrap_or(1),
            max_replicas: hpa.spec.max_replicas,
            objectives,
            unsupported,
            up: behavior.as_ref().map(|b| b.up.clone()),
            down: behavior.map(|b| b.down),
            ..Self::default()
        }
    }

    /// Why nothing is decided: the condition's reason and message.
    pub(super) fn refusal(&self) -> Option<(&'static str, String)> {
        if self.paused {
            return Some(("Paused", "mode is Paused: nothing is evaluated".to_owned()));
        }
        if !self.unsupported.is_empty() {
            let what = self.unsupported.join(", ");
            return Some((
                "UnsupportedObjective",
                format!("this version serves objectives on resources only; remove or wait for: {what}"),
            ));
        }
        if self.objectives.is_empty() {
            return Some(("UnsupportedObjective", "there is no objective to hold".to_owned()));
        }
        None
    }

    pub(crate) fn memory(&self) -> (i64, i64) {
        let window = |rules: &Option<Rules>| rules.as_ref().map_or(0, Rules::window_ms);
        let period = |rules: &Option<Rules>| {
            let periods = rules.iter().flat_map(|r| &r.policies).map(|p| i64::from(p.period_seconds) * 1000);
            periods.max().unwrap_or(0)
        };
        // Scale-in looks at the last steps whatever the behaviour says.
        let events =
            period(&self.up).max(period(&self.down)).max(WINDOW_S * 1000).max(super::limits::STEP_MS);
        (window(&self.up).max(self.down_window()), events)
    }

    /// For how long the highest need keeps the count up.
    pub(super) fn down_window(&self) -> i64 {
        self.down.as_ref().map_or(MEMORY_MS, Rules::window_ms)
    }
}

fn objective_of(objective: &own::Objective) -> Result<Objective, &'static str> {
    let what = [
        (objective.rate.is_some(), "rate"),
        (objective.latency.is_some(), "latency"),
        (objective.in_flight.is_some(), "inFlight"),
        (objective.queue.is_some(), "queue"),
        (objective.prometheus.is_some(), "prometheus"),
    ];
    if let Some((_, name)) = what.iter().find(|(set, _)| *set) {
        return Err(name);
    }
    let resource = objective.resource.as_ref().ok_or("nothing is set")?;
    let target = match (resource.utilization, &resource.average_value) {
        (Some(per_cent), None) if per_cent > 0 => Target::Utilization(per_cent),
        (None, Some(value)) => {
            Target::AverageValue(milli(value).filter(|v| *v > 0).ok_or("averageValue is not positive")?)
        }
        _ => return Err("set one of utilization and averageValue"),
    };
    Ok(Objective { resource: resource.name.clone(), container: None, target })
}

fn from_target(name: &str, container: Option<&str>, target: &MetricTarget) -> Option<Objective> {
    let target = match (&target.average_value, target.average_utilization) {
        (Some(value), _) => Target::AverageValue(milli(value).filter(|v| *v > 0)?),
        (None, Some(per_cent)) if per_cent > 0 => Target::Utilization(per_cent),
        _ => return None,
    };
    Some(Objective { resource: name.to_owned(), container: container.map(str::to_owned), target })
}
