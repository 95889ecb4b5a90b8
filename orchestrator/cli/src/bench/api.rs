//! The API server under load, over TLS, from a generator on the same cores.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use serde_json::json;

use super::client::hammer;
use super::cluster::Process;
use super::{Figure, disk};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str) -> Bytes {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"key": "value", "more": "x".repeat(200)},
    });
    Bytes::from(body.to_string())
}

pub async fn measure(dir: &Path, time: Duration) -> Result<Vec<Figure>> {
    let appends = disk::synced_appends(dir, Duration::from_secs(2))?;
    let process = Process::start(dir, &["server", "--roles", "api"]).await?;
    let target = process.target()?;
    let mut first = target.connect().await?;
    for i in 0..500 {
        first.send("POST", CONFIG_MAPS, config_map(&format!("listed-{i}"))).await?;
    }
    let get =
        hammer(&target, 32, time, |_, _| ("GET", format!("{CONFIG_MAPS}/listed-7"), Bytes::new())).await?;
    let list = hammer(&target, 8, time, |_, _| ("GET", CONFIG_MAPS.to_owned(), Bytes::new())).await?;
    let one =
        hammer(&target, 1, time, |_, i| ("POST", CONFIG_MAPS.to_owned(), config_map(&format!("one-{i}"))))
            .await?;
    let create = hammer(&target, 32, time, |c, i| {
        ("POST", CONFIG_MAPS.to_owned(), config_map(&format!("many-{c}-{i}")))
    })
    .await?;
    process.end().await?;

    let process = Process::start(dir, &["server", "--roles", "api"]).await?;
    let target = process.target()?;
    let mut tasks = Vec::new();
    for client in 0..30 {
        let mut connection = target.connect().await?;
        tasks.push(tokio::spawn(async move {
            for i in 0..1000 {
                connection.send("POST", CONFIG_MAPS, config_map(&format!("kept-{client}-{i}"))).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let memory = process.memory_mb()?;
    process.end().await?;

    let one_writer =
        Figure::at_least("create (durable), 1 connection", one.per_second, "/s", 600.0, Some(460.0));
    let disk = Figure {
        name: "  the disk alone: 4 KiB append + fdatasync".to_owned(),
        value: appends,
        unit: "/s",
        goal: 0.0,
        goal_is_minimum: true,
        baseline: None,
        baseline_is: "",
    };
    Ok(vec![
        Figure::at_least("get one ConfigMap, 32 connections", get.per_second, "/s", 14_000.0, Some(3450.0)),
        Figure::at_least("list 500 ConfigMaps, 8 connections", list.per_second, "/s", 570.0, Some(114.0)),
        Figure::at_least("create (durable), 32 connections", create.per_second, "/s", 5000.0, Some(1970.0)),
        Figure::at_most("create (durable), 32 connections: p99", create.p99_ms, "ms", 30.0, Some(42.0)),
        one_writer,
        disk,
        Figure::at_most("memory with 30,000 ConfigMaps", memory, "MB", 200.0, Some(921.0)),
    ])
}
