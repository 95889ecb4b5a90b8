//! What the API does with a Pod.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, immutable, invalid_each};
use crate::rules::path::Path;
use crate::rules::pod_spec::{self, Scope};
use crate::rules::value::{
    at, child, copy, equal, fill, fill_text, flag, get, has, list, list_mut, object, opt_int, remove, set,
    text, texts,
};
use crate::rules::{containers, meta, names, pod_defaults, pod_warnings, resources, scheduling, workload};

pub static STRATEGY: PodStrategy = PodStrategy;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub struct PodStrategy;

impl Strategy for PodStrategy {
    fn default(&self, obj: &mut Value) {
        let spec = child(obj, "spec");
        pod_defaults::pod_spec(spec);
        pod_defaults::pod_only(spec);
    }

    fn prepare_create(&self, obj: &mut Value) {
        let labels = at(at(obj, "metadata"), "labels").clone();
        let spec = child(obj, "spec");
        pod_defaults::admit(spec);
        merge_label_keys(spec, &labels);
        let qos = resources::qos_class(spec);
        let gated = !list(spec, "schedulingGates").is_empty();
        let mut status = json!({ "phase": "Pending", "qosClass": qos });
        if gated {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": null,
            }]);
        }
        set(obj, "status", status);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        pod_defaults::admit_update(child(new, "spec"), at(old, "spec"));
        copy(new, old, "status");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
        // Old kubelets wrote owner references back damaged.
        let owners = at(old, "metadata");
        copy(child(new, "metadata"), owners, "ownerReferences");
        let status = child(new, "status");
        fill_text(status, "qosClass", text(at(old, "status"), "qosClass"));
        if text(status, "qosClass").is_empty() {
            remove(status, "qosClass");
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        metadata_and_spec(&mut errs, obj);
        let spec = at(obj, "spec");
        let path = Path::root("spec");
        if !list(spec, "ephemeralContainers").is_empty() {
            errs.push(FieldError::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
        }
        if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
            let why = "cannot be set until all schedulingGates have been cleared";
            errs.push(FieldError::forbidden(path.child("nodeName"), why));
        }
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        metadata_and_spec(&mut errs, new);
        annotation_updates(&mut errs, new, old);
        spec_update(&mut errs, at(new, "spec"), at(old, "spec"));
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        annotation_updates(&mut errs, new, old);
        status_update(&mut errs, new, old);
        errs
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        let mut out = workload::name_warning(obj, "this is used in the Pod's hostname");
        out.extend(pod_warnings::warnings(at(obj, "metadata"), at(obj, "spec"), None));
        out
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable(&self, obj: &Value, field: &str) -> String {
        let (spec, status) = (at(obj, "spec"), at(obj, "status"));
        match field {
            "spec.hostNetwork" => flag(spec, "hostNetwork").to_string(),
            "status.podIP" | "status.podIPs" => pod_ip(status).to_owned(),
            _ => match field.split_once('.') {
                Some(("spec", key)) => text(spec, key).to_owned(),
                Some(("status", key)) => text(status, key).to_owned(),
                _ => String::new(),
            },
        }
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::pod(obj, now)
    }
}

fn pod_ip(status: &Value) -> &str {
    match list(status, "podIPs").first() {
        Some(first) => text(first, "ip"),
        None => text(status, "podIP"),
    }
}

/// Puts the API token of the pod's service account into a pod that does not refuse it: a projected volume with a random
/// name, mounted into every container that has nothing at that path. `suffix` is five random characters as
/// `generateName` makes them. `account_refuses` is the account's `automountServiceAccountToken: false`.
pub fn mount_service_account_token(obj: &mut Value, suffix: &str, account_refuses: bool) {
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let spec = child(obj, "spec");
    let wanted =
        spec.get("automountServiceAccountToken").and_then(Value::as_bool).unwrap_or(!account_refuses);
    if !wanted {
        return;
    }
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for key in ["initContainers", "containers"] {
        for c in list_mut(spec, key) {
            if list(c, "volumeMounts").iter().any(|m| text(m, "mountPath") == MOUNT) {
                continue;
            }
            mounted = true;
            push(c, "volumeMounts", json!({ "name": volume, "readOnly": true, "mountPath": MOUNT }));
        }
    }
    if mounted {
        push(spec, "volumes", token_volume(&volume));
    }
}

