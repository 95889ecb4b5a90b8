//! The Node object: registration, status and lease. Owns what the kubelet says of its node; never touches taints of a
//! node that exists.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as ApiNode, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeSpec, NodeStatus, NodeSystemInfo, ObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use loadline_runtime::Image;
use serde_json::json;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::context::Node;
use crate::machine::{self, Pressure};
use crate::resources::Amounts;
use crate::status::whole;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often readiness is looked at without an event.
const CHECK: Duration = Duration::from_secs(10);
/// Upstream's `nodeStatusMaxImages`.
const MAX_IMAGES: usize = 50;

pub(crate) fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), config.node_name.clone());
    labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    labels.insert("kubernetes.io/arch".to_owned(), machine::architecture().to_owned());
    labels
}

/// Everything that the status is made of.
pub(crate) struct Facts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) addr: SocketAddr,
    pub(crate) capacity: &'a Amounts,
    pub(crate) allocatable: &'a Amounts,
    pub(crate) info: &'a NodeSystemInfo,
    pub(crate) images: &'a [Image],
    pub(crate) pressure: Pressure,
    /// Why the node is not ready.
    pub(crate) unready: Option<&'a str>,
    pub(crate) now: Timestamp,
}

/// The status; conditions keep their transition times from `old` where they stay as they are.
pub(crate) fn status(facts: &Facts<'_>, old: Option<&NodeStatus>) -> NodeStatus {
    let quantities = |amounts: &Amounts| -> BTreeMap<String, ApiQuantity> {
        amounts.iter().map(|(k, q)| (k.clone(), ApiQuantity(q.to_string()))).collect()
    };
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", facts.config.node_ip.to_string()),
            address("Hostname", facts.config.node_name.clone()),
        ]),
        capacity: Some(quantities(facts.capacity)),
        allocatable: Some(quantities(facts.allocatable)),
        conditions: Some(conditions(facts, old)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: facts.addr.port().into() }),
        }),
        images: Some(images(facts.images)),
        node_info: Some(facts.info.clone()),
        ..NodeStatus::default()
    }
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by_key(|i| (std::cmp::Reverse(i.size), i.id.clone()));
    let names = |i: &Image| i.digests.iter().chain(&i.tags).take(5).cloned().collect();
    sorted
        .into_iter()
        .take(MAX_IMAGES)
        .map(|i| ContainerImage { names: Some(names(i)), size_bytes: i64::try_from(i.size).ok() })
        .collect()
}

fn conditions(facts: &Facts<'_>, old: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let p = facts.pressure;
    let pressures = [
        (
            "MemoryPressure",
            p.memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            "memory available",
        ),
        ("DiskPressure", p.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk pressure"),
        ("PIDPressure", p.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID available"),
    ];
    let mut all = Vec::new();
    for (type_, on, bad, good, what) in pressures {
        let message = match (type_, on) {
            ("DiskPressure", true) => format!("kubelet has {what}"),
            ("DiskPressure", false) => format!("kubelet has no {what}"),
            (_, true) => format!("kubelet has insufficient {what}"),
            (_, false) => format!("kubelet has sufficient {what}"),
        };
        all.push(condition(facts, old, type_, on, if on { bad } else { good }, message));
    }
    all.push(match facts.unready {
        None => {
            condition(facts, old, "Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned())
        }
        Some(why) => condition(facts, old, "Ready", false, "KubeletNotReady", why.to_owned()),
    });
    all
}

fn condition(
    facts: &Facts<'_>,
    old: Option<&NodeStatus>,
    type_: &str,
    on: bool,
    reason: &str,
    message: String,
) -> NodeCondition {
    let status = if on { "True" } else { "False" };
    let now = Time(whole(facts.now));
    let before = old.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == type_);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    }
}

/// Whether the API has to be told before the interval is over. Heartbeat times alone are no reason.
pub(crate) fn differs(api: Option<&NodeStatus>, ours: &NodeStatus) -> bool {
    let Some(api) = api else { return true };
    let bare = |s: &NodeStatus| {
        let conditions = s.conditions.iter().flatten();
        let ours = conditions.filter(|c| {
            matches!(c.type_.as_str(), "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure")
        });
        let key =
            |c: &NodeCondition| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone());
        let mut keys: Vec<_> = ours.map(key).collect();
        keys.sort();
        keys
    };
    bare(api) != bare(ours)
        || api.addresses != ours.addresses
        || api.capacity != ours.capacity
        || api.allocatable != ours.allocatable
        || api.daemon_endpoints != ours.daemon_endpoints
        || api.node_info != ours.node_info
        || api.images.as_ref().map(Vec::len) != ours.images.as_ref().map(Vec::len)
}

fn fresh(config: &Config, status: &NodeStatus) -> ApiNode {
    ApiNode {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.register_taints.is_empty()).then(|| config.register_taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status.clone()),
    }
}

