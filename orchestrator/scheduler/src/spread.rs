//! Topology spread: how many pods that a constraint means are in each domain.

use std::collections::HashMap;

use crate::affinity::{node_matches, untolerated};
use crate::pod::{PodInfo, Spread};
use crate::snapshot::{NodeInfo, Snapshot};

/// For each constraint of the pod, its domains with their counts.
pub(crate) struct SpreadState {
    counts: Vec<HashMap<String, i64>>,
}

impl SpreadState {
    pub(crate) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut counts = vec![HashMap::new(); pod.spread.len()];
        if pod.spread.is_empty() {
            return Self { counts };
        }
        for node in snapshot.live_nodes() {
            // A node counts for a kind of constraint only when it has all the keys of that kind.
            let has_keys = |hard: bool| {
                pod.spread
                    .iter()
                    .filter(|c| c.hard == hard)
                    .all(|c| node.labels.contains_key(&c.topology_key))
            };
            for (constraint, counts) in pod.spread.iter().zip(&mut counts) {
                let Some(domain) = node.labels.get(&constraint.topology_key) else { continue };
                if has_keys(constraint.hard) && eligible(pod, node, constraint) {
                    *counts.entry(domain.clone()).or_default() += matching(pod, node, constraint);
                }
            }
        }
        Self { counts }
    }

    pub(crate) fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), &'static str> {
        for (constraint, counts) in pod.spread.iter().zip(&self.counts).filter(|(c, _)| c.hard) {
            let Some(domain) = node.labels.get(&constraint.topology_key) else {
                return Err("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let smallest = if (counts.len() as i64) < constraint.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(0)
            };
            let own = i64::from(constraint.selector.matches(&pod.labels));
            let here = counts.get(domain).copied().unwrap_or(0);
            if here + own - smallest > constraint.max_skew {
                return Err("node(s) didn't match pod topology spread constraints");
            }
        }
        Ok(())
    }

    /// Smaller is better; `None` when nothing soft speaks for or against.
    pub(crate) fn cost(&self, pod: &PodInfo, node: &NodeInfo) -> Option<f64> {
        let mut total = None;
        for (constraint, counts) in pod.spread.iter().zip(&self.counts).filter(|(c, _)| !c.hard) {
            let Some(domain) = node.labels.get(&constraint.topology_key) else { continue };
            let here = counts.get(domain).copied().unwrap_or(0) as f64;
            // Many small domains (hosts) must not outweigh few large ones (zones).
            let weight = ((counts.len() + 2) as f64).ln();
            *total.get_or_insert(0.0) += here * weight + (constraint.max_skew - 1) as f64;
        }
        total
    }
}

fn eligible(pod: &PodInfo, node: &NodeInfo, constraint: &Spread) -> bool {
    (!constraint.honor_affinity || node_matches(pod, node))
        && (!constraint.honor_taints || untolerated(pod, node).is_none())
}

fn matching(pod: &PodInfo, node: &NodeInfo, constraint: &Spread) -> i64 {
    node.pods
        .values()
        .filter(|p| p.namespace == pod.namespace && constraint.selector.matches(&p.labels))
        .count() as i64
}
