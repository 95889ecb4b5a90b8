//! Containers of a pod: app containers, init containers and ephemeral ones.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{
    self, Errors, PROTOCOLS, descending_path, invalid_each, no_backsteps, optional_one_of, required_one_of,
    required_text,
};
use crate::rules::path::Path;
use crate::rules::value::{at, flag, has, int, list, text};
use crate::rules::volumes::Volumes;
use crate::rules::{env, handlers, names, resources, security};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const RESIZE_RESOURCES: &[&str] = &["cpu", "memory"];
const RESIZE_POLICIES: &[&str] = &["NotRequired", "RestartContainer"];

/// What a container is checked against in its pod.
pub(super) struct Surroundings<'a> {
    pub(super) volumes: Volumes<'a>,
    /// Names of the pod's resource claims.
    pub(super) claims: Vec<&'a str>,
    pub(super) grace: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
}

/// `spec.containers`
pub(super) fn regular(errs: &mut Errors, spec: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let path = path.child("containers");
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errs.push(FieldError::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, c) in containers.iter().enumerate() {
        let path = path.index(i);
        common(errs, c, pod, &path);
        if !seen.insert(text(c, "name")) {
            errs.push(FieldError::duplicate(path.child("name"), &json!(text(c, "name"))));
        }
        handlers::container(errs, c, pod.grace, &path);
        optional_one_of(errs, c, "restartPolicy", RESTART_POLICIES, &path);
    }
    host_port_conflicts(errs, containers, 0, &path);
}

/// `spec.initContainers`: those with `restartPolicy: Always` run beside the app containers and may be probed.
pub(super) fn init(errs: &mut Errors, spec: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let path = path.child("initContainers");
    let mut seen: BTreeSet<&str> = list(spec, "containers").iter().map(|c| text(c, "name")).collect();
    let containers = list(spec, "initContainers");
    for (i, c) in containers.iter().enumerate() {
        let path_i = path.index(i);
        common(errs, c, pod, &path_i);
        optional_one_of(errs, c, "restartPolicy", RESTART_POLICIES, &path_i);
        let name = text(c, "name");
        if !name.is_empty() && !seen.insert(name) {
            errs.push(FieldError::duplicate(path_i.child("name"), &json!(name)));
        }
        host_port_conflicts(errs, &containers[i..=i], i, &path);
        if text(c, "restartPolicy") == "Always" {
            handlers::container(errs, c, pod.grace, &path_i);
        } else {
            handlers::forbid(errs, c, &path_i);
        }
    }
}

