//! Which pods and ports stand behind a Service. Pure.

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::{Labels, labels, name};
use crate::pods;

/// A port as both kinds of endpoint object have it. Derived ordering groups equal port lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) number: i32,
    pub(crate) app_protocol: Option<String>,
}

/// The selector of a Service that this controller serves; `None` where the user writes the endpoints.
pub(crate) fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|s| !s.is_empty())
}

pub(crate) fn selects(selector: &Labels, pod: &Pod) -> bool {
    selector.iter().all(|(k, v)| labels(&pod.metadata).get(k) == Some(v))
}

/// A pod that can have endpoints: it runs, or is about to, and has an address.
pub(crate) fn is_candidate(pod: &Pod) -> bool {
    !pods::is_terminal(pod) && !pods::addresses(pod).is_empty()
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// The ports of one pod behind the Service. A named target that the pod does not have is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let wanted = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let mut ports: Vec<Port> = wanted
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol(port.protocol.as_deref()).to_owned(),
                number: target(port, pod)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|p| !p.is_empty()).unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let named = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(text)) if text.is_empty() => return Some(port.port),
        Some(IntOrString::String(text)) => text,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .find(|p| {
            p.name.as_deref() == Some(named.as_str())
                && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
        })
        .map(|p| p.container_port)
}

/// The pod's own name under the Service's, where its spec asks for it.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let under = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    let same_namespace = pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|h| !h.is_empty() && under && same_namespace)
}

pub(crate) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: Some(name(&pod.metadata).to_owned()),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