/// Keeps the Node object for ever.
pub(crate) async fn keep(node: Arc<Node>, addr: SocketAddr) {
    let api: Api<ApiNode> = Api::all(node.client.clone());
    let config = &node.config;
    let mut keeper =
        Keeper { node: &node, addr, api, info: None, images: Vec::new(), images_at: None, written: None };
    let about = ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(config.node_name.clone()),
        uid: Some(config.node_name.clone()),
        ..ObjectReference::default()
    };
    node.events.normal(about.clone(), "Starting", "Starting", "Starting kubelet.");
    node.api_node.synced().await;
    let mut was_ready = None;
    loop {
        let ready = keeper.look().await;
        if ready.is_some() && ready != was_ready {
            let reason = if ready == Some(true) { "NodeReady" } else { "NodeNotReady" };
            let note = format!("Node {} status is now: {reason}", config.node_name);
            node.events.normal(about.clone(), reason, "Reporting", note);
            was_ready = ready;
        }
        // A write that failed is tried again soon; the server may just be starting.
        let wait = if ready.is_some() { CHECK } else { Duration::from_millis(500) };
        tokio::select! {
            () = node.node_wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Keeper<'a> {
    node: &'a Node,
    addr: SocketAddr,
    api: Api<ApiNode>,
    info: Option<NodeSystemInfo>,
    images: Vec<Image>,
    images_at: Option<Instant>,
    written: Option<Instant>,
}

impl Keeper<'_> {
    /// One look at node and API; whether the node is ready, or `None` when the API could not be told.
    async fn look(&mut self) -> Option<bool> {
        let config = &self.node.config;
        let current = self.node.api_node.get("", &config.node_name);
        let unready = self.unready(current.as_deref()).await;
        let facts = Facts {
            config,
            addr: self.addr,
            capacity: &self.node.capacity,
            allocatable: &self.node.allocatable,
            info: self.info.get_or_insert_with(|| machine::system_info("")),
            images: &self.images,
            pressure: if config.simulated {
                Pressure::default()
            } else {
                machine::pressure(&config.data_dir)
            },
            unready: unready.as_deref(),
            now: Timestamp::now(),
        };
        let status = status(&facts, current.as_ref().and_then(|n| n.status.as_ref()));
        let due = self.written.is_none_or(|at| at.elapsed() >= config.status_interval);
        let written = match current {
            None => self.register(&status).await,
            Some(current) if due || differs(current.status.as_ref(), &status) => {
                self.write(&current, &status).await
            }
            Some(_) => Ok(false),
        };
        match written {
            Ok(wrote) => {
                if wrote {
                    self.written = Some(Instant::now());
                }
                Some(unready.is_none())
            }
            Err(error) => {
                debug!(%error, node = config.node_name, "node status not written");
                None
            }
        }
    }

    /// Configures the network once the API has addresses for it, and asks runtime and network how they are.
    async fn unready(&mut self, current: Option<&ApiNode>) -> Option<String> {
        let config = &self.node.config;
        let version = match config.runtime.version().await {
            Ok(version) => version,
            Err(error) => return Some(format!("container runtime is down: {error}")),
        };
        if self.info.as_ref().is_none_or(|i| i.container_runtime_version != version) {
            self.info = Some(machine::system_info(&version));
        }
        if self.images_at.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
            match config.runtime.images().await {
                Ok(images) => {
                    self.images = images;
                    self.images_at = Some(Instant::now());
                }
                Err(error) => debug!(%error, "images could not be listed"),
            }
        }
        if let Some(cidr) = current.and_then(|n| n.spec.as_ref()).and_then(|s| s.pod_cidr.as_deref()) {
            let configured = match cidr.parse() {
                Ok(cidr) => config.network.set_pod_cidr(cidr).await.map_err(|e| e.to_string()),
                Err(_) => Err(format!("podCIDR {cidr:?} is not an IPv4 network")),
            };
            if let Err(error) = configured {
                return Some(format!("container runtime network not ready: {error}"));
            }
        }
        let ready = config.network.ready().await;
        ready.err().map(|e| format!("container runtime network not ready: {e}"))
    }

    async fn register(&self, status: &NodeStatus) -> kube::Result<bool> {
        let config = &self.node.config;
        match self.api.create(&PostParams::default(), &fresh(config, status)).await {
            Ok(_) => info!(node = config.node_name, "node registered"),
            // The cache has not seen it yet.
            Err(kube::Error::Api(s)) if s.code == 409 => {}
            Err(error) => return Err(error),
        }
        let patch = json!({ "status": status });
        self.api.patch_status(&config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(true)
    }

    /// Writes the status, and the labels that are the kubelet's own.
    async fn write(&self, current: &ApiNode, status: &NodeStatus) -> kube::Result<bool> {
        let name = &self.node.config.node_name;
        let own = labels(&self.node.config);
        let have = current.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<_, _> = own.into_iter().filter(|(k, v)| have.get(k) != Some(v)).collect();
        if !missing.is_empty() {
            let patch = json!({ "metadata": { "labels": missing } });
            self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        let patch = json!({ "status": status });
        self.api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(true)
    }
}

/// Renews the node's lease for ever.
pub(crate) async fn renew(node: Arc<Node>) {
    let timings = node.config.lease;
    let api: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let name = node.config.node_name.clone();
    let mut ticks = tokio::time::interval(timings.renew_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = 0_u32;
    loop {
        ticks.tick().await;
        // A hung request must not eat the grace of the next ones.
        let result = tokio::time::timeout(timings.duration, renew_once(&node, &api, &name)).await;
        match result {
            Ok(Ok(())) => failures = 0,
            Ok(Err(error)) => {
                failures += 1;
                if failures == 5 {
                    warn!(%error, node = name, "lease cannot be renewed");
                }
            }
            Err(_) => warn!(node = name, "lease renewal timed out"),
        }
    }
}

async fn renew_once(node: &Node, api: &Api<Lease>, name: &str) -> kube::Result<()> {
    let now = MicroTime(Timestamp::now());
    let seconds = i32::try_from(node.config.lease.duration.as_secs()).unwrap_or(i32::MAX);
    let spec = json!({ "holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": now });
    let patch = Patch::Merge(json!({ "spec": spec }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(s)) if s.code == 404 => {
            let owner = node.api_node.get("", name).and_then(|n| n.metadata.uid.clone());
            let owner = owner.map(|uid| OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid,
                ..OwnerReference::default()
            });
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    namespace: Some(LEASE_NAMESPACE.to_owned()),
                    owner_references: owner.map(|o| vec![o]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.to_owned()),
                    lease_duration_seconds: Some(seconds),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        Err(error) => Err(error),
    }
}
