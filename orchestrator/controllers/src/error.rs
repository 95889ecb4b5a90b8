//! What can go wrong in a controller's shell. Every one of these puts the key back on its queue.

use std::future::Future;
use std::time::Duration;

use kube::core::ParseExpressionError;
use loadline_client::queue::Next;
use tracing::debug;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{step}: {}", words(source))]
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

/// The server's message where there is one; kube's own text repeats the whole Status.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Long enough for the cache to catch up with what the server told us, short enough not to be noticed.
const RETRY: Duration = Duration::from_millis(20);

/// Lost races are everyday life: looked at again soon, without the noise and the growing delay of a failure.
pub(crate) async fn settle(reconcile: impl Future<Output = Result<Next>>) -> Result<Next> {
    match reconcile.await {
        Err(Error::Stale(why)) => {
            debug!(why, "looking again");
            Ok(Next::After(RETRY))
        }
        Err(Error::Api { step, source }) if is_conflict(&source) || is_not_found(&source) => {
            debug!(step, "lost a race, looking again");
            Ok(Next::After(RETRY))
        }
        other => other,
    }
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

/// Whether the request may have been carried out although it failed: the answer was lost, or the server gave up.
pub(crate) fn is_ambiguous(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500,
        _ => true,
    }
}
