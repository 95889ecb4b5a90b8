//! What the API does with a PersistentVolumeClaim: defaults, preparation and validation.

use serde_json::Value;

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::rules::names;

pub static STRATEGY: PersistentVolumeClaimStrategy = PersistentVolumeClaimStrategy;

pub struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    fn default(&self, _obj: &mut Value) {}

    fn validate_create(&self, _obj: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn row(&self, _obj: &Value, _now: i64) -> Vec<Value> {
        Vec::new()
    }
}
