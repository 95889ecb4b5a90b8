//! From Services and EndpointSlices to rules, and from the rules in force to the smallest transaction that changes
//! them. Pure: text in the end, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Address and port.
pub type Endpoint = (Ipv4Addr, u16);

/// Packets with this mark leave with the node's own address.
const MASQUERADE: u32 = 0x4000;

/// One port of one Service, all that is needed to program it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRules {
    /// Unique and safe as a part of a chain's name.
    pub id: String,
    /// For people who read the ruleset.
    pub comment: String,
    pub protocol: &'static str,
    /// Addresses and ports at which the Service is found inside.
    pub frontends: Vec<(Ipv4Addr, u16)>,
    pub node_port: Option<u16>,
    pub endpoints: BTreeSet<Endpoint>,
    /// Seconds for which a client keeps its endpoint.
    pub affinity: Option<u32>,
}

/// The rules for all ports of a Service. Nothing for headless and external ones.
pub fn service_rules(service: &Service, slices: &[Arc<EndpointSlice>]) -> Vec<ServiceRules> {
    let (Some(name), Some(spec)) = (service.metadata.name.as_deref(), service.spec.as_ref()) else {
        return Vec::new();
    };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let addresses: Vec<Ipv4Addr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(spec.cluster_ips.is_none().then_some(&spec.cluster_ip).into_iter().flatten())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured =
            spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
        u32::try_from(configured.unwrap_or(10_800)).unwrap_or(10_800)
    });
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let protocol = protocol(port)?;
            let number = u16::try_from(port.port).ok()?;
            let label = port.name.clone().unwrap_or_else(|| number.to_string());
            Some(ServiceRules {
                id: chain_id(namespace, name, protocol, number),
                comment: comment(&format!("{namespace}/{name}:{label}")),
                protocol,
                frontends: addresses.iter().map(|a| (*a, number)).collect(),
                node_port: port.node_port.and_then(|p| u16::try_from(p).ok()),
                endpoints: endpoints(slices, port, publish_not_ready),
                affinity,
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> Option<&'static str> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Some("tcp"),
        Some("UDP") => Some("udp"),
        Some("SCTP") => Some("sctp"),
        Some(_) => None,
    }
}

/// Ready endpoints; when there is none, those that still serve while they terminate.
fn endpoints(
    slices: &[Arc<EndpointSlice>],
    port: &ServicePort,
    publish_not_ready: bool,
) -> BTreeSet<Endpoint> {
    let mut ready = BTreeSet::new();
    let mut draining = BTreeSet::new();
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let name = port.name.as_deref().unwrap_or_default();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let target = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && p.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        let Some(target) = target.and_then(|p| u16::try_from(p.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let terminating = conditions.terminating.unwrap_or(false);
            let is_ready = conditions.ready.unwrap_or(true) || publish_not_ready;
            let is_serving = conditions.serving.unwrap_or(is_ready);
            let found = endpoint.addresses.iter().filter_map(|a| Some((a.parse().ok()?, target)));
            if is_ready {
                ready.extend(found);
            } else if terminating && is_serving {
                draining.extend(found);
            }
        }
    }
    if ready.is_empty() { draining } else { ready }
}

/// A name that says which Service it is and cannot clash: characters that nft refuses are replaced, a digest added.
fn chain_id(namespace: &str, name: &str, protocol: &str, port: u16) -> String {
    let full = format!("{namespace}/{name}/{protocol}/{port}");
    let hash = full
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let readable: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
    format!("{readable}-{protocol}-{port}-{:08x}", (hash ^ (hash >> 32)) as u32)
}

/// What nft takes inside quotes: it refuses more than 128 bytes, and one refused line refuses the whole transaction.
fn comment(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-._/:".contains(c) { c } else { '_' };
    text.chars().map(safe).take(120).collect()
}

/// All rules in force, by id.
pub type Rules = BTreeMap<String, ServiceRules>;

