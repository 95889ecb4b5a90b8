//! What the API does with a Service. Cluster addresses and node ports are handed out by the server, between
//! preparation and validation; what may be asked of them is checked here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{
    self, Errors, PROTOCOLS, immutable, invalid_each, one_of, optional_one_of, required_one_of,
};
use crate::rules::path::Path;
use crate::rules::service_update;
use crate::rules::value::{
    at, child, copy, entries, fill, fill_text, get, has, int, list, list_mut, opt_int, remove, set, text,
    texts,
};
use crate::rules::{meta, names};

pub static STRATEGY: ServiceStrategy = ServiceStrategy;

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        fill_text(spec, "type", "ClusterIP");
        session_affinity(spec);
        for port in list_mut(spec, "ports") {
            fill_text(port, "protocol", "TCP");
            if matches!(at(port, "targetPort"), Value::Null)
                || [json!(0), json!("")].contains(at(port, "targetPort"))
            {
                let own = int(port, "port");
                set(port, "targetPort", own);
            }
        }
        if is_external(spec) {
            fill_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if text(spec, "type") != "ExternalName" {
            fill(spec, "internalTrafficPolicy", "Cluster");
        }
        if text(spec, "type") == "LoadBalancer" {
            fill(spec, "allocateLoadBalancerNodePorts", true);
            ingress_modes(obj);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "loadBalancer": {} }));
        let spec = child(obj, "spec");
        if !text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty() {
            let ip = text(spec, "clusterIP").to_owned();
            set(spec, "clusterIPs", vec![ip]);
        }
        ip_families(spec);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
        let spec = child(new, "spec");
        service_update::prepare(spec, at(old, "spec"));
        ip_families(spec);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
        if text(at(new, "spec"), "type") == "LoadBalancer" {
            ingress_modes(new);
        }
        child(child(new, "status"), "loadBalancer");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        service(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        service_update::validate(&mut errs, at(new, "spec"), at(old, "spec"));
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_label));
        service(&mut errs, new);
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        load_balancer(&mut errs, new);
        errs
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        warnings(obj)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable(&self, obj: &Value, field: &str) -> String {
        let key = field.strip_prefix("spec.").unwrap_or(field);
        text(at(obj, "spec"), key).to_owned()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::service(obj, now)
    }
}

fn session_affinity(spec: &mut Value) {
    fill_text(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" => {
            let seconds = get(at(at(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds");
            if seconds.is_none() {
                let config = json!({ "clientIP": { "timeoutSeconds": AFFINITY_SECONDS } });
                set(spec, "sessionAffinityConfig", config);
            }
        }
        _ => {}
    }
}

/// Whether traffic from outside the cluster can reach it.
fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

pub fn is_headless(spec: &Value) -> bool {
    let ips = list(spec, "clusterIPs");
    ips.len() == 1 && ips[0] == "None"
}

/// Whether the server hands out an address for it.
pub fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether the server hands out ports of the nodes for it.
pub fn needs_node_port(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => at(spec, "allocateLoadBalancerNodePorts") != &json!(false),
        _ => false,
    }
}

/// Whether the server hands out a port for health checks.
pub fn needs_health_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn ingress_modes(obj: &mut Value) {
    let Some(status) = obj.get_mut("status").and_then(|s| s.get_mut("loadBalancer")) else { return };
    for ingress in list_mut(status, "ingress") {
        if !text(ingress, "ip").is_empty() {
            fill(ingress, "ipMode", "VIP");
        }
    }
}

/// Families of a cluster whose only family is IPv4. A headless Service without a selector takes both, as its endpoints
/// come from elsewhere.
fn ip_families(spec: &mut Value) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let both = is_headless(spec) && entries(spec, "selector").next().is_none();
    let default = if both { "RequireDualStack" } else { "SingleStack" };
    fill(spec, "ipFamilyPolicy", default);
    let mut families: Vec<Value> = list(spec, "ipFamilies").to_vec();
    if families.is_empty() {
        let given = texts(spec, "clusterIPs").filter_map(|ip| ip.parse::<IpAddr>().ok());
        families.extend(given.map(|ip| json!(if ip.is_ipv6() { "IPv6" } else { "IPv4" })));
    }
    if families.is_empty() {
        families.push(json!("IPv4"));
    }
    if both && families.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        families.push(json!(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }));
    }
    set(spec, "ipFamilies", families);
}

