//! What the API does with a PersistentVolume.

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, immutable, invalid_each};
use crate::rules::path::Path;
use crate::rules::persistent_volume_claim::{access_modes, volume_mode};
use crate::rules::value::{
    at, child, copy, entries, fill, fill_text, get, has, list, remove, set, text, texts,
};
use crate::rules::{meta, names, pod_defaults, scheduling, volumes};

pub static STRATEGY: PersistentVolumeStrategy = PersistentVolumeStrategy;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const PROTECTION: &str = "kubernetes.io/pv-protection";

pub struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    fn default(&self, obj: &mut Value) {
        fill_text(child(obj, "status"), "phase", "Pending");
        let spec = child(obj, "spec");
        fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        if let Some(host) = spec.get_mut("hostPath").filter(|h| h.is_object()) {
            fill(host, "type", "");
        }
        pod_defaults::network_sources(spec);
    }

    fn prepare_create(&self, obj: &mut Value) {
        let mut status = json!({ "phase": "Pending" });
        // The server has stamped the object by now, and the phase is as old as the object.
        if let Some(now) = get(at(obj, "metadata"), "creationTimestamp") {
            status["lastPhaseTransitionTime"] = now.clone();
        }
        set(obj, "status", status);
        protect(obj, PROTECTION);
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
        spec(&mut errs, at(obj, "spec"), &Path::root("spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_create(at(new, "metadata"), false, names::dns1123_subdomain);
        let (now, before) = (at(new, "spec"), at(old, "spec"));
        spec(&mut errs, now, &Path::root("spec"));
        if source(now, before) != source(before, before) {
            let why = "spec.persistentvolumesource is immutable after creation";
            errs.push(FieldError::forbidden("spec.persistentvolumesource", why));
        }
        immutable(&mut errs, get(now, "volumeMode"), get(before, "volumeMode"), "volumeMode");
        if has(before, "nodeAffinity") && at(now, "nodeAffinity") != at(before, "nodeAffinity") {
            let why = "field is immutable, except for updating from beta label to GA";
            errs.push(FieldError::invalid("nodeAffinity", at(now, "nodeAffinity"), why));
        }
        errs
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        meta::validate_update(at(new, "metadata"), at(old, "metadata"))
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        let mut out = class_warning(obj);
        let spec = at(obj, "spec");
        if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
            out.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        let root = Path::root("spec");
        fraction(&mut out, at(spec, "capacity"), &root.child("capacity"));
        out
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::persistent_volume(obj, now)
    }
}

/// Volumes and claims are kept while they are used.
pub fn protect(obj: &mut Value, finalizer: &str) {
    let metadata = child(obj, "metadata");
    if !texts(metadata, "finalizers").any(|f| f == finalizer) {
        let mut all: Vec<Value> = list(metadata, "finalizers").to_vec();
        all.push(finalizer.into());
        set(metadata, "finalizers", all);
    }
}

/// The old annotation for a storage class.
pub fn class_warning(obj: &Value) -> Vec<String> {
    if !has(at(at(obj, "metadata"), "annotations"), BETA_CLASS) {
        return Vec::new();
    }
    let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    vec![format!("metadata.annotations[{BETA_CLASS}]: {why}")]
}

/// An amount of storage that is not a whole number of bytes.
pub fn fraction(out: &mut Vec<String>, amounts: &Value, path: &Path<'_>) {
    let Some(amount) = get(amounts, "storage").map(checks::quantity).filter(|q| q.milli_value() % 1000 != 0)
    else {
        return;
    };
    let shown = amount.to_string();
    let path = path.key("storage");
    out.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
}

/// The fields of the spec that say where the volume is. A secret for expansion may be added later.
fn source(spec: &Value, old: &Value) -> Map<String, Value> {
    let all = spec.as_object().into_iter().flatten();
    let mut source: Map<String, Value> =
        all.filter(|(k, _)| volumes::is_persistent_source(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let key = "controllerExpandSecretRef";
    if let Some(csi) = source.get_mut("csi").filter(|_| !has(at(old, "csi"), key)) {
        remove(csi, key);
    }
    source
}

fn spec(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    access_modes(errs, spec, "", path);
    capacity(errs, spec, &path.child("capacity"));
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        let policies = &["Delete", "Recycle", "Retain"];
        checks::one_of(errs, policy, policies, path.child("persistentVolumeReclaimPolicy"));
    }
    if let Some(affinity) = get(spec, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        match get(affinity, "required") {
            Some(required) => scheduling::node_selector(errs, required, &path.child("required")),
            None => {
                errs.push(FieldError::required(
                    path.child("required"),
                    "must specify required node constraints",
                ));
            }
        }
    }
    let local = volumes::persistent(errs, spec, path);
    if local && !has(spec, "nodeAffinity") {
        let why = "Local volume requires node affinity";
        errs.push(FieldError::required(path.child("nodeAffinity"), why));
    }
    let root = text(at(spec, "hostPath"), "path").trim_end_matches('/').is_empty() && has(spec, "hostPath");
    if root && policy == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errs.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), why));
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        invalid_each(errs, path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    volume_mode(errs, spec, path);
}

fn capacity(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let count = entries(spec, "capacity").count();
    if count == 0 {
        errs.push(FieldError::required(path, ""));
    }
    if count > 1 || !has(at(spec, "capacity"), "storage") {
        errs.push(FieldError::not_supported(path, at(spec, "capacity"), &["storage"]));
    }
    for (name, amount) in entries(spec, "capacity") {
        checks::positive_quantity(errs, amount, path.key(name));
    }
}
