//! What changes on the update of a Service: clients that know only some of the fields, or that switch its type, keep or
//! lose what was handed out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::Errors;
use crate::rules::path::Path;
use crate::rules::service::{
    health_port_update, is_headless, needs_cluster_ip, needs_health_port, needs_node_port,
};
use crate::rules::value::{copy, equal, get, int, list, list_mut, remove, same, set, text, texts};

const ONCE: &str = "may not change once set";

/// Completes the new spec from the old one.
pub(super) fn prepare(new: &mut Value, old: &Value) {
    sync_cluster_ips(new, old);
    keep_allocated(new, old);
    drop_unneeded(new, old);
}

/// `clusterIP` and `clusterIPs` say the same; a client may have changed one alone.
fn sync_cluster_ips(new: &mut Value, old: &Value) {
    if !list(old, "clusterIPs").is_empty()
        && list(new, "clusterIPs").is_empty()
        && same(new, old, "clusterIP")
    {
        copy(new, old, "clusterIPs");
    }
    let (now, before) = (text(new, "clusterIP").to_owned(), text(old, "clusterIP"));
    if now == before || !same(new, old, "clusterIPs") {
        return;
    }
    if now.is_empty() {
        remove(new, "clusterIPs");
    } else {
        set(new, "clusterIPs", vec![now]);
    }
}

/// Addresses and ports that the client left out stay as they are.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(new, "clusterIP").is_empty() {
            copy(new, old, "clusterIP");
        }
        if list(new, "clusterIPs").is_empty() && text(new, "clusterIP") == text(old, "clusterIP") {
            copy(new, old, "clusterIPs");
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        keep_node_ports(new, old);
    }
    let health = "healthCheckNodePort";
    if needs_health_port(old) && needs_health_port(new) && int(new, health) == 0 {
        copy(new, old, health);
    }
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let ports = |spec: &Value| -> BTreeSet<i64> {
        list(spec, "ports").iter().map(|p| int(p, "nodePort")).filter(|n| *n != 0).collect()
    };
    let mut used: BTreeSet<i64> = ports(old).intersection(&ports(new)).copied().collect();
    for port in list_mut(new, "ports").iter_mut().filter(|p| int(p, "nodePort") == 0) {
        let name = text(port, "name");
        let before = list(old, "ports").iter().rfind(|p| text(p, "name") == name).map(|p| int(p, "nodePort"));
        let Some(number) = before.filter(|n| *n != 0) else { continue };
        if used.insert(number) {
            set(port, "nodePort", number);
        }
    }
}

/// Fields that only the old type needed go, unless the client changed them itself.
fn drop_unneeded(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, old, "clusterIP") && same(new, old, "clusterIPs") {
            remove(new, "clusterIP");
            remove(new, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            drop_if_same(new, old, key);
        }
    }
    if needs_node_port(old) && !needs_node_port(new) && same_node_ports(new, old) {
        list_mut(new, "ports").iter_mut().for_each(|p| remove(p, "nodePort"));
    }
    if needs_health_port(old) && !needs_health_port(new) {
        drop_if_same(new, old, "healthCheckNodePort");
    }
    let [now, before] = [text(new, "type"), text(old, "type")].map(str::to_owned);
    if before == "LoadBalancer" && now != "LoadBalancer" {
        drop_if_same(new, old, "allocateLoadBalancerNodePorts");
        drop_if_same(new, old, "loadBalancerClass");
    }
    let external = |kind: &str| matches!(kind, "LoadBalancer" | "NodePort");
    if external(&before) && !external(&now) && list(new, "externalIPs").is_empty() {
        drop_if_same(new, old, "externalTrafficPolicy");
    }
    if before != "ExternalName" && now == "ExternalName" {
        drop_if_same(new, old, "internalTrafficPolicy");
    }
}

fn drop_if_same(new: &mut Value, old: &Value, key: &str) {
    if same(new, old, key) {
        remove(new, key);
    }
}

fn same_node_ports(new: &Value, old: &Value) -> bool {
    let ports =
        |spec: &Value| -> BTreeSet<i64> { list(spec, "ports").iter().map(|p| int(p, "nodePort")).collect() };
    ports(new) == ports(old)
}

/// What an update may do to the addresses and classes of a Service.
pub(super) fn validate(errs: &mut Errors, new: &Value, old: &Value) {
    let external = [new, old].iter().any(|s| text(s, "type") == "ExternalName");
    let headless = is_headless(new) && is_headless(old);
    if !external && !headless {
        cluster_ips(errs, new, old);
    }
    if !external && !is_headless(new) && !is_headless(old) {
        families(errs, new, old);
    }
    let balanced = [new, old].iter().all(|s| text(s, "type") == "LoadBalancer");
    if balanced && !equal(get(new, "loadBalancerClass"), get(old, "loadBalancerClass")) {
        let shown = get(new, "loadBalancerClass").unwrap_or(&Value::Null);
        errs.push(FieldError::invalid("spec.loadBalancerClass", shown, ONCE));
    }
    health_port_update(errs, new, old);
}

fn cluster_ips(errs: &mut Errors, new: &Value, old: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("clusterIPs");
    let now: Vec<&str> = texts(new, "clusterIPs").collect();
    let before: Vec<&str> = texts(old, "clusterIPs").collect();
    let shown = json!(now);
    if now.len() == before.len() {
        for (i, _) in now.iter().zip(&before).enumerate().filter(|(_, (n, b))| n != b) {
            errs.push(FieldError::invalid(path.index(i), &shown, ONCE));
        }
        return;
    }
    if now.is_empty() {
        errs.push(FieldError::invalid(path.index(0), &shown, "primary clusterIP can not be unset"));
    } else if !before.is_empty() && now[0] != before[0] {
        errs.push(FieldError::invalid(path.index(0), &shown, ONCE));
    }
    if before.len() == 2 && now.len() == 1 && text(new, "ipFamilyPolicy") != "SingleStack" {
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errs.push(FieldError::invalid(
            spec.child("ipFamilyPolicy"),
            &json!(text(new, "ipFamilyPolicy")),
            why,
        ));
    }
}

fn families(errs: &mut Errors, new: &Value, old: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("ipFamilies");
    let now: Vec<&str> = texts(new, "ipFamilies").collect();
    let before: Vec<&str> = texts(old, "ipFamilies").collect();
    if before.iter().zip(&now).any(|(b, n)| b != n) {
        errs.push(FieldError::invalid(path.index(0), &json!(now), ONCE));
    }
    if before.len() == 2 && now.len() == 1 && text(new, "ipFamilyPolicy") != "SingleStack" {
        let why = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errs.push(FieldError::invalid(
            spec.child("ipFamilyPolicy"),
            &json!(text(new, "ipFamilyPolicy")),
            why,
        ));
    }
}
