//! What the API does with a ServiceAccount.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::value::{at, list_mut, text};
use crate::rules::{meta, names};

pub static STRATEGY: ServiceAccountStrategy = ServiceAccountStrategy;

pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    fn default(&self, _obj: &mut Value) {}

    fn prepare_create(&self, obj: &mut Value) {
        secret_names(obj);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        secret_names(new);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, _obj: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        errs
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::service_account(obj, now)
    }
}

/// References to secrets keep the name alone.
fn secret_names(obj: &mut Value) {
    for secret in list_mut(obj, "secrets") {
        let name = text(secret, "name").to_owned();
        *secret = json!({ "name": name });
    }
}
