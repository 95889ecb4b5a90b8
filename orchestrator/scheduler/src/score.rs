//! What makes one fitting node better than another: each score is 0 to 100, added up by weight as in Kubernetes.

use std::collections::HashMap;

use crate::affinity::{term_matches, term_selects, tolerates};
use crate::filter::Context;
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

const MAX: f64 = 100.0;
const MIB: i64 = 1024 * 1024;

/// The total score of each node, in the order given.
pub(crate) fn scores(pod: &PodInfo, nodes: &[&NodeInfo], context: &Context<'_>) -> Vec<f64> {
    let mut total = vec![0.0; nodes.len()];
    let mut add = |weight: f64, parts: Vec<f64>| {
        for (sum, part) in total.iter_mut().zip(parts) {
            *sum += weight * part;
        }
    };
    let each = |f: &dyn Fn(&NodeInfo) -> f64| nodes.iter().map(|n| f(n)).collect::<Vec<f64>>();
    add(3.0, lower_is_better(each(&|n| disliked_taints(pod, n))));
    add(2.0, higher_is_better(each(&|n| preferred_nodes(pod, n))));
    add(2.0, spread(pod, nodes, context));
    add(2.0, pod_affinity(pod, nodes, context));
    add(1.0, each(&|n| least_allocated(pod, n)));
    add(1.0, each(&|n| balanced(pod, n)));
    add(1.0, each(&|n| image_locality(pod, n, context)));
    total
}

/// Scaled so that the largest becomes 100; all equal says nothing.
fn higher_is_better(values: Vec<f64>) -> Vec<f64> {
    let (low, high) = bounds(&values);
    values.iter().map(|v| if high > low { MAX * (v - low) / (high - low) } else { 0.0 }).collect()
}

fn lower_is_better(values: Vec<f64>) -> Vec<f64> {
    higher_is_better(values.into_iter().map(|v| -v).collect())
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)))
}

fn disliked_taints(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let disliked = node
        .taints
        .iter()
        .filter(|t| t.effect == "PreferNoSchedule" && !pod.tolerations.iter().any(|o| tolerates(o, t)));
    disliked.count() as f64
}

fn preferred_nodes(pod: &PodInfo, node: &NodeInfo) -> f64 {
    pod.preferred_nodes
        .iter()
        .filter(|t| term_matches(&t.preference, node))
        .map(|t| f64::from(t.weight))
        .sum()
}

/// By the pod's own soft constraints; without any, by where its siblings of the same controller are.
fn spread(pod: &PodInfo, nodes: &[&NodeInfo], context: &Context<'_>) -> Vec<f64> {
    if pod.spread.is_empty() {
        let Some(controller) = &pod.controller else { return vec![0.0; nodes.len()] };
        let siblings = |n: &&NodeInfo| {
            n.pods.values().filter(|p| p.controller.as_ref() == Some(controller)).count() as f64
        };
        return lower_is_better(nodes.iter().map(siblings).collect());
    }
    let costs: Vec<Option<f64>> = nodes.iter().map(|n| context.spread.cost(pod, n)).collect();
    let worst = costs.iter().flatten().copied().fold(0.0, f64::max);
    // A node outside every domain is the last choice.
    lower_is_better(costs.into_iter().map(|c| c.unwrap_or(worst + 1.0)).collect())
}

/// The pod's preferred terms, and those of placed pods that mean it, by topology domain.
fn pod_affinity(pod: &PodInfo, nodes: &[&NodeInfo], context: &Context<'_>) -> Vec<f64> {
    let mut by_domain: HashMap<(&str, &str), i64> = HashMap::new();
    if !pod.preferred_pods.is_empty() {
        for node in context.snapshot.live_nodes() {
            for (weight, term) in &pod.preferred_pods {
                let Some(value) = node.labels.get(&term.topology_key) else { continue };
                let meant =
                    node.pods.values().filter(|p| term_selects(term, p, context.snapshot)).count() as i64;
                *by_domain.entry((&term.topology_key, value)).or_default() += weight * meant;
            }
        }
    }
    for (node, other) in context.snapshot.pods_with_terms() {
        let required = other.affinity.iter().map(|t| (1, t));
        for (weight, term) in other.preferred_pods.iter().map(|(w, t)| (*w, t)).chain(required) {
            if let Some(value) = node.labels.get(&term.topology_key)
                && term_selects(term, pod, context.snapshot)
            {
                *by_domain.entry((&term.topology_key, value)).or_default() += weight;
            }
        }
    }
    let of = |node: &&NodeInfo| {
        let sum: i64 = by_domain
            .iter()
            .filter(|((key, value), _)| node.labels.get(*key).map(String::as_str) == Some(*value))
            .map(|(_, weight)| weight)
            .sum();
        sum as f64
    };
    higher_is_better(nodes.iter().map(of).collect())
}

/// The share of each resource that stays free.
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let free = |want: i64, used: i64, have: i64| {
        if have <= 0 { 0.0 } else { MAX * ((have - used - want) as f64 / have as f64).max(0.0) }
    };
    let (want, used, have) = (&pod.nonzero, &node.nonzero, &node.allocatable);
    (free(want.milli_cpu, used.milli_cpu, have.milli_cpu) + free(want.memory, used.memory, have.memory)) / 2.0
}

/// CPU and memory should fill up alike.
fn balanced(pod: &PodInfo, node: &NodeInfo) -> f64 {
    let share = |want: i64, used: i64, have: i64| {
        if have <= 0 { 1.0 } else { ((used + want) as f64 / have as f64).min(1.0) }
    };
    let (want, used, have) = (&pod.requests, &node.requested, &node.allocatable);
    let cpu = share(want.milli_cpu, used.milli_cpu, have.milli_cpu);
    let memory = share(want.memory, used.memory, have.memory);
    (1.0 - (cpu - memory).abs() / 2.0) * MAX
}

/// Images that are already there, scaled down when only few nodes have them (23 MiB to 1000 MiB a container count).
fn image_locality(pod: &PodInfo, node: &NodeInfo, context: &Context<'_>) -> f64 {
    let nodes = context.snapshot.live_nodes().count().max(1) as f64;
    let sum: f64 = pod
        .images
        .iter()
        .filter_map(|image| {
            let full = normalized(image);
            let size = node.images.get(image).or_else(|| node.images.get(&full))?;
            let on = context
                .snapshot
                .image_nodes
                .get(image)
                .or_else(|| context.snapshot.image_nodes.get(&full))?;
            Some(*size as f64 * *on as f64 / nodes)
        })
        .sum();
    let (low, high) = ((23 * MIB) as f64, (1000 * MIB) as f64 * pod.images.len().max(1) as f64);
    MAX * (sum.clamp(low, high) - low) / (high - low)
}

/// `web` is `web:latest`.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
