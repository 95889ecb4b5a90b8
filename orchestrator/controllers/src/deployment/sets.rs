//! Working copies of a Deployment's ReplicaSets: a plan changes these, and what changed becomes actions. Pure.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::annotations::{self, set_sizes};
use crate::meta::{Labels, annotations as annotations_of, created, name};

pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// One ReplicaSet as the plan wants it, beside how it is.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// As observed, or as it is to be created.
    pub(crate) object: Arc<ReplicaSet>,
    pub(crate) is_new: bool,
    pub(crate) replicas: i32,
    pub(crate) annotations: Labels,
    pub(crate) min_ready_seconds: Option<i32>,
}

impl Set {
    pub(crate) fn observed(object: Arc<ReplicaSet>) -> Self {
        let spec = object.spec.as_ref();
        Self {
            is_new: false,
            replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
            annotations: annotations_of(&object.metadata).clone(),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds),
            object,
        }
    }

    pub(crate) fn name(&self) -> &str {
        name(&self.object.metadata)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.replicas > 0
    }

    /// What the set's own controller has reported.
    pub(crate) fn status(&self) -> (i32, i32, i32) {
        let status = self.object.status.as_ref();
        (
            status.map_or(0, |s| s.replicas),
            status.and_then(|s| s.ready_replicas).unwrap_or_default(),
            self.available(),
        )
    }

    pub(crate) fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
    }

    pub(crate) fn created(&self) -> (Option<&Time>, &str) {
        (created(&self.object.metadata), self.name())
    }

    /// The replicas before the plan.
    pub(crate) fn replicas_before(&self) -> i32 {
        if self.is_new { 0 } else { self.object.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) }
    }

    pub(crate) fn scale(&mut self, replicas: i32, sizes: &Sizes) {
        self.replicas = replicas.max(0);
        set_sizes(&mut self.annotations, sizes.replicas, sizes.replicas + sizes.max_surge);
    }

    pub(crate) fn changed(&self) -> bool {
        self.replicas != self.replicas_before()
            || self.annotations != *annotations_of(&self.object.metadata)
            || self.min_ready_seconds.unwrap_or_default()
                != self.object.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }
}

pub(crate) fn total(sets: &[Set]) -> i32 {
    sets.iter().map(|s| s.replicas).sum()
}

pub(crate) fn total_available(sets: &[Set]) -> i32 {
    sets.iter().map(Set::available).sum()
}

/// The numbers that a strategy works with, percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) replicas: i32,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
    pub(crate) rolling: bool,
}

impl Sizes {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
        let strategy = spec.and_then(|s| s.strategy.as_ref());
        if !is_rolling(strategy) {
            return Self { replicas, max_surge: 0, max_unavailable: 0, rolling: false };
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.as_ref());
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref());
        let max_surge = resolve(surge, replicas, true);
        let mut max_unavailable = resolve(unavailable, replicas, false);
        // Validation refuses two zeros, but rounding may still make them: then one pod must be allowed to go.
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self { replicas, max_surge, max_unavailable: max_unavailable.min(replicas), rolling: true }
    }

    pub(crate) fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

fn is_rolling(strategy: Option<&DeploymentStrategy>) -> bool {
    strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate")
}

/// Missing means 25 %, the API's default.
fn resolve(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    let percent = |p: i64| {
        let product = i64::from(of) * p;
        let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
        i32::try_from(rounded).unwrap_or(i32::MAX).max(0)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(n)) => (*n).max(0),
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|p| p.trim().parse().ok()).map_or(0, percent)
        }
    }
}

/// Whether two templates describe the same pods; the label that the controller adds does not count.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    normal(a) == normal(b)
}

fn normal(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let mut meta = template.metadata.take().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.filter(|a| !a.is_empty());
    meta.creation_timestamp = None;
    template.metadata = Some(meta);
    template
}

/// The oldest set with the Deployment's template: with several, every replica of the controller picks the same.
pub(crate) fn position_of_current(sets: &[Set], template: &PodTemplateSpec) -> Option<usize> {
    let matching = |s: &Set| {
        s.object.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| same_template(t, template))
    };
    (0..sets.len()).filter(|i| matching(&sets[*i])).min_by_key(|i| sets[*i].created())
}

/// Spreads a change of size over the active sets in proportion to their sizes; rounding errors go to the largest.
pub(crate) fn scale_in_proportion(sets: &mut [Set], sizes: &Sizes, status_replicas: i32) {
    let allowed = if sizes.replicas > 0 { sizes.replicas + sizes.max_surge } else { 0 };
    let to_add = allowed - total(sets);
    let mut order: Vec<usize> = (0..sets.len()).filter(|i| sets[*i].is_active()).collect();
    if to_add >= 0 {
        // Larger first, then newer.
        order.sort_by_key(|i| {
            Reverse((sets[*i].replicas, sets[*i].object.metadata.creation_timestamp.clone()))
        });
    } else {
        // Larger first, then older.
        order.sort_by_key(|i| {
            (Reverse(sets[*i].replicas), sets[*i].object.metadata.creation_timestamp.clone())
        });
    }
    let mut added = 0;
    let mut planned: Vec<(usize, i32)> = Vec::new();
    for index in order {
        let set = &sets[index];
        let share = if to_add == 0 { 0 } else { proportion(set, sizes, status_replicas, to_add, added) };
        added += share;
        planned.push((index, set.replicas + share));
    }
    if let Some((_, first)) = planned.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, replicas) in planned {
        sets[index].scale(replicas, sizes);
    }
}

fn proportion(set: &Set, sizes: &Sizes, status_replicas: i32, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(set, sizes, status_replicas);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(set: &Set, sizes: &Sizes, status_replicas: i32) -> i32 {
    if sizes.replicas == 0 {
        return -set.replicas;
    }
    let before = annotations::number(&set.annotations, annotations::MAX)
        .filter(|max| *max != 0)
        .unwrap_or(status_replicas.into());
    if before == 0 {
        return 0;
    }
    let after = f64::from(sizes.replicas + sizes.max_surge);
    let size = f64::from(set.replicas) * after / before as f64;
    size.round() as i32 - set.replicas
}