/// `spec.ephemeralContainers`
pub(super) fn ephemeral(errs: &mut Errors, spec: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let path = path.child("ephemeralContainers");
    let others = list(spec, "containers").iter().chain(list(spec, "initContainers"));
    let others: BTreeSet<&str> = others.map(|c| text(c, "name")).collect();
    let mut seen = others.clone();
    for (i, c) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(errs, c, pod, &path);
        image_whitespace(errs, c, &path);
        if !seen.insert(text(c, "name")) {
            errs.push(FieldError::duplicate(path.child("name"), &json!(text(c, "name"))));
        }
        let target = text(c, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errs.push(FieldError::not_found(path.child("targetContainerName"), &json!(target)));
        }
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"] {
            if has(c, key) {
                errs.push(FieldError::forbidden(path.child(key), "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

/// What is the same for all containers.
fn common(errs: &mut Errors, c: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let name = text(c, "name");
    if name.is_empty() {
        errs.push(FieldError::required(path.child("name"), ""));
    } else {
        invalid_each(errs, path.child("name"), name, names::dns1123_label(name));
    }
    required_text(errs, c, "image", path);
    let policy = text(c, "terminationMessagePolicy");
    required_one_of(errs, policy, MESSAGE_POLICIES, path.child("terminationMessagePolicy"));
    ports(errs, c, path);
    env::container(errs, c, path);
    mounts(errs, c, pod, &path.child("volumeMounts"));
    devices(errs, c, pod, &path.child("volumeDevices"));
    required_one_of(errs, text(c, "imagePullPolicy"), PULL_POLICIES, path.child("imagePullPolicy"));
    resources::container(errs, c, &pod.claims, path);
    resize_policy(errs, c, pod, &path.child("resizePolicy"));
    security::container(errs, c, pod.host_users, path);
}

/// Only Pods refuse images with white space around them, for the sake of old templates.
pub(super) fn image_whitespace(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    let image = text(c, "image");
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errs.push(FieldError::invalid(path.child("image"), &json!(image), why));
    }
}

fn ports(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    let path = path.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in list(c, "ports").iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let complaints = names::port_name(name);
            let good = complaints.is_empty();
            invalid_each(errs, path.child("name"), name, complaints);
            if good && !seen.insert(name) {
                errs.push(FieldError::duplicate(path.child("name"), &json!(name)));
            }
        }
        match int(port, "containerPort") {
            0 => errs.push(FieldError::required(path.child("containerPort"), "")),
            n => checks::port_number(errs, n, path.child("containerPort")),
        }
        if int(port, "hostPort") != 0 {
            checks::port_number(errs, int(port, "hostPort"), path.child("hostPort"));
        }
        required_one_of(errs, text(port, "protocol"), PROTOCOLS, path.child("protocol"));
    }
}

/// Two ports of a pod cannot take the same port of the host. `first` is the index of the first container in its list.
fn host_port_conflicts(errs: &mut Errors, containers: &[Value], first: usize, path: &Path<'_>) {
    let mut seen = BTreeSet::new();
    for (i, c) in containers.iter().enumerate() {
        let path = path.index(first + i);
        let ports = path.child("ports");
        for (j, port) in list(c, "ports").iter().enumerate().filter(|(_, p)| int(p, "hostPort") != 0) {
            let key =
                format!("{}/{}/{}", text(port, "protocol"), text(port, "hostIP"), int(port, "hostPort"));
            let shown = json!(key);
            if !seen.insert(key) {
                errs.push(FieldError::duplicate(ports.index(j).child("hostPort"), &shown));
            }
        }
    }
}

fn mounts(errs: &mut Errors, c: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let mut seen = BTreeSet::new();
    let devices = list(c, "volumeDevices");
    for (i, mount) in list(c, "volumeMounts").iter().enumerate() {
        let here = path.index(i);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        required_text(errs, mount, "name", &here);
        let volume = pod.volumes.get(name);
        if volume.is_none() {
            errs.push(FieldError::not_found(here.child("name"), &json!(name)));
        }
        required_text(errs, mount, "mountPath", &here);
        if !seen.insert(target) {
            errs.push(FieldError::invalid(here.child("mountPath"), &json!(target), "must be unique"));
        }
        if devices.iter().any(|d| text(d, "name") == name) {
            let why = "must not already exist in volumeDevices";
            errs.push(FieldError::invalid(here.child("name"), &json!(name), why));
        }
        if devices.iter().any(|d| text(d, "devicePath") == target) {
            let why = "must not already exist as a path in volumeDevices";
            errs.push(FieldError::invalid(here.child("mountPath"), &json!(target), why));
        }
        sub_path(errs, mount, volume.is_some_and(|v| has(v, "image")), path, &here);
        propagation(errs, c, mount, path);
    }
}

/// Kubernetes names the list, not the item, in some of these errors; clients see the same path here.
fn sub_path(errs: &mut Errors, mount: &Value, image: bool, list: &Path<'_>, path: &Path<'_>) {
    let keys = ["subPath", "subPathExpr"];
    for key in keys.into_iter().filter(|k| image && !text(mount, k).is_empty()) {
        let why = "not allowed in image volume sources";
        errs.push(FieldError::invalid(path.child(key), &json!(text(mount, key)), why));
    }
    let [plain, expanded] = keys.map(|k| text(mount, k));
    if !plain.is_empty() && !expanded.is_empty() {
        let why = "subPathExpr and subPath are mutually exclusive";
        errs.push(FieldError::invalid(path.child("subPathExpr"), &json!(expanded), why));
    }
    descending_path(errs, plain, list.child("subPath"));
    descending_path(errs, expanded, list.child("subPathExpr"));
}

fn propagation(errs: &mut Errors, c: &Value, mount: &Value, list: &Path<'_>) {
    let modes = &["Bidirectional", "HostToContainer", "None"];
    optional_one_of(errs, mount, "mountPropagation", modes, list);
    let mode = text(mount, "mountPropagation");
    if mode == "Bidirectional" && !flag(at(c, "securityContext"), "privileged") {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errs.push(FieldError::forbidden(list.child("mountPropagation"), why));
    }
    optional_one_of(errs, mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], list);
    if !matches!(text(mount, "recursiveReadOnly"), "Enabled" | "IfPossible") {
        return;
    }
    let path = list.child("recursiveReadOnly");
    if !flag(mount, "readOnly") {
        errs.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
    }
    if !matches!(mode, "" | "None") {
        let why = "may only be specified when mountPropagation is None or not specified";
        errs.push(FieldError::forbidden(path, why));
    }
}

fn devices(errs: &mut Errors, c: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let (mut names_seen, mut paths_seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(c, "volumeDevices").iter().enumerate() {
        let here = path.index(i);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        required_text(errs, device, "name", &here);
        if !names_seen.insert(name) {
            errs.push(FieldError::invalid(here.child("name"), &json!(name), "must be unique"));
        }
        match pod.volumes.get(name) {
            None => errs.push(FieldError::not_found(here.child("name"), &json!(name))),
            Some(v) if !has(v, "persistentVolumeClaim") && !has(v, "ephemeral") => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errs.push(FieldError::invalid(here.child("name"), &json!(name), why));
            }
            Some(_) => {}
        }
        required_text(errs, device, "devicePath", &here);
        if !paths_seen.insert(target) {
            errs.push(FieldError::invalid(here.child("devicePath"), &json!(target), "must be unique"));
        }
        no_backsteps(errs, target, here.child("devicePath"));
    }
}

fn resize_policy(errs: &mut Errors, c: &Value, pod: &Surroundings<'_>, path: &Path<'_>) {
    let mut seen = BTreeSet::new();
    for (i, p) in list(c, "resizePolicy").iter().enumerate() {
        let (resource, policy) = (text(p, "resourceName"), text(p, "restartPolicy"));
        if !seen.insert(resource) {
            errs.push(FieldError::duplicate(path.index(i), &json!(resource)));
        }
        required_one_of(errs, resource, RESIZE_RESOURCES, path);
        required_one_of(errs, policy, RESIZE_POLICIES, path);
        if pod.restart_policy == "Never" && policy != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errs.push(FieldError::invalid(path, &json!(policy), why));
        }
    }
}
