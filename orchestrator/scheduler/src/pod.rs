//! What scheduling needs to know of a pod, worked out once when the pod is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, NodeSelectorTerm, Pod, PodAffinityTerm, PreferredSchedulingTerm, ResourceRequirements,
    Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use loadline_api::quantity::Quantity;
use loadline_api::selector::Selector;

/// Used for scoring only, so that pods without requests spread too.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// What is asked of a node. CPU in milli-cores, the rest in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    fn from_requests(requests: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let mut found = Self::default();
        for (name, quantity) in requests.into_iter().flatten() {
            let Ok(quantity) = Quantity::try_from(quantity) else { continue };
            match name.as_str() {
                "cpu" => found.milli_cpu = quantity.milli_value(),
                "memory" => found.memory = quantity.value(),
                "ephemeral-storage" => found.ephemeral_storage = quantity.value(),
                "pods" => {}
                _ => {
                    found.scalar.insert(name.clone(), quantity.value());
                }
            }
        }
        found
    }

    /// A node's allocatable, and how many pods it takes.
    pub fn allocatable(of: Option<&BTreeMap<String, ApiQuantity>>) -> (Self, i64) {
        let pods = of.and_then(|a| a.get("pods")).and_then(|q| Quantity::try_from(q).ok());
        (Self::from_requests(of), pods.map_or(0, |q| q.value()))
    }

    pub fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn remove(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
    }

    fn raise_to(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }
}

/// A host port: two pods clash when protocol and port are equal and either address is the wildcard or both are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    pub ip: String,
}

impl HostPort {
    pub fn clashes(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.protocol == other.protocol
            && self.port == other.port
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// A pod affinity term with its selectors compiled.
#[derive(Clone, Debug)]
pub struct Term {
    pub topology_key: String,
    pub selector: Selector,
    pub namespaces: BTreeSet<String>,
    pub namespace_selector: Option<Selector>,
}

impl Term {
    fn new(term: &PodAffinityTerm, own: &str, labels: &BTreeMap<String, String>) -> Self {
        let selector = match &term.label_selector {
            Some(s) => Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing()),
            None => Selector::nothing(),
        };
        let selector = with_keys(selector, term.match_label_keys.as_deref(), labels);
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own.to_owned());
        }
        let namespace_selector = term
            .namespace_selector
            .as_ref()
            .map(|s| Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing()));
        Self { topology_key: term.topology_key.clone(), selector, namespaces, namespace_selector }
    }
}

/// `matchLabelKeys`: the pod's own values of these labels become part of the selector.
fn with_keys(selector: Selector, keys: Option<&[String]>, labels: &BTreeMap<String, String>) -> Selector {
    let mut requirements = selector.requirements().to_vec();
    if selector.is_nothing() {
        return selector;
    }
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.get(key) {
            requirements
                .extend(Selector::from_set([(key.as_str(), value.as_str())]).requirements().iter().cloned());
        }
    }
    Selector::new(requirements)
}

#[derive(Clone, Debug)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: String,
    pub selector: Selector,
    pub min_domains: i64,
    /// `DoNotSchedule`
    pub hard: bool,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

impl Spread {
    fn new(constraint: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let selector = match &constraint.label_selector {
            Some(s) => Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing()),
            None => Selector::nothing(),
        };
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: constraint.topology_key.clone(),
            selector: with_keys(selector, constraint.match_label_keys.as_deref(), labels),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub priority: i32,
    /// Empty while the pod waits for a node.
    pub node: String,
    pub requests: Resources,
    /// The same, with a guess where nothing was requested; for scoring.
    pub nonzero: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub required_nodes: Option<Vec<NodeSelectorTerm>>,
    pub preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    /// Weighted terms; a negative weight is an anti-affinity.
    pub preferred_pods: Vec<(i64, Term)>,
    pub spread: Vec<Spread>,
    pub images: Vec<String>,
    /// uid of the controller, by which pods without spread constraints are spread.
    pub controller: Option<String>,
}

