//! Requests and limits: names, amounts, and what they make of a pod's quality of service.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::rules::checks::{Errors, invalid_each, nonnegative_quantity, quantity};
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{at, child, entries, existing, fill, get, list, text};

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Names without a domain that some object may use.
const STANDARD_RESOURCES: [&str; 24] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "count/pods",
    "count/services",
    "count/secrets",
    "count/configmaps",
];
/// Resources that can only be counted in whole numbers.
const INTEGER_RESOURCES: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Sums or maxima of amounts, by resource.
type Amounts = BTreeMap<String, Quantity>;

/// The `resources` of a container.
pub(super) fn container(errs: &mut Errors, c: &Value, claims: &[&str], path: &Path<'_>) {
    let resources = at(c, "resources");
    let path = path.child("resources");
    requirements(errs, resources, &path, container_resource_name);
    claim_names(errs, resources, claims, &path.child("claims"));
}

/// The `resources` of a whole pod.
pub(super) fn pod(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let Some(resources) = get(spec, "resources") else { return };
    let path = path.child("resources");
    if get(resources, "claims").is_some() {
        let why = "claims cannot be set for Resources at pod-level";
        errs.push(FieldError::forbidden(path.child("claims"), why));
    }
    requirements(errs, resources, &path, pod_resource_name);
    let requests = path.child("requests");
    for (name, sum) in container_requests(spec) {
        let amount = get(at(resources, "requests"), &name).map_or(Quantity::ZERO, quantity);
        if sum > amount {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errs.push(FieldError::invalid(requests.key(&name), &json!(amount.to_string()), &why));
        }
    }
}

/// Overhead of a pod: limits without requests.
pub(super) fn overhead(errs: &mut Errors, overhead: &Value, path: &Path<'_>) {
    requirements(errs, &json!({ "limits": overhead }), path, container_resource_name);
}

