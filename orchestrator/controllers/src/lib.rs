//! The controllers: each makes one part of the cluster as the objects ask for it. A controller is a pure plan (what is
//! observed → actions) and a thin shell that wakes on events and carries the actions out. They share one cache per
//! kind, never call each other, and keep nothing that they cannot rebuild from the API. They know no store, no
//! container runtime and no HTTP.

use std::time::Duration;

use jiff::SignedDuration;
use kube::Client;
use loadline_client::Scope;

mod adoption;
mod deployment;
mod endpointslice;
mod error;
mod expectations;
mod garbagecollector;
mod index;
mod meta;
mod monitors;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod pods;
mod replicaset;
mod serviceaccount;
mod shared;
mod storageprotection;
mod tainteviction;

use monitors::Monitors;
use nodelifecycle::plan::Settings;
use shared::Shared;

pub use nodeipam::plan::{CidrError, PodCidrs};

/// How quickly a silent node is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Kubelets renew every second; 5 s of silence, then pods of ReplicaSets are replaced at once.
    #[default]
    Fast,
    /// Kubernetes' own times: 50 s of silence, then the pods' tolerations, 300 s by default.
    Compatible,
}

#[derive(Clone, Debug, Default)]
pub struct Config {
    pub profile: Profile,
    /// Where the nodes' ranges come from; 10.244.0.0/16 in /24s by default.
    pub pod_cidrs: PodCidrs,
    /// The cluster's CA in PEM, for the ConfigMap `kube-root-ca.crt` of every namespace; without it there is none.
    pub ca_certificate: Option<String>,
    /// How many finished pods are kept; `None` means Kubernetes' 12,500.
    pub terminated_pod_threshold: Option<usize>,
}

const TERMINATED_PODS: usize = 12_500;

impl Profile {
    fn node_settings(self) -> Settings {
        let seconds = Duration::from_secs;
        Settings {
            period: match self {
                Self::Fast => Duration::from_millis(500),
                Self::Compatible => seconds(5),
            },
            grace: match self {
                Self::Fast => seconds(5),
                Self::Compatible => seconds(50),
            },
            long_grace: seconds(50),
            startup_grace: seconds(60),
            eviction_interval: seconds(10),
        }
    }

    /// How long a node may be missing before its pods are taken for orphans.
    fn node_quarantine(self) -> SignedDuration {
        match self {
            Self::Fast => SignedDuration::from_secs(5),
            Self::Compatible => SignedDuration::from_secs(40),
        }
    }
}

/// Starts every controller in `scope`. `client` must be allowed everything (group `system:masters`).
pub fn start(scope: &Scope, client: Client, config: Config) {
    let shared = Shared::start(scope, client);
    deployment::run::start(scope, &shared);
    replicaset::run::start(scope, &shared, &shared.replica_sets, &shared.replica_sets_by_namespace);
    replicaset::run::start(
        scope,
        &shared,
        &shared.replication_controllers,
        &shared.replication_controllers_by_namespace,
    );
    endpointslice::run::start(scope, &shared);
    nodelifecycle::run::start(scope, &shared, config.profile.node_settings());
    tainteviction::run::start(scope, &shared, config.profile == Profile::Fast);
    nodeipam::run::start(scope, &shared, config.pod_cidrs);
    let gc = podgc::run::Settings {
        quarantine: config.profile.node_quarantine(),
        terminated_threshold: config.terminated_pod_threshold.unwrap_or(TERMINATED_PODS),
    };
    podgc::run::start(scope, &shared, gc);
    serviceaccount::run::start(scope, &shared, config.ca_certificate);
    storageprotection::run::start(scope, &shared);
    start_collectors(scope, &shared);
}

/// The two that care for every kind there is, on one metadata watch per kind.
fn start_collectors(scope: &Scope, shared: &Shared) {
    let (shape, waker) = (garbagecollector::run::Shape::new(), namespace::run::Waker::new(shared));
    let monitors = Monitors::start(
        scope,
        shared.client.clone(),
        vec![
            Box::new({
                let shape = shape.clone();
                move |kind, meta, seen| shape.seen(kind, meta, seen)
            }),
            Box::new({
                let waker = waker.clone();
                move |_, meta, seen| waker.seen(meta, seen)
            }),
        ],
    );
    namespace::run::start(scope, shared, waker);
    garbagecollector::run::start(scope, shared.client.clone(), shape, monitors);
}
