//! The shell: wakes on claims and volumes that are being deleted, and on pods that stand on such claims.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, Scope, WorkQueue};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use super::plan::{self, CLAIM, VOLUME};
use crate::error::{Result, Step, settle};
use crate::index::Index;
use crate::meta::{Key, name, namespace};
use crate::shared::Shared;

const CLAIM_QUEUE: &str = "pvc_protection";
const VOLUME_QUEUE: &str = "pv_protection";

#[derive(Clone)]
struct Claims {
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
    pods_by_namespace: Index<Pod>,
}

#[derive(Clone)]
struct Volumes {
    client: Client,
    volumes: Cache<PersistentVolume>,
}

pub(crate) fn start(scope: &Scope, shared: &Shared) {
    start_claims(scope, shared);
    start_volumes(scope, shared);
}

fn start_claims(scope: &Scope, shared: &Shared) {
    let controller = Claims {
        client: shared.client.clone(),
        claims: Cache::start(scope, Api::all(shared.client.clone()), watcher::Config::default()),
        pods: shared.pods.clone(),
        pods_by_namespace: shared.pods_by_namespace.clone(),
    };
    let queue: WorkQueue<Key> = WorkQueue::new(CLAIM_QUEUE);
    controller.claims.on_change({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if plan::is_kept(meta, CLAIM) {
                queue.add(Key::of(meta));
            }
        }
    });
    controller.pods.on_change({
        let (queue, claims) = (queue.clone(), controller.claims.clone());
        move |change| {
            // A pod of the same name may have taken the place of one with other volumes.
            let before = match change {
                Change::Applied { old, .. } => old.as_ref(),
                Change::Deleted { .. } => None,
            };
            for pod in before.into_iter().chain([change.object()]) {
                let ns = namespace(&pod.metadata);
                for claim in plan::claim_names(pod) {
                    if claims.get(ns, &claim).is_some_and(|c| plan::is_kept(&c.metadata, CLAIM)) {
                        queue.add(Key::new(ns, &claim));
                    }
                }
            }
        }
    });
    scope.spawn(CLAIM_QUEUE, async move {
        controller.claims.synced().await;
        controller.pods.synced().await;
        queue.run(2, |key| settle(controller.reconcile(key))).await;
    });
}

fn start_volumes(scope: &Scope, shared: &Shared) {
    let controller = Volumes {
        client: shared.client.clone(),
        volumes: Cache::start(scope, Api::all(shared.client.clone()), watcher::Config::default()),
    };
    let queue: WorkQueue<String> = WorkQueue::new(VOLUME_QUEUE);
    controller.volumes.on_change({
        let queue = queue.clone();
        move |change| {
            let meta = &change.object().metadata;
            if plan::is_kept(meta, VOLUME) {
                queue.add(name(meta).to_owned());
            }
        }
    });
    scope.spawn(VOLUME_QUEUE, async move {
        controller.volumes.synced().await;
        queue.run(1, |volume| settle(controller.reconcile(volume))).await;
    });
}

impl Claims {
    async fn reconcile(&self, key: Key) -> Result<Next> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let known = self.pods_by_namespace.group(&key.namespace);
        if !plan::frees_claim(&claim, known.iter().map(|p| &**p)) {
            return Ok(Next::Done);
        }
        // What is released cannot be had back, and the cache may not show the newest pods: ask the server.
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pods = pods.list(&ListParams::default()).await.step("list pods")?;
        if plan::frees_claim(&claim, &pods.items) {
            let api = Api::namespaced(self.client.clone(), &key.namespace);
            release(&api, &*claim, CLAIM).await?;
        }
        Ok(Next::Done)
    }
}

impl Volumes {
    async fn reconcile(&self, volume: String) -> Result<Next> {
        let Some(volume) = self.volumes.get("", &volume) else { return Ok(Next::Done) };
        if plan::frees_volume(&volume) {
            release(&Api::all(self.client.clone()), &*volume, VOLUME).await?;
        }
        Ok(Next::Done)
    }
}

/// Takes `finalizer` off, unless the object has changed since the plan was made.
async fn release<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let meta = object.meta();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": plan::others(meta, finalizer),
    }});
    let patched = api.patch(name(meta), &PatchParams::default(), &Patch::Merge(patch)).await;
    if patched.step_or_gone("release storage")?.is_some() {
        info!(name = name(meta), namespace = namespace(meta), finalizer, "storage released");
    }
    Ok(())
}
