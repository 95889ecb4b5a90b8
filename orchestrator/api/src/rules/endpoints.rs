//! What the API does with Endpoints.

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, PROTOCOLS, invalid_each, required_one_of};
use crate::rules::path::Path;
use crate::rules::value::{at, fill_text, has, int, list, list_mut, text};
use crate::rules::{meta, names};

pub static STRATEGY: EndpointsStrategy = EndpointsStrategy;

pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, obj: &mut Value) {
        for subset in list_mut(obj, "subsets") {
            for port in list_mut(subset, "ports") {
                fill_text(port, "protocol", "TCP");
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        subsets(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        subsets(&mut errs, new);
        errs
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::endpoints(obj, now)
    }
}

fn subsets(errs: &mut Errors, obj: &Value) {
    let path = Path::root("subsets");
    for (i, subset) in list(obj, "subsets").iter().enumerate() {
        let path = path.index(i);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|key| list(subset, key).is_empty()) {
            errs.push(FieldError::required(path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for key in lists {
            let path = path.child(key);
            for (j, a) in list(subset, key).iter().enumerate() {
                address(errs, a, &path.index(j));
            }
        }
        let ports = list(subset, "ports");
        let path = path.child("ports");
        for (j, p) in ports.iter().enumerate() {
            port(errs, p, ports.len() > 1, &path.index(j));
        }
    }
}

fn address(errs: &mut Errors, a: &Value, path: &Path<'_>) {
    let ip = text(a, "ip");
    checks::ip(errs, ip, path.child("ip"));
    let host = text(a, "hostname");
    if !host.is_empty() {
        invalid_each(errs, path.child("hostname"), host, names::dns1123_label(host));
    }
    if has(a, "nodeName") {
        let node = text(a, "nodeName");
        invalid_each(errs, path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    checks::non_special_ip(errs, ip, path.child("ip"));
}

fn port(errs: &mut Errors, p: &Value, need_name: bool, path: &Path<'_>) {
    let name = text(p, "name");
    if !name.is_empty() {
        invalid_each(errs, path.child("name"), name, names::dns1123_label(name));
    } else if need_name {
        errs.push(FieldError::required(path.child("name"), ""));
    }
    checks::port_number(errs, int(p, "port"), path.child("port"));
    required_one_of(errs, text(p, "protocol"), PROTOCOLS, path.child("protocol"));
    if has(p, "appProtocol") {
        meta::label_name(errs, text(p, "appProtocol"), path.child("appProtocol"));
    }
}
