//! What all parts of one kubelet share, and the bell by which they wake a pod's worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use loadline_client::{Cache, EventSink, Scope};
use tokio::sync::Notify;

use crate::config::Config;
use crate::images::Images;
use crate::objects::Store;
use crate::resources::Amounts;
use crate::volumes::Volumes;

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) client: kube::Client,
    pub(crate) scope: Scope,
    pub(crate) events: EventSink,
    pub(crate) objects: Store,
    pub(crate) volumes: Volumes,
    pub(crate) images: Images,
    /// The own Node object.
    pub(crate) api_node: Cache<ApiNode>,
    pub(crate) pods: Cache<Pod>,
    /// `docker` of `docker://20.10`.
    pub(crate) runtime_name: String,
    pub(crate) capacity: Amounts,
    pub(crate) allocatable: Amounts,
    /// Bytes.
    pub(crate) memory_capacity: i64,
    pub(crate) resolv_conf: String,
    pub(crate) directory: Directory,
    /// Pods that passed admission, by uid.
    pub(crate) admitted: Mutex<HashMap<String, Arc<Pod>>>,
    /// Pulled images and readiness changed: the node status should be looked at.
    pub(crate) node_wake: Notify,
}

impl Node {
    pub(crate) fn lock_admitted(&self) -> MutexGuard<'_, HashMap<String, Arc<Pod>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says "look again" to a worker; `stale` and `config` say at what.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    notify: Notify,
    stale: AtomicBool,
    config: AtomicBool,
}

impl Signal {
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// The runtime's state may have changed.
    pub(crate) fn runtime_changed(&self) {
        self.stale.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// An object that the pod refers to has changed.
    pub(crate) fn config_changed(&self) {
        self.config.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_config(&self) -> bool {
        self.config.swap(false, Ordering::AcqRel)
    }
}

/// Whose container an id is, for stats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) started_at: Option<Timestamp>,
}

/// The running containers of this node by id, as the workers see them.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    owners: Mutex<HashMap<String, Owner>>,
}

impl Directory {
    /// Replaces what is known of one pod.
    pub(crate) fn set(&self, uid: &str, running: impl Iterator<Item = (String, Owner)>) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|_, o| o.uid != uid);
        owners.extend(running);
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.set(uid, std::iter::empty());
    }

    pub(crate) fn snapshot(&self) -> HashMap<String, Owner> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
