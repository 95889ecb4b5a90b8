//! `loadline top`: what nodes and pods use now.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use loadline_api::quantity::Quantity;
use serde_json::Value;

use crate::commands::{get_json, query};
use crate::connect::{ConnectArgs, Connection};
use crate::output::{self, Columns};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline top nodes
  loadline top pods -A --sort-by memory")]
pub struct TopArgs {
    #[arg(value_enum)]
    what: What,
    /// One node or pod
    name: Option<String>,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// One line for each container
    #[arg(long)]
    containers: bool,
    #[arg(long, value_enum, default_value = "cpu")]
    sort_by: SortBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(aliases = ["node", "no"])]
    Nodes,
    #[value(aliases = ["pod", "po"])]
    Pods,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
    Name,
}

/// CPU in milli-cores, memory in bytes.
struct Usage {
    names: Vec<String>,
    cpu: i64,
    memory: i64,
}

impl Usage {
    fn new(names: Vec<String>, usages: &[&Value]) -> Result<Self> {
        let sum = |key: &str| -> Result<Quantity> {
            let mut total = Quantity::default();
            for usage in usages {
                total.add(&Quantity::from_value(&usage[key]).with_context(|| format!("a {key} quantity"))?);
            }
            Ok(total)
        };
        Ok(Self { names, cpu: sum("cpu")?.milli_value(), memory: sum("memory")?.value() })
    }
}

pub async fn run(connect: &ConnectArgs, args: TopArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let mut usages = match args.what {
        What::Nodes => items(&connection, "/apis/metrics.k8s.io/v1beta1/nodes", &args)
            .await?
            .iter()
            .map(|n| Usage::new(vec![name(n)], &[&n["usage"]]))
            .collect::<Result<Vec<_>>>()?,
        What::Pods => pods(&connection, &args).await?,
    };
    match args.sort_by {
        SortBy::Cpu => usages.sort_by_key(|u| -u.cpu),
        SortBy::Memory => usages.sort_by_key(|u| -u.memory),
        SortBy::Name => usages.sort_by(|a, b| a.names.cmp(&b.names)),
    }
    let mut header = vec![];
    if args.what == What::Pods && args.all_namespaces {
        header.push("NAMESPACE");
    }
    header.push(if args.what == What::Pods { "POD" } else { "NAME" });
    if args.what == What::Pods && args.containers {
        header.push("NAME");
    }
    header.extend(["CPU(cores)", "MEMORY(bytes)"]);
    let mut columns = Columns::new(&header);
    for usage in usages {
        let mut cells = usage.names;
        cells.push(format!("{}m", usage.cpu));
        cells.push(format!("{}Mi", usage.memory / (1024 * 1024)));
        columns.row(cells);
    }
    if columns.is_empty() {
        eprintln!("No metrics yet; the first come a second or two after a container starts");
        return Ok(());
    }
    output::print(&columns.to_string())
}

async fn pods(connection: &Connection, args: &TopArgs) -> Result<Vec<Usage>> {
    let path = match args.all_namespaces {
        true => "/apis/metrics.k8s.io/v1beta1/pods".to_owned(),
        false => format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", connection.namespace),
    };
    let mut usages = Vec::new();
    for pod in items(connection, &path, args).await? {
        let mut names = Vec::new();
        if args.all_namespaces {
            names.push(pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
        }
        names.push(name(&pod));
        let containers: Vec<&Value> = pod["containers"].as_array().into_iter().flatten().collect();
        if args.containers {
            for container in containers {
                let mut own = names.clone();
                own.push(container["name"].as_str().unwrap_or_default().to_owned());
                usages.push(Usage::new(own, &[&container["usage"]])?);
            }
        } else {
            let all: Vec<&Value> = containers.iter().map(|c| &c["usage"]).collect();
            usages.push(Usage::new(names, &all)?);
        }
    }
    Ok(usages)
}

async fn items(connection: &Connection, path: &str, args: &TopArgs) -> Result<Vec<Value>> {
    if let Some(name) = &args.name {
        return Ok(vec![get_json(&connection.client, &format!("{path}/{name}")).await?]);
    }
    let pairs: Vec<_> = args.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
    let list = get_json(&connection.client, &format!("{path}{}", query(&pairs))).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
