//! `loadline events`

use anyhow::Result;
use clap::Args;
use http::Request;
use jiff::Timestamp;
use serde_json::Value;

use crate::commands::query;
use crate::connect::ConnectArgs;
use crate::output::{self, Columns};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline events
  loadline events --for deployment/web
  loadline events -A --types Warning")]
pub struct EventsArgs {
    /// Only about this object, KIND/NAME
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only Normal or Warning
    #[arg(long)]
    types: Option<String>,
}

pub async fn run(connect: &ConnectArgs, args: EventsArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let mut fields = Vec::new();
    let kind = args.about.as_deref().and_then(|a| a.split_once('/'));
    if let Some((_, name)) = kind {
        fields.push(format!("involvedObject.name={name}"));
    }
    fields.extend(args.types.as_ref().map(|t| format!("type={t}")));
    let path = match args.all_namespaces {
        true => "/api/v1/events".to_owned(),
        false => format!("/api/v1/namespaces/{}/events", connection.namespace),
    };
    let fields = fields.join(",");
    let pairs: Vec<_> =
        (!fields.is_empty()).then_some(("fieldSelector", fields.as_str())).into_iter().collect();
    let list: Value =
        connection.client.request(Request::get(path + &query(&pairs)).body(Vec::new())?).await?;
    let mut events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    if let Some((kind, _)) = kind {
        events.retain(|e| e["involvedObject"]["kind"].as_str().is_some_and(|k| is_kind(k, kind)));
    }
    output::print(&table(&mut events, Timestamp::now(), args.all_namespaces))
}

fn is_kind(kind: &str, word: &str) -> bool {
    let short = match word {
        "po" => "pod",
        "deploy" => "deployment",
        "rs" => "replicaset",
        "svc" => "service",
        "no" => "node",
        "hpa" => "horizontalpodautoscaler",
        other => other,
    };
    kind.eq_ignore_ascii_case(short) || kind.eq_ignore_ascii_case(short.strip_suffix('s').unwrap_or(short))
}

/// Oldest first; for `describe` too.
pub(crate) fn table(events: &mut [&Value], now: Timestamp, namespaces: bool) -> String {
    events.sort_by_key(|e| seen(e));
    if events.is_empty() {
        return "No events found.\n".to_owned();
    }
    let mut header = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let mut columns = Columns::new(&header);
    let text = |v: &Value| v.as_str().unwrap_or_default().trim().to_owned();
    for event in events {
        let age = seen(event).map_or_else(
            || "<unknown>".to_owned(),
            |at| loadline_api::printers::human_duration(now.as_second() - at.as_second()),
        );
        let about = &event["involvedObject"];
        let mut cells = vec![
            age,
            text(&event["type"]),
            text(&event["reason"]),
            format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"])),
            text(&event["message"]),
        ];
        if namespaces {
            cells.insert(0, text(&event["metadata"]["namespace"]));
        }
        columns.row(cells);
    }
    columns.to_string()
}

fn seen(event: &Value) -> Option<Timestamp> {
    [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ]
    .iter()
    .find_map(|t| t.as_str()?.parse().ok())
}
