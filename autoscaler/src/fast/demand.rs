//! How many pods the present demand needs, and whether what is seen allows to shrink.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricStatus, MetricValueStatus, ResourceMetricStatus,
};

use super::policy::{Objective, Policy, Target};
use super::{FRESH_MS, STALE_MS};
use crate::amount::{resource_quantity, words};
use crate::decision::{Candidate, Decision};
use crate::record::{Pod, Record};

/// Usage at this share of the limits no longer shows how much is wanted, in per cent.
const SATURATED_PER_CENT: i128 = 90;
/// Young pods use CPU for starting, not for serving; older ones are believed whatever their readiness did.
const STARTING_MS: i64 = 30_000;

pub(super) struct Demand {
    /// The largest count that an objective asks for; none if none could be measured.
    pub(super) need: Option<i32>,
    /// Why the count must not shrink.
    pub(super) no_scale_in: Option<String>,
    pub(super) statuses: Vec<MetricStatus>,
    pub(super) error: Option<String>,
}

struct Measured {
    need: i32,
    words: String,
    target: String,
    status: MetricStatus,
    saturated: bool,
}

pub(super) fn measure(policy: &Policy, record: &Record, decision: &mut Decision) -> Demand {
    let mut demand = Demand { need: None, no_scale_in: unseen(record), statuses: Vec::new(), error: None };
    for objective in &policy.objectives {
        let name = name(objective);
        match one(objective, record) {
            Ok(m) => {
                let hidden = if m.saturated { ", at the limits: at least a doubling is assumed" } else { "" };
                decision
                    .details
                    .push(format!("{name} {} against {}{hidden} → {}", m.words, m.target, m.need));
                if demand.need.is_none_or(|need| m.need > need) {
                    demand.need = Some(m.need);
                    decision.winner = Some(name.clone());
                    decision.summary =
                        format!("{} {} against a target of {}", objective.resource, m.words, m.target);
                    if m.saturated {
                        decision.summary.push_str(", at its limit");
                    }
                }
                demand.statuses.push(m.status);
                decision.candidates.push(Candidate {
                    metric: name,
                    measured: m.words,
                    target: m.target,
                    proposal: Some(m.need),
                    error: None,
                });
            }
            Err(error) => {
                decision.details.push(format!("{name}: {error}"));
                demand.statuses.push(MetricStatus::default());
                demand.no_scale_in.get_or_insert_with(|| format!("{name} could not be measured: {error}"));
                demand.error.get_or_insert_with(|| error.clone());
                decision.candidates.push(Candidate {
                    metric: name,
                    measured: String::new(),
                    target: String::new(),
                    proposal: None,
                    error: Some(error),
                });
            }
        }
    }
    demand
}

fn name(objective: &Objective) -> String {
    let suffix = if objective.container.is_some() { " container" } else { "" };
    let of = if matches!(objective.target, Target::Utilization(_)) {
        " utilization (percentage of request)"
    } else {
        ""
    };
    format!("{}{suffix} resource{of}", objective.resource)
}

/// The first pod that serves and is not seen freshly.
fn unseen(record: &Record) -> Option<String> {
    if let Some(error) = &record.metrics_error {
        return Some(format!("metrics could not be read: {error}"));
    }
    let serving = record.pods.iter().filter(|p| !p.is_gone() && p.phase != "Pending");
    for pod in serving {
        match &pod.sample {
            None => return Some(format!("pod {} has no sample", pod.name)),
            Some(s) if s.age > FRESH_MS => {
                return Some(format!("the sample of pod {} is {:.1} s old", pod.name, s.age as f64 / 1000.0));
            }
            Some(_) => {}
        }
    }
    None
}

