//! What can be wrong with a body, and where.

use std::fmt;

/// What is wrong. Where Kubernetes has words for it, they are these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    #[error("empty body")]
    Empty,
    #[error("content encoding {0:?} is not supported")]
    Encoding(String),
    #[error("{0} has no protobuf form")]
    NoForm(String),
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    #[error("proto: wrong wireType = {0}")]
    WireType(u8),
    #[error("invalid UTF-8")]
    Utf8,
    #[error("seconds out of range")]
    Time,
    #[error("embedded JSON cannot be read: {0}")]
    Json(String),
    #[error("an embedded object must be JSON")]
    Nested,
}

/// A refused body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ProtobufError {
    /// The field as JSON names it, e.g. `spec.containers[0].image`; empty for the body itself.
    pub path: String,
    #[source]
    pub fault: Fault,
}

impl ProtobufError {
    /// The same, seen from the object that has the field.
    pub(super) fn within(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    pub(super) fn at(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }
}

impl From<Fault> for ProtobufError {
    fn from(fault: Fault) -> Self {
        Self { path: String::new(), fault }
    }
}

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => self.fault.fmt(f),
            path => write!(f, "{} for field {path}", self.fault),
        }
    }
}
