//! Every way to change an object by something smaller than the object: JSON Patch, JSON Merge Patch, strategic merge
//! patch and server-side apply; and the record of who set which field.
//!
//! All of it is pure: objects and times come in, objects go out. Nothing here decodes, defaults or validates a result;
//! the pipeline does that with what comes out.

pub mod apply;
pub mod fields;
pub mod json;
pub mod managed;
pub mod merge;
pub mod scale;
pub mod strategic;
mod text;
mod typed;

pub use text::{go_value, json_error};

use crate::status::{ApiError, Reason};

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch.
    #[error("{0}")]
    BadRequest(String),
    #[error("Request entity too large: {0}")]
    TooLarge(String),
    /// The patch does not fit this object. Kubernetes keeps the reason to itself.
    #[error("the server rejected our request due to an error in our request")]
    Unprocessable(String),
    /// The patch breaks a rule of its format. Kubernetes answers with a bare 500: no reason, only this message.
    #[error("{0}")]
    Internal(String),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let reason = match error {
            PatchError::BadRequest(_) => Reason::BadRequest,
            PatchError::TooLarge(_) => Reason::RequestEntityTooLarge,
            PatchError::Unprocessable(_) => Reason::Invalid,
            PatchError::Internal(_) => Reason::InternalError,
        };
        ApiError::new(reason, error.to_string())
    }
}

#[cfg(test)]
mod wire_tests;
