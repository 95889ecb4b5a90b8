//! `loadline server`: the control plane alone.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Args;

use crate::cluster::assemble::{ControlPlane, Role};
use crate::cluster::{ControlPlaneArgs, stop_signal};
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline server --data-dir /var/lib/loadline
  loadline server --store etcd=http://10.0.0.1:2379,http://10.0.0.2:2379
  loadline server --roles api --listen 127.0.0.1:6443 --token-auth-file tokens.csv")]
pub struct ServerArgs {
    #[command(flatten)]
    control_plane: ControlPlaneArgs,
    /// What runs in this process
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Role::ALL)]
    roles: Vec<Role>,
}

pub async fn run(args: ServerArgs) -> Result<()> {
    let roles: BTreeSet<Role> = args.roles.into_iter().collect();
    if !roles.contains(&Role::Api) {
        bail!("--roles without api is not supported yet: the other roles reach the API in this process");
    }
    let plane = ControlPlane::start(&args.control_plane, &roles).await?;
    output::print(&format!("ready {}\n", plane.url()))?;
    let failed = tokio::select! {
        stopped = stop_signal() => { stopped?; None }
        failed = plane.scope.ended() => failed,
    };
    plane.shutdown().await;
    match failed {
        Some(how) => bail!("stopped because a part failed: {how}"),
        None => Ok(()),
    }
}
