//! Wakes on Services and slices, plans, and hands each transaction to nft.

use std::collections::{BTreeMap, HashSet};
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use kube::ResourceExt;
use loadline_client::Scope;
use prometheus::{Histogram, IntCounter, register_histogram, register_int_counter};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::plan::{self, Rules};
use crate::pod_network::{NetworkError, Result};
use crate::services::{Key, Services};

/// How long the next try waits when the kernel refused a transaction.
const RETRY: Duration = Duration::from_secs(1);

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static SYNC_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "How long it takes to plan and program a change of Services or endpoints."
    )
    .unwrap()
});
#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static SYNC_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    register_int_counter!("loadline_proxy_sync_failures_total", "Transactions that the kernel refused.")
        .unwrap()
});

#[derive(Clone, Debug)]
pub struct Config {
    pub cluster_id: String,
    pub cluster_cidr: Ipv4Net,
}

/// What changed since the last transaction.
#[derive(Default)]
struct Dirty {
    services: Mutex<HashSet<Key>>,
    wake: Notify,
}

impl Dirty {
    fn add(&self, key: Key) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.wake.notify_one();
    }

    fn take(&self) -> HashSet<Key> {
        std::mem::take(&mut self.services.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Programs this network namespace until the scope ends. The rules stay in force afterwards: traffic flows on while
/// the process is away.
pub fn start(scope: &Scope, services: Services, config: Config) {
    scope.spawn("service proxy", run(services, config));
}

async fn run(services: Services, config: Config) {
    services.synced().await;
    let dirty = Arc::new(Dirty::default());
    services.on_change({
        let dirty = dirty.clone();
        move |key| dirty.add(key)
    });

    let table = table(&config.cluster_id);
    let mut by_key: BTreeMap<Key, Rules> = BTreeMap::new();
    let mut in_force: Option<Rules> = None;
    loop {
        let started = std::time::Instant::now();
        let changed = dirty.take();
        let mut next = in_force.clone().unwrap_or_default();
        for key in &changed {
            for id in by_key.remove(key).unwrap_or_default().keys() {
                next.remove(id);
            }
            let Some(service) = services.services.get(&key.0, &key.1) else { continue };
            let rules: Rules = plan::service_rules(&service, &services.slices(key))
                .into_iter()
                .map(|r| (r.id.clone(), r))
                .collect();
            next.extend(rules.clone());
            by_key.insert(key.clone(), rules);
        }
        let script = match &in_force {
            Some(old) => plan::update(&table, old, &next),
            None => plan::replace(&table, &config.cluster_cidr.to_string(), &next),
        };
        match if script.is_empty() { Ok(()) } else { nft(&script).await } {
            Ok(()) => {
                SYNC_SECONDS.observe(started.elapsed().as_secs_f64());
                if in_force.is_none() {
                    info!(table, services = next.len(), "service rules in force");
                }
                in_force = Some(next);
                dirty.wake.notified().await;
            }
            Err(error) => {
                // Somebody else may have changed the table: make it anew from all that is known.
                warn!(%error, "service rules refused, replacing the table");
                debug!(script, "refused transaction");
                SYNC_FAILURES.inc();
                in_force = None;
                for service in services.services.all() {
                    dirty.add((service.namespace().unwrap_or_default(), service.name_any()));
                }
                by_key.clear();
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Removes the table of a cluster from this network namespace.
pub async fn remove_all(cluster_id: &str) -> Result<()> {
    let table = table(cluster_id);
    nft(&format!("add table ip {table}\ndelete table ip {table}\n")).await
}

fn table(cluster_id: &str) -> String {
    let safe: String = cluster_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("loadline_{safe}")
}

/// One atomic transaction.
async fn nft(script: &str) -> Result<()> {
    let step = "run nft";
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetworkError::at(step))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()).await,
        None => Ok(()),
    };
    // A broken pipe only says that nft ended early; why it did is in its own words.
    let output = child.wait_with_output().await.map_err(NetworkError::at(step))?;
    if output.status.success() {
        written.map_err(NetworkError::at(step))
    } else {
        Err(NetworkError::at(step)(String::from_utf8_lossy(&output.stderr).trim()))
    }
}
