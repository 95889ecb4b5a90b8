//! `loadline apply`: server-side apply, so that what others set stays theirs.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use http::Request;
use serde_json::Value;

use crate::commands::{MANAGER, query};
use crate::connect::{ConnectArgs, Connection};
use crate::manifest;
use crate::output::{self, Format};
use crate::resources::Resources;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline apply -f examples/
  loadline apply -f deployment.yaml --dry-run
  cat service.yaml | loadline apply -f -")]
pub struct ApplyArgs {
    /// Files, directories, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Check and show, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take over fields that another manager has set
    #[arg(long)]
    force_conflicts: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(connect: &ConnectArgs, args: ApplyArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let objects = manifest::read(&args.filename)?;
    let resources = Resources::discover(&connection.client).await?;
    let mut failed = 0;
    for object in &objects {
        if let Err(error) = apply(&connection, &resources, object, &args).await {
            eprintln!("error: {error:#}");
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} of {} objects were not applied", objects.len());
    }
    Ok(())
}

async fn apply(
    connection: &Connection,
    resources: &Resources,
    object: &Value,
    args: &ApplyArgs,
) -> Result<()> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).unwrap_or_default();
    let resource = resources.of(&text(&object["apiVersion"]).unwrap_or_default(), &kind)?;
    let name = text(&object["metadata"]["name"])
        .with_context(|| format!("a {kind} has no metadata.name, which apply needs"))?;
    let namespace = text(&object["metadata"]["namespace"]).unwrap_or_else(|| connection.namespace.clone());
    let path = resource.path(Some(&namespace), Some(&name));
    let before: Option<Value> = match connection.client.request(Request::get(&path).body(Vec::new())?).await {
        Ok(found) => Some(found),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(e) => return Err(e.into()),
    };
    let mut pairs = vec![("fieldManager", MANAGER), ("fieldValidation", "Strict")];
    if args.dry_run {
        pairs.push(("dryRun", "All"));
    }
    if args.force_conflicts {
        pairs.push(("force", "true"));
    }
    let request = Request::patch(format!("{path}{}", query(&pairs)))
        .header("Content-Type", "application/apply-patch+yaml")
        .body(serde_json::to_vec(object)?)?;
    let shown = format!("{}/{name}", resource.singular_with_group());
    let after: Value = connection.client.request(request).await.with_context(|| shown.clone())?;
    match args.output {
        Format::Json | Format::Yaml => return output::print_object(&after, args.output),
        Format::Name => return output::print(&format!("{shown}\n")),
        Format::Table | Format::Wide => {}
    }
    let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
    let what = match before {
        None => "created",
        Some(before) if version(&before) == version(&after) => "unchanged",
        Some(_) => "configured",
    };
    output::print(&format!("{shown} {what}{}\n", if args.dry_run { " (dry run)" } else { "" }))
}
