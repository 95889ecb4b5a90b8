//! One task a node: a kept-alive connection to its kubelet, a round a second, bounded in time and size.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use loadline_client::{Cache, Change, Scope};
use prometheus::{
    HistogramVec, IntCounterVec, IntGauge, register_histogram_vec, register_int_counter_vec,
    register_int_gauge,
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};

use crate::Shared;
use crate::exposition::samples;
use crate::window::Point;

const ROUND: Duration = Duration::from_secs(1);
/// A kubelet that takes longer has missed its round.
const TIMEOUT: Duration = Duration::from_millis(900);
const MAX_PAGE: usize = 8 * 1024 * 1024;

struct Counters {
    rounds: IntCounterVec,
    seconds: HistogramVec,
    series: IntGauge,
}

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static COUNTERS: LazyLock<Counters> = LazyLock::new(|| Counters {
    rounds: register_int_counter_vec!(
        "loadline_metrics_rounds_total",
        "Rounds of gathering from kubelets, by result.",
        &["node", "result"]
    )
    .unwrap(),
    seconds: register_histogram_vec!(
        "loadline_metrics_round_duration_seconds",
        "How long a kubelet takes to answer.",
        &["node"],
        vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]
    )
    .unwrap(),
    series: register_int_gauge!("loadline_metrics_series", "Containers and nodes in the window.").unwrap(),
});

#[derive(Debug, thiserror::Error)]
enum GatherError {
    #[error("connect")]
    Connect(#[source] std::io::Error),
    #[error("speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("the kubelet answered {0}")]
    Status(http::StatusCode),
    #[error("read the page: {0}")]
    Page(String),
    #[error("no answer within {TIMEOUT:?}")]
    Late,
}

pub(crate) fn start(scope: &Scope, client: kube::Client, tls: rustls::ClientConfig, shared: Arc<Shared>) {
    let nodes = Cache::start(scope, Api::<Node>::all(client), watcher::Config::default());
    let connector = TlsConnector::from(Arc::new(tls));
    let polls: Mutex<HashMap<String, (SocketAddr, Scope)>> = Mutex::default();
    let of_polls = scope.clone();
    let window = shared.clone();
    nodes.on_change(move |change| {
        let node = change.object();
        let name = node.name_any();
        let address = match change {
            Change::Applied { new, .. } => kubelet_address(new),
            Change::Deleted { .. } => None,
        };
        let mut polls = polls.lock().unwrap_or_else(PoisonError::into_inner);
        if polls.get(&name).map(|(a, _)| *a) == address {
            return;
        }
        if let Some((_, old)) = polls.remove(&name) {
            old.cancel();
        }
        if let Some(address) = address {
            let own = of_polls.child();
            own.spawn("gather", poll(name.clone(), address, connector.clone(), shared.clone()));
            polls.insert(name, (address, own));
        }
    });
    scope.spawn("forget old series", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        loop {
            ticks.tick().await;
            let mut window = window.window.write().unwrap_or_else(PoisonError::into_inner);
            window.forget_old(Timestamp::now().as_millisecond());
            COUNTERS.series.set(window.series() as i64);
        }
    });
}

fn kubelet_address(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let ip = status
        .addresses
        .iter()
        .flatten()
        .find(|a| a.type_ == "InternalIP")?
        .address
        .parse::<IpAddr>()
        .ok()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

async fn poll(node: String, address: SocketAddr, tls: TlsConnector, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    let mut failures = 0_u32;
    loop {
        ticks.tick().await;
        let started = std::time::Instant::now();
        let round = async {
            let mut sender = match connection.take().filter(|c| !c.is_closed()) {
                Some(sender) => sender,
                None => connect(address, &tls).await?,
            };
            let page = fetch(&mut sender, address).await?;
            Ok::<_, GatherError>((sender, page))
        };
        match tokio::time::timeout(TIMEOUT, round).await.unwrap_or(Err(GatherError::Late)) {
            Ok((sender, page)) => {
                connection = Some(sender);
                failures = 0;
                COUNTERS.rounds.with_label_values(&[node.as_str(), "success"]).inc();
                COUNTERS.seconds.with_label_values(&[node.as_str()]).observe(started.elapsed().as_secs_f64());
                record(&node, &page, &shared);
            }
            Err(error) => {
                failures += 1;
                COUNTERS.rounds.with_label_values(&[node.as_str(), "error"]).inc();
                if failures == 3 {
                    warn!(%error, node, "kubelet gives no metrics");
                } else {
                    debug!(%error, node, "round failed");
                }
            }
        }
    }
}

async fn connect(address: SocketAddr, tls: &TlsConnector) -> Result<SendRequest<Empty<Bytes>>, GatherError> {
    let tcp = TcpStream::connect(address).await.map_err(GatherError::Connect)?;
    tcp.set_nodelay(true).map_err(GatherError::Connect)?;
    let stream = tls.connect(ServerName::from(address.ip()), tcp).await.map_err(GatherError::Connect)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "connection to kubelet ended");
        }
    });
    Ok(sender)
}

async fn fetch(sender: &mut SendRequest<Empty<Bytes>>, address: SocketAddr) -> Result<String, GatherError> {
    let request = Request::get("/metrics/resource")
        .header("Host", address.to_string())
        .body(Empty::new())
        .map_err(|e| GatherError::Page(e.to_string()))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(GatherError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_PAGE).collect().await;
    let bytes = body.map_err(|e| GatherError::Page(e.to_string()))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|e| GatherError::Page(e.to_string()))
}

/// CPU (with its time) and memory of one thing, which come on two lines.
#[derive(Default)]
struct Lines {
    cpu: Option<(i64, f64)>,
    memory: Option<f64>,
}

impl Lines {
    /// Half a reading is none.
    fn point(&self) -> Option<Point> {
        let (at, cpu_seconds) = self.cpu?;
        Some(Point { at, cpu_seconds, memory: self.memory? })
    }
}

fn record(node: &str, page: &str, shared: &Shared) {
    let now = Timestamp::now().as_millisecond();
    let mut bad = 0;
    let mut containers: HashMap<(&str, &str, &str), Lines> = HashMap::new();
    let mut own = Lines::default();
    let found: Vec<_> = samples(page, &mut bad).collect();
    for sample in &found {
        let at = sample.at.unwrap_or(now);
        let label = |name| sample.label(name).unwrap_or_default();
        match sample.name {
            "node_cpu_usage_seconds_total" => own.cpu = Some((at, sample.value)),
            "node_memory_working_set_bytes" => own.memory = Some(sample.value),
            "container_cpu_usage_seconds_total" => {
                containers.entry((label("namespace"), label("pod"), label("container"))).or_default().cpu =
                    Some((at, sample.value));
            }
            "container_memory_working_set_bytes" => {
                containers
                    .entry((label("namespace"), label("pod"), label("container")))
                    .or_default()
                    .memory = Some(sample.value);
            }
            _ => {}
        }
    }
    let mut window = shared.window.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(point) = own.point() {
        window.push_node(node, point);
    }
    for ((namespace, pod, container), lines) in containers {
        if let Some(point) = lines.point() {
            window.push_container(namespace, pod, container, point);
        }
    }
    drop(window);
    drop(found);
    if bad > 0 {
        debug!(node, bad, "lines of a kubelet's page were not understood");
    }
}
