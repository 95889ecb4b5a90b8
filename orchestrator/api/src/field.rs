//! Field errors as Kubernetes words them: a path, a reason that clients switch on, and a message.

use std::fmt;

use serde_json::Value;

use crate::status::Cause;

/// Why a field was refused. The names are those of `metav1.CauseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl FieldErrorKind {
    /// The `reason` of the cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One refused field: `field: message` is what kubectl prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn required(field: impl fmt::Display, detail: &str) -> Self {
        Self::new(FieldErrorKind::Required, field, join("Required value", detail))
    }

    pub fn invalid(field: impl fmt::Display, value: &Value, detail: &str) -> Self {
        Self::new(FieldErrorKind::Invalid, field, join(&format!("Invalid value: {}", shown(value)), detail))
    }

    pub fn not_supported(field: impl fmt::Display, value: &Value, supported: &[&str]) -> Self {
        let names: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), names.join(", "));
        Self::new(FieldErrorKind::NotSupported, field, message)
    }

    pub fn duplicate(field: impl fmt::Display, value: &Value) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, format!("Duplicate value: {}", shown(value)))
    }

    pub fn forbidden(field: impl fmt::Display, detail: &str) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, join("Forbidden", detail))
    }

    pub fn not_found(field: impl fmt::Display, value: &Value) -> Self {
        Self::new(FieldErrorKind::NotFound, field, format!("Not found: {}", shown(value)))
    }

    pub fn new(kind: FieldErrorKind, field: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { kind, field: field.to_string(), message: message.into() }
    }

    /// The same error as a cause of a Status.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: self.kind.reason().to_owned(),
            message: self.message.clone(),
            field: Some(self.field.clone()),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Go's `%q` for strings, JSON for the rest, as apimachinery shows a refused value.
fn shown(value: &Value) -> String {
    value.to_string()
}

fn join(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}
