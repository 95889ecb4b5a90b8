//! The names of the cluster, as the Kubernetes DNS specification gives them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_server::proto::rr::rdata::{A, CNAME, PTR, SRV};
use hickory_server::proto::rr::{Name, RData, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::services::Services;

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The name exists; without records of the type asked for this is empty.
    Records(Vec<RData>),
    NoSuchName,
    /// The Services are not here yet: a name that is not known may exist all the same.
    NotYet,
    /// Neither in the cluster's domain nor the reverse of an address that we know.
    NotOurs,
}

pub(super) struct Zone {
    services: Services,
    domain: String,
}

impl Zone {
    pub(super) fn new(services: Services, domain: &str) -> Self {
        Self { services, domain: domain.trim_matches('.').to_lowercase() }
    }

    pub(super) fn answer(&self, name: &str, kind: RecordType) -> Answer {
        let name = name.trim_end_matches('.').to_lowercase();
        if let Some(address) = reverse(&name) {
            return self.pointer(address, kind);
        }
        let Some(inside) = name.strip_suffix(&self.domain) else { return Answer::NotOurs };
        if !inside.is_empty() && !inside.ends_with('.') {
            return Answer::NotOurs;
        }
        let labels: Vec<&str> = inside.split('.').filter(|l| !l.is_empty()).collect();
        match labels.as_slice() {
            [] | ["svc" | "pod"] => Answer::Records(Vec::new()),
            [dashed, _namespace, "pod"] => match dashed.replace('-', ".").parse() {
                Ok(address) => only(kind, RecordType::A, vec![RData::A(A(address))]),
                Err(_) => Answer::NoSuchName,
            },
            [rest @ .., service, namespace, "svc"] => {
                let key = ((*namespace).to_owned(), (*service).to_owned());
                match self.services.services.get(&key.0, &key.1) {
                    Some(_) if !self.services.is_synced() => Answer::NotYet,
                    Some(found) => {
                        service_answer(&found, &self.services.slices(&key), rest, kind, &self.domain)
                    }
                    None if !self.services.is_synced() => Answer::NotYet,
                    None => Answer::NoSuchName,
                }
            }
            _ => Answer::NoSuchName,
        }
    }

    fn pointer(&self, address: Ipv4Addr, kind: RecordType) -> Answer {
        let text = address.to_string();
        let owner =
            self.services.services.all().into_iter().find(|s| {
                s.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some(text.as_str()))
            });
        match owner {
            Some(service) => {
                let target = full_name(&service, &self.domain).map(|n| RData::PTR(PTR(n)));
                only(kind, RecordType::PTR, target.into_iter().collect())
            }
            None => Answer::NotOurs,
        }
    }
}

/// `1.0.96.10.in-addr.arpa` → 10.96.0.1
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let octets: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').rev().collect();
    octets.join(".").parse().ok()
}

fn full_name(service: &Service, domain: &str) -> Option<Name> {
    let namespace = service.namespace().unwrap_or_default();
    Name::from_utf8(format!("{}.{namespace}.svc.{domain}.", service.name_any())).ok()
}

fn only(asked: RecordType, is: RecordType, data: Vec<RData>) -> Answer {
    Answer::Records(if asked == is || asked == RecordType::ANY { data } else { Vec::new() })
}

fn service_answer(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    rest: &[&str],
    kind: RecordType,
    domain: &str,
) -> Answer {
    let Some(spec) = &service.spec else { return Answer::NoSuchName };
    if let (Some("ExternalName"), Some(target)) = (spec.type_.as_deref(), &spec.external_name) {
        let target = Name::from_utf8(format!("{}.", target.trim_end_matches('.')));
        // An alias answers every type; the caller adds what it leads to.
        return target.map_or(Answer::NoSuchName, |t| Answer::Records(vec![RData::CNAME(CNAME(t))]));
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    match rest {
        [] if headless => {
            let all = addresses(service, slices, None);
            if all.is_empty() { Answer::NoSuchName } else { only(kind, RecordType::A, records(all)) }
        }
        [] => {
            let ips = spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect();
            only(kind, RecordType::A, records(ips))
        }
        [hostname] if headless => {
            let own = addresses(service, slices, Some(hostname));
            if own.is_empty() { Answer::NoSuchName } else { only(kind, RecordType::A, records(own)) }
        }
        [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => ports(service, slices, port, protocol, kind, headless, domain),
            _ => Answer::NoSuchName,
        },
        _ => Answer::NoSuchName,
    }
}

fn records(addresses: BTreeSet<Ipv4Addr>) -> Vec<RData> {
    addresses.into_iter().map(|a| RData::A(A(a))).collect()
}

/// The addresses of ready endpoints, with `hostname` only that one's.
fn addresses(service: &Service, slices: &[Arc<EndpointSlice>], hostname: Option<&str>) -> BTreeSet<Ipv4Addr> {
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    slices
        .iter()
        .filter(|s| s.address_type == "IPv4")
        .flat_map(|s| s.endpoints.iter().flatten())
        .filter(|e| is_published(e, publish))
        .flat_map(|e| e.addresses.iter().map(move |a| (e, a)))
        .filter(|(e, a)| hostname.is_none_or(|h| host_of(e, a).eq_ignore_ascii_case(h)))
        .filter_map(|(_, a)| a.parse().ok())
        .collect()
}

fn is_published(endpoint: &Endpoint, not_ready_too: bool) -> bool {
    not_ready_too || endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// The endpoint's own label below its Service: its hostname, or else its address with dashes.
fn host_of(endpoint: &Endpoint, address: &str) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| address.replace('.', "-"))
}