fn push(v: &mut Value, key: &str, item: Value) {
    fill(v, key, json!([]));
    if let Some(items) = object(v).get_mut(key).and_then(Value::as_array_mut) {
        items.push(item);
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

/// `matchLabelKeys` take the pod's own values into the selectors beside them.
fn merge_label_keys(spec: &mut Value, labels: &Value) {
    for c in list_mut(spec, "topologySpreadConstraints") {
        add_label_keys(c, labels, "matchLabelKeys", "In");
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = affinity.get_mut(kind) else { continue };
        let preferred = list_mut(pods, "preferredDuringSchedulingIgnoredDuringExecution").iter_mut();
        for term in preferred.filter_map(|t| t.get_mut("podAffinityTerm")) {
            add_term_keys(term, labels);
        }
        for term in list_mut(pods, "requiredDuringSchedulingIgnoredDuringExecution") {
            add_term_keys(term, labels);
        }
    }
}

fn add_term_keys(term: &mut Value, labels: &Value) {
    add_label_keys(term, labels, "matchLabelKeys", "In");
    add_label_keys(term, labels, "mismatchLabelKeys", "NotIn");
}

fn add_label_keys(term: &mut Value, labels: &Value, field: &str, operator: &str) {
    if !has(term, "labelSelector") {
        return;
    }
    let keys: Vec<String> = texts(term, field).map(str::to_owned).collect();
    for key in keys {
        if let Some(value) = get(labels, &key) {
            let item = json!({ "key": key, "operator": operator, "values": [value] });
            push(child(term, "labelSelector"), "matchExpressions", item);
        }
    }
}

/// What is checked on create and on update alike.
fn metadata_and_spec(errs: &mut Errors, obj: &Value) {
    let (metadata, spec) = (at(obj, "metadata"), at(obj, "spec"));
    let path = Path::root("spec");
    annotations(errs, metadata, spec, Path::root("metadata").child("annotations"));
    pod_spec::validate(errs, spec, Scope::Pod, &path);
    if text(spec, "serviceAccountName").is_empty() {
        token_without_account(errs, spec, &path.child("volumes"));
    }
    for key in ["containers", "initContainers"] {
        let path = path.child(key);
        for (i, c) in list(spec, key).iter().enumerate() {
            containers::image_whitespace(errs, c, &path.index(i));
        }
    }
}

fn token_without_account(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    for (i, v) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let sources = path.child("projected");
        let sources = sources.child("sources");
        for (j, source) in list(at(v, "projected"), "sources").iter().enumerate() {
            if has(source, "serviceAccountToken") {
                let why = "must not be specified when serviceAccountName is not set";
                errs.push(FieldError::forbidden(sources.index(j).child("serviceAccountToken"), why));
            }
        }
    }
}

/// Annotations that mean something to a pod, at `path`; for templates too.
pub fn annotations(errs: &mut Errors, metadata: &Value, spec: &Value, path: Path<'_>) {
    let annotations = at(metadata, "annotations");
    if has(annotations, MIRROR) && text(spec, "nodeName").is_empty() {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errs.push(FieldError::invalid(path.key(MIRROR), at(annotations, MIRROR), why));
    }
    let number = |cost: &&Value| cost.as_str().is_some_and(|c| c.parse::<i32>().is_ok());
    if let Some(cost) = get(annotations, DELETION_COST).filter(|cost| !number(cost)) {
        errs.push(FieldError::invalid(path.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
}

fn annotation_updates(errs: &mut Errors, new: &Value, old: &Value) {
    let [now, before] = [new, old].map(|o| at(at(o, "metadata"), "annotations"));
    let root = Path::root("metadata");
    let path = root.child("annotations");
    let why = match (has(now, MIRROR), has(before, MIRROR)) {
        (true, false) => "may not add mirror pod annotation",
        (_, true) if at(now, MIRROR) != at(before, MIRROR) => {
            "may not remove or update mirror pod annotation"
        }
        _ => return,
    };
    errs.push(FieldError::forbidden(path.key(MIRROR), why));
}

fn spec_update(errs: &mut Errors, new: &Value, old: &Value) {
    let path = Path::root("spec");
    for key in ["containers", "initContainers"] {
        let path = path.child(key);
        if list(new, key).len() != list(old, key).len() {
            errs.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
            return;
        }
        for (i, c) in list(new, key).iter().enumerate() {
            checks::required_text(errs, c, "image", &path.index(i));
            containers::image_whitespace(errs, c, &path.index(i));
        }
    }
    if !deadline_update(errs, new, old, path.child("activeDeadlineSeconds")) {
        return;
    }
    added_tolerations(errs, new, old, &path);
    let gates = path.child("schedulingGates");
    for (i, gate) in list(new, "schedulingGates").iter().enumerate() {
        if !list(old, "schedulingGates").iter().any(|g| text(g, "name") == text(gate, "name")) {
            let name = text(gate, "name");
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errs.push(FieldError::forbidden(gates.index(i).child("name"), &why));
        }
    }
    let munged = munge(errs, new, old, &path);
    if &munged != old {
        let why =
            format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(&munged, old));
        errs.push(FieldError::forbidden(path, &why));
    }
}

/// Returns whether the deadline is good enough to go on.
fn deadline_update(errs: &mut Errors, new: &Value, old: &Value, path: Path<'_>) -> bool {
    let key = "activeDeadlineSeconds";
    match (opt_int(new, key), opt_int(old, key)) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            let why = "must be between 0 and 2147483647, inclusive";
            errs.push(FieldError::invalid(path, &json!(n), why));
            false
        }
        (Some(n), Some(o)) if o < n => {
            errs.push(FieldError::invalid(path, &json!(n), "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errs.push(FieldError::invalid(path, &Value::Null, why));
            true
        }
        _ => true,
    }
}

fn added_tolerations(errs: &mut Errors, new: &Value, old: &Value, path: &Path<'_>) {
    let kept = |o: &Value| {
        list(new, "tolerations").iter().any(|n| {
            let mut o = o.clone();
            copy(&mut o, n, "tolerationSeconds");
            &o == n
        })
    };
    if list(old, "tolerations").iter().all(kept) {
        scheduling::tolerations(errs, new, path);
    } else {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errs.push(FieldError::forbidden(path.child("tolerations"), why));
    }
}

/// The new spec with everything that may change set back to what it was.
fn munge(errs: &mut Errors, new: &Value, old: &Value, path: &Path<'_>) -> Value {
    let mut munged = new.clone();
    for key in ["containers", "initContainers"] {
        for (c, o) in list_mut(&mut munged, key).iter_mut().zip(list(old, key)) {
            copy(c, o, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(&mut munged, old, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if opt_int(old, grace).is_some_and(|g| g < 0) && opt_int(new, grace) == Some(1) {
        copy(&mut munged, old, grace);
    }
    if !list(old, "schedulingGates").is_empty() {
        gated_update(errs, &mut munged, old, path);
    }
    munged
}

/// A pod that waits for its gates may still be narrowed down to fewer nodes.
fn gated_update(errs: &mut Errors, munged: &mut Value, old: &Value, path: &Path<'_>) {
    let (now, before) = (at(munged, "nodeSelector"), at(old, "nodeSelector"));
    if before.as_object().into_iter().flatten().any(|(k, v)| now.get(k) != Some(v)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errs.push(FieldError::invalid(path.child("nodeSelector"), now, why));
    }
    copy(munged, old, "nodeSelector");
    if !has(at(old, "affinity"), "nodeAffinity") && has(at(munged, "affinity"), "nodeAffinity") {
        remove(child(munged, "affinity"), "nodeAffinity");
        if !has(old, "affinity") && equal(get(munged, "affinity"), None) {
            remove(munged, "affinity");
        }
    }
}

/// The top-level fields that differ, with both values.
fn difference(new: &Value, old: &Value) -> String {
    let keys = |v: &Value| v.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    let mut all = keys(new);
    all.extend(keys(old));
    all.sort();
    all.dedup();
    let changed = all.into_iter().filter(|k| new.get(k) != old.get(k));
    changed.map(|k| format!("- {k:?}: {}\n+ {k:?}: {}\n", at(old, &k), at(new, &k))).collect()
}

fn status_update(errs: &mut Errors, new: &Value, old: &Value) {
    let path = Path::root("status");
    let (now, before) = (at(new, "status"), at(old, "status"));
    // Kubernetes names this place when it means `status.conditions`; clients see the same path here.
    let metadata = Path::root("metadata");
    let conditions = metadata.child("conditions");
    for (i, c) in list(now, "conditions").iter().enumerate() {
        if !SYSTEM_CONDITIONS.contains(&text(c, "type")) {
            meta::label_name(errs, text(c, "type"), conditions.index(i).child("Type"));
        }
    }
    let nominated = text(now, "nominatedNodeName");
    if nominated != text(before, "nominatedNodeName") && !nominated.is_empty() {
        invalid_each(errs, path.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    immutable(errs, get(now, "qosClass"), get(before, "qosClass"), path.child("qosClass"));
    let policy = text(at(old, "spec"), "restartPolicy");
    container_transitions(errs, now, before, "containerStatuses", policy, &path);
    container_transitions(errs, now, before, "ephemeralContainerStatuses", "Never", &path);
    addresses(errs, now, &path);
}

/// A container that has ended for good stays so.
fn container_transitions(
    errs: &mut Errors,
    new: &Value,
    old: &Value,
    key: &str,
    policy: &str,
    path: &Path<'_>,
) {
    let path = path.child(key);
    if policy == "Always" {
        return;
    }
    for (i, before) in list(old, key).iter().enumerate() {
        let Some(end) = get(at(before, "state"), "terminated") else { continue };
        if policy == "OnFailure" && end.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0 {
            continue;
        }
        let revived = list(new, key)
            .iter()
            .any(|now| text(now, "name") == text(before, "name") && !has(at(now, "state"), "terminated"));
        if revived {
            let why = "may not be transitioned to non-terminated state";
            errs.push(FieldError::forbidden(path.index(i).child("state"), why));
        }
    }
}

fn addresses(errs: &mut Errors, status: &Value, path: &Path<'_>) {
    for key in ["podIPs", "hostIPs"] {
        let path = path.child(key);
        let mut seen = Vec::new();
        let mut families = [0, 0];
        for (i, item) in list(status, key).iter().enumerate() {
            let ip = text(item, "ip");
            if let Some(parsed) = checks::ip(errs, ip, path.index(i)) {
                families[usize::from(parsed.is_ipv6())] += 1;
            }
            if seen.contains(&ip) {
                errs.push(FieldError::duplicate(path.index(i), item));
            }
            seen.push(ip);
        }
        if families.iter().any(|n| *n > 1) {
            let why = "may specify no more than one IP for each IP family";
            errs.push(FieldError::invalid(path, at(status, key), why));
        }
    }
}