impl PodInfo {
    pub fn new(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let labels = meta.labels.clone().unwrap_or_default();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let Some(spec) = &pod.spec else { return Self::default() };
        let affinity = spec.affinity.clone().unwrap_or_default();
        let node_affinity = affinity.node_affinity.unwrap_or_default();
        let pod_affinity = affinity.pod_affinity.unwrap_or_default();
        let anti = affinity.pod_anti_affinity.unwrap_or_default();
        let terms = |list: Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            list.unwrap_or_default().iter().map(|t| Term::new(t, &namespace, &labels)).collect()
        };
        let weighted = |list: Option<Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>, sign: i64| {
            list.unwrap_or_default()
                .iter()
                .map(|t| (sign * i64::from(t.weight), Term::new(&t.pod_affinity_term, &namespace, &labels)))
                .collect::<Vec<_>>()
        };
        let mut preferred_pods =
            weighted(pod_affinity.preferred_during_scheduling_ignored_during_execution, 1);
        preferred_pods.extend(weighted(anti.preferred_during_scheduling_ignored_during_execution, -1));
        let init: &[Container] = spec.init_containers.as_deref().unwrap_or_default();
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            node: spec.node_name.clone().unwrap_or_default(),
            requests: total(&spec.containers, init, spec.overhead.as_ref(), spec.resources.as_ref(), false),
            nonzero: total(&spec.containers, init, spec.overhead.as_ref(), spec.resources.as_ref(), true),
            host_ports: spec
                .containers
                .iter()
                .chain(init.iter().filter(|c| restartable(c)))
                .flat_map(|c| c.ports.iter().flatten())
                .filter_map(|p| {
                    Some(HostPort {
                        protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                        port: p.host_port.filter(|p| *p > 0)?,
                        ip: p.host_ip.clone().unwrap_or_default(),
                    })
                })
                .collect(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes: node_affinity
                .required_during_scheduling_ignored_during_execution
                .map(|s| s.node_selector_terms),
            preferred_nodes: node_affinity
                .preferred_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            affinity: terms(pod_affinity.required_during_scheduling_ignored_during_execution),
            anti_affinity: terms(anti.required_during_scheduling_ignored_during_execution),
            preferred_pods,
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|c| Spread::new(c, &labels))
                .collect(),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            controller: meta
                .owner_references
                .iter()
                .flatten()
                .find(|o| o.controller == Some(true))
                .map(|o| o.uid.clone()),
            labels,
            namespace,
        }
    }

    pub fn shared(pod: &Pod) -> Arc<Self> {
        Arc::new(Self::new(pod))
    }
}

fn restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Containers run together, init containers one after another; restartable ones keep running beside all that follow.
fn total(
    containers: &[Container],
    init: &[Container],
    overhead: Option<&BTreeMap<String, ApiQuantity>>,
    pod_level: Option<&ResourceRequirements>,
    guess: bool,
) -> Resources {
    let of = |c: &Container| {
        let mut own = Resources::from_requests(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
        if guess && own.milli_cpu == 0 {
            own.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if guess && own.memory == 0 {
            own.memory = DEFAULT_MEMORY;
        }
        own
    };
    let mut running = Resources::default();
    let mut peak = Resources::default();
    for container in init {
        let mut own = of(container);
        if restartable(container) {
            running.add(&own);
            peak.raise_to(&running);
        } else {
            own.add(&running);
            peak.raise_to(&own);
        }
    }
    for container in containers {
        running.add(&of(container));
    }
    running.raise_to(&peak);
    if let Some(requests) = pod_level.and_then(|r| r.requests.as_ref()) {
        let pod = Resources::from_requests(Some(requests));
        if requests.contains_key("cpu") {
            running.milli_cpu = pod.milli_cpu;
        }
        if requests.contains_key("memory") {
            running.memory = pod.memory;
        }
    }
    running.add(&Resources::from_requests(overhead));
    running
}