fn requirements(
    errs: &mut Errors,
    resources: &Value,
    path: &Path<'_>,
    name_check: fn(&mut Errors, &str, Path<'_>),
) {
    let limits = path.child("limits");
    for (name, amount) in entries(resources, "limits") {
        name_check(errs, name, limits.key(name));
        amount_of(errs, name, amount, limits.key(name));
    }
    let requests = path.child("requests");
    for (name, amount) in entries(resources, "requests") {
        name_check(errs, name, requests.key(name));
        amount_of(errs, name, amount, requests.key(name));
        compare_with_limit(errs, name, amount, get(at(resources, "limits"), name), (&requests, &limits));
    }
    let all = || entries(resources, "limits").chain(entries(resources, "requests")).map(|(name, _)| name);
    if all().any(is_huge_pages) && !all().any(|n| matches!(n, "cpu" | "memory")) {
        errs.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn compare_with_limit(
    errs: &mut Errors,
    name: &str,
    amount: &Value,
    limit: Option<&Value>,
    (requests, limits): (&Path<'_>, &Path<'_>),
) {
    let overcommit = is_native(name) && !is_huge_pages(name);
    let Some(limit) = limit else {
        if !overcommit {
            errs.push(FieldError::required(limits, "Limit must be set for non overcommitable resources"));
        }
        return;
    };
    let (request, limit) = (quantity(amount), quantity(limit));
    if request != limit && !overcommit {
        let why = format!("must be equal to {name} limit of {limit}");
        errs.push(FieldError::invalid(requests, amount, &why));
    } else if request > limit {
        let why = format!("must be less than or equal to {name} limit of {limit}");
        errs.push(FieldError::invalid(requests, amount, &why));
    }
}

/// The amount of one resource: not negative, and whole where only whole ones make sense.
pub(super) fn amount_of(errs: &mut Errors, name: &str, amount: &Value, path: Path<'_>) {
    nonnegative_quantity(errs, amount, path);
    let q = quantity(amount);
    if is_integer(name) && q.milli_value() % 1000 != 0 {
        errs.push(FieldError::invalid(path, amount, "must be an integer"));
    }
    if let Some(size) = name.strip_prefix("hugepages-") {
        let size = Quantity::parse(size).unwrap_or(Quantity::ZERO);
        if size.is_zero() || q.nanos() % size.nanos() != 0 {
            let why = format!("{q} is not positive integer multiple of {name}");
            errs.push(FieldError::invalid(path, amount, &why));
        }
    }
}

fn container_resource_name(errs: &mut Errors, name: &str, path: Path<'_>) {
    let before = errs.len();
    resource_name(errs, name, path);
    if errs.len() > before && name.contains('/') {
        return;
    }
    if !name.contains('/') {
        if !is_container_resource(name) {
            errs.push(FieldError::invalid(path, &json!(name), "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        let why = "doesn't follow extended resource name standard";
        errs.push(FieldError::invalid(path, &json!(name), why));
    }
}

fn pod_resource_name(errs: &mut Errors, name: &str, path: Path<'_>) {
    let before = errs.len();
    resource_name(errs, name, path);
    if errs.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        errs.push(FieldError::not_supported(path, &json!(name), &["cpu", "hugepages-", "memory"]));
    }
}

fn resource_name(errs: &mut Errors, name: &str, path: Path<'_>) {
    let complaints = names::qualified_name(name);
    let good = complaints.is_empty();
    invalid_each(errs, path, name, complaints);
    if good && !name.contains('/') && !STANDARD_RESOURCES.contains(&name) && !is_huge_pages(name) {
        let why = "must be a standard resource type or fully qualified";
        errs.push(FieldError::invalid(path, &json!(name), why));
    }
}

/// The name of a container's resource in a metric.
pub(super) fn metric_resource_name(errs: &mut Errors, name: &str, path: Path<'_>) {
    container_resource_name(errs, name, path);
}

fn claim_names(errs: &mut Errors, resources: &Value, claims: &[&str], path: &Path<'_>) {
    let mut seen = Vec::new();
    for (i, claim) in list(resources, "claims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path, ""));
            continue;
        }
        let key = (name, text(claim, "request"));
        if seen.contains(&key) || seen.contains(&(name, "")) {
            errs.push(FieldError::duplicate(path, &json!(name)));
        }
        seen.push(key);
        if !claims.contains(&name) {
            errs.push(FieldError::not_found(path, &json!(name)));
        }
    }
}

fn is_container_resource(name: &str) -> bool {
    CONTAINER_RESOURCES.contains(&name) || is_huge_pages(name)
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Kubernetes' own resources, as against those of device plugins.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_integer(name: &str) -> bool {
    INTEGER_RESOURCES.contains(&name) || is_extended(name)
}

/// What the containers of a pod request together: all that run side by side, or one init container if that is more.
pub(super) fn container_requests(spec: &Value) -> BTreeMap<String, Quantity> {
    let mut sum = Amounts::new();
    for c in list(spec, "containers") {
        add(&mut sum, at(at(c, "resources"), "requests"));
    }
    let mut sidecars = Amounts::new();
    let mut init = Amounts::new();
    for c in list(spec, "initContainers") {
        let requests = at(at(c, "resources"), "requests");
        if text(c, "restartPolicy") == "Always" {
            add(&mut sum, requests);
            add(&mut sidecars, requests);
            raise(&mut init, &sidecars);
        } else {
            let mut here = sidecars.clone();
            add(&mut here, requests);
            raise(&mut init, &here);
        }
    }
    raise(&mut sum, &init);
    sum
}

fn add(sum: &mut Amounts, list: &Value) {
    for (name, amount) in list.as_object().into_iter().flatten() {
        sum.entry(name.clone()).or_insert(Quantity::ZERO).add(&quantity(amount));
    }
}

fn raise(to: &mut Amounts, by: &Amounts) {
    for (name, amount) in by {
        match to.get_mut(name) {
            Some(q) if *q >= *amount => {}
            _ => {
                to.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// Requests of a pod as a whole, where it has limits as a whole.
pub(super) fn default_pod_level(spec: &mut Value) {
    let limits = at(at(spec, "resources"), "limits").clone();
    let Some(limits) = limits.as_object().filter(|l| !l.is_empty()) else { return };
    let sums = container_requests(spec);
    let Some(resources) = existing(spec, "resources") else { return };
    let requests = child(resources, "requests");
    for (name, sum) in sums {
        if matches!(name.as_str(), "cpu" | "memory") {
            fill(requests, &name, sum.to_string());
        }
    }
    for (name, limit) in limits {
        fill(requests, name, limit.clone());
    }
}

/// `status.qosClass`, from the CPU and memory of all containers, or of the pod as a whole.
pub(super) fn qos_class(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    let pod_level = at(spec, "resources");
    let whole = ["requests", "limits"].iter().any(|k| entries(pod_level, k).next().is_some());
    let scopes: Vec<&Value> = if whole {
        vec![pod_level]
    } else {
        let containers = list(spec, "containers").iter().chain(list(spec, "initContainers"));
        containers.map(|c| at(c, "resources")).collect()
    };
    for resources in scopes {
        add_compute(&mut requests, at(resources, "requests"));
        guaranteed &= add_compute(&mut limits, at(resources, "limits")) == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds CPU and memory, and says how many of the two were set.
fn add_compute(sum: &mut Amounts, list: &Value) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let Some(amount) = get(list, name).map(quantity).filter(|q| *q > Quantity::ZERO) else { continue };
        found += 1;
        sum.entry(name.to_owned()).or_insert(Quantity::ZERO).add(&amount);
    }
    found
}
