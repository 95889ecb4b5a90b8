//! Which pods count for a metric, and the ratio of what they use to what they should use.

use std::collections::{BTreeMap, BTreeSet};

use super::Tolerances;
use crate::record::{Pod, Record};

const CPU_INITIALIZATION_MS: i64 = 300_000;
const INITIAL_READINESS_MS: i64 = 30_000;

/// Values by pod, and what is known of the pods that have none or whose value does not count.
pub(super) struct Groups<'a> {
    /// Pods that count fully.
    pub(super) values: BTreeMap<&'a str, i64>,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
}

/// `cpu` says that the value is CPU time, which a starting pod uses without serving anybody.
pub(super) fn group<'a>(record: &'a Record, value: impl Fn(&'a Pod) -> Option<i64>, cpu: bool) -> Groups<'a> {
    let mut groups = Groups { values: BTreeMap::new(), unready: BTreeSet::new(), missing: BTreeSet::new() };
    for pod in &record.pods {
        if pod.deleted || pod.phase == "Failed" {
            continue;
        }
        if pod.phase == "Pending" {
            groups.unready.insert(&pod.name);
            continue;
        }
        match value(pod) {
            None => groups.missing.insert(&pod.name),
            Some(_) if cpu && is_starting(pod) => groups.unready.insert(&pod.name),
            Some(value) => groups.values.insert(&pod.name, value).is_none(),
        };
    }
    groups
}

fn is_starting(pod: &Pod) -> bool {
    let (Some(ready), Some(started_ago)) = (&pod.ready, pod.started_ago) else { return true };
    let unready = ready.status == "False";
    if started_ago < CPU_INITIALIZATION_MS {
        // The sample must begin after the last change of readiness.
        let (age, window) = pod.sample.as_ref().map_or((0, 0), |s| (s.age, s.window));
        unready || ready.changed_ago < age + window
    } else {
        unready && ready.changed_ago + INITIAL_READINESS_MS > started_ago
    }
}

/// How the pods without a value are filled in when scaling down.
pub(super) enum Fill<'a> {
    /// The utilization target in per cent of the requests, at least 100.
    Utilization { target: i32, requests: &'a BTreeMap<&'a str, i64> },
    /// The target value itself.
    Value(i64),
}

impl Fill<'_> {
    fn full(&self, pod: &str) -> i64 {
        match self {
            Self::Utilization { target, requests } => {
                let request = i128::from(requests.get(pod).copied().unwrap_or(0));
                (request * i128::from((*target).max(100)) / 100) as i64
            }
            Self::Value(target) => *target,
        }
    }

    /// Usage ÷ target over these pods, with the cuts that upstream makes on the way.
    fn ratio(&self, values: &BTreeMap<&str, i64>) -> Result<Ratio, String> {
        let count = values.len().max(1) as i128;
        match self {
            Self::Utilization { target, requests } => {
                let known = values.iter().filter_map(|(pod, v)| Some((*v, *requests.get(pod)?)));
                let (used, asked) =
                    known.fold((0_i128, 0_i128), |(u, r), (v, q)| (u + i128::from(v), r + i128::from(q)));
                if asked == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let per_cent = (used * 100 / asked) as i32;
                let ratio = f64::from(per_cent) / f64::from(*target);
                Ok(Ratio { ratio, per_cent: Some(per_cent), average: (used / count) as i64 })
            }
            Self::Value(target) => {
                let used: i128 = values.values().map(|v| i128::from(*v)).sum();
                let average = (used / count) as i64;
                Ok(Ratio { ratio: average as f64 / *target as f64, per_cent: None, average })
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    ratio: f64,
    pub(super) per_cent: Option<i32>,
    pub(super) average: i64,
}

/// The replicas that a per-pod value asks for, and what was measured before anything was filled in.
pub(super) fn replicas(
    mut groups: Groups<'_>,
    fill: &Fill<'_>,
    current: i32,
    tolerances: Tolerances,
) -> Result<(i32, Ratio), String> {
    let measured = fill.ratio(&groups.values)?;
    let ratio = measured.ratio;
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        let replicas = if tolerances.allow(ratio) { current } else { times(ratio, groups.values.len()) };
        return Ok((replicas, measured));
    }
    for pod in &groups.missing {
        if ratio < 1.0 {
            groups.values.insert(pod, fill.full(pod));
        } else if ratio > 1.0 || matches!(fill, Fill::Value(_)) {
            groups.values.insert(pod, 0);
        }
    }
    if up_with_unready {
        groups.values.extend(groups.unready.iter().map(|pod| (*pod, 0)));
    }
    let filled = fill.ratio(&groups.values)?.ratio;
    let flipped = (ratio < 1.0 && filled > 1.0) || (ratio > 1.0 && filled < 1.0);
    if tolerances.allow(filled) || flipped {
        return Ok((current, measured));
    }
    let replicas = times(filled, groups.values.len());
    let contradicts = (filled < 1.0 && replicas > current) || (filled > 1.0 && replicas < current);
    Ok((if contradicts { current } else { replicas }, measured))
}

/// The pods that the ratio of an object's or an external metric is multiplied with.
pub(super) fn ready_count(record: &Record) -> usize {
    record.pods.iter().filter(|p| p.is_ready()).count()
}

pub(super) fn times(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}
