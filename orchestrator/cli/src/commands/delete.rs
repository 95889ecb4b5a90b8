//! `loadline delete`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::commands::query;
use crate::connect::{ConnectArgs, Connection};
use crate::load::parse_duration;
use crate::resources::{Resources, targets};
use crate::{manifest, output};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline delete pod/web-1
  loadline delete -f examples/
  loadline delete pods -l app=web --cascade orphan")]
pub struct DeleteArgs {
    /// TYPE [NAME...] or TYPE/NAME...
    what: Vec<String>,
    /// Delete what these files hold
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "what")]
    filename: Vec<PathBuf>,
    /// Delete those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Delete all of the type in the namespace
    #[arg(long)]
    all: bool,
    /// What becomes of the objects that belong to it
    #[arg(long, value_enum, default_value = "background")]
    cascade: Cascade,
    /// Seconds that a pod has to end
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<i64>,
    /// Do not wait until it is gone
    #[arg(long)]
    no_wait: bool,
    #[arg(long)]
    ignore_not_found: bool,
    /// How long to wait
    #[arg(long, value_parser = |s: &str| parse_duration(s).ok_or("write a duration such as 30s"), default_value = "5m")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

pub async fn run(connect: &ConnectArgs, args: DeleteArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection.client).await?;
    let mut doomed = Vec::new();
    if args.filename.is_empty() {
        for target in targets(&resources, &args.what)? {
            match &target.name {
                Some(name) => {
                    let path = target.resource.path(Some(&connection.namespace), Some(name));
                    doomed.push((target.resource.singular_with_group(), name.clone(), path));
                }
                None if args.selector.is_some() || args.all => {
                    let collection = target.resource.path(Some(&connection.namespace), None);
                    let pairs: Vec<_> = args.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
                    let list: Value = connection
                        .client
                        .request(Request::get(collection.clone() + &query(&pairs)).body(Vec::new())?)
                        .await?;
                    for item in list["items"].as_array().into_iter().flatten() {
                        let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                        let path = format!("{collection}/{name}");
                        doomed.push((target.resource.singular_with_group(), name, path));
                    }
                }
                None => bail!("name what to delete, or say -l SELECTOR or --all"),
            }
        }
    } else {
        // In reverse, so that what came last and may need the others goes first.
        for object in manifest::read(&args.filename)?.into_iter().rev() {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let resource = resources.of(&text(&object["apiVersion"]), &text(&object["kind"]))?;
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&connection.namespace);
            let name = text(&object["metadata"]["name"]);
            doomed.push((
                resource.singular_with_group(),
                name.clone(),
                resource.path(Some(namespace), Some(&name)),
            ));
        }
    }
    for (kind, name, path) in &doomed {
        delete(&connection, kind, name, path, &args).await?;
    }
    if !args.no_wait {
        let deadline = Instant::now() + args.timeout;
        for (kind, name, path) in &doomed {
            gone(&connection, path, deadline)
                .await
                .map_err(|e| e.context(format!("{kind}/{name} is not gone yet")))?;
        }
    }
    Ok(())
}

async fn delete(
    connection: &Connection,
    kind: &str,
    name: &str,
    path: &str,
    args: &DeleteArgs,
) -> Result<()> {
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": match args.cascade {
        Cascade::Background => "Background",
        Cascade::Foreground => "Foreground",
        Cascade::Orphan => "Orphan",
    }});
    if let Some(seconds) = args.grace_period {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    let request = Request::delete(path)
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(&options)?)?;
    match connection.client.request::<Value>(request).await {
        Ok(_) => output::print(&format!("{kind} {name:?} deleted\n")),
        Err(kube::Error::Api(status)) if status.code == 404 && args.ignore_not_found => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Waits until the object is gone, or another has taken its name.
async fn gone(connection: &Connection, path: &str, deadline: Instant) -> Result<()> {
    let mut uid = None;
    loop {
        match connection.client.request::<Value>(Request::get(path).body(Vec::new())?).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(e) => return Err(e.into()),
            Ok(found) => {
                let now = found["metadata"]["uid"].clone();
                if found["metadata"]["deletionTimestamp"].is_null() || uid.as_ref().is_some_and(|u| *u != now)
                {
                    return Ok(());
                }
                uid = Some(now);
            }
        }
        if Instant::now() > deadline {
            bail!("gave up waiting; finalizers or a lost node may hold it");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
