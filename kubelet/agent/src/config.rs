//! What a kubelet is told at its start, and how it can fail to start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, Taint};
use loadline_client::Cache;
use loadline_network::PodNetwork;
use loadline_runtime::SharedRuntime;

/// The kubelet's server certificate and the CA whose clients it serves, all PEM.
#[derive(Clone)]
pub struct Tls {
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
}

/// How often the node says that it lives, and for how long that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimings {
    pub duration: Duration,
    pub renew_interval: Duration,
}

impl LeaseTimings {
    /// Renewed every second; silent for 5 s is NotReady.
    pub const FAST: Self = Self { duration: Duration::from_secs(5), renew_interval: Duration::from_secs(1) };
    /// Kubernetes' own.
    pub const COMPATIBLE: Self =
        Self { duration: Duration::from_secs(40), renew_interval: Duration::from_secs(10) };
}

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// `InternalIP` of the node, and the `hostIP` of its pods.
    pub node_ip: IpAddr,
    /// Holds `pods/<uid>/…`.
    pub data_dir: PathBuf,
    /// Where the kubelet API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    pub tls: Tls,
    pub runtime: SharedRuntime,
    pub network: Arc<dyn PodNetwork>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's own resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// Labels beside `kubernetes.io/hostname`, `os` and `arch`.
    pub labels: BTreeMap<String, String>,
    /// Set once, when the node is registered.
    pub register_taints: Vec<Taint>,
    /// Capacity that replaces what the machine has, as quantities: `cpu`, `memory`, `ephemeral-storage`, `pods`.
    pub capacity: BTreeMap<String, String>,
    /// Taken off the capacity to give what pods may ask for.
    pub reserved: BTreeMap<String, String>,
    pub max_pods: u32,
    pub lease: LeaseTimings,
    /// The node status is written at least this often, changed or not.
    pub status_interval: Duration,
    /// The safety net below events: everything is looked at again.
    pub relist_interval: Duration,
    /// Containers exist in memory only: volumes and files are checked but not written, and HTTP and TCP probes ask
    /// the runtime (as a command in the container), for there is nobody to connect to.
    pub simulated: bool,
    /// Several nodes share this machine: a node's usage is the sum of its containers and not the machine's.
    pub shared_machine: bool,
    /// A cache of all Services that several kubelets of one process share; `None` starts an own one.
    pub services: Option<Cache<Service>>,
}

impl Config {
    /// A configuration with everything else at its default.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        data_dir: impl Into<PathBuf>,
        tls: Tls,
        runtime: SharedRuntime,
        network: Arc<dyn PodNetwork>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_ip,
            data_dir: data_dir.into(),
            listen: SocketAddr::new(node_ip, 0),
            tls,
            runtime,
            network,
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            labels: BTreeMap::new(),
            register_taints: Vec::new(),
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            max_pods: 110,
            lease: LeaseTimings::FAST,
            status_interval: Duration::from_secs(300),
            relist_interval: Duration::from_secs(60),
            simulated: false,
            shared_machine: false,
            services: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("bad configuration: {0}")]
    Config(String),
    #[error("TLS set-up: {0}")]
    Tls(String),
    #[error("listen on {addr}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error("create {path}")]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("container runtime")]
    Runtime(#[from] loadline_runtime::RuntimeError),
}
