//! The service that the demo scales. Each `GET /` burns a set amount of CPU time; `/metrics` tells Prometheus how many
//! requests there were, how many are under way and how long they took; `/healthz` is for probes.
//!
//! Environment: `PORT` (8080), `WORK_MS` (5, CPU time of one request), `START_MS` (0, time until it is ready).
//! SIGTERM ends it after the requests under way are answered.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{
    Histogram, IntCounterVec, IntGauge, register_histogram, register_int_counter_vec, register_int_gauge,
};
use tokio::signal::unix::{SignalKind, signal};

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("http_requests_total", "Requests answered.", &["code"]).unwrap()
});
#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static IN_FLIGHT: LazyLock<IntGauge> = LazyLock::new(|| {
    register_int_gauge!("http_requests_in_flight", "Requests being worked on or waiting for a core.").unwrap()
});
#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!("http_request_duration_seconds", "Time from a request's arrival to its answer.")
        .unwrap()
});

static READY: AtomicBool = AtomicBool::new(false);

#[derive(Clone)]
struct Settings {
    work: Duration,
    host: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let settings = Settings {
        work: Duration::from_millis(number("WORK_MS", 5)),
        host: std::env::var("HOSTNAME").unwrap_or_default(),
    };
    let app = axum::Router::new()
        .route("/", get(work))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(settings);
    let port = u16::try_from(number("PORT", 8080)).map_err(std::io::Error::other)?;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
    println!("listening on port {port}");
    tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(number("START_MS", 0))).await;
        READY.store(true, Ordering::Relaxed);
    });
    let mut term = signal(SignalKind::terminate())?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            term.recv().await;
        })
        .await
}

/// One request at a time has the core, as in a single-threaded service: load shows as waiting and as CPU use.
async fn work(State(settings): State<Settings>) -> String {
    let arrived = Instant::now();
    IN_FLIGHT.inc();
    tokio::task::yield_now().await;
    let sum = burn(settings.work);
    IN_FLIGHT.dec();
    REQUESTS.with_label_values(&["200"]).inc();
    DURATION.observe(arrived.elapsed().as_secs_f64());
    format!("{} {sum:x}\n", settings.host)
}

/// Computes for `budget` of wall time; with a core to itself that is CPU time.
fn burn(budget: Duration) -> u64 {
    let start = Instant::now();
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    while start.elapsed() < budget {
        for _ in 0..1000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
    }
    x
}

async fn healthz() -> (StatusCode, &'static str) {
    if READY.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting")
    }
}

async fn metrics() -> Result<String, (StatusCode, String)> {
    prometheus::TextEncoder::new()
        .encode_to_string(&prometheus::gather())
        .map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
