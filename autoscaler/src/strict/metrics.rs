//! What each metric proposes, and how the proposals are combined.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pods::{self, Fill, Groups, group, ready_count, times};
use super::{Policy, Tolerances};
use crate::amount::{milli, quantity, resource_quantity, words};
use crate::decision::{ACTIVE, Candidate, Decision};
use crate::record::{Pod, Read, Reading, Record, Scale};

/// What the metrics say together.
pub(super) struct Found {
    /// The largest proposal and the metric that made it; none if nothing can be concluded.
    pub(super) proposal: Option<(i32, String)>,
    pub(super) statuses: Vec<MetricStatus>,
    pub(super) error: Option<String>,
}

/// One metric's answer.
struct Proposal {
    replicas: i32,
    name: String,
    measured: String,
    target: String,
    status: MetricStatus,
}

/// A metric that gave no answer: the reason of the condition, the error for the condition, and how the event of the
/// whole object wraps it.
struct Failure {
    reason: &'static str,
    error: String,
    wrapped: String,
}

const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";
const NO_PODS: &str = "no pods returned by selector while calculating replica count";

pub(super) fn compute(policy: &Policy, record: &Record, scale: &Scale, decision: &mut Decision) -> Found {
    let mut statuses = Vec::new();
    let mut best: Option<(i32, String)> = None;
    let mut failures = Vec::new();
    for (i, spec) in policy.metrics.iter().enumerate() {
        match one(spec, record, scale, record.readings.get(&i), policy.tolerances()) {
            Ok(p) => {
                if best.as_ref().is_none_or(|(replicas, _)| *replicas == 0 || p.replicas > *replicas) {
                    best = Some((p.replicas, p.name.clone()));
                }
                decision
                    .details
                    .push(format!("{}: {} against {} → {}", p.name, p.measured, p.target, p.replicas));
                let proposal = Some(p.replicas);
                let (metric, measured, target) = (p.name, p.measured, p.target);
                decision.candidates.push(Candidate { metric, measured, target, proposal, error: None });
                statuses.push(p.status);
            }
            Err(failure) => {
                decision.warn(failure.reason, failure.error.as_str());
                decision.details.push(format!("{} metric: {}", spec.type_, failure.error));
                decision.candidates.push(Candidate {
                    metric: spec.type_.clone(),
                    measured: String::new(),
                    target: String::new(),
                    proposal: None,
                    error: Some(failure.error.clone()),
                });
                statuses.push(MetricStatus::default());
                failures.push(failure);
            }
        }
    }
    let error = failures.first().map(|f| {
        let (count, all) = (failures.len(), policy.metrics.len());
        format!("invalid metrics ({count} invalid out of {all}), first error is: {}", f.wrapped)
    });
    // A missing metric might have asked for more: without it the count may grow, but not shrink.
    let proposal = best.filter(|(replicas, _)| failures.is_empty() || *replicas >= scale.spec_replicas);
    match (&proposal, failures.first()) {
        (None, Some(f)) => {
            let message = format!("the HPA was unable to compute the replica count: {}", f.error);
            decision.condition(ACTIVE, false, f.reason, message);
        }
        (found, _) => {
            let metric = found.as_ref().map_or("", |(_, name)| name.as_str());
            let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
            decision.condition(ACTIVE, true, "ValidMetricFound", message);
        }
    }
    Found { proposal, statuses, error }
}

fn one(
    spec: &MetricSpec,
    record: &Record,
    scale: &Scale,
    reading: Option<&Read<Reading>>,
    tolerances: Tolerances,
) -> Result<Proposal, Failure> {
    let context = Context { record, scale, tolerances };
    let wrap = |reason, what: String| {
        move |error: String| Failure {
            reason,
            wrapped: format!("failed to get {what} metric value: {error}"),
            error,
        }
    };
    if let (Some(s), "Resource") = (&spec.resource, spec.type_.as_str()) {
        return context
            .resource(&s.name, None, &s.target)
            .map_err(wrap("FailedGetResourceMetric", format!("{} resource", s.name)));
    }
    if let (Some(s), "ContainerResource") = (&spec.container_resource, spec.type_.as_str()) {
        return context
            .resource(&s.name, Some(&s.container), &s.target)
            .map_err(wrap("FailedGetContainerResourceMetric", format!("{} container", s.container)));
    }
    if let (Some(s), "Pods") = (&spec.pods, spec.type_.as_str()) {
        let metric = &s.metric;
        return context
            .pods(metric, &s.target, reading)
            .map_err(wrap("FailedGetPodsMetric", "pods".to_owned()));
    }
    if let (Some(s), "Object") = (&spec.object, spec.type_.as_str()) {
        let of = |value| MetricStatus {
            type_: "Object".to_owned(),
            object: Some(ObjectMetricStatus {
                current: value,
                described_object: s.described_object.clone(),
                metric: s.metric.clone(),
            }),
            ..MetricStatus::default()
        };
        let kind = &s.described_object.kind;
        return context
            .object(&s.metric, kind, &s.target, reading, of)
            .map_err(wrap("FailedGetObjectMetric", "object".to_owned()));
    }
    if let (Some(s), "External") = (&spec.external, spec.type_.as_str()) {
        let of = |value| MetricStatus {
            type_: "External".to_owned(),
            external: Some(ExternalMetricStatus { current: value, metric: s.metric.clone() }),
            ..MetricStatus::default()
        };
        return context
            .external(&s.metric, &s.target, reading, of)
            .map_err(wrap("FailedGetExternalMetric", format!("{} external", s.metric.name)));
    }
    let error = format!("unknown metric source type {:?}", spec.type_);
    Err(Failure { reason: "InvalidMetricSourceType", wrapped: error.clone(), error })
}

