//! What rules a node out. Each filter says why in the words that Kubernetes' FailedScheduling events have.

use std::collections::HashMap;

use crate::affinity::{node_matches, term_selects, untolerated};
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::spread::SpreadState;

/// What the filters share for one pod, worked out once over all nodes.
pub(crate) struct Context<'a> {
    pub snapshot: &'a Snapshot,
    pub spread: SpreadState,
    affinity: AffinityState,
}

/// (topology key, value) → how many pods there are that a term means.
type Counts = HashMap<(String, String), i64>;

struct AffinityState {
    /// Domains in which a placed pod's anti-affinity means this pod.
    refused_by_others: Counts,
    anti: Counts,
    affinity: Vec<Counts>,
    /// No pod anywhere matches the affinity terms, but this one matches them itself: the first of its series.
    first_of_series: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(pod: &PodInfo, snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            spread: SpreadState::new(pod, snapshot),
            affinity: AffinityState::new(pod, snapshot),
        }
    }
}

impl AffinityState {
    fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut refused_by_others = Counts::new();
        for (node, other) in snapshot.pods_with_terms() {
            for term in &other.anti_affinity {
                if let Some(value) = node.labels.get(&term.topology_key)
                    && term_selects(term, pod, snapshot)
                {
                    *refused_by_others.entry((term.topology_key.clone(), value.clone())).or_default() += 1;
                }
            }
        }
        let mut anti = Counts::new();
        let mut affinity = vec![Counts::new(); pod.affinity.len()];
        if !pod.anti_affinity.is_empty() || !pod.affinity.is_empty() {
            for node in snapshot.live_nodes() {
                for other in node.pods.values() {
                    for term in &pod.anti_affinity {
                        count(&mut anti, term, node, other, snapshot);
                    }
                    // A pod counts only when it matches all terms, as in Kubernetes.
                    if !pod.affinity.is_empty()
                        && pod.affinity.iter().all(|t| term_selects(t, other, snapshot))
                    {
                        for (term, counts) in pod.affinity.iter().zip(&mut affinity) {
                            count(counts, term, node, other, snapshot);
                        }
                    }
                }
            }
        }
        let first_of_series = affinity.iter().all(HashMap::is_empty)
            && pod.affinity.iter().all(|t| term_selects(t, pod, snapshot));
        Self { refused_by_others, anti, affinity, first_of_series }
    }
}

fn count(
    counts: &mut Counts,
    term: &crate::pod::Term,
    node: &NodeInfo,
    other: &PodInfo,
    snapshot: &Snapshot,
) {
    if let Some(value) = node.labels.get(&term.topology_key)
        && term_selects(term, other, snapshot)
    {
        *counts.entry((term.topology_key.clone(), value.clone())).or_default() += 1;
    }
}

type Filter = fn(&PodInfo, &NodeInfo, &Context<'_>) -> Result<(), Vec<String>>;

/// In the order in which they are tried; the first that refuses speaks.
const FILTERS: [Filter; 7] =
    [unschedulable, taints, node_affinity, host_ports, resources, topology_spread, pod_affinity];

/// Every reason that the first refusing filter gives.
pub(crate) fn check(pod: &PodInfo, node: &NodeInfo, context: &Context<'_>) -> Result<(), Vec<String>> {
    FILTERS.iter().try_for_each(|filter| filter(pod, node, context))
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Vec<String>> {
    Err(vec![reason.into()])
}

fn unschedulable(pod: &PodInfo, node: &NodeInfo, _: &Context<'_>) -> Result<(), Vec<String>> {
    let taint = k8s_openapi::api::core::v1::Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    if node.unschedulable && !pod.tolerations.iter().any(|t| crate::affinity::tolerates(t, &taint)) {
        return refuse("node(s) were unschedulable");
    }
    Ok(())
}

fn taints(pod: &PodInfo, node: &NodeInfo, _: &Context<'_>) -> Result<(), Vec<String>> {
    match untolerated(pod, node) {
        Some(taint) => refuse(format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key,
            taint.value.as_deref().unwrap_or_default()
        )),
        None => Ok(()),
    }
}

fn node_affinity(pod: &PodInfo, node: &NodeInfo, _: &Context<'_>) -> Result<(), Vec<String>> {
    if node_matches(pod, node) { Ok(()) } else { refuse("node(s) didn't match Pod's node affinity/selector") }
}

fn host_ports(pod: &PodInfo, node: &NodeInfo, _: &Context<'_>) -> Result<(), Vec<String>> {
    let clash = pod
        .host_ports
        .iter()
        .any(|own| node.pods.values().flat_map(|p| &p.host_ports).any(|other| own.clashes(other)));
    if clash { refuse("node(s) didn't have free ports for the requested pod ports") } else { Ok(()) }
}

fn resources(pod: &PodInfo, node: &NodeInfo, _: &Context<'_>) -> Result<(), Vec<String>> {
    let (want, have, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut reasons = Vec::new();
    if node.pods.len() as i64 + 1 > node.max_pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut lacks = |name: &str, want: i64, have: i64, used: i64| {
        if want > 0 && want > have - used {
            reasons.push(format!("Insufficient {name}"));
        }
    };
    lacks("cpu", want.milli_cpu, have.milli_cpu, used.milli_cpu);
    lacks("memory", want.memory, have.memory, used.memory);
    lacks("ephemeral-storage", want.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage);
    for (name, amount) in &want.scalar {
        let of = |r: &crate::pod::Resources| r.scalar.get(name).copied().unwrap_or(0);
        lacks(name, *amount, of(have), of(used));
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

fn topology_spread(pod: &PodInfo, node: &NodeInfo, context: &Context<'_>) -> Result<(), Vec<String>> {
    context.spread.check(pod, node).map_err(|reason| vec![reason.to_owned()])
}

fn pod_affinity(pod: &PodInfo, node: &NodeInfo, context: &Context<'_>) -> Result<(), Vec<String>> {
    let state = &context.affinity;
    let here = |counts: &Counts, key: &str| {
        node.labels.get(key).is_some_and(|v| counts.contains_key(&(key.to_owned(), v.clone())))
    };
    for (term, counts) in pod.affinity.iter().zip(&state.affinity) {
        let satisfied = here(counts, &term.topology_key)
            || (state.first_of_series && node.labels.contains_key(&term.topology_key));
        if !satisfied {
            return refuse("node(s) didn't match pod affinity rules");
        }
    }
    if pod.anti_affinity.iter().any(|t| here(&state.anti, &t.topology_key)) {
        return refuse("node(s) didn't match pod anti-affinity rules");
    }
    let refused = state.refused_by_others.keys().any(|(key, value)| node.labels.get(key) == Some(value));
    if refused {
        return refuse("node(s) didn't satisfy existing pods anti-affinity rules");
    }
    Ok(())
}
