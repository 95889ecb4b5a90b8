//! What a server is told at its start: addresses, directories, ranges, limits, and the parts of the API that other
//! components answer.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use tower::util::BoxCloneSyncService;

/// The service that answers a delegated resource; `axum::Router::into_service` boxed.
pub type DelegateService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// An API resource (or subresource) that another component serves behind the server's own authentication and
/// authorization. The request path is passed unchanged.
#[derive(Clone)]
pub struct Delegate {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    /// `None` for the resource itself.
    pub subresource: Option<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub service: DelegateService,
}

/// Everything about one server; nothing is read from the environment.
#[derive(Clone)]
pub struct Config {
    /// Where the API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Holds `pki/`.
    pub data_dir: PathBuf,
    /// kube-apiserver's `--token-auth-file`.
    pub token_auth_file: Option<PathBuf>,
    /// Names and addresses for the serving certificate beyond the usual ones.
    pub extra_sans: Vec<String>,
    /// The address that the `kubernetes` Service's endpoints show; the listen address when it is not a wildcard.
    pub advertise: Option<IpAddr>,
    /// Network and prefix length that ClusterIPs come from.
    pub service_cidr: (Ipv4Addr, u8),
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// Creates the system namespaces and the `kubernetes` Service at start.
    pub bootstrap: bool,
    pub delegates: Vec<Delegate>,
    pub limits: Limits,
}

/// Bounds that keep one client from starving the others.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub reads_in_flight: usize,
    pub writes_in_flight: usize,
    pub body_bytes: usize,
    pub request_timeout: Duration,
    /// How long a client may take between two pieces of a body.
    pub body_idle: Duration,
    /// Events that are at least kept for watches that start late.
    pub history: Duration,
    /// Events of one kind that are kept at most.
    pub history_events: usize,
    pub bookmark_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reads_in_flight: 400,
            writes_in_flight: 200,
            body_bytes: 3 * 1024 * 1024,
            request_timeout: Duration::from_secs(60),
            body_idle: Duration::from_secs(5),
            history: Duration::from_secs(80),
            history_events: 100_000,
            bookmark_every: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Kubernetes' usual ranges, on `listen`, with state under `data_dir`.
    pub fn new(listen: SocketAddr, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data_dir: data_dir.into(),
            token_auth_file: None,
            extra_sans: Vec::new(),
            advertise: None,
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 12),
            node_ports: (30_000, 32_767),
            bootstrap: true,
            delegates: Vec::new(),
            limits: Limits::default(),
        }
    }
}
