//! `/healthz`, `/livez`, `/readyz`, each also check by check, and `/version`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::request::Query;
use crate::respond::{Failure, HttpResponse, Result, text};

/// Is it this path, or one below it?
pub(crate) fn is_health(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

pub(crate) async fn check(app: &App, path: &str, query: &Query) -> Result<HttpResponse> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let root = parts.next().unwrap_or_default().to_owned();
    let one = parts.next();
    let names: &[&str] = match root.as_str() {
        // Alive means that this process works; a store that is away is no reason to restart it.
        "livez" => &["ping"],
        "healthz" => &["ping", "store"],
        _ => &["ping", "store", "caches", "shutdown"],
    };
    if let Some(one) = one {
        if !names.contains(&one) {
            return Err(Failure::NoPage);
        }
        return Ok(match run(app, one).await {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for name in names.iter().filter(|n| !excluded.contains(n)) {
        match run(app, name).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::debug!(check = name, why, "health check failed");
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    Ok(match (failed, query.get("verbose").is_some()) {
        (true, _) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{root} check failed\n")),
        (false, true) => text(StatusCode::OK, format!("{lines}{root} check passed\n")),
        (false, false) => text(StatusCode::OK, "ok"),
    })
}

async fn run(app: &App, name: &str) -> Result<(), &'static str> {
    match name {
        "store" => app.store.ready().await.map_err(|error| {
            tracing::warn!(%error, "store is not ready");
            "the store cannot be reached"
        }),
        "caches" if app.feed.progress() == 0 => Err("the watch caches are not loaded yet"),
        "shutdown" if *app.stopping().borrow() => Err("the server is shutting down"),
        _ => Ok(()),
    }
}

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+loadline.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// The architecture by Go's name.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
