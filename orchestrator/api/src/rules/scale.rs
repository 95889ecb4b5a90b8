//! The `scale` subresource.

use serde_json::Value;

use crate::rules::checks::{self, Errors};
use crate::rules::path::Path;
use crate::rules::value::at;

/// Checks an autoscaling/v1 Scale that a client wrote.
pub fn validate(scale: &Value) -> Errors {
    let mut errs = Errors::new();
    checks::nonnegative(&mut errs, at(scale, "spec"), "replicas", &Path::root("spec"));
    errs
}
