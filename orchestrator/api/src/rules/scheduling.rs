//! Where a pod may run: tolerations, affinities, topology spread; and the taints of nodes.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, invalid_each, positive_int};
use crate::rules::labels;
use crate::rules::meta::label_name;
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{at, entries, get, has, int, list, opt_int, text, texts};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn tolerations(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let path = path.child("tolerations");
    for (i, t) in list(spec, "tolerations").iter().enumerate() {
        toleration(errs, t, &path.index(i));
    }
}

fn toleration(errs: &mut Errors, t: &Value, path: &Path<'_>) {
    let (key, operator, value, effect) =
        (text(t, "key"), text(t, "operator"), text(t, "value"), text(t, "effect"));
    if !key.is_empty() {
        label_name(errs, key, path.child("key"));
    } else if operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errs.push(FieldError::invalid(path.child("operator"), &json!(operator), why));
    }
    if has(t, "tolerationSeconds") && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errs.push(FieldError::invalid(path.child("effect"), &json!(effect), why));
    }
    match operator {
        "Equal" | "" => {
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                let why = complaints.join(";");
                errs.push(FieldError::invalid(path.child("operator"), &json!(value), &why));
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let why = "value must be empty when `operator` is 'Exists'";
            errs.push(FieldError::invalid(path.child("operator"), &json!(value), why));
        }
        _ => checks::one_of(errs, operator, &["Equal", "Exists"], path.child("operator")),
    }
    if !effect.is_empty() {
        checks::one_of(errs, effect, EFFECTS, path.child("effect"));
    }
}

/// The taints of a node.
pub(super) fn taints(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let path = path.child("taints");
    let mut seen = Vec::new();
    for (i, taint) in list(spec, "taints").iter().enumerate() {
        let path = path.index(i);
        label_name(errs, text(taint, "key"), path.child("key"));
        let value = text(taint, "value");
        let complaints = names::label_value(value);
        if !complaints.is_empty() {
            errs.push(FieldError::invalid(path.child("value"), &json!(value), &complaints.join(";")));
        }
        checks::required_one_of(errs, text(taint, "effect"), EFFECTS, path.child("effect"));
        let key = (text(taint, "key"), text(taint, "effect"));
        if seen.contains(&key) {
            let mut e = FieldError::duplicate(path, taint);
            e.message.push_str(": taints must be unique by key and effect pair");
            errs.push(e);
        }
        seen.push(key);
    }
}

pub(super) fn affinity(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let affinity = at(spec, "affinity");
    let path = path.child("affinity");
    if let Some(node) = get(affinity, "nodeAffinity") {
        node_affinity(errs, node, &path.child("nodeAffinity"));
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = get(affinity, key) {
            pod_affinity(errs, pods, &path.child(key));
        }
    }
}

fn node_affinity(errs: &mut Errors, a: &Value, path: &Path<'_>) {
    if let Some(required) = get(a, REQUIRED) {
        node_selector(errs, required, &path.child(REQUIRED));
    }
    let path = path.child(PREFERRED);
    for (i, term) in list(a, PREFERRED).iter().enumerate() {
        let path = path.index(i);
        weight(errs, term, &path);
        node_term(errs, at(term, "preference"), false, &path.child("preference"));
    }
}

fn weight(errs: &mut Errors, term: &Value, path: &Path<'_>) {
    let weight = int(term, "weight");
    if !(1..=100).contains(&weight) {
        errs.push(FieldError::invalid(path.child("weight"), &json!(weight), "must be in the range 1-100"));
    }
}

/// A required node selector: of a pod or of a PersistentVolume.
pub(super) fn node_selector(errs: &mut Errors, selector: &Value, path: &Path<'_>) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errs.push(FieldError::required(path, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errs, term, true, &path.index(i));
    }
}

fn node_term(errs: &mut Errors, term: &Value, check_values: bool, path: &Path<'_>) {
    let expressions = path.child("matchExpressions");
    for (i, e) in list(term, "matchExpressions").iter().enumerate() {
        node_expression(errs, e, check_values, &expressions.index(i));
    }
    let fields = path.child("matchFields");
    for (i, e) in list(term, "matchFields").iter().enumerate() {
        node_field(errs, e, &fields.index(i));
    }
}