struct Context<'a> {
    record: &'a Record,
    scale: &'a Scale,
    tolerances: Tolerances,
}

impl Context<'_> {
    fn resource(
        &self,
        name: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<Proposal, String> {
        let what = if target.average_value.is_some() { "usage" } else { "utilization" };
        let failed = |error: String| format!("failed to get {name} {what}: {error}");
        let suffix = if container.is_some() { " container" } else { "" };
        let value = |pod: &Pod| pod.usage(name, container);
        let of = |per_cent, average: i64| {
            let current = MetricValueStatus {
                average_utilization: per_cent,
                average_value: Some(resource_quantity(name, average)),
                value: None,
            };
            resource_status(name, container, current)
        };
        if let Some(average) = &target.average_value {
            let goal = positive(average)?;
            let groups = self.resource_groups(name, value).map_err(failed)?;
            let (replicas, ratio) =
                pods::replicas(groups, &Fill::Value(goal), self.scale.spec_replicas, self.tolerances)
                    .map_err(failed)?;
            return Ok(Proposal {
                replicas,
                name: format!("{name}{suffix} resource"),
                measured: format!("{} a pod", words(name, ratio.average)),
                target: words(name, goal),
                status: of(None, ratio.average),
            });
        }
        let Some(goal) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned());
        };
        let groups = self.resource_groups(name, value).map_err(failed)?;
        let requests = self.requests(name, container).map_err(failed)?;
        let fill = Fill::Utilization { target: goal, requests: &requests };
        let (replicas, ratio) =
            pods::replicas(groups, &fill, self.scale.spec_replicas, self.tolerances).map_err(failed)?;
        Ok(Proposal {
            replicas,
            name: format!("{name}{suffix} resource utilization (percentage of request)"),
            measured: format!("{}%", ratio.per_cent.unwrap_or(0)),
            target: format!("{goal}%"),
            status: of(ratio.per_cent, ratio.average),
        })
    }

    fn resource_groups<'a>(
        &'a self,
        name: &str,
        value: impl Fn(&'a Pod) -> Option<i64>,
    ) -> Result<Groups<'a>, String> {
        if let Some(error) = &self.record.metrics_error {
            return Err(format!("unable to get metrics for resource {name}: {error}"));
        }
        if self.record.pods.iter().all(|p| p.sample.is_none()) {
            let error = "no metrics returned from resource metrics API";
            return Err(format!("unable to get metrics for resource {name}: {error}"));
        }
        self.counted(group(self.record, value, name == "cpu"))
    }

    fn counted<'a>(&self, groups: Groups<'a>) -> Result<Groups<'a>, String> {
        if self.record.pods.is_empty() {
            return Err(NO_PODS.to_owned());
        }
        if groups.values.is_empty() { Err(NO_METRICS.to_owned()) } else { Ok(groups) }
    }

    /// Every pod must say what it requests, even those that do not count.
    fn requests(&self, name: &str, container: Option<&str>) -> Result<BTreeMap<&str, i64>, String> {
        let one = |pod: &'_ Pod| {
            pod.request(name, container).map_err(|lacking| {
                format!("missing request for {name} in container {lacking} of Pod {}", pod.name)
            })
        };
        self.record.pods.iter().map(|pod| Ok((pod.name.as_str(), one(pod)?))).collect()
    }

    fn pods(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
        reading: Option<&Read<Reading>>,
    ) -> Result<Proposal, String> {
        let failed = |error: String| format!("unable to get metric {}: {error}", metric.name);
        let goal = target.average_value.as_ref().ok_or("no target value was set").map_err(str::to_owned)?;
        let goal = positive(goal)?;
        let values = match read(reading).map_err(failed)? {
            Reading::Pods(values) if !values.is_empty() => values,
            _ => return Err(failed("no metrics returned from custom metrics API".to_owned())),
        };
        let groups = self.counted(group(self.record, |pod| values.get(&pod.name).copied(), false))?;
        let (replicas, ratio) =
            pods::replicas(groups, &Fill::Value(goal), self.scale.spec_replicas, self.tolerances)?;
        let current =
            MetricValueStatus { average_value: Some(quantity(ratio.average)), ..Default::default() };
        Ok(Proposal {
            replicas,
            name: format!("pods metric {}", metric.name),
            measured: format!("{} a pod", quantity(ratio.average).0),
            target: quantity(goal).0,
            status: MetricStatus {
                type_: "Pods".to_owned(),
                pods: Some(PodsMetricStatus { current, metric: metric.clone() }),
                ..MetricStatus::default()
            },
        })
    }

    fn object(
        &self,
        metric: &MetricIdentifier,
        kind: &str,
        target: &MetricTarget,
        reading: Option<&Read<Reading>>,
        of: impl Fn(MetricValueStatus) -> MetricStatus,
    ) -> Result<Proposal, String> {
        let value = || match read(reading) {
            Ok(Reading::Object(value)) => Ok(*value),
            Ok(_) => Err(format!(
                "unable to get metric {}: no metrics returned from custom metrics API",
                metric.name
            )),
            Err(error) => Err(format!("unable to get metric {}: {error}", metric.name)),
        };
        match (target.type_.as_str(), &target.value, &target.average_value) {
            ("Value", Some(goal), _) => {
                let name = format!("{kind} metric {}", metric.name);
                self.total(value()?, positive(goal)?, name, of)
            }
            ("AverageValue", _, Some(goal)) => {
                let failed = |e| format!("failed to get {} object metric: {e}", metric.name);
                // Upstream calls it external here, too.
                let name = external_name(metric);
                self.share(value().map_err(failed)?, positive(goal)?, name, of)
            }
            _ => Err(
                "invalid object metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            ),
        }
    }

    fn external(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
        reading: Option<&Read<Reading>>,
        of: impl Fn(MetricValueStatus) -> MetricStatus,
    ) -> Result<Proposal, String> {
        let failed = |error: &str| format!("failed to get external metric {}: {error}", metric.name);
        let value = || match read(reading) {
            Ok(Reading::External(values)) if !values.is_empty() => {
                Ok(values.iter().fold(0_i64, |sum, v| sum.saturating_add(*v)))
            }
            Ok(_) => Err(failed("no metrics returned from external metrics API")),
            Err(error) => Err(failed(&error)),
        };
        match (&target.average_value, &target.value) {
            (Some(goal), _) => self.share(value()?, positive(goal)?, external_name(metric), of),
            (None, Some(goal)) => self.total(value()?, positive(goal)?, external_name(metric), of),
            _ => Err(
                "invalid external metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            ),
        }
    }

    /// A value that stands for all pods together.
    fn total(
        &self,
        value: i64,
        goal: i64,
        name: String,
        of: impl Fn(MetricValueStatus) -> MetricStatus,
    ) -> Result<Proposal, String> {
        let current = self.scale.spec_replicas;
        let ratio = value as f64 / goal as f64;
        let replicas = if current == 0 {
            ratio.ceil() as i32
        } else if self.tolerances.allow(ratio) {
            current
        } else if self.record.pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        } else {
            times(ratio, ready_count(self.record))
        };
        let status = of(MetricValueStatus { value: Some(quantity(value)), ..Default::default() });
        Ok(Proposal { replicas, name, measured: quantity(value).0, target: quantity(goal).0, status })
    }

    /// A value of which each pod bears a share.
    fn share(
        &self,
        value: i64,
        goal: i64,
        name: String,
        of: impl Fn(MetricValueStatus) -> MetricStatus,
    ) -> Result<Proposal, String> {
        let pods = self.scale.status_replicas;
        let ratio = value as f64 / (goal as f64 * f64::from(pods));
        let replicas =
            if self.tolerances.allow(ratio) { pods } else { (value as f64 / goal as f64).ceil() as i32 };
        // With no pods there is no average; the whole is what waits for the first one.
        let average = (value as f64 / f64::from(pods.max(1))).ceil() as i64;
        let status = of(MetricValueStatus { average_value: Some(quantity(average)), ..Default::default() });
        let measured = format!("{} over {pods} pods", quantity(value).0);
        Ok(Proposal { replicas, name, measured, target: format!("{} a pod", quantity(goal).0), status })
    }
}

fn read(reading: Option<&Read<Reading>>) -> Result<&Reading, String> {
    match reading {
        Some(Read::Value(reading)) => Ok(reading),
        Some(Read::Error(error)) => Err(error.clone()),
        None => Err("not found".to_owned()),
    }
}

/// Targets of zero are refused by validation; one that got through must not divide.
fn positive(goal: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<i64, String> {
    milli(goal)
        .filter(|g| *g > 0)
        .ok_or_else(|| format!("the target {:?} is not a positive quantity", goal.0))
}

fn resource_status(name: &str, container: Option<&str>, current: MetricValueStatus) -> MetricStatus {
    match container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { current, name: name.to_owned() }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                current,
                name: name.to_owned(),
            }),
            ..MetricStatus::default()
        },
    }
}

fn external_name(metric: &MetricIdentifier) -> String {
    format!(
        "external metric {}({})",
        metric.name,
        metric.selector.as_ref().map_or("nil".to_owned(), go_selector)
    )
}

/// As Go prints a selector, because upstream's messages do.
fn go_selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(k, v)| format!("{k}: {v},")).collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions: String = expressions
        .map(|e| {
            let values = e.values.as_deref().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
