//! Logs and metrics of the process itself.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to standard error: what `LOADLINE_LOG` says (`tracing` directives), else `default`. Colours only on a terminal.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_env("LOADLINE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // A second call (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

/// Every registered metric of this process in the Prometheus text format.
pub fn metrics_text() -> String {
    let mut text = String::new();
    let encoder = prometheus::TextEncoder::new();
    if let Err(error) = encoder.encode_utf8(&prometheus::gather(), &mut text) {
        tracing::warn!(%error, "metrics could not be encoded");
    }
    text
}
