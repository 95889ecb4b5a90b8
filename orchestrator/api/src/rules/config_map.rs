//! What the API does with a ConfigMap.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::base64;
use crate::rules::checks::{self, Errors, invalid_each};
use crate::rules::path::Path;
use crate::rules::value::{at, entries, flag, has, same};
use crate::rules::{meta, names};

pub static STRATEGY: ConfigMapStrategy = ConfigMapStrategy;

/// The most bytes that the values of a ConfigMap or Secret may have together.
pub const MAX_SIZE: usize = 1024 * 1024;

pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn default(&self, _obj: &mut Value) {}

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        content(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        frozen(&mut errs, new, old, &["data", "binaryData"]);
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        content(&mut errs, new);
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::config_map(obj, now)
    }
}

/// Once `immutable` is set, neither it nor the content changes.
pub fn frozen(errs: &mut Errors, new: &Value, old: &Value, content: &[&str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !flag(old, "immutable") {
        return;
    }
    if !flag(new, "immutable") {
        errs.push(FieldError::forbidden("immutable", WHY));
    }
    for key in content.iter().filter(|key| !same(new, old, key)) {
        errs.push(FieldError::forbidden(key, WHY));
    }
}

fn content(errs: &mut Errors, obj: &Value) {
    let mut size = 0;
    let data = Path::root("data");
    for (key, value) in entries(obj, "data") {
        invalid_each(errs, data.key(key), key, names::config_key(key));
        if has(at(obj, "binaryData"), key) {
            let why = "duplicate of key present in binaryData";
            errs.push(FieldError::invalid(data.key(key), &json!(key), why));
        }
        size += value.as_str().map_or(0, str::len);
    }
    let binary = Path::root("binaryData");
    for (key, value) in entries(obj, "binaryData") {
        invalid_each(errs, binary.key(key), key, names::config_key(key));
        size += base64::decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MAX_SIZE {
        errs.push(checks::too_long("", MAX_SIZE));
    }
}
