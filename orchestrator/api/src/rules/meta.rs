//! `ObjectMeta`: what the server's pipeline checks for every kind alike.
//!
//! Kubernetes checks the metadata of an update more than once: first for all kinds alike, then again in the kind's own
//! validation, and every finding reaches the client. So the pipeline calls [`validate_update`] once, and a kind repeats
//! what its Kubernetes counterpart repeats. On create there is one check only.

use std::fmt::Display;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, immutable, invalid_each};
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{entries, flag, get, has, int, list, text, texts};

const ANNOTATIONS_MAX: usize = 256 * 1024;
const MANAGER_MAX: usize = 128;
const SUBRESOURCE_MAX: usize = 256;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Fields that no update changes, in the order in which they are checked.
const IMMUTABLE_FIELDS: [&str; 6] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// Checks the metadata of a new object, whose name has been generated already where that was asked for.
pub fn validate_create(meta: &Value, namespaced: bool, name_check: impl Fn(&str) -> Vec<String>) -> Errors {
    let path = Path::root("metadata");
    let mut errs = Errors::new();
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        let complaints = name_check(&names::as_prefix(generate));
        invalid_each(&mut errs, path.child("generateName"), generate, complaints);
    }
    let name = text(meta, "name");
    if name.is_empty() {
        errs.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        invalid_each(&mut errs, path.child("name"), name, name_check(name));
    }
    namespace(&mut errs, text(meta, "namespace"), namespaced, path.child("namespace"));
    checks::nonnegative(&mut errs, meta, "generation", &path);
    common(&mut errs, meta, &path);
    finalizers(&mut errs, meta, path.child("finalizers"));
    managed_fields(&mut errs, meta, &path);
    standard_finalizers(&mut errs, meta, &path);
    errs
}

/// Checks what an update does to the metadata. The pipeline settles `resourceVersion` before, and keeps what the server
/// owns (`generation`, `creationTimestamp` …) where the client left it out.
pub fn validate_update(new: &Value, old: &Value) -> Errors {
    let path = Path::root("metadata");
    let mut errs = Errors::new();
    if has(old, "deletionTimestamp") {
        no_new_finalizers(&mut errs, new, old, path.child("finalizers"));
    }
    if int(new, "generation") < int(old, "generation") {
        let shown = json!(int(new, "generation"));
        errs.push(FieldError::invalid(path.child("generation"), &shown, "must not be decremented"));
    }
    for key in IMMUTABLE_FIELDS {
        immutable(&mut errs, get(new, key), get(old, key), path.child(key));
    }
    common(&mut errs, new, &path);
    managed_fields(&mut errs, new, &path);
    standard_finalizers(&mut errs, new, &path);
    errs
}

/// Labels, annotations and owners.
fn common(errs: &mut Errors, meta: &Value, path: &Path<'_>) {
    labels(errs, meta, "labels", path);
    annotations(errs, meta, path.child("annotations"));
    owners(errs, meta, &path.child("ownerReferences"));
}

fn namespace(errs: &mut Errors, namespace: &str, namespaced: bool, path: Path<'_>) {
    if !namespaced {
        if !namespace.is_empty() {
            errs.push(FieldError::forbidden(path, "not allowed on this type"));
        }
    } else if namespace.is_empty() {
        errs.push(FieldError::required(path, ""));
    } else {
        invalid_each(errs, path, namespace, names::dns1123_label(namespace));
    }
}

/// A map of labels: of metadata, of a node selector, of a Service's selector.
pub fn labels(errs: &mut Errors, v: &Value, key: &str, path: &Path<'_>) {
    for (k, value) in entries(v, key) {
        label_name(errs, k, path.child(key));
        let value = value.as_str().unwrap_or_default();
        invalid_each(errs, path.child(key), value, names::label_value(value));
    }
}

pub fn label_name(errs: &mut Errors, name: &str, path: impl Display + Copy) {
    invalid_each(errs, path, name, names::qualified_name(name));
}

