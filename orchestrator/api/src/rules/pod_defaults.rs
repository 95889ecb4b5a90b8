//! The defaults of a pod spec, in a Pod and in a workload's template (`SetDefaults_*` of core/v1).

use serde_json::{Value, json};

use crate::rules::checks::quantity;
use crate::rules::resources;
use crate::rules::value::{
    at, child, copy, existing, fill, fill_int, fill_text, flag, has, int, list_mut, object, set, text,
};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const FILE_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// Defaults that Pods and templates share.
pub(super) fn pod_spec(spec: &mut Value) {
    object(spec);
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_text(spec, "schedulerName", "default-scheduler");
    service_account_alias(spec);
    for key in CONTAINER_LISTS {
        list_mut(spec, key).iter_mut().for_each(container);
    }
    list_mut(spec, "volumes").iter_mut().for_each(volume);
    for key in ["limits", "requests"] {
        if let Some(list) = existing(spec, "resources").and_then(|r| existing(r, key)) {
            round(list);
        }
    }
    if let Some(overhead) = existing(spec, "overhead") {
        round(overhead);
    }
}

/// Defaults of a Pod alone, beyond those of its spec as a template has them.
pub(super) fn pod_only(spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        list_mut(spec, key).iter_mut().for_each(requests_from_limits);
    }
    resources::default_pod_level(spec);
    fill(spec, "enableServiceLinks", true);
    if flag(spec, "hostNetwork") {
        for key in ["containers", "initContainers"] {
            list_mut(spec, key).iter_mut().for_each(host_ports);
        }
    }
}

/// A pod template inside a workload.
pub(super) fn pod_template(template: &mut Value) {
    child(template, "metadata");
    pod_spec(child(template, "spec"));
}

/// `serviceAccount` is the old name of `serviceAccountName`; the new one wins and both are written.
pub(super) fn service_account_alias(spec: &mut Value) {
    if text(spec, "serviceAccountName").is_empty() {
        copy_text(spec, "serviceAccount", "serviceAccountName");
    } else {
        copy_text(spec, "serviceAccountName", "serviceAccount");
    }
}

fn copy_text(v: &mut Value, from: &str, to: &str) {
    let value = text(v, from).to_owned();
    if !value.is_empty() {
        set(v, to, value);
    }
}

fn container(c: &mut Value) {
    if text(c, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text(c, "image"));
        set(c, "imagePullPolicy", policy);
    }
    fill_text(c, "terminationMessagePath", "/dev/termination-log");
    fill_text(c, "terminationMessagePolicy", "File");
    for port in list_mut(c, "ports") {
        fill_text(port, "protocol", "TCP");
    }
    for var in list_mut(c, "env") {
        if let Some(field) = existing(var, "valueFrom").and_then(|f| existing(f, "fieldRef")) {
            fill_text(field, "apiVersion", "v1");
        }
    }
    child(c, "resources");
    for key in ["limits", "requests"] {
        if let Some(list) = existing(c, "resources").and_then(|r| existing(r, key)) {
            round(list);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = existing(c, key) {
            probe(p);
        }
    }
    for key in ["postStart", "preStop"] {
        if let Some(h) = existing(c, "lifecycle").and_then(|l| existing(l, key)) {
            handler(h);
        }
    }
}

fn probe(p: &mut Value) {
    fill_int(p, "timeoutSeconds", 1);
    fill_int(p, "periodSeconds", 10);
    fill_int(p, "successThreshold", 1);
    fill_int(p, "failureThreshold", 3);
    handler(p);
}

fn handler(h: &mut Value) {
    if let Some(http) = existing(h, "httpGet") {
        fill_text(http, "path", "/");
        fill_text(http, "scheme", "HTTP");
    }
    if let Some(grpc) = existing(h, "grpc") {
        fill(grpc, "service", "");
    }
}

/// `Always` for the tag `latest`, which is also meant where there is neither tag nor digest.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if image_tag(image) == "latest" { "Always" } else { "IfNotPresent" }
}

/// The tag of an image reference; empty if it has only a digest or cannot be parsed.
fn image_tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[last..].find(':') {
        Some(i) => (&name[..last + i], Some(&name[last + i + 1..])),
        None => (name, None),
    };
    if !is_repository(repository) || digest.is_some_and(|d| !is_digest(d)) {
        return "";
    }
    tag.unwrap_or(if digest.is_some() { "" } else { "latest" })
}

fn is_repository(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => rest,
        _ => name,
    };
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
    path.split('/').all(|part| {
        let edges = [part.bytes().next(), part.bytes().last()];
        part.bytes().all(allowed)
            && edges.iter().all(|c| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
    })
}

