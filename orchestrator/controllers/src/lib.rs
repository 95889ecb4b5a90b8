//! The controllers: each makes one part of the cluster as the objects ask for it. A controller is a pure plan (what is
//! observed → actions) and a thin shell that wakes on events and carries the actions out. They share one cache per
//! kind, never call each other, and keep nothing that they cannot rebuild from the API. They know no store, no
//! container runtime and no HTTP.

use std::time::Duration;

use kube::Client;
use loadline_client::Scope;

mod adoption;
mod deployment;
mod endpointslice;
mod error;
mod expectations;
mod index;
mod meta;
mod nodelifecycle;
mod pods;
mod replicaset;
mod shared;
mod tainteviction;

use nodelifecycle::plan::Settings;
use shared::Shared;

/// How quickly a silent node is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Kubelets renew every second; 5 s of silence, then pods of ReplicaSets are replaced at once.
    #[default]
    Fast,
    /// Kubernetes' own times: 50 s of silence, then the pods' tolerations, 300 s by default.
    Compatible,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub profile: Profile,
}

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
}
