//! The Endpoints object of a Service, for clients that do not read slices. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::HEADLESS;
use super::ports::{self, Port};
use crate::meta::{Labels, labels, name, namespace};
use crate::pods;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const CAPACITY: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
    Delete(Arc<Endpoints>),
}

/// `service` is `None` when it is gone. An object that is not ours is left alone then.
pub(crate) fn plan(
    service: Option<&Service>,
    pods: &[Arc<Pod>],
    current: Option<&Arc<Endpoints>>,
) -> Option<Action> {
    let Some(service) = service else {
        return current
            .filter(|c| labels(&c.metadata).get(MANAGED_BY).map(String::as_str) == Some(MANAGER))
            .cloned()
            .map(Action::Delete);
    };
    let (subsets, truncated) = subsets(service, pods);
    let wanted_labels = endpoint_labels(service);
    let Some(current) = current else {
        let metadata = ObjectMeta {
            name: Some(name(&service.metadata).to_owned()),
            namespace: Some(namespace(&service.metadata).to_owned()),
            labels: Some(wanted_labels),
            annotations: truncated
                .then(|| Labels::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())])),
            ..ObjectMeta::default()
        };
        return Some(Action::Create(Box::new(Endpoints { metadata, subsets: some(subsets) })));
    };
    let mut next = (**current).clone();
    next.metadata.labels = Some(wanted_labels);
    let mut annotations = next.metadata.annotations.take().unwrap_or_default();
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    next.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    next.subsets = some(subsets);
    let mut before = (**current).clone();
    before.subsets = before.subsets.filter(|s| !s.is_empty());
    (next != before).then(|| Action::Update(Box::new(next)))
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn endpoint_labels(service: &Service) -> Labels {
    let mut next = labels(&service.metadata).clone();
    next.remove(HEADLESS);
    if ports::is_headless(service) {
        next.insert(HEADLESS.to_owned(), String::new());
    }
    next.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    next
}

/// One subset per list of ports, ready addresses first when there are too many.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publishes = ports::publishes_not_ready(service);
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let candidates: Vec<&Arc<Pod>> = pods
        .iter()
        .filter(|p| ports::is_candidate(p) && (publishes || p.metadata.deletion_timestamp.is_none()))
        .collect();
    let mut room = CAPACITY;
    for ready_turn in [true, false] {
        for pod in &candidates {
            let ready = publishes || pods::is_ready(pod);
            if ready != ready_turn || room == 0 {
                continue;
            }
            let ports = ports::ports(service, pod);
            if ports.is_empty() && !ports::is_headless(service) {
                continue;
            }
            let Some(address) = address(service, pod) else { continue };
            room -= 1;
            let group = groups.entry(ports).or_default();
            if ready { group.0.push(address) } else { group.1.push(address) }
        }
    }
    let subsets = groups
        .into_iter()
        .map(|(ports, (mut ready, mut not_ready))| {
            ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            EndpointSubset {
                addresses: some(ready),
                not_ready_addresses: some(not_ready),
                ports: some(ports.into_iter().map(endpoint_port).collect()),
            }
        })
        .collect();
    (subsets, candidates.len() > CAPACITY)
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|n| !n.is_empty()),
        protocol: Some(port.protocol),
        port: port.number,
        app_protocol: port.app_protocol,
    }
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: (*pods::addresses(pod).first()?).to_owned(),
        hostname: ports::hostname(service, pod),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(ports::target_ref(pod)),
    })
}
