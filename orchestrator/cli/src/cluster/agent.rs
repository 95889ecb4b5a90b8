//! Nodes: `loadline agent`, and those that `loadline up` runs in its own process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Service;
use kube::config::{KubeConfigOptions, Kubeconfig};
use loadline_client::{Cache, Scope};
use loadline_kubelet::{Kubelet, LeaseTimings, Tls};
use loadline_network::{BridgeNetwork, PodNetwork, SimNetwork, bridge};
use loadline_runtime::SharedRuntime;
use loadline_runtime::docker::{Docker, DockerConfig};
use loadline_runtime::sim::{Sim, SimConfig};
use loadline_server::pki::Pki;

use crate::cluster::{Profile, RuntimeChoice, cluster_id, primary_address, stop_signal};
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline agent --cluster /var/lib/loadline --name node-4

The node joins a cluster whose data directory is on this machine and shares its Services and DNS.")]
pub struct AgentArgs {
    /// The data directory of the cluster's control plane
    #[arg(long, value_name = "DIR", default_value = "/var/lib/loadline")]
    cluster: PathBuf,
    /// The node's name: lower-case letters, digits, - and .
    #[arg(long, value_parser = node_name)]
    name: String,
    #[arg(long, value_enum, default_value = "docker")]
    runtime: RuntimeChoice,
    #[arg(long, value_enum, default_value = "fast")]
    profile: Profile,
    /// Addresses of Services, as given to the control plane
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    service_cidr: ipnet::Ipv4Net,
    /// Cores that the node may give; by default all of the machine's
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<String>,
    /// Memory that the node may give; by default all of the machine's
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,
}

/// A name becomes part of paths and of the certificate, so it is checked before anything is made with it.
fn node_name(text: &str) -> Result<String, String> {
    match loadline_api::rules::names::dns1123_subdomain(text).first() {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(wrong.clone()),
    }
}

/// All that makes one node.
pub struct NodeOptions {
    pub name: String,
    pub runtime: RuntimeChoice,
    pub profile: Profile,
    pub cluster_id: String,
    /// Of the cluster; the node's own is below it.
    pub data_dir: PathBuf,
    pub service_cidr: ipnet::Ipv4Net,
    pub cluster_dns: Ipv4Addr,
    pub capacity: BTreeMap<String, String>,
    /// Other nodes run on this machine too.
    pub shared_machine: bool,
}

pub async fn run(args: AgentArgs) -> Result<()> {
    let kubeconfig = args.cluster.join("kubeconfig");
    let file = Kubeconfig::read_from(&kubeconfig).with_context(|| {
        format!(
            "reading {}; start the cluster first: loadline up --data-dir {}",
            kubeconfig.display(),
            args.cluster.display()
        )
    })?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let pki = Pki::open(&args.cluster.join("pki"))?;
    let capacity = [("cpu", args.cpu), ("memory", args.memory)];
    let options = NodeOptions {
        name: args.name.clone(),
        runtime: args.runtime,
        profile: args.profile,
        cluster_id: cluster_id(&args.cluster)?,
        data_dir: args.cluster.clone(),
        service_cidr: args.service_cidr,
        cluster_dns: Ipv4Addr::from(u32::from(args.service_cidr.network()) + 10),
        capacity: capacity.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect(),
        shared_machine: true,
    };
    let scope = Scope::new();
    let kubelet = start(&scope, client, &pki, options, None).await?;
    output::print(&format!("ready {} https://{}\n", args.name, kubelet.addr))?;
    let failed = tokio::select! {
        stopped = stop_signal() => { stopped?; None }
        failed = scope.ended() => failed,
    };
    scope.shutdown().await;
    match failed {
        Some(how) => bail!("stopped because a part failed: {how}"),
        None => Ok(()),
    }
}

/// Starts one kubelet; its containers outlive the process.
pub async fn start(
    scope: &Scope,
    client: kube::Client,
    pki: &Pki,
    options: NodeOptions,
    services: Option<Cache<Service>>,
) -> Result<Kubelet> {
    let dir = options.data_dir.join("nodes").join(&options.name);
    let sim = options.runtime == RuntimeChoice::Sim;
    let ip = if sim { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { primary_address() };
    let (runtime, network) = runtime(&options, &dir).await?;
    let issued = pki.server(
        &format!("kubelet-{}", options.name),
        &format!("system:node:{}", options.name),
        &[options.name.clone(), ip.to_string()],
    )?;
    let tls = Tls { ca_pem: pki.ca_pem().to_owned(), cert_pem: issued.cert_pem, key_pem: issued.key_pem };
    let mut config = loadline_kubelet::Config::new(&options.name, ip, dir, tls, runtime, network);
    config.listen = SocketAddr::new(ip, 0);
    config.cluster_dns = vec![IpAddr::V4(options.cluster_dns)];
    config.capacity = options.capacity;
    config.lease = match options.profile {
        Profile::Fast => LeaseTimings::FAST,
        Profile::Compatible => LeaseTimings::COMPATIBLE,
    };
    config.simulated = sim;
    config.shared_machine = options.shared_machine;
    config.services = services;
    loadline_kubelet::start(scope, client, config)
        .await
        .with_context(|| format!("starting node {}", options.name))
}

async fn runtime(options: &NodeOptions, dir: &Path) -> Result<(SharedRuntime, Arc<dyn PodNetwork>)> {
    if options.runtime == RuntimeChoice::Sim {
        let config = SimConfig { node: options.name.clone(), ..SimConfig::default() };
        return Ok((Arc::new(Sim::new(config)), Arc::new(SimNetwork::default())));
    }
    let docker = Docker::connect(DockerConfig::new(&options.cluster_id, &options.name)).await.context(
        "reaching the Docker Engine on /var/run/docker.sock; install docker.io and start it, or use --runtime sim",
    )?;
    let network = BridgeNetwork::new(bridge::Config {
        cluster_id: options.cluster_id.clone(),
        node: options.name.clone(),
        data_dir: dir.join("network"),
        service_cidr: options.service_cidr,
    })?;
    Ok((Arc::new(docker), Arc::new(network)))
}
