//! What the API does with a core/v1 Event: little, for the sake of old clients.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{Errors, invalid_each};
use crate::rules::names;
use crate::rules::value::{at, child, has, text};

pub static STRATEGY: EventStrategy = EventStrategy;

const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

pub struct EventStrategy;

impl Strategy for EventStrategy {
    fn default(&self, obj: &mut Value) {
        child(obj, "source");
        child(obj, "involvedObject");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        legacy(obj)
    }

    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        legacy(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn selectable(&self, obj: &Value, field: &str) -> String {
        selectable(obj, field).to_owned()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::event(obj, now)
    }
}

/// The selectable field of an Event in the core form.
pub fn selectable<'a>(obj: &'a Value, field: &str) -> &'a str {
    let reporter = text(obj, "reportingComponent");
    match field.split_once('.') {
        Some(("involvedObject", key)) => text(at(obj, "involvedObject"), key),
        _ if field == "source" => match text(at(obj, "source"), "component") {
            "" => reporter,
            component => component,
        },
        _ => text(obj, field),
    }
}

/// What every Event must fulfil, in the core form. One with an `eventTime` is of the new kind and must say more.
pub fn legacy(obj: &Value) -> Errors {
    let mut errs = Errors::new();
    let namespace = text(at(obj, "metadata"), "namespace");
    let involved = text(at(obj, "involvedObject"), "namespace");
    let recent = has(obj, "eventTime");
    let mismatch = match (recent, involved) {
        (false, "") => !matches!(namespace, "" | "default"),
        (false, other) => other != namespace,
        (true, "") => !matches!(namespace, "default" | "kube-system"),
        (true, _) => false,
    };
    if mismatch {
        let why = "does not match event.namespace";
        errs.push(FieldError::invalid("involvedObject.namespace", &json!(involved), why));
    }
    if recent {
        reporter(&mut errs, obj);
    }
    invalid_each(&mut errs, "namespace", namespace, names::dns1123_subdomain(namespace));
    errs
}

fn reporter(errs: &mut Errors, obj: &Value) {
    let controller = text(obj, "reportingComponent");
    if controller.is_empty() {
        errs.push(FieldError::required("reportingController", ""));
    }
    invalid_each(errs, "reportingController", controller, names::qualified_name(controller));
    for key in ["reportingInstance", "action", "reason"] {
        if text(obj, key).is_empty() {
            errs.push(FieldError::required(key, ""));
        }
        at_most(errs, obj, key, TEXT_MAX);
    }
    at_most(errs, obj, "message", MESSAGE_MAX);
}

fn at_most(errs: &mut Errors, obj: &Value, key: &str, max: usize) {
    if text(obj, key).len() > max {
        errs.push(FieldError::invalid(key, &json!(""), &format!("can have at most {max} characters")));
    }
}
