//! `loadline logs`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{AsyncReadExt, StreamExt, stream::FuturesUnordered};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::core::Selector;
use kube::{Api, ResourceExt};

use crate::connect::{ConnectArgs, Connection};
use crate::load::parse_duration;
use crate::output;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline logs web-1
  loadline logs deploy/web --all-pods -f
  loadline logs web-1 --previous --tail 50")]
pub struct LogsArgs {
    /// A pod, deploy/NAME or rs/NAME
    #[arg(required_unless_present = "selector")]
    what: Option<String>,
    /// The container; by default the first
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Only what is newer, e.g. 5m
    #[arg(long, value_parser = |s: &str| parse_duration(s).ok_or("write a duration such as 5m"))]
    since: Option<Duration>,
    /// Of the instance before the last restart
    #[arg(short, long)]
    previous: bool,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Of all pods with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Of all pods of the workload, not just one
    #[arg(long)]
    all_pods: bool,
    /// Put the pod's name before each line
    #[arg(long)]
    prefix: bool,
}

pub async fn run(connect: &ConnectArgs, args: LogsArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let api = Api::<Pod>::namespaced(connection.client.clone(), &connection.namespace);
    let pods = pods(&connection, &api, &args).await?;
    let several = pods.len() > 1;
    let mut streams: FuturesUnordered<_> =
        pods.iter().map(|pod| stream(&api, pod, &args, several || args.prefix)).collect();
    let mut result = Ok(());
    while let Some(one) = streams.next().await {
        result = result.and(one);
    }
    result
}

/// The names of the pods that are meant.
async fn pods(connection: &Connection, api: &Api<Pod>, args: &LogsArgs) -> Result<Vec<String>> {
    let selector = match (&args.selector, args.what.as_deref()) {
        (Some(selector), _) => selector.clone(),
        (None, Some(what)) => match what.split_once('/') {
            None => return Ok(vec![what.to_owned()]),
            Some(("po" | "pod" | "pods", name)) => return Ok(vec![name.to_owned()]),
            Some((kind, name)) => workload_selector(connection, kind, name).await?,
        },
        (None, None) => bail!("name a pod, or give -l SELECTOR"),
    };
    let mut found: Vec<String> =
        api.list(&ListParams::default().labels(&selector)).await?.iter().map(ResourceExt::name_any).collect();
    if found.is_empty() {
        bail!("no pod in {:?} has the labels {selector}", connection.namespace);
    }
    if args.selector.is_none() && !args.all_pods {
        if found.len() > 1 {
            eprintln!("Found {} pods, using pod/{}; --all-pods shows all", found.len(), found[0]);
        }
        found.truncate(1);
    }
    Ok(found)
}

pub(crate) async fn workload_selector(connection: &Connection, kind: &str, name: &str) -> Result<String> {
    let (client, namespace) = (connection.client.clone(), connection.namespace.as_str());
    let selector = match kind {
        "deploy" | "deployment" | "deployments" => {
            Api::<Deployment>::namespaced(client, namespace).get(name).await?.spec.map(|s| s.selector)
        }
        "rs" | "replicaset" | "replicasets" => {
            Api::<ReplicaSet>::namespaced(client, namespace).get(name).await?.spec.map(|s| s.selector)
        }
        other => bail!("{other:?} has no logs; name a pod, deploy/NAME or rs/NAME"),
    };
    let selector = selector.with_context(|| format!("{kind}/{name} has no selector"))?;
    Ok(Selector::try_from(selector)?.to_string())
}

async fn stream(api: &Api<Pod>, pod: &str, args: &LogsArgs, prefix: bool) -> Result<()> {
    let params = LogParams {
        container: args.container.clone(),
        follow: args.follow,
        previous: args.previous,
        since_seconds: args.since.map(|s| i64::try_from(s.as_secs()).unwrap_or(i64::MAX).max(1)),
        tail_lines: args.tail,
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let mut lines = api.log_stream(pod, &params).await?;
    let mut pending = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = lines.read(&mut buffer).await?;
        pending.extend_from_slice(&buffer[..n]);
        let complete = if n == 0 {
            pending.len()
        } else {
            pending.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1)
        };
        let whole: Vec<u8> = pending.drain(..complete).collect();
        let text = String::from_utf8_lossy(&whole);
        if prefix {
            for line in text.lines() {
                output::print(&format!("[pod/{pod}] {line}\n"))?;
            }
        } else {
            output::print(&text)?;
        }
        if n == 0 {
            return Ok(());
        }
    }
}
