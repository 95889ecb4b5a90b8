//! `loadline describe`: an object in an order that people read, and the events about it.

use anyhow::Result;
use clap::Args;
use http::Request;
use jiff::Timestamp;
use serde_json::Value;

use crate::commands::{events, get_json, query};
use crate::connect::{ConnectArgs, Connection};
use crate::output;
use crate::resources::{Resource, Resources, targets};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline describe pod/web-1
  loadline describe deploy web
  loadline describe nodes")]
pub struct DescribeArgs {
    /// TYPE [NAME...] or TYPE/NAME...
    #[arg(required = true)]
    what: Vec<String>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

pub async fn run(connect: &ConnectArgs, args: DescribeArgs) -> Result<()> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection.client).await?;
    let mut first = true;
    for target in targets(&resources, &args.what)? {
        let path = target.resource.path(Some(&connection.namespace), target.name.as_deref());
        let objects = if target.name.is_some() {
            vec![get_json(&connection.client, &path).await?]
        } else {
            let pairs: Vec<_> = args.selector.iter().map(|s| ("labelSelector", s.as_str())).collect();
            let list: Value =
                connection.client.request(Request::get(path + &query(&pairs)).body(Vec::new())?).await?;
            list["items"].as_array().cloned().unwrap_or_default()
        };
        for object in objects {
            if !first {
                output::print("\n\n")?;
            }
            first = false;
            describe(&connection, target.resource, &object).await?;
        }
    }
    Ok(())
}

async fn describe(connection: &Connection, resource: &Resource, object: &Value) -> Result<()> {
    output::print(&text(resource, object))?;
    let meta = &object["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let mut selector = format!("involvedObject.name={name},involvedObject.kind={}", resource.kind);
    if let (Some(uid), true) = (meta["uid"].as_str(), resource.kind != "Node") {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    // Events about cluster-wide objects live in `default`.
    let namespace = meta["namespace"].as_str().unwrap_or("default");
    let path = format!("/api/v1/namespaces/{namespace}/events{}", query(&[("fieldSelector", &selector)]));
    let list = get_json(&connection.client, &path).await?;
    let mut found: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    if found.is_empty() {
        return output::print("Events:       <none>\n");
    }
    output::print("Events:\n")?;
    for line in events::table(&mut found, Timestamp::now(), false).lines() {
        output::print(&format!("  {line}\n"))?;
    }
    Ok(())
}

/// Name, labels and annotations first, then spec and status, without what only machines read.
fn text(resource: &Resource, object: &Value) -> String {
    let meta = &object["metadata"];
    let mut out = String::new();
    let mut line = |key: &str, value: String| out.push_str(&format!("{:<14}{value}\n", format!("{key}:")));
    let plain = |v: &Value| v.as_str().unwrap_or("<none>").to_owned();
    line("Name", plain(&meta["name"]));
    if resource.namespaced {
        line("Namespace", plain(&meta["namespace"]));
    }
    line("Created", plain(&meta["creationTimestamp"]));
    if let Some(deleted) = meta["deletionTimestamp"].as_str() {
        line("Terminating", format!("since {deleted}"));
    }
    for (title, key) in [("Labels", "labels"), ("Annotations", "annotations")] {
        let pairs: Vec<String> = meta[key]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != "kubectl.kubernetes.io/last-applied-configuration")
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        line(title, if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(&format!("\n{:14}", "")) });
    }
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        line("Controlled By", format!("{}/{}", plain(&owner["kind"]), plain(&owner["name"])));
    }
    let secret = resource.kind == "Secret" && resource.group.is_empty();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            "data" | "stringData" if secret => {
                out.push_str("Data:\n");
                for (name, value) in value.as_object().into_iter().flatten() {
                    let bytes = value.as_str().map_or(0, |v| v.trim_end_matches('=').len() * 3 / 4);
                    out.push_str(&format!("  {name}: {bytes} bytes\n"));
                }
            }
            _ => section(&mut out, &title(key), value, 0),
        }
    }
    out
}

fn section(out: &mut String, name: &str, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str(&format!("{pad}{name}: <none>\n")),
        Value::Object(fields) => {
            out.push_str(&format!("{pad}{name}:\n"));
            for (key, value) in fields {
                section(out, &title(key), value, depth + 1);
            }
        }
        Value::Array(items) if items.is_empty() => out.push_str(&format!("{pad}{name}: <none>\n")),
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            let all: Vec<String> = items.iter().map(scalar).collect();
            out.push_str(&format!("{pad}{name}: {}\n", all.join(", ")));
        }
        Value::Array(items) => {
            out.push_str(&format!("{pad}{name}:\n"));
            for (i, item) in items.iter().enumerate() {
                let label = ["name", "type", "ip", "key"].iter().find_map(|k| item[*k].as_str());
                section(out, &label.map_or_else(|| format!("[{i}]"), |l| format!("- {l}")), item, depth + 1);
            }
        }
        other => out.push_str(&format!("{pad}{name}: {}\n", scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `podIP` → `Pod IP`
fn title(key: &str) -> String {
    let mut out = String::new();
    let mut previous = ' ';
    for c in key.chars() {
        if c.is_uppercase() && previous.is_lowercase() {
            out.push(' ');
        }
        out.extend(if out.is_empty() { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] });
        previous = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(kind: &str) -> Resource {
        Resource {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            plural: String::new(),
            singular: String::new(),
            short_names: vec![],
            categories: vec![],
            namespaced: true,
            verbs: vec![],
        }
    }

    #[test]
    fn a_secret_shows_sizes_and_never_values() {
        let object =
            json!({"metadata": {"name": "s", "namespace": "n"}, "data": {"password": "aHVudGVyMg=="}});
        let shown = text(&resource("Secret"), &object);
        assert!(shown.contains("password: 7 bytes"), "{shown}");
        assert!(!shown.contains("aHVudGVyMg"), "{shown}");
    }

    #[test]
    fn objects_read_as_an_outline() {
        let object = json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "args": ["x", "y"]}]}, "status": {"podIP": "10.0.0.1"},
        });
        let shown = text(&resource("Pod"), &object);
        assert!(shown.ends_with("Spec:\n  Containers:\n    - c:\n      Args: x, y\n      Name: c\nStatus:\n  Pod IP: 10.0.0.1\n"), "{shown}");
    }
}