fn ports(
    service: &Service,
    slices: &[Arc<EndpointSlice>],
    port: &str,
    protocol: &str,
    kind: RecordType,
    headless: bool,
    domain: &str,
) -> Answer {
    let matches = |name: Option<&str>, proto: Option<&str>| {
        name == Some(port) && proto.unwrap_or("TCP").eq_ignore_ascii_case(protocol)
    };
    let own = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let Some(number) = own
        .filter(|p| matches(p.name.as_deref(), p.protocol.as_deref()))
        .find_map(|p| u16::try_from(p.port).ok())
    else {
        return Answer::NoSuchName;
    };
    let srv = |number, target| RData::SRV(SRV::new(0, 100, number, target));
    if !headless {
        let target = full_name(service, domain).map(|n| srv(number, n));
        return only(kind, RecordType::SRV, target.into_iter().collect());
    }
    let namespace = service.namespace().unwrap_or_default();
    let mut found = Vec::new();
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let target_port = slice
            .ports
            .iter()
            .flatten()
            .find(|p| matches(p.name.as_deref(), p.protocol.as_deref()))
            .and_then(|p| u16::try_from(p.port?).ok());
        let Some(target_port) = target_port else { continue };
        for endpoint in slice.endpoints.iter().flatten().filter(|e| is_published(e, publish)) {
            for address in &endpoint.addresses {
                let host = host_of(endpoint, address);
                let name = format!("{host}.{}.{namespace}.svc.{domain}.", service.name_any());
                found.extend(Name::from_utf8(name).ok().map(|n| srv(target_port, n)));
            }
        }
    }
    only(kind, RecordType::SRV, found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(spec: serde_json::Value, rest: &[&str], kind: RecordType) -> Answer {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": spec}))
                .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.1.4"], "conditions": {"ready": true}},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": false}}],
        }))
        .unwrap();
        service_answer(&service, &[Arc::new(slice)], rest, kind, "cluster.local")
    }

    fn shown(answer: Answer) -> String {
        match answer {
            Answer::Records(r) => r.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn services_answer_by_their_kind() {
        let normal = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432}]});
        let headless = json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]});
        let external = json!({"type": "ExternalName", "externalName": "db.example.org"});
        let cases: [(&serde_json::Value, &[&str], RecordType, &str); 12] = [
            (&normal, &[], RecordType::A, "10.96.0.7"),
            (&normal, &[], RecordType::AAAA, ""),
            (&normal, &["db-0"], RecordType::A, "NoSuchName"),
            (&normal, &["_sql", "_tcp"], RecordType::SRV, "0 100 5432 db.shop.svc.cluster.local."),
            (&normal, &["_sql", "_udp"], RecordType::SRV, "NoSuchName"),
            (&headless, &[], RecordType::A, "10.244.1.2 | 10.244.1.4"),
            (&headless, &["10-244-1-4"], RecordType::A, "10.244.1.4"),
            (
                &headless,
                &["_sql", "_tcp"],
                RecordType::SRV,
                "0 100 5432 db-0.db.shop.svc.cluster.local. | 0 100 5432 10-244-1-4.db.shop.svc.cluster.local.",
            ),
            (&headless, &["db-0"], RecordType::A, "10.244.1.2"),
            (&headless, &["db-9"], RecordType::A, "NoSuchName"),
            (&external, &[], RecordType::A, "db.example.org."),
            (&normal, &["a", "b", "c"], RecordType::A, "NoSuchName"),
        ];
        for (spec, rest, kind, want) in cases {
            assert_eq!(shown(ask(spec.clone(), rest, kind)), want, "{rest:?} {kind} of {spec}");
        }
    }

    #[test]
    fn reverse_names_are_addresses_backwards() {
        assert_eq!(reverse("7.0.96.10.in-addr.arpa"), Some(Ipv4Addr::new(10, 96, 0, 7)));
        for wrong in ["in-addr.arpa", "1.2.3.in-addr.arpa", "x.0.96.10.in-addr.arpa", "10.96.0.7"] {
            assert_eq!(reverse(wrong), None, "{wrong}");
        }
    }
}