fn service(errs: &mut Errors, obj: &Value) {
    let spec = at(obj, "spec");
    let path = Path::root("spec");
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errs.push(FieldError::required(path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errs.push(FieldError::invalid(path.child("clusterIPs").index(0), &json!("None"), &why));
        }
        "ExternalName" => external_name(errs, spec, &path),
        _ => {}
    }
    service_ports(errs, spec, &path.child("ports"));
    meta::labels(errs, spec, "selector", &path);
    affinity(errs, spec, &path);
    cluster_ips(errs, spec, &path);
    for (i, ip) in texts(spec, "externalIPs").enumerate() {
        let ips = path.child("externalIPs");
        if checks::ip(errs, ip, ips.index(i)).is_some() {
            checks::non_special_ip(errs, ip, ips.index(i));
        }
    }
    required_one_of(errs, kind, TYPES, path.child("type"));
    duplicate_ports(errs, spec, &path.child("ports"));
    source_ranges(errs, obj, &path);
    load_balancer_fields(errs, spec, &path);
    traffic(errs, spec, &path);
}

fn external_name(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if get(spec, key).is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty())) {
            let why = "may not be set for ExternalName services";
            errs.push(FieldError::forbidden(path.child(key), why));
        }
    }
    let name = text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errs.push(FieldError::required(path.child("externalName"), ""));
    } else {
        invalid_each(errs, path.child("externalName"), name, names::dns1123_subdomain(name));
    }
}

fn service_ports(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let ports = list(spec, "ports");
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            invalid_each(errs, path.child("name"), name, names::dns1123_label(name));
            if !seen.insert(name) {
                errs.push(FieldError::duplicate(path.child("name"), &json!(name)));
            }
        } else if ports.len() > 1 {
            errs.push(FieldError::required(path.child("name"), ""));
        }
        checks::port_number(errs, int(port, "port"), path.child("port"));
        required_one_of(errs, text(port, "protocol"), PROTOCOLS, path.child("protocol"));
        checks::port_number_or_name(errs, get(port, "targetPort"), path.child("targetPort"));
        if has(port, "appProtocol") {
            meta::label_name(errs, text(port, "appProtocol"), path.child("appProtocol"));
        }
    }
}

fn duplicate_ports(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let ports = list(spec, "ports");
    if text(spec, "type") == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| int(p, "nodePort") != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errs.push(FieldError::forbidden(path.index(i).child("nodePort"), why));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| int(p, "nodePort") != 0) {
        if !seen.insert((text(port, "protocol"), int(port, "nodePort"))) {
            let shown = json!(int(port, "nodePort"));
            errs.push(FieldError::duplicate(path.index(i).child("nodePort"), &shown));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, "protocol"), int(port, "port"));
        if !seen.insert((protocol, number)) {
            errs.push(FieldError::new(
                crate::field::FieldErrorKind::Duplicate,
                path.index(i),
                format!(
                    "Duplicate value: {{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\
                     \"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
                ),
            ));
        }
    }
}

