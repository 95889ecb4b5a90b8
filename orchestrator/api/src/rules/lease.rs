//! What the API does with a Lease.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::checks::{self, Errors, invalid_each};
use crate::rules::path::Path;
use crate::rules::value::{at, child, has, opt_int, text};
use crate::rules::{meta, names};

pub static STRATEGY: LeaseStrategy = LeaseStrategy;

pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn default(&self, obj: &mut Value) {
        child(obj, "spec");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        spec(&mut errs, at(obj, "spec"));
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        spec(&mut errs, at(new, "spec"));
        errs
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::lease(obj, now)
    }
}

fn spec(errs: &mut Errors, spec: &Value) {
    let path = Path::root("spec");
    if let Some(seconds) = opt_int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        let why = "must be greater than 0";
        errs.push(FieldError::invalid(path.child("leaseDurationSeconds"), &json!(seconds), why));
    }
    checks::nonnegative(errs, spec, "leaseTransitions", &path);
    let strategy = text(spec, "strategy");
    if has(spec, "strategy") {
        let path = path.child("strategy");
        let path = path.child("strategy");
        if strategy.contains('/') {
            invalid_each(errs, path, strategy, names::qualified_name(strategy));
        } else {
            checks::one_of(errs, strategy, &["OldestEmulationVersion"], path);
        }
    }
    if !text(spec, "preferredHolder").is_empty() && strategy.is_empty() {
        let why = "may only be specified if `strategy` is defined";
        errs.push(FieldError::forbidden(path.child("preferredHolder"), why));
    }
}
