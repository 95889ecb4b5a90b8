//! Docker's errors in the runtime's words, sorted by what a caller can do about them.

use bollard::errors::Error;

use crate::RuntimeError;

/// Sorts an error of a call about `subject` (a container id, say), made in the step `step`.
pub(crate) fn classify(step: &'static str, subject: &str, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code: 404, .. } => {
            RuntimeError::NotFound(subject.to_owned())
        }
        Error::DockerResponseServerError { status_code: 400, message } => RuntimeError::Invalid(message),
        Error::DockerResponseServerError { status_code: 502..=504, message } => {
            RuntimeError::Unavailable(message)
        }
        Error::DockerResponseServerError { message, .. } => RuntimeError::Failed { step, reason: message },
        error if is_connection(&error) => RuntimeError::Unavailable(words(&error)),
        error => RuntimeError::Failed { step, reason: words(&error) },
    }
}

/// For `create_container`, where 404 means the image.
pub(crate) fn classify_create(image: &str, error: Error) -> RuntimeError {
    match status(&error) {
        Some(404) => RuntimeError::ImageNotPresent(image.to_owned()),
        _ => classify("create container", image, error),
    }
}

/// For `start_container`: Docker finds only now that a command or mount cannot work, and does not always answer 400.
pub(crate) fn classify_start(id: &str, error: Error) -> RuntimeError {
    const SPEC_FAULTS: [&str; 6] = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "is not a directory",
        "not a directory: ",
        "unable to find user",
    ];
    match error {
        Error::DockerResponseServerError { status_code: 500, message }
            if message.contains("OCI runtime") && SPEC_FAULTS.iter().any(|fault| message.contains(fault)) =>
        {
            RuntimeError::Invalid(message)
        }
        error => classify("start container", id, error),
    }
}

/// What the registry (or Docker on the way to it) said about a pull.
pub(crate) fn classify_pull(image: &str, error: Error) -> RuntimeError {
    let reason = match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        error if is_connection(&error) => return RuntimeError::Unavailable(words(&error)),
        error => words(&error),
    };
    RuntimeError::Pull { image: image.to_owned(), reason }
}

pub(crate) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the daemon could not be talked to at all.
fn is_connection(error: &Error) -> bool {
    matches!(
        error,
        Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// The error with its causes: hyper says "client error (Connect)" and keeps the reason inside.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.into() }
    }

    #[test]
    fn answers_are_sorted() {
        let not_found =
            "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown";
        let cases = [
            (classify("x", "abc", answer(404, "No such container: abc")), "abc not found"),
            (
                classify_create("img", answer(404, "No such image: img")),
                "image \"img\" is not present on this node",
            ),
            (classify_start("abc", answer(400, not_found)), not_found),
            (classify_start("abc", answer(500, not_found)), not_found),
            (classify_start("abc", answer(500, "shim died")), "start container: shim died"),
            (
                classify_pull("img", answer(404, "pull access denied for img")),
                "pull of \"img\" failed: pull access denied for img",
            ),
            (
                classify("x", "abc", Error::SocketNotFoundError("/run/x.sock".into())),
                "container runtime unavailable: Socket not found: /run/x.sock",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
