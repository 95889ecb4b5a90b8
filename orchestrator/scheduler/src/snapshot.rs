//! The cluster as the scheduler sees it: nodes and the pods on them, updated one event at a time by its only owner.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{PodInfo, Resources};

#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub name: String,
    /// Pods may be known before their node, or longer than it.
    pub exists: bool,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub max_pods: i64,
    pub images: HashMap<String, i64>,
    pub requested: Resources,
    pub nonzero: Resources,
    pub pods: HashMap<String, Arc<PodInfo>>,
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: BTreeMap<String, NodeInfo>,
    pub namespaces: HashMap<String, BTreeMap<String, String>>,
    /// uid → node of every pod that is placed.
    placed: HashMap<String, String>,
    /// Placed pods with required anti-affinity or preferred terms, which concern every newcomer.
    pub with_terms: HashSet<String>,
    /// On how many nodes an image is.
    pub image_nodes: HashMap<String, i64>,
}

impl Snapshot {
    /// Whether anything that scheduling looks at has changed.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let (allocatable, max_pods) = Resources::allocatable(status.and_then(|s| s.allocatable.as_ref()));
        let images: HashMap<String, i64> = status
            .and_then(|s| s.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|i| i.names.iter().flatten().map(|n| (n.clone(), i.size_bytes.unwrap_or(0))))
            .collect();
        let info = self.nodes.entry(name.clone()).or_default();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let unschedulable = spec.unschedulable.unwrap_or(false);
        let changed = !info.exists
            || info.labels != labels
            || info.taints != taints
            || info.unschedulable != unschedulable
            || info.allocatable != allocatable
            || info.max_pods != max_pods;
        for image in info.images.keys() {
            if let Some(n) = self.image_nodes.get_mut(image) {
                *n -= 1;
            }
        }
        for image in images.keys() {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
        self.image_nodes.retain(|_, n| *n > 0);
        info.name = name;
        info.exists = true;
        info.labels = labels;
        info.taints = taints;
        info.unschedulable = unschedulable;
        info.allocatable = allocatable;
        info.max_pods = max_pods;
        info.images = images;
        changed
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.exists = false;
            for image in info.images.drain() {
                if let Some(n) = self.image_nodes.get_mut(&image.0) {
                    *n -= 1;
                }
            }
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Places the pod, or moves it; `pod.node` says where.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        if pod.node.is_empty() {
            return;
        }
        if !pod.anti_affinity.is_empty() || !pod.preferred_pods.is_empty() || !pod.affinity.is_empty() {
            self.with_terms.insert(pod.uid.clone());
        }
        self.placed.insert(pod.uid.clone(), pod.node.clone());
        let node = self.nodes.entry(pod.node.clone()).or_default();
        node.requested.add(&pod.requests);
        node.nonzero.add(&pod.nonzero);
        node.pods.insert(pod.uid.clone(), pod);
    }

    /// Whether it was placed.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node_name) = self.placed.remove(uid) else { return false };
        self.with_terms.remove(uid);
        if let Some(node) = self.nodes.get_mut(&node_name) {
            if let Some(pod) = node.pods.remove(uid) {
                node.requested.remove(&pod.requests);
                node.nonzero.remove(&pod.nonzero);
            }
            if !node.exists && node.pods.is_empty() {
                self.nodes.remove(&node_name);
            }
        }
        true
    }

    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }

    pub fn live_nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|n| n.exists)
    }

    /// Placed pods that bring terms of their own.
    pub fn pods_with_terms(&self) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
        self.with_terms.iter().filter_map(|uid| {
            let node = self.nodes.get(self.placed.get(uid)?)?;
            Some((node, node.pods.get(uid)?.as_ref()))
        })
    }
}
