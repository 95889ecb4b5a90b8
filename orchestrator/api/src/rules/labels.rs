//! Label selectors inside objects: validation, and whether a workload's selector matches its own template.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{Errors, invalid_each};
use crate::rules::meta;
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{at, list, text, texts};
use crate::selector::Selector;

/// A `metav1.LabelSelector`, if it is set.
pub(super) fn selector(errs: &mut Errors, v: &Value, key: &str, path: &Path<'_>) {
    let Some(selector) = v.get(key).filter(|s| s.is_object()) else { return };
    let path = path.child(key);
    meta::labels(errs, selector, "matchLabels", &path);
    let expressions = path.child("matchExpressions");
    for (i, e) in list(selector, "matchExpressions").iter().enumerate() {
        requirement(errs, e, &expressions.index(i));
    }
}

fn requirement(errs: &mut Errors, e: &Value, path: &Path<'_>) {
    let operator = text(e, "operator");
    let values = list(e, "values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errs.push(FieldError::required(path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errs.push(FieldError::forbidden(path.child("values"), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => {
            let why = "not a valid selector operator";
            errs.push(FieldError::invalid(path.child("operator"), &json!(operator), why));
        }
    }
    meta::label_name(errs, text(e, "key"), path.child("key"));
    for (i, value) in texts(e, "values").enumerate() {
        invalid_each(errs, path.child("values").index(i), value, names::label_value(value));
    }
}

/// The required selector of a Deployment or ReplicaSet, and whether it matches the labels of `spec.template`. An absent
/// selector matches nothing.
pub(super) fn workload_selector(errs: &mut Errors, spec: &Value, path: &Path<'_>) -> Mismatch {
    let selector_value = spec.get("selector").filter(|s| s.is_object());
    match selector_value {
        None => errs.push(FieldError::required(path.child("selector"), "")),
        Some(s) => {
            selector(errs, spec, "selector", path);
            if list(s, "matchExpressions").is_empty()
                && at(s, "matchLabels").as_object().is_none_or(|m| m.is_empty())
            {
                let why = "empty selector is invalid for deployment";
                errs.push(FieldError::invalid(path.child("selector"), s, why));
            }
        }
    }
    match Selector::from_value(selector_value) {
        Err(_) => {
            let shown = selector_value.unwrap_or(&Value::Null);
            errs.push(FieldError::invalid(path.child("selector"), shown, "invalid label selector"));
            Mismatch::Unknown
        }
        Ok(s) => {
            let labels = at(at(at(spec, "template"), "metadata"), "labels");
            if s.is_everything() || s.matches(labels) { Mismatch::No } else { Mismatch::Yes }
        }
    }
}

/// Whether a workload's selector misses its own template. `Unknown` where the selector itself is broken: then the template
/// is not looked at either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Yes,
    No,
    Unknown,
}

/// The error for [`Mismatch::Yes`].
pub(super) fn mismatch_error(template: &Value, path: &Path<'_>) -> FieldError {
    let labels = at(at(template, "metadata"), "labels");
    let why = "`selector` does not match template `labels`";
    FieldError::invalid(path.child("metadata").child("labels"), labels, why)
}
