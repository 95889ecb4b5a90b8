//! `loadline get`

use anyhow::{Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};

use crate::commands::{TABLE, query};
use crate::connect::{ConnectArgs, Connection};
use crate::output::{self, Columns, Format, TableOptions};
use crate::resources::{Resources, Target, targets};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline get pods
  loadline get deploy,svc -A -o wide
  loadline get pod/web-1 -o yaml
  loadline get pods -l app=web --watch")]
pub struct GetArgs {
    /// TYPE[,TYPE] [NAME...] or TYPE/NAME...
    #[arg(required = true)]
    what: Vec<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// In every namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only objects with these fields, e.g. status.phase=Running
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Go on showing changes
    #[arg(short, long)]
    watch: bool,
    #[arg(long)]
    show_labels: bool,
    #[arg(long)]
    no_headers: bool,
}

pub async fn run(connect: &ConnectArgs, args: GetArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection.client).await?;
    let targets = targets(&resources, &args.what)?;
    match args.output {
        Format::Table | Format::Wide if args.watch => watch(&connection, &targets, &args).await,
        Format::Table | Format::Wide => tables(&connection, &targets, &args).await,
        _ if args.watch => bail!("--watch shows a table; leave -o away or give -o wide"),
        _ => objects(&connection, &targets, &args).await,
    }
}

impl GetArgs {
    fn path(&self, connection: &Connection, target: &Target<'_>, extra: &[(&str, &str)]) -> String {
        let namespace = (!self.all_namespaces).then_some(connection.namespace.as_str());
        let mut pairs = extra.to_vec();
        if target.name.is_none() {
            pairs.extend(self.selector.as_deref().map(|s| ("labelSelector", s)));
            pairs.extend(self.field_selector.as_deref().map(|s| ("fieldSelector", s)));
        }
        format!("{}{}", target.resource.path(namespace, target.name.as_deref()), query(&pairs))
    }

    fn table_options(&self, target: &Target<'_>, several: bool) -> TableOptions {
        TableOptions {
            wide: self.output == Format::Wide,
            namespace: self.all_namespaces && target.resource.namespaced,
            labels: self.show_labels,
            no_headers: self.no_headers,
            with_kind: several,
        }
    }
}

async fn tables(connection: &Connection, targets: &[Target<'_>], args: &GetArgs) -> Result<()> {
    let several = targets.windows(2).any(|w| w[0].resource != w[1].resource);
    let mut found = false;
    let mut columns = Columns::default();
    for (i, target) in targets.iter().enumerate() {
        if i > 0 && targets[i - 1].resource != target.resource {
            flush(&mut columns, &mut found)?;
        }
        let request =
            Request::get(args.path(connection, target, &[])).header("Accept", TABLE).body(Vec::new())?;
        let answer: Value = connection.client.request(request).await?;
        if answer["rows"].as_array().is_some_and(|r| !r.is_empty()) {
            let kind = target.resource.singular_with_group();
            output::table(&answer, &kind, args.table_options(target, several), &mut columns);
        }
    }
    flush(&mut columns, &mut found)?;
    if !found {
        match args.all_namespaces {
            true => eprintln!("No resources found"),
            false => eprintln!("No resources found in {} namespace.", connection.namespace),
        }
    }
    Ok(())
}

/// Prints one kind's table, with a blank line before all but the first.
fn flush(columns: &mut Columns, found: &mut bool) -> Result<()> {
    let table = std::mem::take(columns).to_string();
    if !table.is_empty() {
        output::print(&if *found { format!("\n{table}") } else { table })?;
        *found = true;
    }
    Ok(())
}

async fn objects(connection: &Connection, targets: &[Target<'_>], args: &GetArgs) -> Result<()> {
    let mut items = Vec::new();
    for target in targets {
        let request = Request::get(args.path(connection, target, &[])).body(Vec::new())?;
        let answer: Value = connection.client.request(request).await?;
        let list = answer["items"].as_array().filter(|_| target.name.is_none()).cloned();
        for mut item in list.unwrap_or_else(|| vec![answer]) {
            if args.output == Format::Name {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                output::print(&format!("{}/{name}\n", target.resource.singular_with_group()))?;
            }
            // Items of a list come without these.
            item["apiVersion"] = json!(target.resource.api_version());
            item["kind"] = json!(target.resource.kind);
            items.push(item);
        }
    }
    match (args.output, items.as_slice()) {
        (Format::Name, _) => Ok(()),
        (format, [one]) if targets[0].name.is_some() => output::print_object(one, format),
        (format, many) => {
            output::print_object(&json!({"apiVersion": "v1", "kind": "List", "items": many}), format)
        }
    }
}

async fn watch(connection: &Connection, targets: &[Target<'_>], args: &GetArgs) -> Result<()> {
    let [target] = targets else { bail!("--watch follows one type at a time") };
    if target.name.is_some() {
        bail!("--watch follows a whole type; choose with -l or --field-selector metadata.name=NAME");
    }
    let path = args.path(connection, target, &[("watch", "true")]);
    let request = Request::get(path).header("Accept", TABLE).body(Vec::new())?;
    let mut lines = connection.client.request_stream(request).await?.lines();
    let mut definitions = Value::Null;
    let mut first = true;
    while let Some(line) = lines.try_next().await? {
        let event: Value = serde_json::from_str(&line)?;
        let mut table = event["object"].clone();
        match event["type"].as_str() {
            Some("ERROR") => bail!("the watch ended: {}", table["message"].as_str().unwrap_or_default()),
            Some("BOOKMARK") => continue,
            _ => {}
        }
        // Only the first event carries the columns.
        if table["columnDefinitions"].is_array() {
            definitions = table["columnDefinitions"].clone();
        }
        table["columnDefinitions"] = definitions.clone();
        let mut options = args.table_options(target, false);
        options.no_headers |= !first;
        first = false;
        let mut columns = Columns::default();
        output::table(&table, "", options, &mut columns);
        output::print(&columns.to_string())?;
    }
    Ok(())
}
