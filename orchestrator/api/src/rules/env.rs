//! Environment variables of containers, and references to fields and keys that volumes share with them.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::quantity::Quantity;
use crate::rules::checks::{self, Errors, invalid_each, required_text};
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{get, has, list, text};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that the downward API knows at all.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The `env` and `envFrom` of a container.
pub(super) fn container(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    let env = path.child("env");
    for (i, var) in list(c, "env").iter().enumerate() {
        let path = env.index(i);
        let name = text(var, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path.child("name"), ""));
        } else {
            invalid_each(errs, path.child("name"), name, names::env_name(name));
        }
        value_from(errs, var, &path.child("valueFrom"));
    }
    let from = path.child("envFrom");
    for (i, source) in list(c, "envFrom").iter().enumerate() {
        env_from(errs, source, &from, &from.index(i));
    }
}

fn value_from(errs: &mut Errors, var: &Value, path: &Path<'_>) {
    let Some(from) = get(var, "valueFrom") else { return };
    let mut sources = 0;
    if let Some(r) = get(from, "fieldRef") {
        sources += 1;
        field_ref(errs, r, ENV_FIELDS, &path.child("fieldRef"));
    }
    if let Some(r) = get(from, "resourceFieldRef") {
        sources += 1;
        resource_field_ref(errs, r, &path.child("resourceFieldRef"), false);
    }
    for key in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(r) = get(from, key) {
            sources += 1;
            key_ref(errs, r, &path.child(key));
        }
    }
    if let Some(r) = get(from, "fileKeyRef") {
        sources += 1;
        for key in ["volumeName", "path", "key"] {
            required_text(errs, r, key, &path.child("fileKeyRef"));
        }
    }
    let why = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !text(var, "value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errs.push(FieldError::invalid(path, &json!(""), why));
}

fn env_from(errs: &mut Errors, source: &Value, all: &Path<'_>, path: &Path<'_>) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        invalid_each(errs, path.child("prefix"), prefix, names::env_name(prefix));
    }
    let mut sources = 0;
    for key in ["configMapRef", "secretRef"] {
        let Some(r) = get(source, key) else { continue };
        sources += 1;
        let name = text(r, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path.child(key).child("name"), ""));
        } else {
            invalid_each(errs, path.child(key).child("name"), name, names::dns1123_subdomain(name));
        }
    }
    let why = match sources {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errs.push(FieldError::invalid(all, &json!(""), why));
}

fn key_ref(errs: &mut Errors, r: &Value, path: &Path<'_>) {
    let name = text(r, "name");
    invalid_each(errs, path.child("name"), name, names::dns1123_subdomain(name));
    let key = text(r, "key");
    if key.is_empty() {
        errs.push(FieldError::required(path.child("key"), ""));
    } else {
        invalid_each(errs, path.child("key"), key, names::config_key(key));
    }
}

fn field_ref(errs: &mut Errors, r: &Value, allowed: &[&str], path: &Path<'_>) {
    let (version, field) = (text(r, "apiVersion"), text(r, "fieldPath"));
    if version.is_empty() {
        errs.push(FieldError::required(path.child("apiVersion"), ""));
        return;
    }
    if field.is_empty() {
        errs.push(FieldError::required(path.child("fieldPath"), ""));
        return;
    }
    let subscripted = subscript(field);
    let base = subscripted.map_or(field, |(base, _)| base);
    let problem = if version != "v1" {
        Some(format!("unsupported pod version: {version}"))
    } else if field == "spec.host" || KNOWN_FIELDS.contains(&field) || is_map(base) {
        None
    } else {
        Some(format!("field label not supported: {base}"))
    };
    if let Some(problem) = problem {
        let why = format!("error converting fieldPath: {problem}");
        errs.push(FieldError::invalid(path.child("fieldPath"), &json!(field), &why));
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            invalid_each(errs, *path, &key, names::qualified_name(&key));
        }
        Some((_, key)) => invalid_each(errs, *path, key, names::qualified_name(key)),
        None if field == "spec.host" || allowed.contains(&field) => {}
        None => errs.push(FieldError::not_supported(path.child("fieldPath"), &json!(field), allowed)),
    }
}

fn is_map(field: &str) -> bool {
    matches!(field, "metadata.annotations" | "metadata.labels")
}

/// Takes `metadata.labels['app']` apart.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (base, rest) = field.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

fn resource_field_ref(errs: &mut Errors, r: &Value, path: &Path<'_>, volume: bool) {
    let resource = text(r, "resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|p| resource.starts_with(p));
    if volume && text(r, "containerName").is_empty() {
        errs.push(FieldError::required(path.child("containerName"), ""));
    } else if resource.is_empty() {
        errs.push(FieldError::required(path.child("resource"), ""));
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        errs.push(FieldError::not_supported(path.child("resource"), &json!(resource), RESOURCE_FIELDS));
    }
    let Some(divisor) = get(r, "divisor").map(checks::quantity).filter(|q| *q != Quantity::ZERO) else {
        return;
    };
    let divisor = divisor.to_string();
    let (good, what) = match resource {
        "limits.cpu" | "requests.cpu" => (CPU_DIVISORS.contains(&divisor.as_str()), "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_DIVISORS.contains(&divisor.as_str()), "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (BYTE_DIVISORS.contains(&divisor.as_str()), "local ephemeral storage")
        }
        _ if huge => (BYTE_DIVISORS.contains(&divisor.as_str()), "hugepages"),
        _ => return,
    };
    if !good {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { BYTE_DIVISORS.join(", ") };
        let why = format!("only divisor's values {values} are supported with the {what} resource");
        errs.push(FieldError::invalid(path.child("divisor"), &json!(resource), &why));
    }
}

/// One file of a downward API volume.
pub(super) fn downward_file(errs: &mut Errors, file: &Value, path: &Path<'_>) {
    let target = text(file, "path");
    if target.is_empty() {
        errs.push(FieldError::required(path.child("path"), ""));
    }
    checks::non_reserved_path(errs, target, path.child("path"));
    if let Some(r) = get(file, "fieldRef") {
        field_ref(errs, r, VOLUME_FIELDS, &path.child("fieldRef"));
        if has(file, "resourceFieldRef") {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errs.push(FieldError::invalid(path, &json!("resource"), why));
        }
    } else if let Some(r) = get(file, "resourceFieldRef") {
        resource_field_ref(errs, r, &path.child("resourceFieldRef"), true);
    } else {
        errs.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
}