/// The transaction that makes the table from nothing: everything before is replaced in one step.
pub fn replace(table: &str, cluster_cidr: &str, rules: &Rules) -> String {
    let mut script = format!(
        "add table ip {table}
delete table ip {table}
add table ip {table}
add map ip {table} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map ip {table} nodeports {{ type inet_proto . inet_service : verdict; }}
add set ip {table} hairpin {{ type ipv4_addr . ipv4_addr; }}
add chain ip {table} refuse
add rule ip {table} refuse reject
add map ip {table} unserved {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add chain ip {table} refuse-forward {{ type filter hook forward priority -5; }}
add chain ip {table} refuse-output {{ type filter hook output priority -5; }}
add rule ip {table} refuse-forward ct state new ip daddr . meta l4proto . th dport vmap @unserved
add rule ip {table} refuse-output ct state new ip daddr . meta l4proto . th dport vmap @unserved
add chain ip {table} dispatch
add rule ip {table} dispatch ip daddr . meta l4proto . th dport vmap @services
add rule ip {table} dispatch fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @nodeports
add chain ip {table} prerouting {{ type nat hook prerouting priority -100; }}
add rule ip {table} prerouting jump dispatch
add chain ip {table} output {{ type nat hook output priority -100; }}
add rule ip {table} output jump dispatch
add chain ip {table} postrouting {{ type nat hook postrouting priority 100; }}
add rule ip {table} postrouting meta mark & {MASQUERADE:#x} != 0 masquerade
add rule ip {table} postrouting ct status dnat ip saddr . ip daddr @hairpin masquerade
add rule ip {table} postrouting ip saddr {cluster_cidr} ip daddr != {cluster_cidr} fib daddr type != local masquerade
"
    );
    script.push_str(&update(table, &Rules::new(), rules));
    script
}

/// The transaction that takes the table from `old` to `new`; empty when nothing differs.
pub fn update(table: &str, old: &Rules, new: &Rules) -> String {
    let mut script = Script { table, text: String::new() };
    // Nothing may point to a chain that goes, and a chain must be there before anything points to it.
    for (id, was) in old {
        let now = new.get(id);
        for (map, element) in elements(was) {
            if !now.is_some_and(|n| elements(n).contains(&(map, element.clone()))) {
                script.line(&format!("delete element ip {table} {map} {{ {element} }}"));
            }
        }
    }
    for (id, now) in new {
        match old.get(id) {
            Some(was) if body(was) == body(now) => {}
            was => script.chains(now, was),
        }
    }
    for (id, now) in new {
        let before = old.get(id).map(elements).unwrap_or_default();
        for (map, element) in elements(now) {
            if !before.contains(&(map, element.clone())) {
                script.line(&format!("add element ip {table} {map} {{ {element} }}"));
            }
        }
    }
    for (id, was) in old {
        if !new.contains_key(id) {
            script.drop_chains(was);
        }
    }
    script.hairpin(old, new);
    script.text
}

/// What the chains of a Service are made from.
fn body(rules: &ServiceRules) -> (&BTreeSet<Endpoint>, Option<u32>, Option<u16>) {
    (&rules.endpoints, rules.affinity, rules.node_port)
}

/// The map elements that lead to a Service's chains.
fn elements(rules: &ServiceRules) -> Vec<(&'static str, String)> {
    let protocol = rules.protocol;
    let mut found = Vec::new();
    for (address, port) in &rules.frontends {
        let key = format!("{address} . {protocol} . {port}");
        if rules.endpoints.is_empty() {
            found.push(("unserved", format!("{key} : goto refuse")));
        } else {
            found.push(("services", format!("{key} : goto svc-{}", rules.id)));
        }
    }
    if let (Some(port), false) = (rules.node_port, rules.endpoints.is_empty()) {
        found.push(("nodeports", format!("{protocol} . {port} : goto ext-{}", rules.id)));
    }
    found
}

struct Script<'a> {
    table: &'a str,
    text: String,
}

impl Script<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn chains(&mut self, now: &ServiceRules, was: Option<&ServiceRules>) {
        let (table, id) = (self.table, &now.id);
        self.line(&format!("add chain ip {table} svc-{id} {{ comment \"{}\"; }}", now.comment));
        if was.is_some() {
            self.line(&format!("flush chain ip {table} svc-{id}"));
        }
        self.external(now, was);
        if now.affinity.is_some() || was.is_some_and(|w| w.affinity.is_some()) {
            self.sticky(now, was);
        }
        if now.affinity.is_none() && !now.endpoints.is_empty() {
            self.line(&format!("add rule ip {table} svc-{id} {}", spread(now, None)));
        }
    }

    /// The chain for traffic from outside: the answer must come back through this node.
    fn external(&mut self, now: &ServiceRules, was: Option<&ServiceRules>) {
        let (table, id) = (self.table, &now.id);
        let had = was.is_some_and(|w| w.node_port.is_some());
        if now.node_port.is_some() && !had {
            self.line(&format!("add chain ip {table} ext-{id}"));
            self.line(&format!("add rule ip {table} ext-{id} meta mark set meta mark | {MASQUERADE:#x}"));
            self.line(&format!("add rule ip {table} ext-{id} goto svc-{id}"));
        } else if now.node_port.is_none() && had {
            self.line(&format!("flush chain ip {table} ext-{id}"));
            self.line(&format!("delete chain ip {table} ext-{id}"));
        }
    }

    /// With session affinity each endpoint has a set of the clients that it keeps. Sets of endpoints that stay are
    /// left alone, and with them the clients.
    fn sticky(&mut self, now: &ServiceRules, was: Option<&ServiceRules>) {
        let table = self.table;
        let before = was.filter(|w| w.affinity.is_some());
        if let Some(timeout) = now.affinity {
            for endpoint in &now.endpoints {
                let name = sticky_name(&now.id, endpoint);
                let kept =
                    before.is_some_and(|w| w.affinity == now.affinity && w.endpoints.contains(endpoint));
                if kept {
                    continue;
                }
                self.line(&format!(
                    "add set ip {table} {name} {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout {timeout}s; }}"
                ));
                self.line(&format!("add chain ip {table} {name}"));
                self.line(&format!("flush chain ip {table} {name}"));
                self.line(&format!(
                    "add rule ip {table} {name} update @{name} {{ ip saddr timeout {timeout}s }}"
                ));
                self.line(&format!(
                    "add rule ip {table} {name} meta l4proto {} dnat to {}:{}",
                    now.protocol, endpoint.0, endpoint.1
                ));
            }
            for endpoint in &now.endpoints {
                let name = sticky_name(&now.id, endpoint);
                self.line(&format!("add rule ip {table} svc-{} ip saddr @{name} goto {name}", now.id));
            }
            if !now.endpoints.is_empty() {
                self.line(&format!("add rule ip {table} svc-{} {}", now.id, spread(now, Some(sticky_name))));
            }
        }
        for endpoint in before.iter().flat_map(|w| &w.endpoints) {
            if now.affinity.is_none() || !now.endpoints.contains(endpoint) {
                self.drop_sticky(&now.id, endpoint);
            }
        }
    }

    fn drop_sticky(&mut self, id: &str, endpoint: &Endpoint) {
        let (table, name) = (self.table, sticky_name(id, endpoint));
        self.line(&format!("flush chain ip {table} {name}"));
        self.line(&format!("delete chain ip {table} {name}"));
        self.line(&format!("delete set ip {table} {name}"));
    }

    fn drop_chains(&mut self, was: &ServiceRules) {
        let (table, id) = (self.table, &was.id);
        if was.node_port.is_some() {
            self.line(&format!("flush chain ip {table} ext-{id}"));
            self.line(&format!("delete chain ip {table} ext-{id}"));
        }
        self.line(&format!("flush chain ip {table} svc-{id}"));
        self.line(&format!("delete chain ip {table} svc-{id}"));
        if was.affinity.is_some() {
            for endpoint in &was.endpoints {
                self.drop_sticky(id, endpoint);
            }
        }
    }

    /// A pod that reaches itself through its Service must not see its own address as the client's.
    fn hairpin(&mut self, old: &Rules, new: &Rules) {
        let all = |rules: &Rules| -> BTreeSet<Ipv4Addr> {
            rules.values().flat_map(|r| r.endpoints.iter().map(|e| e.0)).collect()
        };
        let (before, after) = (all(old), all(new));
        for (verb, addresses) in [("delete", before.difference(&after)), ("add", after.difference(&before))] {
            let pairs: Vec<String> = addresses.map(|a| format!("{a} . {a}")).collect();
            if !pairs.is_empty() {
                self.line(&format!("{verb} element ip {} hairpin {{ {} }}", self.table, pairs.join(", ")));
            }
        }
    }
}