fn affinity(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let kind = text(spec, "sessionAffinity");
    required_one_of(errs, kind, &["ClientIP", "None"], path.child("sessionAffinity"));
    let config = get(spec, "sessionAffinityConfig");
    let path = path.child("sessionAffinityConfig");
    match (kind, config) {
        ("None", Some(_)) => {
            errs.push(FieldError::forbidden(path, "must not be set when session affinity is None"));
        }
        ("ClientIP", config) => {
            let path = path.child("clientIP");
            let path = path.child("timeoutSeconds");
            match config.and_then(|c| opt_int(at(c, "clientIP"), "timeoutSeconds")) {
                None => errs.push(FieldError::required(path, "when session affinity type is ClientIP")),
                Some(n) if n <= 0 || n > AFFINITY_SECONDS_MAX => {
                    let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errs.push(FieldError::invalid(path, &json!(n), &why));
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

fn cluster_ips(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let field = path.child("clusterIPs");
    let (single, all) = (text(spec, "clusterIP"), at(spec, "clusterIPs"));
    let ips: Vec<&str> = texts(spec, "clusterIPs").collect();
    match ips.first() {
        None if !single.is_empty() => errs.push(FieldError::required(field, "")),
        Some(_) if single.is_empty() => {
            let why = "must be empty when `clusterIP` is not specified";
            errs.push(FieldError::invalid(field, all, why));
        }
        Some(first) if *first != single => {
            errs.push(FieldError::invalid(field, all, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    families(errs, spec, path);
    let before = errs.len();
    let mut parsed = Vec::new();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if ips.len() > 1 {
                errs.push(FieldError::invalid(field, all, "'None' must be the first and only value"));
            }
            continue;
        }
        parsed.extend(checks::ip(errs, ip, field.index(i)));
    }
    if ips.len() > 2 {
        errs.push(FieldError::invalid(field, all, "may only hold up to 2 values"));
    }
    if errs.len() > before {
        return;
    }
    if parsed.len() == 2 && parsed[0].is_ipv6() == parsed[1].is_ipv6() {
        let why = "may specify no more than one IP for each IP family";
        errs.push(FieldError::invalid(field, all, why));
    }
    for (i, (ip, family)) in parsed.iter().zip(texts(spec, "ipFamilies")).enumerate() {
        let fits = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
        if fits != family {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errs.push(FieldError::invalid(field.index(i), &json!(ip.to_string()), &why));
        }
    }
}

fn families(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let field = path.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (i, family) in texts(spec, "ipFamilies").enumerate() {
        one_of(errs, family, &["IPv4", "IPv6"], field.index(i));
        if !seen.insert(family) {
            errs.push(FieldError::duplicate(field.index(i), &json!(family)));
        }
        let open = is_headless(spec) && entries(spec, "selector").next().is_none();
        if family == "IPv6" && !open {
            let why = "not configured on this cluster";
            errs.push(FieldError::invalid(field.index(i), &json!(family), why));
        }
    }
    let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    optional_one_of(errs, spec, "ipFamilyPolicy", policies, path);
    let open = is_headless(spec) && entries(spec, "selector").next().is_none();
    if text(spec, "ipFamilyPolicy") == "RequireDualStack" && !open {
        let why = "this cluster is not configured for dual-stack services";
        errs.push(FieldError::invalid(path.child("ipFamilyPolicy"), &json!("RequireDualStack"), why));
    }
}

fn source_ranges(errs: &mut Errors, obj: &Value, path: &Path<'_>) {
    let spec = at(obj, "spec");
    let ranges = list(spec, "loadBalancerSourceRanges");
    let balanced = text(spec, "type") == "LoadBalancer";
    if !ranges.is_empty() {
        let path = path.child("LoadBalancerSourceRanges");
        if !balanced {
            errs.push(FieldError::forbidden(path, LOAD_BALANCER_ONLY));
        }
        for (i, range) in texts(spec, "loadBalancerSourceRanges").enumerate() {
            checks::cidr(errs, range.trim(), path.index(i));
        }
        return;
    }
    let annotations = at(at(obj, "metadata"), "annotations");
    if has(annotations, SOURCE_RANGES) {
        let root = Path::root("metadata");
        let path = root.child("annotations");
        let path = path.key(SOURCE_RANGES);
        if !balanced {
            errs.push(FieldError::forbidden(path, LOAD_BALANCER_ONLY));
        }
        for range in text(annotations, SOURCE_RANGES).split(',').map(str::trim).filter(|r| !r.is_empty()) {
            checks::cidr(errs, range, path);
        }
    }
}

fn load_balancer_fields(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let balanced = text(spec, "type") == "LoadBalancer";
    for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if has(spec, key) && !balanced {
            errs.push(FieldError::forbidden(path.child(key), LOAD_BALANCER_ONLY));
        }
    }
    if balanced && has(spec, "loadBalancerClass") {
        meta::label_name(errs, text(spec, "loadBalancerClass"), path.child("loadBalancerClass"));
    }
}

fn traffic(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let policy = text(spec, "externalTrafficPolicy");
    let field = path.child("externalTrafficPolicy");
    if is_external(spec) {
        required_one_of(errs, policy, &["Cluster", "Local"], field);
    } else if !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        errs.push(FieldError::invalid(field, &json!(policy), why));
    }
    let health = int(spec, "healthCheckNodePort");
    let field = path.child("healthCheckNodePort");
    if !needs_health_port(spec) {
        if health != 0 {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errs.push(FieldError::invalid(field, &json!(health), why));
        }
    } else if health == 0 {
        errs.push(FieldError::required(field, ""));
    } else {
        checks::port_number(errs, health, field);
    }
    let field = path.child("internalTrafficPolicy");
    if has(spec, "internalTrafficPolicy") {
        one_of(errs, text(spec, "internalTrafficPolicy"), &["Cluster", "Local"], field);
    } else if needs_cluster_ip(spec) {
        errs.push(FieldError::required(field, ""));
    }
    let near = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    optional_one_of(errs, spec, "trafficDistribution", near, path);
}

fn load_balancer(errs: &mut Errors, obj: &Value) {
    let ingress = list(at(at(obj, "status"), "loadBalancer"), "ingress");
    let root = Path::root("status");
    let path = root.child("loadBalancer");
    let path = path.child("ingress");
    if text(at(obj, "spec"), "type") != "LoadBalancer" && !ingress.is_empty() {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        errs.push(FieldError::forbidden(path, why));
        return;
    }
    for (i, item) in ingress.iter().enumerate() {
        let path = path.index(i);
        let (ip, host) = (text(item, "ip"), text(item, "hostname"));
        if !ip.is_empty() {
            checks::ip(errs, ip, path.child("ip"));
        } else if has(item, "ipMode") {
            let why = "may not be specified when `ip` is not set";
            errs.push(FieldError::forbidden(path.child("ipMode"), why));
        }
        optional_one_of(errs, item, "ipMode", &["Proxy", "VIP"], &path);
        if !host.is_empty() {
            invalid_each(errs, path.child("hostname"), host, names::dns1123_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                let why = "must be a DNS name, not an IP address";
                errs.push(FieldError::invalid(path.child("hostname"), &json!(host), why));
            }
        }
    }
}

/// A health port, once handed out, stays.
pub fn health_port_update(errs: &mut Errors, new: &Value, old: &Value) {
    if needs_health_port(new) && needs_health_port(old) {
        let mut changed = Errors::new();
        immutable(&mut changed, get(new, "healthCheckNodePort"), get(old, "healthCheckNodePort"), "");
        if !changed.is_empty() {
            errs.push(FieldError::forbidden("spec.healthCheckNodePort", checks::IMMUTABLE));
        }
    }
}

fn warnings(obj: &Value) -> Vec<String> {
    let spec = at(obj, "spec");
    let mut out = Vec::new();
    if has(at(at(obj, "metadata"), "annotations"), TOPOLOGY_HINTS) {
        let instead = "service.kubernetes.io/topology-mode";
        out.push(format!("metadata.annotations[{TOPOLOGY_HINTS}]: please use annotation {instead} instead"));
    }
    if is_headless(spec) {
        if !text(spec, "loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored when spec.clusterIP is \"None\"".to_owned());
        }
        if !list(spec, "externalIPs").is_empty() {
            out.push("spec.externalIPs is ignored when spec.clusterIP is \"None\"".to_owned());
        }
        if text(spec, "sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    let external = text(spec, "type") == "ExternalName";
    if external && !list(spec, "externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !text(spec, "externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    out
}
