//! `loadline down`: everything of a cluster is removed from this machine, and nothing else.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use loadline_network::{bridge, dns, proxy};
use loadline_runtime::docker;

use crate::cluster::cluster_id;
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline down --data-dir ./cluster
  loadline down --data-dir ./cluster --keep-data")]
pub struct DownArgs {
    /// The data directory of the cluster
    #[arg(long, value_name = "DIR", default_value = "/var/lib/loadline")]
    pub data_dir: PathBuf,
    /// Leave the directory, so that `loadline up` starts the same objects again
    #[arg(long)]
    pub keep_data: bool,
    /// Addresses of Services, as given to `loadline up`
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cidr: ipnet::Ipv4Net,
}

impl DownArgs {
    /// Remove the cluster in `data_dir` that runs with the usual ranges.
    pub fn of(data_dir: PathBuf) -> Self {
        Self { data_dir, keep_data: false, service_cidr: crate::cluster::DEFAULT_SERVICE_CIDR }
    }
}

pub async fn run(args: DownArgs) -> Result<()> {
    if !args.data_dir.join("cluster-id").exists() {
        bail!("{} is no cluster's data directory: it has no cluster-id", args.data_dir.display());
    }
    let id = cluster_id(&args.data_dir)?;
    let containers =
        docker::remove_cluster("/var/run/docker.sock", &id).await.context("removing containers")?;
    bridge::remove_all(&id).await.context("removing links")?;
    proxy::remove_all(&id).await.context("removing Service rules")?;
    let address = std::net::Ipv4Addr::from(u32::from(args.service_cidr.network()) + 10);
    dns::remove_address(address).await.context("removing the DNS server's address")?;
    if !args.keep_data {
        std::fs::remove_dir_all(&args.data_dir)
            .with_context(|| format!("removing {}", args.data_dir.display()))?;
    }
    output::print(&format!("cluster {id} removed: {containers} containers, its links and rules\n"))
}
