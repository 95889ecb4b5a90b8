//! What can go wrong in a controller's shell. Every one of these puts the key back on its queue.

use kube::core::ParseExpressionError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{step}: {source}")]
    Api { step: &'static str, source: kube::Error },
    #[error("selector: {0}")]
    Selector(#[source] ParseExpressionError),
    /// The view that the plan was made from is older than the server's; look again.
    #[error("{0}")]
    Stale(&'static str),
    #[error("{0}")]
    Discovery(String),
    /// The server's own words, for conditions that show them to the user.
    #[error("{0}")]
    Refused(String),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the step that failed.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T>;

    /// The same, but that the object is gone counts as done.
    fn step_or_gone(self, step: &'static str) -> Result<Option<T>>;
}

impl<T> Step<T> for Result<T, kube::Error> {
    fn step(self, step: &'static str) -> Result<T> {
        self.map_err(|source| Error::Api { step, source })
    }

    fn step_or_gone(self, step: &'static str) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(source) => Err(Error::Api { step, source }),
        }
    }
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// The namespace is being deleted: nothing can be created there, and nobody needs to hear about it.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden()
        && (status.message.contains("because it is being terminated")
            || status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))))
}