fn one(objective: &Objective, record: &Record) -> Result<Measured, String> {
    let resource = objective.resource.as_str();
    let container = objective.container.as_deref();
    if let Some(error) = &record.metrics_error {
        return Err(format!("unable to get metrics for resource {resource}: {error}"));
    }
    let alive: Vec<&Pod> = record.pods.iter().filter(|p| !p.is_gone()).collect();
    let counted: Vec<(&Pod, i64)> = alive
        .iter()
        .filter(|p| counts(p, resource))
        .filter_map(|p| Some((*p, p.usage(resource, container)?)))
        .collect();
    if counted.is_empty() {
        return Err("did not receive fresh metrics for any ready pod".to_owned());
    }
    let used: i128 = counted.iter().map(|(_, u)| i128::from(*u)).sum();
    let pods = counted.len() as i128;
    let (per_pod, target, shown) = match objective.target {
        Target::AverageValue(goal) => {
            let shown = format!("{} a pod", words(resource, (used / pods) as i64));
            (i128::from(goal) * 100, words(resource, goal), shown)
        }
        Target::Utilization(per_cent) => {
            let request = mean_request(&alive, resource, container)?;
            let shown = format!("{}% of requests", used * 100 / (request * pods).max(1));
            (request * i128::from(per_cent), format!("{per_cent}%"), shown)
        }
    };
    let per_pod = per_pod.max(1);
    let window = counted.iter().filter_map(|(p, _)| p.sample.as_ref()).map(|s| s.window).max().unwrap_or(0);
    let rate =
        if resource == "cpu" { format!(" over {:.0} s", window as f64 / 1000.0) } else { String::new() };
    // At the limits usage shows only what the pods were given. A target above the limits is no sign of hidden demand.
    let above_target = used * 100 * 10 > per_pod * pods * 11;
    let saturated = above_target && at_limits(&counted, resource, container);
    let demanded = if saturated { used * 2 } else { used };
    let need = div_ceil(demanded * 100, per_pod).clamp(0, i128::from(i32::MAX)) as i32;
    let per_cent = match objective.target {
        Target::Utilization(goal) => Some((used * 100 * i128::from(goal) / (per_pod * pods)) as i32),
        Target::AverageValue(_) => None,
    };
    let current = MetricValueStatus {
        average_utilization: per_cent,
        average_value: Some(resource_quantity(resource, (used / pods) as i64)),
        value: None,
    };
    Ok(Measured {
        need,
        words: format!("{shown}{rate}"),
        target,
        status: status(objective, current),
        saturated,
    })
}

/// Whether a pod's usage is demand: seen within half a minute, ready, and for CPU not the work of starting.
fn counts(pod: &Pod, resource: &str) -> bool {
    let Some(sample) = &pod.sample else { return false };
    if sample.age > STALE_MS || pod.phase != "Running" {
        return false;
    }
    if resource != "cpu" {
        return true;
    }
    let (Some(ready), Some(started_ago)) = (&pod.ready, pod.started_ago) else { return false };
    if started_ago < STARTING_MS {
        return ready.status == "True" && ready.changed_ago >= sample.age + sample.window;
    }
    ready.status == "True"
}

/// The mean request of the pods that are there, so that pods which are starting count as capacity.
fn mean_request(pods: &[&Pod], resource: &str, container: Option<&str>) -> Result<i128, String> {
    let mut sum = 0_i128;
    for pod in pods {
        let request = pod.request(resource, container).map_err(|lacking| {
            format!("missing request for {resource} in container {lacking} of Pod {}", pod.name)
        })?;
        sum += i128::from(request);
    }
    let mean = sum / (pods.len().max(1) as i128);
    if mean > 0 { Ok(mean) } else { Err(format!("the pods request no {resource}")) }
}

fn at_limits(counted: &[(&Pod, i64)], resource: &str, container: Option<&str>) -> bool {
    let limited =
        counted.iter().filter_map(|(p, u)| Some((i128::from(*u), i128::from(p.limit(resource, container)?))));
    let (used, limits) = limited.fold((0, 0), |(u, l), (used, limit)| (u + used, l + limit));
    // Memory does not come back from a limit: there is no hidden demand, there is a killed container.
    resource == "cpu" && limits > 0 && used * 100 >= limits * SATURATED_PER_CENT
}

fn div_ceil(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn status(objective: &Objective, current: MetricValueStatus) -> MetricStatus {
    let name = objective.resource.clone();
    match &objective.container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { current, name }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus {
                container: container.clone(),
                current,
                name,
            }),
            ..MetricStatus::default()
        },
    }
}
