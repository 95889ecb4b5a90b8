//! From a Service, its pods and the slices as they are to the slices to create, change and delete. Endpoints stay in
//! the slice that they are in, so that a change of one pod is a change of one slice. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ports::{self, Port};
use crate::meta::{Labels, labels, name, owner_reference};
use crate::pods;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const PER_SLICE: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

pub(crate) struct Observed<'a> {
    /// `None`: it is gone, or the user writes its endpoints.
    pub(crate) service: Option<&'a Service>,
    /// The pods that it selects.
    pub(crate) pods: &'a [Arc<Pod>],
    /// The slices of this Service that carry our label.
    pub(crate) slices: &'a [Arc<EndpointSlice>],
    /// By name, for their zones.
    pub(crate) nodes: &'a HashMap<String, Arc<Node>>,
}

type Group = (String, Vec<Port>);

pub(crate) fn plan(observed: &Observed<'_>) -> Vec<Action> {
    let Some(service) = observed.service else {
        return observed.slices.iter().cloned().map(Action::Delete).collect();
    };
    let mut wanted = endpoints(service, observed);
    if wanted.is_empty() {
        // A Service without endpoints has one empty slice, so that watchers know that somebody looked.
        let family = families(service).into_iter().next().unwrap_or_else(|| "IPv4".to_owned());
        wanted.insert((family, Vec::new()), BTreeMap::new());
    }
    let mut actions = Vec::new();
    let mut existing: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in observed.slices {
        existing.entry(group_of(slice)).or_default().push(slice.clone());
    }
    for (group, endpoints) in wanted {
        let slices = existing.remove(&group).unwrap_or_default();
        fill(service, &group, endpoints, slices, &mut actions);
    }
    actions.extend(existing.into_values().flatten().map(Action::Delete));
    actions
}

/// Everything that there should be, by address family and ports, then by pod.
fn endpoints(service: &Service, observed: &Observed<'_>) -> BTreeMap<Group, BTreeMap<String, Endpoint>> {
    let families = families(service);
    let mut wanted: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for pod in observed.pods.iter().filter(|p| ports::is_candidate(p)) {
        let ports = ports::ports(service, pod);
        for family in &families {
            let mut addresses =
                pods::addresses(pod).into_iter().filter(|a| family_of(a) == Some(family.as_str()));
            if let Some(address) = addresses.next() {
                let endpoint = endpoint(service, pod, address, observed.nodes);
                let key = pod.metadata.uid.clone().unwrap_or_else(|| name(&pod.metadata).to_owned());
                wanted.entry((family.clone(), ports.clone())).or_default().insert(key, endpoint);
            }
        }
    }
    wanted
}

fn families(service: &Service) -> Vec<String> {
    let listed = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if listed.is_empty() { vec!["IPv4".to_owned()] } else { listed }
}

fn family_of(address: &str) -> Option<&'static str> {
    address.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" })
}

fn endpoint(service: &Service, pod: &Pod, address: &str, nodes: &HashMap<String, Arc<Node>>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node_name = Some(pods::node_name(pod)).filter(|n| !n.is_empty());
    let zone = node_name.and_then(|n| nodes.get(n)).and_then(|n| labels(&n.metadata).get(ZONE)).cloned();
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ports::publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: ports::hostname(service, pod),
        node_name: node_name.map(str::to_owned),
        target_ref: Some(ports::target_ref(pod)),
        zone,
        ..Endpoint::default()
    }
}

fn group_of(slice: &EndpointSlice) -> Group {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|p| Port {
            name: p.name.clone().unwrap_or_default(),
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            number: p.port.unwrap_or_default(),
            app_protocol: p.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// Brings the slices of one group in line with `wanted`: what stays, stays in its slice; what is new goes into slices
/// that change anyway, then into one with room, then into new ones.
fn fill(
    service: &Service,
    group: &Group,
    mut wanted: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    actions: &mut Vec<Action>,
) {
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>, bool)> = Vec::new();
    for slice in slices {
        let before = slice.endpoints.clone().unwrap_or_default();
        let after: Vec<Endpoint> =
            before.iter().filter_map(|e| wanted.remove(e.target_ref.as_ref()?.uid.as_deref()?)).collect();
        let changed = !same_endpoints(&before, &after)
            || labels(&slice.metadata) != &slice_labels(service, slice.metadata.labels.as_ref());
        kept.push((slice, after, changed));
    }
    let mut fresh: Vec<Endpoint> = wanted.into_values().collect();
    for (_, endpoints, changed) in kept.iter_mut().filter(|(_, _, changed)| *changed) {
        let room = PER_SLICE.saturating_sub(endpoints.len()).min(fresh.len());
        endpoints.extend(fresh.drain(..room));
        *changed = true;
    }
    if !fresh.is_empty() && fresh.len() < PER_SLICE {
        let most_full = kept
            .iter_mut()
            .filter(|(_, e, _)| e.len() + fresh.len() <= PER_SLICE)
            .max_by_key(|(_, e, _)| e.len());
        if let Some((_, endpoints, changed)) = most_full {
            endpoints.append(&mut fresh);
            *changed = true;
        }
    }
    let mut chunks: Vec<Vec<Endpoint>> = fresh.chunks(PER_SLICE).map(<[Endpoint]>::to_vec).collect();
    let any_left = chunks.iter().any(|c| !c.is_empty()) || kept.iter().any(|(_, e, _)| !e.is_empty());
    let mut placeholder = !any_left;
    for (slice, endpoints, changed) in kept {
        if endpoints.is_empty() && !std::mem::take(&mut placeholder) {
            actions.push(Action::Delete(slice));
        } else if changed {
            let mut next = (*slice).clone();
            next.metadata.labels = Some(slice_labels(service, next.metadata.labels.as_ref()));
            next.endpoints = Some(endpoints);
            actions.push(Action::Update(Box::new(next)));
        }
    }
    if placeholder {
        chunks.push(Vec::new());
    }
    actions.extend(chunks.into_iter().map(|c| Action::Create(Box::new(new_slice(service, group, c)))));
}

/// Slices that the server stored may lack what is empty, and their order means nothing.
fn same_endpoints(before: &[Endpoint], after: &[Endpoint]) -> bool {
    before.len() == after.len() && before.iter().all(|e| after.contains(e))
}

/// The Service's labels, ours over them, and none that the Service no longer has.
fn slice_labels(service: &Service, old: Option<&Labels>) -> Labels {
    let mut next: Labels = labels(&service.metadata)
        .iter()
        .filter(|(k, _)| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if ports::is_headless(service) {
        next.insert(HEADLESS.to_owned(), String::new());
    }
    next.insert(SERVICE_NAME.to_owned(), name(&service.metadata).to_owned());
    // Which slices are ours was decided by this label; it is kept as found.
    let manager = old.and_then(|l| l.get(MANAGED_BY)).cloned().unwrap_or_else(|| MANAGER.to_owned());
    next.insert(MANAGED_BY.to_owned(), manager);
    next
}

fn new_slice(service: &Service, (family, ports): &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|p| EndpointPort {
            name: Some(p.name.clone()),
            protocol: Some(p.protocol.clone()),
            port: Some(p.number),
            app_protocol: p.app_protocol.clone(),
        })
        .collect();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(slice_labels(service, None)),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.clone(),
        endpoints: Some(endpoints),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
