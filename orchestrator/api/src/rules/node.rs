//! What the API does with a Node.

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors};
use crate::rules::path::Path;
use crate::rules::value::{at, child, copy, entries, flag, has, list, set, text, texts};
use crate::rules::{meta, names, resources, scheduling};

pub static STRATEGY: NodeStrategy = NodeStrategy;

pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, obj: &mut Value) {
        child(obj, "spec");
        pod_cidrs(child(obj, "spec"));
        let status = child(obj, "status");
        if !has(status, "allocatable") && has(status, "capacity") {
            let capacity = at(status, "capacity").clone();
            set(status, "allocatable", capacity);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        let spec = at(obj, "spec");
        taints(&mut errs, spec);
        amounts(&mut errs, obj);
        cidrs(&mut errs, spec);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        update(new, old)
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        update(new, old)
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        let spec = at(obj, "spec");
        let mut out = Vec::new();
        if has(spec, "configSource") {
            out.push("spec.configSource: the feature is removed in v1.24".to_owned());
        }
        if !text(spec, "externalID").is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        out
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable(&self, obj: &Value, _field: &str) -> String {
        flag(at(obj, "spec"), "unschedulable").to_string()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::node(obj, now)
    }
}

/// `podCIDR` is the first of `podCIDRs`: whichever is given sets the other.
fn pod_cidrs(spec: &mut Value) {
    let first = texts(spec, "podCIDRs").next().unwrap_or_default().to_owned();
    let single = text(spec, "podCIDR").to_owned();
    if first.is_empty() && !single.is_empty() {
        set(spec, "podCIDRs", vec![single]);
    } else if !first.is_empty() && single != first {
        if single.is_empty() {
            set(spec, "podCIDR", first);
        } else {
            set(spec, "podCIDRs", vec![single]);
        }
    }
}

/// Kubernetes looks for taints under `metadata` when it names them; clients see the same path here.
fn taints(errs: &mut Errors, spec: &Value) {
    scheduling::taints(errs, spec, &Path::root("metadata"));
}

fn amounts(errs: &mut Errors, obj: &Value) {
    let status = Path::root("status");
    for key in ["capacity", "allocatable"] {
        let path = status.child(key);
        for (name, amount) in entries(at(obj, "status"), key) {
            resources::amount_of(errs, name, amount, path.child(name));
        }
    }
}

fn cidrs(errs: &mut Errors, spec: &Value) {
    let spec_path = Path::root("spec");
    let path = spec_path.child("podCIDRs");
    let mut families = [0, 0];
    let mut seen = Vec::new();
    for (i, cidr) in texts(spec, "podCIDRs").enumerate() {
        checks::cidr(errs, cidr, path.index(i));
        families[usize::from(cidr.contains(':'))] += 1;
        if seen.contains(&cidr) {
            errs.push(FieldError::duplicate(path.index(i), &Value::from(cidr)));
        }
        seen.push(cidr);
    }
    if families.iter().any(|n| *n > 1) {
        let why = "may specify no more than one CIDR for each IP family";
        errs.push(FieldError::invalid(path, at(spec, "podCIDRs"), why));
    }
}

fn update(new: &Value, old: &Value) -> Errors {
    let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
    let (spec, before) = (at(new, "spec"), at(old, "spec"));
    amounts(&mut errs, new);
    let addresses = list(at(new, "status"), "addresses");
    let status = Path::root("status");
    let path = status.child("addresses");
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            errs.push(FieldError::duplicate(path.index(i), address));
        }
    }
    let once = [("podCIDRs", "podCIDR"), ("providerID", "providerID")];
    for (key, shown) in once {
        if has(before, key) && at(before, key) != at(spec, key) {
            let why = format!("node updates may not change {shown} except from \"\" to valid");
            errs.push(FieldError::forbidden(Path::root("spec").child(key), &why));
        }
    }
    taints(&mut errs, spec);
    if text(spec, "externalID") != text(before, "externalID") {
        errs.push(FieldError::forbidden("spec.externalID", "may not be updated"));
    }
    errs
}
