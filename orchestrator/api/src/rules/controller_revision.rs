//! What the API does with a ControllerRevision.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{Errors, immutable};
use crate::rules::value::{at, get, has, int};
use crate::rules::{meta, names};

pub static STRATEGY: ControllerRevisionStrategy = ControllerRevisionStrategy;

pub struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    fn default(&self, _obj: &mut Value) {}

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        if !has(obj, "data") {
            errs.push(FieldError::required("data", "data is mandatory"));
        }
        revision(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        revision(&mut errs, new);
        immutable(&mut errs, get(new, "data"), get(old, "data"), "data");
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::controller_revision(obj, now)
    }
}

fn revision(errs: &mut Errors, obj: &Value) {
    if int(obj, "revision") < 0 {
        let why = "must be greater than or equal to 0";
        errs.push(FieldError::invalid("revision", &json!(int(obj, "revision")), why));
    }
}