/// The annotations of `meta`, at `path`.
pub fn annotations(errs: &mut Errors, meta: &Value, path: Path<'_>) {
    let mut size = 0;
    for (k, value) in entries(meta, "annotations") {
        let complaints = names::qualified_name(&k.to_lowercase());
        invalid_each(errs, path, k, complaints);
        size += k.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errs.push(checks::too_long(path, ANNOTATIONS_MAX));
    }
}

fn owners(errs: &mut Errors, meta: &Value, path: &Path<'_>) {
    let mut controller: Option<String> = None;
    for owner in list(meta, "ownerReferences") {
        owner_reference(errs, owner, path);
        if !flag(owner, "controller") {
            continue;
        }
        let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
        if let Some(first) = &controller {
            let why = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
            );
            errs.push(FieldError::invalid(path, &meta["ownerReferences"], &why));
        } else {
            controller = Some(this);
        }
    }
}

fn owner_reference(errs: &mut Errors, owner: &Value, path: &Path<'_>) {
    let api_version = text(owner, "apiVersion");
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if version.is_empty() {
        let shown = json!(api_version);
        errs.push(FieldError::invalid(path.child("apiVersion"), &shown, "version must not be empty"));
    }
    for key in ["kind", "name", "uid"] {
        if text(owner, key).is_empty() {
            errs.push(FieldError::invalid(path.child(key), &json!(""), &format!("{key} must not be empty")));
        }
    }
    if group.is_empty() && version == "v1" && text(owner, "kind") == "Event" {
        errs.push(FieldError::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
    }
}

fn finalizers(errs: &mut Errors, meta: &Value, path: Path<'_>) {
    for name in texts(meta, "finalizers") {
        finalizer_name(errs, name, path);
    }
    let both = ["orphan", "foregroundDeletion"].iter().all(|f| texts(meta, "finalizers").any(|n| n == *f));
    if both {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errs.push(FieldError::invalid(path, &meta["finalizers"], why));
    }
}

pub fn finalizer_name(errs: &mut Errors, name: &str, path: impl Display + Copy) {
    invalid_each(errs, path, name, names::qualified_name(name));
}

/// Finalizers without a domain are Kubernetes' own.
pub fn standard_finalizer(errs: &mut Errors, name: &str, path: impl Display) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errs.push(FieldError::invalid(path, &json!(name), why));
    }
}

fn standard_finalizers(errs: &mut Errors, meta: &Value, path: &Path<'_>) {
    for (i, name) in texts(meta, "finalizers").enumerate() {
        standard_finalizer(errs, name, path.child("finalizers").index(i));
    }
}

fn no_new_finalizers(errs: &mut Errors, new: &Value, old: &Value, path: Path<'_>) {
    let mut added: Vec<String> = texts(new, "finalizers")
        .filter(|name| !texts(old, "finalizers").any(|o| o == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if added.is_empty() {
        return;
    }
    added.sort();
    added.dedup();
    let shown = added.join(", ");
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
    );
    errs.push(FieldError::forbidden(path, &why));
}

fn managed_fields(errs: &mut Errors, meta: &Value, path: &Path<'_>) {
    let path = path.child("managedFields");
    for (i, entry) in list(meta, "managedFields").iter().enumerate() {
        let path = path.index(i);
        let operation = text(entry, "operation");
        if !matches!(operation, "Apply" | "Update") {
            let why = "must be `Apply` or `Update`";
            errs.push(FieldError::invalid(path.child("operation"), &json!(operation), why));
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            errs.push(FieldError::invalid(path.child("fieldsType"), &json!(kind), "must be `FieldsV1`"));
        }
        field_manager(errs, text(entry, "manager"), path.child("manager"));
        if text(entry, "subresource").len() > SUBRESOURCE_MAX {
            errs.push(checks::too_long(path.child("subresource"), SUBRESOURCE_MAX));
        }
    }
}

/// The name of a field manager, in `managedFields` and as a request's `fieldManager`.
pub fn field_manager(errs: &mut Errors, name: &str, path: impl Display + Copy) {
    if name.len() > MANAGER_MAX {
        errs.push(checks::too_long(path, MANAGER_MAX));
    }
    if let Some((i, c)) = name.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("should only contain printable characters ({c:?} at {i})");
        errs.push(FieldError::invalid(path, &json!(name), &why));
    }
}