fn node_expression(errs: &mut Errors, e: &Value, check_values: bool, path: &Path<'_>) {
    let (operator, values) = (text(e, "operator"), list(e, "values"));
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errs.push(FieldError::required(path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errs.push(FieldError::forbidden(path.child("values"), why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errs.push(FieldError::required(path.child("values"), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => {
            let why = "not a valid selector operator";
            errs.push(FieldError::invalid(path.child("operator"), &json!(operator), why));
        }
    }
    label_name(errs, text(e, "key"), path.child("key"));
    if check_values {
        for (i, value) in texts(e, "values").enumerate() {
            invalid_each(errs, path.child("values").index(i), value, names::label_value(value));
        }
    }
}

fn node_field(errs: &mut Errors, e: &Value, path: &Path<'_>) {
    let (operator, key) = (text(e, "operator"), text(e, "key"));
    if !matches!(operator, "In" | "NotIn") {
        let why = "not a valid selector operator";
        errs.push(FieldError::invalid(path.child("operator"), &json!(operator), why));
    } else if list(e, "values").len() != 1 {
        let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
        errs.push(FieldError::required(path.child("values"), why));
    }
    if key != "metadata.name" {
        let why = "not a valid field selector key";
        errs.push(FieldError::invalid(path.child("key"), &json!(key), why));
        return;
    }
    for (i, name) in texts(e, "values").enumerate() {
        invalid_each(errs, path.child("values").index(i), name, names::dns1123_subdomain(name));
    }
}

fn pod_affinity(errs: &mut Errors, a: &Value, path: &Path<'_>) {
    let required = path.child(REQUIRED);
    for (i, term) in list(a, REQUIRED).iter().enumerate() {
        pod_term(errs, term, &required.index(i));
    }
    let preferred = path.child(PREFERRED);
    for (i, weighted) in list(a, PREFERRED).iter().enumerate() {
        let path = preferred.index(i);
        weight(errs, weighted, &path);
        pod_term(errs, at(weighted, "podAffinityTerm"), &path.child("podAffinityTerm"));
    }
}

fn pod_term(errs: &mut Errors, term: &Value, path: &Path<'_>) {
    labels::selector(errs, term, "labelSelector", path);
    labels::selector(errs, term, "namespaceSelector", path);
    for namespace in texts(term, "namespaces") {
        invalid_each(errs, path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(key);
        if !has(term, "labelSelector") && !list(term, key).is_empty() {
            errs.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, name) in texts(term, key).enumerate() {
            label_name(errs, name, path.index(i));
        }
    }
    for (i, key) in texts(term, "matchLabelKeys").enumerate() {
        if texts(term, "mismatchLabelKeys").any(|k| k == key) {
            let why = "exists in both matchLabelKeys and mismatchLabelKeys";
            errs.push(FieldError::invalid(path.child("matchLabelKeys").index(i), &json!(key), why));
        }
    }
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        errs.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    label_name(errs, topology, path.child("topologyKey"));
}

pub(super) fn topology_spread(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let path = path.child("topologySpreadConstraints");
    let constraints = list(spec, "topologySpreadConstraints");
    for (i, c) in constraints.iter().enumerate() {
        let here = path.index(i);
        spread_constraint(errs, c, &here);
        let (key, action) = (text(c, "topologyKey"), text(c, "whenUnsatisfiable"));
        let same = |o: &Value| text(o, "topologyKey") == key && text(o, "whenUnsatisfiable") == action;
        if constraints[i + 1..].iter().any(same) {
            let shown = json!(format!("{{{key}, {action}}}"));
            errs.push(FieldError::duplicate(here.child("{topologyKey, whenUnsatisfiable}"), &shown));
        }
    }
}

fn spread_constraint(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    positive_int(errs, int(c, "maxSkew"), path.child("maxSkew"));
    if text(c, "topologyKey").is_empty() {
        errs.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    }
    let action = text(c, "whenUnsatisfiable");
    checks::one_of(errs, action, &["DoNotSchedule", "ScheduleAnyway"], path.child("whenUnsatisfiable"));
    if let Some(domains) = opt_int(c, "minDomains") {
        positive_int(errs, domains, path.child("minDomains"));
        if action != "DoNotSchedule" {
            let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errs.push(FieldError::invalid(path.child("minDomains"), &json!(domains), &why));
        }
    }
    for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        checks::optional_one_of(errs, c, key, &["Honor", "Ignore"], path);
    }
    spread_label_keys(errs, c, &path.child("matchLabelKeys"));
    labels::selector(errs, c, "labelSelector", path);
}

fn spread_label_keys(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    if list(c, "matchLabelKeys").is_empty() {
        return;
    }
    if !has(c, "labelSelector") {
        errs.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
    }
    let selector = at(c, "labelSelector");
    for (i, key) in texts(c, "matchLabelKeys").enumerate() {
        label_name(errs, key, path.index(i));
        if entries(selector, "matchLabels").any(|(k, _)| k == key) {
            let why = "exists in both matchLabelKeys and labelSelector";
            errs.push(FieldError::invalid(path.index(i), &json!(key), why));
        }
    }
}
