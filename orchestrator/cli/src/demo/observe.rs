//! What the demo sees of the cluster: watches for objects with the moment of each change, a poll for usage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use loadline_client::{Cache, Change, Scope};
use serde_json::Value;
use tokio::time::Instant;

use super::cluster::DemoCluster;
use crate::commands::get_json;

const NAMESPACE: &str = "default";
const NAME: &str = "web";
const POLICY: &str =
    "/apis/autoscaling.loadline.io/v1alpha1/namespaces/default/scalingpolicies/web/decisions";

#[derive(Clone, Debug, Default)]
pub struct SeenPod {
    pub name: String,
    pub uid: String,
    pub node: String,
    ready: bool,
    running: bool,
    terminating: bool,
    restarts: i32,
}

#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, SeenPod>,
    replicas: usize,
    /// When the numbers changed, and to what.
    replica_changes: Vec<(Instant, usize)>,
    ready_changes: Vec<(Instant, usize)>,
    cpu: Option<String>,
    decisions: Vec<String>,
}

pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    client: kube::Client,
    // Its watches end with it.
    scope: Scope,
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Observer {
    pub async fn start(cluster: &DemoCluster) -> Result<Self> {
        let file = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        let scope = Scope::new();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        let pods = Cache::start(&scope, pods, watcher::Config::default().labels("app=web"));
        let to = seen.clone();
        pods.on_change(move |change| locked(&to).pod_changed(change));
        let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
        let deployments = Cache::start(&scope, deployments, watcher::Config::default());
        let to = seen.clone();
        deployments.on_change(move |change| {
            if let (Change::Applied { new, .. }, NAME) = (change, change.object().name_any().as_str()) {
                let replicas = new.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                locked(&to).set_replicas(usize::try_from(replicas).unwrap_or(0));
            }
        });
        scope.spawn("usage", poll_usage(client.clone(), seen.clone()));
        Ok(Self { seen, client, scope })
    }

    /// `address:port` at which the Service is reached from this machine.
    pub async fn service_address(&self) -> Result<String> {
        let service = Api::<Service>::namespaced(self.client.clone(), NAMESPACE).get(NAME).await?;
        let ip = service.spec.and_then(|s| s.cluster_ip).context("the Service has no cluster IP")?;
        Ok(format!("{ip}:80"))
    }

    pub fn replicas(&self) -> usize {
        locked(&self.seen).replicas
    }

    pub fn ready(&self) -> usize {
        locked(&self.seen).ready()
    }

    pub fn cpu(&self) -> String {
        locked(&self.seen).cpu.clone().unwrap_or_else(|| "-".to_owned())
    }

    pub fn restarts(&self, pod: &str) -> i32 {
        locked(&self.seen).pods.get(pod).map_or(0, |p| p.restarts)
    }

    pub fn is_running(&self, pod: &str) -> bool {
        locked(&self.seen).pods.get(pod).is_some_and(|p| p.running)
    }

    /// Pods that are not being ended; on one node, or on all.
    pub fn pods_on(&self, node: Option<&str>) -> Vec<SeenPod> {
        let seen = locked(&self.seen);
        seen.pods.values().filter(|p| !p.terminating && node.is_none_or(|n| p.node == n)).cloned().collect()
    }

    pub fn decisions_seen(&self) -> usize {
        locked(&self.seen).decisions.len()
    }

    pub fn decisions_since(&self, shown: &mut usize) -> Vec<String> {
        let seen = locked(&self.seen);
        let new = seen.decisions[(*shown).min(seen.decisions.len())..].to_vec();
        *shown = seen.decisions.len();
        new
    }

    /// When the Deployment first wanted more than `than` replicas after `step`.
    pub fn scaled_out_after(&self, step: Instant, than: usize) -> Option<Instant> {
        first_above(&locked(&self.seen).replica_changes, step, than)
    }

    pub fn ready_after(&self, step: Instant, than: usize) -> Option<Instant> {
        first_above(&locked(&self.seen).ready_changes, step, than)
    }
}

fn first_above(changes: &[(Instant, usize)], after: Instant, than: usize) -> Option<Instant> {
    changes.iter().find(|(at, value)| *at >= after && *value > than).map(|(at, _)| *at)
}

impl Seen {
    fn ready(&self) -> usize {
        self.pods.values().filter(|p| p.ready && !p.terminating).count()
    }

    fn set_replicas(&mut self, replicas: usize) {
        if self.replicas != replicas {
            self.replicas = replicas;
            self.replica_changes.push((Instant::now(), replicas));
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let before = self.ready();
        match change {
            Change::Deleted { old } => {
                self.pods.remove(&old.name_any());
            }
            Change::Applied { new, .. } => {
                let status = new.status.clone().unwrap_or_default();
                let containers = status.container_statuses.unwrap_or_default();
                let ready =
                    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
                let pod = SeenPod {
                    name: new.name_any(),
                    uid: new.uid().unwrap_or_default(),
                    node: new.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default(),
                    ready,
                    running: containers.iter().all(|c| c.state.as_ref().is_some_and(|s| s.running.is_some())),
                    terminating: new.metadata.deletion_timestamp.is_some(),
                    restarts: containers.iter().map(|c| c.restart_count).sum(),
                };
                self.pods.insert(pod.name.clone(), pod);
            }
        }
        let after = self.ready();
        if after != before {
            self.ready_changes.push((Instant::now(), after));
        }
    }
}

async fn poll_usage(client: kube::Client, seen: Arc<Mutex<Seen>>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut newest = String::new();
    loop {
        ticks.tick().await;
        // Shown as `-` until there is a sample.
        let usage = get_json(&client, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?window=2s").await;
        locked(&seen).cpu = usage.ok().and_then(|list| total_cpu(&list));
        if let Ok(list) = get_json(&client, POLICY).await {
            for decision in list["items"].as_array().into_iter().flatten() {
                let time = decision["time"].as_str().unwrap_or_default();
                if time > newest.as_str() && decision["currentReplicas"] != decision["desiredReplicas"] {
                    time.clone_into(&mut newest);
                    let text = format!(
                        "-> {} replicas: {}",
                        decision["desiredReplicas"],
                        decision["summary"].as_str().unwrap_or_default()
                    );
                    locked(&seen).decisions.push(text);
                }
            }
        }
    }
}

fn total_cpu(list: &Value) -> Option<String> {
    use loadline_api::quantity::Quantity;
    let mut total = Quantity::default();
    let mut pods =
        list["items"].as_array()?.iter().filter(|p| p["metadata"]["labels"]["app"] == NAME).peekable();
    // Without a sample there is no value.
    pods.peek()?;
    for pod in pods {
        for container in pod["containers"].as_array()? {
            total.add(&Quantity::from_value(&container["usage"]["cpu"]).ok()?);
        }
    }
    Some(format!("{}m", total.milli_value()))
}

/// Waits until `done`, and says when that was; `what` is for the message when it does not come.
pub async fn until(what: &str, within: Duration, done: impl Fn() -> bool) -> Result<Instant> {
    let deadline = Instant::now() + within;
    while !done() {
        if Instant::now() > deadline {
            bail!("waited {within:?} for {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Instant::now())
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
