//! `loadline explain`: the last decisions of an autoscaler in plain words.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::commands::get_json;
use crate::connect::ConnectArgs;
use crate::output::{self, Format};
use crate::resources::{Resources, targets};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline explain hpa/web
  loadline explain scalingpolicy/web --last 3 -o json

For the fields of a kind, use kubectl explain.")]
pub struct ExplainArgs {
    /// hpa/NAME or scalingpolicy/NAME
    what: String,
    /// How many decisions, newest last
    #[arg(long, default_value_t = 10)]
    last: usize,
    /// Those that changed nothing too
    #[arg(long)]
    all: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(connect: &ConnectArgs, args: ExplainArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection.client).await?;
    let targets = targets(&resources, std::slice::from_ref(&args.what))?;
    let [target] = targets.as_slice() else { bail!("name one autoscaler, e.g. hpa/web") };
    let Some(name) = &target.name else { bail!("name the autoscaler, e.g. {}/web", args.what) };
    if !matches!(target.resource.plural.as_str(), "horizontalpodautoscalers" | "scalingpolicies") {
        bail!("{} makes no scaling decisions; name hpa/NAME or scalingpolicy/NAME", args.what);
    }
    let mut resource = target.resource.clone();
    if resource.plural == "horizontalpodautoscalers" {
        resource.version = "v2".to_owned();
    }
    let path = format!("{}/decisions", resource.path(Some(&connection.namespace), Some(name)));
    let list = get_json(&connection.client, &path).await?;
    let all: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    // The newest decision is always shown: it says why things are as they are.
    let newest = all.len().saturating_sub(1);
    let mut chosen: Vec<&Value> = all
        .iter()
        .enumerate()
        .filter(|(i, d)| args.all || *i == newest || d["currentReplicas"] != d["desiredReplicas"])
        .map(|(_, d)| *d)
        .collect();
    chosen.drain(..chosen.len().saturating_sub(args.last));
    if matches!(args.output, Format::Json | Format::Yaml) {
        return output::print_object(
            &Value::from(chosen.into_iter().cloned().collect::<Vec<_>>()),
            args.output,
        );
    }
    if chosen.is_empty() {
        return output::print(&format!("{}: no decision yet\n", args.what));
    }
    for decision in chosen {
        output::print(&text(decision))?;
    }
    Ok(())
}

fn text(decision: &Value) -> String {
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut text = format!(
        "{}  {} -> {}  {}\n",
        plain(&decision["time"]),
        decision["currentReplicas"],
        decision["desiredReplicas"],
        plain(&decision["summary"])
    );
    for line in decision["details"].as_array().into_iter().flatten() {
        text.push_str(&format!("    {}\n", plain(line)));
    }
    text
}
