//! What the kubelet asks of a pod network.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use ipnet::Ipv4Net;

#[derive(Clone, Debug)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No podCIDR has been handed out to this node yet.
    #[error("the node has no podCIDR yet")]
    NotConfigured,
    #[error("no free address in {0}")]
    Exhausted(Ipv4Net),
    #[error("{step}: {reason}")]
    Failed { step: &'static str, reason: String },
}

pub type Result<T, E = NetworkError> = std::result::Result<T, E>;

impl NetworkError {
    pub(crate) fn at<E: Display>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::Failed { step, reason: e.to_string() }
    }
}

/// Every call is idempotent: adding a pod twice gives the same addresses, removing one that is gone succeeds.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// The node's share of the cluster's addresses, once the API has it.
    async fn set_pod_cidr(&self, cidr: Ipv4Net) -> Result<()>;

    /// Whether pods can be added; the error becomes part of the node's Ready condition.
    async fn ready(&self) -> Result<()>;

    /// Gives the pod its addresses and, where there is a network namespace, its links.
    async fn add(&self, pod: &PodRef, netns: Option<&Path>) -> Result<Vec<IpAddr>>;

    /// Takes links and addresses away.
    async fn remove(&self, pod_uid: &str) -> Result<()>;

    /// Frees what belongs to none of these pods; for a start after a crash.
    async fn retain(&self, pod_uids: &[String]) -> Result<()>;
}
