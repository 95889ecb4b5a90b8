//! ClusterIPs and node ports: who has which, what is free, and what a write in flight has taken.
//!
//! The Services in the watch cache are the truth; the index here follows their events. What a write takes is held
//! until the cache shows the write, or given back when it fails, so two writes never get the same address.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loadline_api::field::FieldError;
use serde_json::{Value, json};

use crate::cache::{Cache, EventType};

/// The first usable address of the range: the `kubernetes` Service's.
pub(crate) fn first_address(cidr: (Ipv4Addr, u8)) -> Ipv4Addr {
    Ipv4Addr::from(network(cidr) + 1)
}

fn network((address, bits): (Ipv4Addr, u8)) -> u32 {
    u32::from(address) & mask(bits)
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)
}

pub(crate) struct Allocator {
    cidr: (Ipv4Addr, u8),
    ports: (u16, u16),
    services: Option<Arc<Cache>>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    /// The position in the Services' events up to which the index is; `None` before the first look.
    position: Option<u64>,
    /// What each Service holds, by key.
    held: HashMap<Arc<str>, Held>,
    ips: HashMap<Ipv4Addr, usize>,
    ports: HashMap<u16, usize>,
    /// What writes in flight have taken, until the cache has passed the revision (`None`: not yet written).
    pending: HashMap<u64, (Held, Option<u64>)>,
    next_ticket: u64,
}

/// The addresses and ports of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ports: Vec<u16>,
}

impl Held {
    pub(crate) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let ip = spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        let port = |p: &Value| p.as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        let mut ports: Vec<u16> = spec["ports"]
            .as_array()
            .map(|l| l.iter().filter_map(|p| port(&p["nodePort"])).collect())
            .unwrap_or_default();
        ports.extend(port(&spec["healthCheckNodePort"]));
        ports.sort_unstable();
        ports.dedup();
        Self { ip, ports }
    }
}

/// What one write has taken; given back when dropped without [`Ticket::written`].
pub(crate) struct Ticket<'a> {
    allocator: &'a Allocator,
    id: Option<u64>,
}

impl Ticket<'_> {
    /// The write happened at this revision.
    pub(crate) fn written(mut self, revision: u64) {
        if let Some(id) = self.id.take()
            && let Some(entry) = self.allocator.lock().pending.get_mut(&id)
        {
            entry.1 = Some(revision);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.allocator.lock().pending.remove(&id);
        }
    }
}