fn is_domain(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Amounts finer than thousandths are rounded up.
fn round(list: &mut Value) {
    for amount in object(list).values_mut() {
        let mut q = quantity(amount);
        let before = q.nanos();
        q.round_up_to_millis();
        if q.nanos() != before {
            *amount = json!(q.to_string());
        }
    }
}

fn requests_from_limits(c: &mut Value) {
    let limits = at(at(c, "resources"), "limits").clone();
    let Some(limits) = limits.as_object().filter(|l| !l.is_empty()) else { return };
    let requests = child(child(c, "resources"), "requests");
    for (name, amount) in limits {
        fill(requests, name, amount.clone());
    }
}

/// On the host's network every container port is a host port.
fn host_ports(c: &mut Value) {
    for port in list_mut(c, "ports") {
        if int(port, "hostPort") == 0 {
            copy_int(port, "containerPort", "hostPort");
        }
    }
}

fn copy_int(v: &mut Value, from: &str, to: &str) {
    let value = int(v, from);
    if value != 0 {
        set(v, to, value);
    }
}

fn volume(v: &mut Value) {
    let has_source = v.as_object().is_some_and(|o| o.iter().any(|(k, s)| k != "name" && !s.is_null()));
    if !has_source {
        set(v, "emptyDir", json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(v, key) {
            fill(source, "defaultMode", FILE_MODE);
            downward_items(source);
            list_mut(source, "sources").iter_mut().for_each(projection);
        }
    }
    if let Some(host) = existing(v, "hostPath") {
        fill(host, "type", "");
    }
    network_sources(v);
    if let Some(claim) = existing(v, "ephemeral").and_then(|e| existing(e, "volumeClaimTemplate")) {
        fill(child(claim, "spec"), "volumeMode", "Filesystem");
        child(child(claim, "spec"), "resources");
    }
    if let Some(image) = existing(v, "image") {
        let policy = pull_policy(text(image, "reference"));
        fill_text(image, "pullPolicy", policy);
    }
}

fn downward_items(source: &mut Value) {
    for item in list_mut(source, "items") {
        if let Some(field) = existing(item, "fieldRef") {
            fill_text(field, "apiVersion", "v1");
        }
    }
}

fn projection(source: &mut Value) {
    if let Some(d) = existing(source, "downwardAPI") {
        downward_items(d);
    }
    if let Some(token) = existing(source, "serviceAccountToken") {
        fill(token, "expirationSeconds", TOKEN_SECONDS);
    }
}

/// Defaults of sources that pods and PersistentVolumes share.
pub(super) fn network_sources(v: &mut Value) {
    if let Some(s) = existing(v, "iscsi") {
        fill_text(s, "iscsiInterface", "default");
    }
    if let Some(s) = existing(v, "rbd") {
        fill_text(s, "pool", "rbd");
        fill_text(s, "user", "admin");
        fill_text(s, "keyring", "/etc/ceph/keyring");
    }
    if let Some(s) = existing(v, "azureDisk") {
        fill(s, "cachingMode", "ReadWrite");
        fill(s, "kind", "Shared");
        fill(s, "fsType", "ext4");
        fill(s, "readOnly", false);
    }
    if let Some(s) = existing(v, "scaleIO") {
        fill_text(s, "storageMode", "ThinProvisioned");
        fill_text(s, "fsType", "xfs");
    }
}

/// What the default admission plugins add to a pod: its service account, tolerations for failing nodes, and priority.
/// Secrets and tokens of the account need look-ups and are the server's.
pub(super) fn admit(spec: &mut Value) {
    fill_text(spec, "serviceAccountName", "default");
    service_account_alias(spec);
    default_tolerations(spec);
    fill(spec, "priority", system_priority(text(spec, "priorityClassName")));
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
}

/// An update keeps the priority that the pod was admitted with.
pub(super) fn admit_update(spec: &mut Value, old: &Value) {
    default_tolerations(spec);
    for key in ["priority", "preemptionPolicy"] {
        if !has(spec, key) {
            copy(spec, old, key);
        }
    }
}

/// The classes that every cluster has.
fn system_priority(class: &str) -> i64 {
    match class {
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        _ => 0,
    }
}

fn default_tolerations(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerations = object(spec).entry("tolerations").or_insert_with(|| json!([]));
        if tolerations.is_null() {
            *tolerations = json!([]);
        }
        let Some(tolerations) = tolerations.as_array_mut() else { return };
        let tolerated = tolerations.iter().any(|t| {
            matches!(text(t, "key"), k if k == key || k.is_empty())
                && matches!(text(t, "effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
}
