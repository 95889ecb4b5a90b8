//! What the API does with a Namespace.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::Errors;
use crate::rules::value::{at, child, copy, fill_text, has, object, set, text, texts};
use crate::rules::{meta, names};

pub static STRATEGY: NamespaceStrategy = NamespaceStrategy;

/// Held until the namespace is empty.
const FINALIZER: &str = "kubernetes";

pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn default(&self, obj: &mut Value) {
        name_label(obj);
        fill_text(child(obj, "status"), "phase", "Active");
        child(obj, "spec");
    }

    fn prepare_create(&self, obj: &mut Value) {
        // Once more: a generated name was not known to the defaults.
        name_label(obj);
        set(obj, "status", json!({ "phase": "Active" }));
        let spec = child(obj, "spec");
        if !texts(spec, "finalizers").any(|f| f == FINALIZER) {
            let mut all: Vec<Value> = texts(spec, "finalizers").map(Value::from).collect();
            all.push(FINALIZER.into());
            set(spec, "finalizers", all);
        }
    }

    /// Finalizers change through the `finalize` subresource only.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "status");
        copy(child(new, "spec"), at(old, "spec"), "finalizers");
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy(new, old, "spec");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        finalizers(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        meta::validate_update(at(new, "metadata"), at(old, "metadata"))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        let phase = text(at(new, "status"), "phase");
        let (wanted, why) = if has(at(new, "metadata"), "deletionTimestamp") {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        } else {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        };
        if phase != wanted {
            errs.push(FieldError::invalid("status.Phase", &json!(phase), why));
        }
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_label(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn selectable(&self, obj: &Value, _field: &str) -> String {
        text(at(obj, "status"), "phase").to_owned()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::namespace(obj, now)
    }
}

/// The checks of the `finalize` subresource.
pub fn validate_finalize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
    finalizers(&mut errs, new);
    errs
}

fn finalizers(errs: &mut Errors, obj: &Value) {
    for name in texts(at(obj, "spec"), "finalizers") {
        meta::finalizer_name(errs, name, "spec.finalizers");
        meta::standard_finalizer(errs, name, "spec.finalizers");
    }
}

fn name_label(obj: &mut Value) {
    let metadata = child(obj, "metadata");
    let name = text(metadata, "name").to_owned();
    if !name.is_empty() {
        object(child(metadata, "labels")).insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}