impl Allocator {
    pub(crate) fn new(cidr: (Ipv4Addr, u8), ports: (u16, u16), services: Option<Arc<Cache>>) -> Self {
        Self { cidr, ports, services, index: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills in what `new` needs and does not name, and takes what it names. `old` is the Service before an update.
    pub(crate) fn assign(&self, new: &mut Value, old: Option<&Value>) -> Result<Ticket<'_>, Vec<FieldError>> {
        let mut index = self.lock();
        index.follow(self.services.as_deref());
        let had = old.map(Held::of).unwrap_or_default();
        let mut taken = Held::default();
        let mut errors = Vec::new();
        self.assign_ip(&index, new, &had, &mut taken, &mut errors);
        self.assign_ports(&index, new, &had, &mut taken, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        if taken == Held::default() {
            return Ok(Ticket { allocator: self, id: None });
        }
        let id = index.next_ticket;
        index.next_ticket += 1;
        index.pending.insert(id, (taken, None));
        Ok(Ticket { allocator: self, id: Some(id) })
    }

    fn assign_ip(
        &self,
        index: &Index,
        new: &mut Value,
        had: &Held,
        taken: &mut Held,
        errors: &mut Vec<FieldError>,
    ) {
        let spec = &mut new["spec"];
        let ty = spec["type"].as_str().unwrap_or("ClusterIP");
        if !matches!(ty, "ClusterIP" | "NodePort" | "LoadBalancer") {
            return;
        }
        let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        if asked == "None" {
            spec["clusterIPs"] = json!(["None"]);
            return;
        }
        if asked.is_empty() {
            match self.free_ip(index) {
                Some(ip) => {
                    taken.ip = Some(ip);
                    spec["clusterIP"] = json!(ip.to_string());
                    spec["clusterIPs"] = json!([ip.to_string()]);
                }
                None => {
                    let detail = "failed to allocate a serviceIP: range is full";
                    errors.push(FieldError::invalid("spec.clusterIPs", &json!([""]), detail));
                }
            }
            return;
        }
        let shown = spec["clusterIPs"].as_array().filter(|l| !l.is_empty()).cloned();
        let shown = Value::from(shown.unwrap_or_else(|| vec![json!(asked)]));
        // What is not an address at all is for validation to say.
        let Ok(ip) = asked.parse::<Ipv4Addr>() else { return };
        if had.ip != Some(ip) {
            let problem = if !self.contains(ip) {
                Some("the provided network does not match the current range")
            } else if index.ip_used(ip) {
                Some("provided IP is already allocated")
            } else {
                None
            };
            if let Some(problem) = problem {
                let detail = format!("failed to allocate IP {ip}: {problem}");
                errors.push(FieldError::invalid("spec.clusterIPs", &shown, &detail));
                return;
            }
            taken.ip = Some(ip);
        }
        if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
            spec["clusterIPs"] = json!([asked]);
        }
    }

    fn assign_ports(
        &self,
        index: &Index,
        new: &mut Value,
        had: &Held,
        taken: &mut Held,
        errors: &mut Vec<FieldError>,
    ) {
        let spec = &mut new["spec"];
        let ty = spec["type"].as_str().unwrap_or_default().to_owned();
        let wanted = match ty.as_str() {
            "NodePort" => true,
            "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
            _ => return,
        };
        let local = ty == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
        let mut used_here: HashMap<u16, Vec<String>> = HashMap::new();
        let ports = spec["ports"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        // Named ports first, so that none of them is given to a port that names none.
        for (i, port) in ports.iter().enumerate() {
            let Some(number) = port["nodePort"].as_i64().filter(|n| *n != 0) else { continue };
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let path = format!("spec.ports[{i}].nodePort");
            match self.check_port(
                index,
                number,
                had,
                used_here.get(&u16::try_from(number).unwrap_or(0)),
                &protocol,
            ) {
                Ok(number) => {
                    if !had.ports.contains(&number) && !taken.ports.contains(&number) {
                        taken.ports.push(number);
                    }
                    used_here.entry(number).or_default().push(protocol);
                }
                Err(detail) => errors.push(FieldError::invalid(path, &json!(number), &detail)),
            }
        }
        if !wanted || !errors.is_empty() {
            return;
        }
        for (i, port) in ports.iter_mut().enumerate() {
            if port["nodePort"].as_i64().is_some_and(|n| n != 0) {
                continue;
            }
            match self.free_port(index, taken) {
                Some(number) => {
                    taken.ports.push(number);
                    port["nodePort"] = json!(number);
                }
                None => {
                    let path = format!("spec.ports[{i}].nodePort");
                    let detail = "failed to allocate a nodePort: range is full";
                    errors.push(FieldError::invalid(path, &json!(0), detail));
                }
            }
        }
        if local
            && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0
            && let Some(number) = self.free_port(index, taken)
        {
            taken.ports.push(number);
            spec["healthCheckNodePort"] = json!(number);
        }
    }

    fn check_port(
        &self,
        index: &Index,
        number: i64,
        had: &Held,
        here: Option<&Vec<String>>,
        protocol: &str,
    ) -> Result<u16, String> {
        let (first, last) = self.ports;
        let in_range = u16::try_from(number).ok().filter(|n| (first..=last).contains(n));
        let number = in_range.ok_or_else(|| {
            format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
        })?;
        // One Service may use a number for two protocols.
        let shared = here.is_some_and(|protocols| !protocols.iter().any(|p| p == protocol));
        if !had.ports.contains(&number) && !shared && (here.is_some() || index.port_used(number)) {
            return Err("provided port is already allocated".to_owned());
        }
        Ok(number)
    }

    fn contains(&self, ip: Ipv4Addr) -> bool {
        let base = network(self.cidr);
        let offset = u32::from(ip).wrapping_sub(base);
        offset > 0 && offset < self.size() - 1
    }

    /// Addresses of the range, network and broadcast included.
    fn size(&self) -> u32 {
        (!mask(self.cidr.1)).saturating_add(1).max(4)
    }

    /// From the upper band: the lower is left to addresses that users choose, as Kubernetes has it.
    fn free_ip(&self, index: &Index) -> Option<Ipv4Addr> {
        let base = network(self.cidr);
        let last = self.size() - 2;
        let band = (self.size() / 16).clamp(16, 256).min(last);
        let at = |offset: u32| Ipv4Addr::from(base + offset);
        let free = |offset: &u32| !index.ip_used(at(*offset));
        let upper = band + 1..=last;
        if !upper.is_empty() {
            for _ in 0..64 {
                let offset = rand::random_range(upper.clone());
                if free(&offset) {
                    return Some(at(offset));
                }
            }
        }
        upper.chain(1..=band).find(free).map(at)
    }

    fn free_port(&self, index: &Index, taken: &Held) -> Option<u16> {
        let (first, last) = self.ports;
        let size = last.saturating_sub(first).saturating_add(1);
        let band = (size / 32).clamp(16, 128).min(size);
        let free = |port: &u16| !index.port_used(*port) && !taken.ports.contains(port);
        let upper = first.saturating_add(band)..=last;
        if !upper.is_empty() {
            for _ in 0..64 {
                let port = rand::random_range(upper.clone());
                if free(&port) {
                    return Some(port);
                }
            }
        }
        upper.chain(first..first.saturating_add(band)).find(free)
    }
}

impl Index {
    fn ip_used(&self, ip: Ipv4Addr) -> bool {
        self.ips.contains_key(&ip) || self.pending.values().any(|(h, _)| h.ip == Some(ip))
    }

    fn port_used(&self, port: u16) -> bool {
        self.ports.contains_key(&port) || self.pending.values().any(|(h, _)| h.ports.contains(&port))
    }

    /// Takes over what happened to Services since the last look.
    fn follow(&mut self, services: Option<&Cache>) {
        let Some(services) = services else { return };
        let mut events = Vec::new();
        let next = self.position.and_then(|p| services.events_from(p, usize::MAX, &mut events).ok());
        match next {
            Some(next) => {
                for event in events {
                    let deleted = event.ty == EventType::Deleted;
                    let held = if deleted { None } else { event.object.value().ok().map(|v| Held::of(&v)) };
                    self.set(&event.object.key, held);
                }
                self.position = Some(next);
            }
            None => {
                self.held.clear();
                self.ips.clear();
                self.ports.clear();
                let view = services.view("", None, 0, false, 0, |_| true);
                for object in &view.objects {
                    self.set(&object.key, object.value().ok().map(|v| Held::of(&v)));
                }
                self.position = Some(view.position);
            }
        }
        let reached = services.last_change();
        self.pending.retain(|_, (_, written)| written.is_none_or(|revision| revision > reached));
    }

    fn set(&mut self, key: &Arc<str>, held: Option<Held>) {
        if let Some(before) = self.held.remove(key) {
            before.ip.iter().for_each(|ip| release(&mut self.ips, ip));
            before.ports.iter().for_each(|port| release(&mut self.ports, port));
        }
        if let Some(held) = held {
            held.ip.iter().for_each(|ip| *self.ips.entry(*ip).or_default() += 1);
            held.ports.iter().for_each(|port| *self.ports.entry(*port).or_default() += 1);
            self.held.insert(key.clone(), held);
        }
    }
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator() -> Allocator {
        Allocator::new((Ipv4Addr::new(10, 96, 0, 0), 28), (30_000, 30_003), None)
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn refused(result: Result<Ticket<'_>, Vec<FieldError>>) -> String {
        result.err().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn addresses_are_unique_until_given_back() {
        let allocator = allocator();
        let mut tickets = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..14 {
            let mut s = service(json!({"type": "ClusterIP"}));
            tickets.push(allocator.assign(&mut s, None).ok().unwrap());
            assert!(seen.insert(s["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        }
        let mut s = service(json!({"type": "ClusterIP"}));
        assert!(refused(allocator.assign(&mut s, None)).contains("range is full"));
        tickets.pop();
        assert!(allocator.assign(&mut s, None).is_ok());
    }

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let allocator = allocator();
        let mut s = service(json!({"type": "ClusterIP", "clusterIP": "10.96.0.5"}));
        let _held = allocator.assign(&mut s, None).ok().unwrap();
        assert_eq!(s["spec"]["clusterIPs"], json!(["10.96.0.5"]));
        assert_eq!(
            refused(allocator.assign(&mut s.clone(), None)),
            r#"spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: provided IP is already allocated"#
        );
        let mut out = service(json!({"type": "ClusterIP", "clusterIP": "1.2.3.4"}));
        assert!(
            refused(allocator.assign(&mut out, None))
                .ends_with("the provided network does not match the current range")
        );
        let mut port = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
        assert_eq!(
            refused(allocator.assign(&mut port, None)),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30003"
        );
    }

    #[test]
    fn node_ports() {
        let allocator = allocator();
        let mut dns = service(json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP", "nodePort": 30000}, {"port": 53, "protocol": "TCP", "nodePort": 30000},
            {"port": 80, "protocol": "TCP"}]}));
        let _ticket = allocator.assign(&mut dns, None).ok().unwrap();
        assert_ne!(dns["spec"]["ports"][2]["nodePort"], json!(30000));
        let mut clash = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30000}]}));
        assert!(refused(allocator.assign(&mut clash, None)).ends_with("provided port is already allocated"));
        // An update keeps what the Service has.
        assert!(allocator.assign(&mut dns.clone(), Some(&dns)).is_ok());
    }

    #[test]
    fn headless_and_external_services_take_nothing() {
        let allocator = allocator();
        let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None"}));
        drop(allocator.assign(&mut headless, None));
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        let mut external = service(json!({"type": "ExternalName"}));
        drop(allocator.assign(&mut external, None));
        assert!(external["spec"].get("clusterIP").is_none());
    }
}
