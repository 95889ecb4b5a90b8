//! What the API does with an EndpointSlice.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{
    self, Errors, PROTOCOLS, immutable, invalid_each, non_special_ip, required_one_of, too_many,
};
use crate::rules::path::Path;
use crate::rules::value::{at, child, entries, fill, fill_text, get, has, list, list_mut, same, text, texts};
use crate::rules::{meta, names};

pub static STRATEGY: EndpointSliceStrategy = EndpointSliceStrategy;

const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn default(&self, obj: &mut Value) {
        for endpoint in list_mut(obj, "endpoints") {
            child(endpoint, "conditions");
        }
        for port in list_mut(obj, "ports") {
            fill(port, "name", "");
            fill_text(port, "protocol", "TCP");
        }
    }

    /// There is no spec: everything counts, labels too.
    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        let changed = |key: &str| !same(new, old, key);
        ["addressType", "endpoints", "ports"].iter().any(|key| changed(key))
            || !same(at(new, "metadata"), at(old, "metadata"), "labels")
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        slice(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain);
        slice(&mut errs, new);
        immutable(&mut errs, get(new, "addressType"), get(old, "addressType"), "addressType");
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::endpoint_slice(obj, now)
    }
}

fn slice(errs: &mut Errors, obj: &Value) {
    let kind = text(obj, "addressType");
    required_one_of(errs, kind, TYPES, "addressType");
    let path = Path::root("endpoints");
    let endpoints = list(obj, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errs.push(too_many(path, endpoints.len(), ENDPOINTS_MAX));
    } else {
        for (i, e) in endpoints.iter().enumerate() {
            endpoint(errs, e, kind, &path.index(i));
        }
    }
    ports(errs, obj);
}

fn endpoint(errs: &mut Errors, e: &Value, kind: &str, path: &Path<'_>) {
    let addresses = path.child("addresses");
    match list(e, "addresses").len() {
        0 => errs.push(FieldError::required(addresses, "must contain at least 1 address")),
        n if n > ADDRESSES_MAX => errs.push(too_many(addresses, n, ADDRESSES_MAX)),
        _ => {}
    }
    for (i, a) in texts(e, "addresses").enumerate() {
        address(errs, a, kind, addresses.index(i));
    }
    if has(e, "nodeName") {
        let node = text(e, "nodeName");
        invalid_each(errs, path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    let topology = entries(e, "deprecatedTopology").count();
    if topology > TOPOLOGY_MAX {
        errs.push(too_many(path.child("deprecatedTopology"), topology, TOPOLOGY_MAX));
    }
    meta::labels(errs, e, "deprecatedTopology", path);
    if has(e, "hostname") {
        let host = text(e, "hostname");
        invalid_each(errs, path.child("hostname"), host, names::dns1123_label(host));
    }
    hints(errs, at(e, "hints"), &path.child("hints"));
}

fn address(errs: &mut Errors, a: &str, kind: &str, path: Path<'_>) {
    let (good, why) = match kind {
        "IPv4" => (a.parse::<Ipv4Addr>().is_ok(), "must be a valid IPv4 address"),
        "IPv6" => (a.parse::<Ipv6Addr>().is_ok(), "must be a valid IPv6 address"),
        "FQDN" => {
            names::fully_qualified_domain(errs, a, path);
            return;
        }
        _ => return,
    };
    if !good {
        errs.push(FieldError::invalid(path, &json!(a), why));
    }
    non_special_ip(errs, a, path);
}

fn hints(errs: &mut Errors, hints: &Value, path: &Path<'_>) {
    for (key, what) in [("forZones", "name"), ("forNodes", "name")] {
        let path = path.child(key);
        let items = list(hints, key);
        if items.len() > HINTS_MAX {
            errs.push(too_many(path, items.len(), HINTS_MAX));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            let name = text(item, what);
            if !seen.insert(name) {
                errs.push(FieldError::duplicate(path.index(i).child(what), &json!(name)));
            }
        }
    }
}

fn ports(errs: &mut Errors, obj: &Value) {
    let path = Path::root("ports");
    let ports = list(obj, "ports");
    if ports.len() > PORTS_MAX {
        errs.push(too_many(path, ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            invalid_each(errs, path.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errs.push(FieldError::duplicate(path.child("name"), &json!(name)));
        }
        required_one_of(errs, text(port, "protocol"), PROTOCOLS, path.child("protocol"));
        if let Some(number) = port.get("port").and_then(Value::as_i64) {
            checks::port_number(errs, number, path.child("port"));
        }
        if has(port, "appProtocol") {
            meta::label_name(errs, text(port, "appProtocol"), path.child("appProtocol"));
        }
    }
}
