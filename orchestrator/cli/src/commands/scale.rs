//! `loadline scale`: through the `/scale` subresource of whatever has one.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::commands::{get_json, patch};
use crate::connect::ConnectArgs;
use crate::output;
use crate::resources::{Resources, targets};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline scale deploy/web --replicas 5
  loadline scale deploy web api --replicas 2 --current-replicas 3")]
pub struct ScaleArgs {
    /// TYPE NAME... or TYPE/NAME...
    #[arg(required = true)]
    what: Vec<String>,
    #[arg(long)]
    replicas: u32,
    /// Only when there are this many now
    #[arg(long, value_name = "N")]
    current_replicas: Option<u32>,
}

pub async fn run(connect: &ConnectArgs, args: ScaleArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection.client).await?;
    for target in targets(&resources, &args.what)? {
        let Some(name) = &target.name else { bail!("name what to scale, e.g. deploy/web") };
        let path = format!("{}/scale", target.resource.path(Some(&connection.namespace), Some(name)));
        if let Some(expected) = args.current_replicas {
            let scale: Value = get_json(&connection.client, &path).await?;
            let now = scale["spec"]["replicas"].as_u64().unwrap_or(0);
            if now != u64::from(expected) {
                bail!(
                    "{} {name:?} has {now} replicas, not {expected}",
                    target.resource.singular_with_group()
                );
            }
        }
        let body = json!({"spec": {"replicas": args.replicas}});
        patch(&connection.client, &path, "merge-patch+json", &body).await?;
        output::print(&format!("{}/{name} scaled\n", target.resource.singular_with_group()))?;
    }
    Ok(())
}