fn sticky_name(id: &str, endpoint: &Endpoint) -> String {
    let [a, b, c, d] = endpoint.0.octets();
    format!("aff-{id}-{a}_{b}_{c}_{d}-{}", endpoint.1)
}

/// The rule that takes one of the endpoints at random: by address, or by the chain that `chain` names.
fn spread(rules: &ServiceRules, chain: Option<fn(&str, &Endpoint) -> String>) -> String {
    let mut rule = String::new();
    let count = rules.endpoints.len();
    let _ = match chain {
        None => write!(rule, "meta l4proto {} dnat ip to numgen random mod {count} map {{", rules.protocol),
        Some(_) => write!(rule, "numgen random mod {count} vmap {{"),
    };
    for (i, endpoint) in rules.endpoints.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = match chain {
            None => write!(rule, "{comma} {i} : {} . {}", endpoint.0, endpoint.1),
            Some(name) => write!(rule, "{comma} {i} : goto {}", name(&rules.id, endpoint)),
        };
    }
    rule.push_str(" }");
    rule
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }))
        .unwrap()
    }

    fn endpoints_of(spec: serde_json::Value, endpoints: serde_json::Value) -> Vec<Vec<String>> {
        let rules = service_rules(&service(spec), &[Arc::new(slice(endpoints))]);
        rules.iter().map(|r| r.endpoints.iter().map(|(a, p)| format!("{a}:{p}")).collect()).collect()
    }

    #[test]
    fn endpoints_are_the_ready_ones_or_else_those_that_drain() {
        let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        let cases = [
            (json!([]), vec![]),
            (json!([{"addresses": ["10.1.0.2"]}]), vec!["10.1.0.2:8080"]),
            (
                json!([{"addresses": ["10.1.0.2"], "conditions": {"ready": true}},
                       {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
                vec!["10.1.0.2:8080"],
            ),
            (
                json!([{"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                       {"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": false}}]),
                vec!["10.1.0.3:8080"],
            ),
            (json!([{"addresses": ["not-an-address", "fe80::1"]}]), vec![]),
        ];
        for (endpoints, want) in cases {
            assert_eq!(endpoints_of(spec.clone(), endpoints.clone()), [want], "{endpoints}");
        }
    }

    #[test]
    fn services_without_an_address_have_no_rules() {
        let endpoints = json!([{"addresses": ["10.1.0.2"]}]);
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "db.example", "ports": [{"port": 80}]}),
            json!({"clusterIP": "10.96.0.5"}),
            json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "SNAIL"}]}),
        ] {
            assert!(endpoints_of(spec.clone(), endpoints.clone()).is_empty(), "{spec}");
        }
    }

    #[test]
    fn each_port_finds_its_target_by_name_and_protocol() {
        let spec = json!({"clusterIP": "10.96.0.5", "ports": [
            {"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "other", "port": 9}]});
        assert_eq!(
            endpoints_of(spec, json!([{"addresses": ["10.1.0.2"]}])),
            [vec!["10.1.0.2:8080"], vec!["10.1.0.2:53"], vec![]]
        );
    }

    #[test]
    fn no_name_can_break_the_script() {
        let mut long = service(json!({"clusterIP": "10.96.0.5", "ports": [
            {"name": "x\"; }\nflush ruleset\n", "port": 80}]}));
        long.metadata.namespace = Some("n".repeat(63));
        long.metadata.name = Some("s".repeat(63));
        let rules = service_rules(&long, &[]);
        let comment = &rules[0].comment;
        assert!(comment.len() <= 128, "{comment}");
        long.metadata.namespace = Some("n".to_owned());
        long.metadata.name = Some("s".to_owned());
        assert_eq!(service_rules(&long, &[])[0].comment, "n/s:x_____flush_ruleset_");
    }

    #[test]
    fn an_endpoint_more_touches_one_chain_only() {
        let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        let rules = |endpoints| -> Rules {
            service_rules(&service(spec.clone()), &[Arc::new(slice(endpoints))])
                .into_iter()
                .map(|r| (r.id.clone(), r))
                .collect()
        };
        let one = rules(json!([{"addresses": ["10.1.0.2"]}]));
        let two = rules(json!([{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.3"]}]));
        let id = one.keys().next().unwrap();
        assert_eq!(
            update("t", &one, &two),
            format!(
                "add chain ip t svc-{id} {{ comment \"shop/web:http\"; }}\nflush chain ip t svc-{id}\n\
                 add rule ip t svc-{id} meta l4proto tcp dnat ip to numgen random mod 2 map \
                 {{ 0 : 10.1.0.2 . 8080, 1 : 10.1.0.3 . 8080 }}\n\
                 add element ip t hairpin {{ 10.1.0.3 . 10.1.0.3 }}\n"
            )
        );
        assert_eq!(update("t", &two, &two), "");
    }
}
