//! What the API does with a PersistentVolumeClaim.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::quantity::Quantity;
use crate::rules::checks::{self, Errors, immutable, invalid_each, required_text};
use crate::rules::path::Path;
use crate::rules::persistent_volume::{class_warning, fraction, protect};
use crate::rules::value::{at, child, copy, entries, existing, fill, fill_text, get, has, set, text, texts};
use crate::rules::{labels, meta, names, resources};

pub static STRATEGY: PersistentVolumeClaimStrategy = PersistentVolumeClaimStrategy;

const PROTECTION: &str = "kubernetes.io/pvc-protection";
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    fn default(&self, obj: &mut Value) {
        fill_text(child(obj, "status"), "phase", "Pending");
        let spec = child(obj, "spec");
        fill(spec, "volumeMode", "Filesystem");
        child(spec, "resources");
    }

    fn prepare_create(&self, obj: &mut Value) {
        set(obj, "status", json!({ "phase": "Pending" }));
        data_sources(child(obj, "spec"));
        protect(obj, PROTECTION);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
        data_sources(child(new, "spec"));
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"), &Path::root("spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        spec(&mut errs, at(new, "spec"), &Path::root("spec"));
        update(&mut errs, new, old);
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let root = Path::root("status");
        for key in ["capacity", "allocatedResources"] {
            let path = root.child(key);
            for (name, amount) in entries(at(new, "status"), key) {
                if checks::quantity(amount).is_negative() {
                    let why = "must be a valid resource quantity";
                    errs.push(FieldError::invalid(path.key(name), amount, why));
                }
            }
        }
        errs
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        let mut out = class_warning(obj);
        let spec = Path::root("spec");
        let path = spec.child("resources");
        let resources = at(at(obj, "spec"), "resources");
        for key in ["requests", "limits"] {
            fraction(&mut out, at(resources, key), &path.child(key));
        }
        out
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::persistent_volume_claim(obj, now)
    }
}

/// `dataSource` and `dataSourceRef` say the same unless the latter crosses namespaces.
fn data_sources(spec: &mut Value) {
    if has(spec, "dataSource") && !has(spec, "dataSourceRef") {
        let source = at(spec, "dataSource").clone();
        set(spec, "dataSourceRef", source);
    } else if let Some(r) = get(spec, "dataSourceRef").filter(|r| !has(r, "namespace")).cloned() {
        fill(spec, "dataSource", r);
    }
}

/// The access modes of a volume or a claim; `why` explains an empty list.
pub fn access_modes(errs: &mut Errors, spec: &Value, why: &str, path: &Path<'_>) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = texts(spec, "accessModes").collect();
    if modes.is_empty() {
        errs.push(FieldError::required(path, why));
    }
    for mode in &modes {
        checks::one_of(errs, mode, ACCESS_MODES, path);
    }
    let single = modes.contains(&"ReadWriteOncePod");
    if single && modes.iter().any(|m| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m)) {
        errs.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

pub fn volume_mode(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    checks::optional_one_of(errs, spec, "volumeMode", &["Block", "Filesystem"], path);
}

/// The spec of a claim, or of the claim that an ephemeral volume makes.
pub fn spec(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    access_modes(errs, spec, "at least 1 access mode is required", path);
    labels::selector(errs, spec, "selector", path);
    let storage = path.child("resources");
    let storage = storage.key("storage");
    match get(at(at(spec, "resources"), "requests"), "storage") {
        None => errs.push(FieldError::required(storage, "")),
        Some(amount) => {
            if checks::positive_quantity(errs, amount, storage) {
                resources::amount_of(errs, "storage", amount, storage);
            }
        }
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, key);
        if !class.is_empty() {
            invalid_each(errs, path.child(key), class, names::dns1123_subdomain(class));
        }
    }
    volume_mode(errs, spec, path);
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = get(spec, key) {
            data_source(errs, source, &path.child(key));
        }
    }
    sources_agree(errs, spec, path);
}

fn data_source(errs: &mut Errors, source: &Value, path: &Path<'_>) {
    required_text(errs, source, "name", path);
    required_text(errs, source, "kind", path);
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errs.push(FieldError::invalid(path, &json!(kind), why));
    }
    if !group.is_empty() {
        invalid_each(errs, path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    let namespace = text(source, "namespace");
    if !namespace.is_empty() {
        invalid_each(errs, path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
}

fn sources_agree(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (Some(source), Some(r)) = (get(spec, "dataSource"), get(spec, "dataSourceRef")) else { return };
    let shown = json!(path.child("dataSource").to_string());
    if !text(r, "namespace").is_empty() {
        let why = "may not be specified when dataSourceRef.namespace is specified";
        errs.push(FieldError::invalid(path, &shown, why));
    } else if ["apiGroup", "kind", "name"].iter().any(|k| text(source, k) != text(r, k)) {
        errs.push(FieldError::invalid(path, &shown, "must match dataSourceRef"));
    }
}

/// A claim is fixed, but for its volume, which is set once, and its size, which may grow once it is bound.
fn update(errs: &mut Errors, new: &Value, old: &Value) {
    let (now, before) = (at(new, "spec"), at(old, "spec"));
    let (mut a, mut b) = (now.clone(), before.clone());
    if text(before, "volumeName").is_empty() {
        copy(&mut b, now, "volumeName");
    }
    if !has(before, "storageClassName") && has(now, "storageClassName") {
        copy(&mut b, now, "storageClassName");
    }
    if text(at(new, "status"), "phase") == "Bound" {
        let size = at(at(before, "resources"), "requests");
        if let Some(requests) = existing(&mut a, "resources").and_then(|r| existing(r, "requests")) {
            copy(requests, size, "storage");
        }
        copy(&mut a, &b, "volumeAttributesClassName");
    }
    if a != b {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                   bound claims";
        errs.push(FieldError::forbidden("spec", why));
    }
    let size = |v: &Value| get(v, "storage").map_or(Quantity::ZERO, checks::quantity);
    let [wanted, had] = [now, before].map(|s| size(at(at(s, "resources"), "requests")));
    if wanted < had && wanted <= size(at(at(old, "status"), "capacity")) {
        let path = "spec.resources.requests.storage";
        errs.push(FieldError::forbidden(path, "field can not be less than status.capacity"));
    }
    immutable(errs, get(now, "volumeMode"), get(before, "volumeMode"), "volumeMode");
}
