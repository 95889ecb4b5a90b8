//! `loadline up`: a whole cluster in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use loadline_client::{Cache, Scope};
use loadline_network::{Services, dns, proxy};

use crate::cluster::agent::{self, NodeOptions};
use crate::cluster::assemble::{ControlPlane, Role};
use crate::cluster::{ControlPlaneArgs, RuntimeChoice, cluster_id, stop_signal};
use crate::output;

/// How long nodes may take to become Ready before that is an error.
const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline up
  loadline up --data-dir ./cluster --nodes 3
  loadline up --runtime sim --nodes 20 --listen 127.0.0.1:0

Then: export KUBECONFIG=DATA-DIR/kubeconfig; kubectl get nodes
SIGTERM ends it; containers go on running, and the next `loadline up` on the same directory takes them over.
`loadline down` removes everything.")]
pub struct UpArgs {
    #[command(flatten)]
    control_plane: ControlPlaneArgs,
    /// How many nodes this process runs
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    #[arg(long, value_enum, default_value = "docker")]
    runtime: RuntimeChoice,
    /// Cores that each node may give; by default its share of the machine's
    #[arg(long, value_name = "QUANTITY")]
    node_cpu: Option<String>,
    /// Memory that each node may give; by default its share of the machine's
    #[arg(long, value_name = "QUANTITY")]
    node_memory: Option<String>,
}

pub async fn run(args: UpArgs) -> Result<()> {
    let roles: BTreeSet<Role> = Role::ALL.into_iter().collect();
    let id = cluster_id(&args.control_plane.data_dir)?;
    let plane = ControlPlane::start(&args.control_plane, &roles).await?;
    let outcome = nodes_and_wait(&args, &id, &plane).await;
    plane.shutdown().await;
    outcome
}

async fn nodes_and_wait(args: &UpArgs, id: &str, plane: &ControlPlane) -> Result<()> {
    let scope = &plane.scope;
    let services = Services::start(scope, plane.client("system:kube-proxy"));
    if args.runtime == RuntimeChoice::Docker {
        let config =
            proxy::Config { cluster_id: id.to_owned(), cluster_cidr: args.control_plane.cluster_cidr };
        proxy::start(scope, services.clone(), config);
        let config = dns::Config {
            address: args.control_plane.cluster_dns(),
            port: 53,
            domain: "cluster.local".to_owned(),
        };
        dns::start(scope, services.clone(), config).await?;
    }
    let names: Vec<String> = (1..=args.nodes).map(|i| format!("node-{i}")).collect();
    for name in &names {
        let options = NodeOptions {
            name: name.clone(),
            runtime: args.runtime,
            profile: args.control_plane.profile,
            cluster_id: id.to_owned(),
            data_dir: args.control_plane.data_dir.clone(),
            service_cidr: args.control_plane.service_cidr,
            cluster_dns: args.control_plane.cluster_dns(),
            capacity: capacity(args),
            shared_machine: args.nodes > 1 || args.node_cpu.is_some(),
        };
        let client = plane.client(&format!("system:node:{name}"));
        agent::start(scope, client, &plane.pki, options, Some(services.services.clone())).await?;
    }
    tokio::select! {
        ready = nodes_ready(scope, plane.client("system:loadline-up"), &names) => ready?,
        failed = scope.ended() => bail!("stopped because a part failed: {}", failed.unwrap_or_default()),
    }
    output::print(&format!("ready {}\n", plane.url()))?;
    tokio::select! {
        stopped = stop_signal() => stopped,
        failed = scope.ended() => bail!("stopped because a part failed: {}", failed.unwrap_or_default()),
    }
}

/// Several nodes on one machine share its cores and memory, so that the scheduler counts nothing twice. Simulated
/// ones have what a small server has.
fn capacity(args: &UpArgs) -> BTreeMap<String, String> {
    let mut capacity = BTreeMap::new();
    if args.runtime == RuntimeChoice::Sim {
        capacity.insert("cpu".to_owned(), "8".to_owned());
        capacity.insert("memory".to_owned(), "32Gi".to_owned());
    } else if args.nodes > 1 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        capacity.insert("cpu".to_owned(), format!("{}m", cores * 1000 / args.nodes));
        if let Some(kib) = machine_memory_kib() {
            capacity.insert("memory".to_owned(), format!("{}Ki", kib / args.nodes));
        }
    }
    for (name, given) in [("cpu", &args.node_cpu), ("memory", &args.node_memory)] {
        if let Some(quantity) = given {
            capacity.insert(name.to_owned(), quantity.clone());
        }
    }
    capacity
}

pub fn machine_memory_kib() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

async fn nodes_ready(scope: &Scope, client: kube::Client, names: &[String]) -> Result<()> {
    let watching = scope.child();
    let nodes = Cache::start(&watching, Api::<Node>::all(client), watcher::Config::default());
    let (sender, mut ready) = tokio::sync::mpsc::unbounded_channel();
    nodes.on_change(move |change| {
        let node = change.object();
        let mut conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        // The node controller takes this taint a moment later; until then nothing is scheduled there.
        let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        if ready && !taints.any(|t| t.key == "node.kubernetes.io/not-ready") {
            // The receiver is gone once all are ready.
            let _ = sender.send(node.name_any());
        }
    });
    let mut missing: BTreeSet<&String> = names.iter().collect();
    let all = async {
        while !missing.is_empty() {
            match ready.recv().await {
                Some(name) => missing.remove(&name),
                None => break,
            };
        }
    };
    let in_time = tokio::time::timeout(READY_WITHIN, all).await.is_ok();
    watching.shutdown().await;
    if !in_time {
        bail!("nodes {missing:?} are not Ready after {READY_WITHIN:?}; `loadline describe nodes` says why");
    }
    Ok(())
}
