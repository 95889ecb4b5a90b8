//! The shell: wakes on changes of Deployments and their sets, carries out the plan, one action after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, EventSink, Scope, WorkQueue};
use serde_json::json;

use super::plan::{self, Action, Observed};
use super::sets::{Sizes, same_template};
use crate::adoption::{adopt_patch, claim, release_patch};
use crate::error::{Error, Result, Step, is_already_exists, is_namespace_terminating, settle, words};
use crate::index::{Index, Overlay};
use crate::meta::{
    Key, controller_of, controller_uid, is_deleting, name, namespace, owner_reference, parse_selector,
    reference, selects, uid,
};
use crate::pods;
use crate::shared::Shared;

const WORKERS: usize = 5;
const QUEUE: &str = "deployment";

#[derive(Clone)]
struct Controller {
    client: Client,
    deployments: Cache<Deployment>,
    deployments_by_namespace: Index<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    sets_by_namespace: Index<ReplicaSet>,
    own_writes: Overlay<ReplicaSet>,
    pods: Index<Pod>,
    queue: WorkQueue<Key>,
    events: EventSink,
}

pub(crate) fn start(scope: &Scope, shared: &Shared) {
    let controller = Controller {
        client: shared.client.clone(),
        deployments: shared.deployments.clone(),
        deployments_by_namespace: shared.deployments_by_namespace.clone(),
        replica_sets: shared.replica_sets.clone(),
        sets_by_namespace: shared.replica_sets_by_namespace.clone(),
        own_writes: Overlay::new(&shared.replica_sets),
        pods: shared.pods_by_namespace.clone(),
        queue: WorkQueue::new(QUEUE),
        events: EventSink::start(scope, shared.client.clone(), "deployment-controller", None),
    };
    let queue = controller.queue.clone();
    shared.deployments.on_change(move |change| queue.add(Key::of(&change.object().metadata)));
    shared.replica_sets.on_change({
        let controller = controller.clone();
        move |change| controller.set_changed(change)
    });
    shared.pods.on_change({
        let controller = controller.clone();
        move |change| controller.pod_changed(change)
    });
    let pods = shared.pods.clone();
    scope.spawn(QUEUE, async move {
        controller.deployments.synced().await;
        controller.replica_sets.synced().await;
        pods.synced().await;
        controller.queue.clone().run(WORKERS, |key| settle(controller.reconcile(key))).await;
    });
}

impl Controller {
    fn set_changed(&self, change: &Change<ReplicaSet>) {
        let set = change.object();
        if let Change::Applied { old: Some(old), .. } = change {
            self.wake_owner(old);
        }
        self.wake_owner(set);
        if controller_of(&set.metadata).is_none() {
            for deployment in self.deployments_by_namespace.group(namespace(&set.metadata)) {
                let selector = deployment.spec.as_ref().map(|s| parse_selector(&s.selector));
                if let Some(Ok(selector)) = selector
                    && selects(&selector, &set.metadata)
                {
                    self.queue.add(Key::of(&deployment.metadata));
                }
            }
        }
    }

    fn wake_owner(&self, set: &ReplicaSet) {
        if let Some(owner) = controller_of(&set.metadata).filter(|o| o.kind == "Deployment") {
            self.queue.add(Key::new(namespace(&set.metadata), &owner.name));
        }
    }

    /// Recreate waits for the last old pod, which no set's status shows while it terminates.
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        if matches!(change, Change::Applied { new, .. } if !pods::is_terminal(new)) {
            return;
        }
        let Some(owner) = controller_of(&pod.metadata).filter(|o| o.kind == "ReplicaSet") else { return };
        let Some(set) = self.replica_sets.get(namespace(&pod.metadata), &owner.name) else { return };
        let Some(owner) = controller_of(&set.metadata).filter(|o| o.kind == "Deployment") else { return };
        let deployment = self.deployments.get(namespace(&pod.metadata), &owner.name);
        if deployment.is_some_and(|d| !Sizes::of(&d).rolling) {
            self.queue.add(Key::new(namespace(&pod.metadata), &owner.name));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Next> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let sets = self.claim(&deployment).await?;
        let pods = if Sizes::of(&deployment).rolling { Vec::new() } else { self.pods.group(&key.namespace) };
        let observed = Observed { deployment: deployment.clone(), sets, pods, now: Timestamp::now() };
        let plan = plan::plan(&observed);
        for action in plan.actions {
            self.execute(&deployment, action).await?;
        }
        Ok(plan.look_again.and_then(|left| Duration::try_from(left).ok()).map_or(Next::Done, Next::After))
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>> {
        let meta = &deployment.metadata;
        let Some(spec) = &deployment.spec else { return Ok(Vec::new()) };
        let selector = parse_selector(&spec.selector)?;
        let in_namespace = |s: &ReplicaSet| s.metadata.namespace == meta.namespace;
        let sets = self.own_writes.view(self.sets_by_namespace.group(namespace(meta)), in_namespace);
        let claim = claim(meta, &selector, sets, |_| true);
        let mut owned = claim.owned;
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace(meta));
        for set in claim.release {
            let patch = release_patch(&set.metadata, &[uid(meta)]);
            api.patch(name(&set.metadata), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .step_or_gone("release replica set")?;
        }
        if claim.adopt.is_empty() {
            return Ok(owned);
        }
        let live = self.api(deployment).get_metadata_opt(name(meta)).await.step("read deployment")?;
        if !live.is_some_and(|l| l.metadata.uid == meta.uid && !is_deleting(&l.metadata)) {
            return Err(Error::Stale("the deployment that would adopt is gone"));
        }
        for set in claim.adopt {
            let patch = adopt_patch(&set.metadata, owner_reference(deployment));
            let adopted = api
                .patch(name(&set.metadata), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .step_or_gone("adopt replica set")?;
            owned.extend(adopted.map(Arc::new));
        }
        Ok(owned)
    }

    fn api(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace(&deployment.metadata))
    }

    async fn execute(&self, deployment: &Deployment, action: Action) -> Result<()> {
        let meta = &deployment.metadata;
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace(meta));
        match action {
            Action::CreateSet { set, replicas } => self.create(deployment, &sets, &set, replicas).await,
            Action::UpdateSet { set, replicas, min_ready_seconds, annotations } => {
                self.update(deployment, &sets, &set, replicas, min_ready_seconds, annotations).await
            }
            Action::DeleteSet(set) => {
                let same = Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: set.metadata.resource_version.clone(),
                };
                let params = DeleteParams::background().preconditions(same);
                if sets
                    .delete(name(&set.metadata), &params)
                    .await
                    .step_or_gone("delete replica set")?
                    .is_some()
                {
                    self.own_writes.deleted(&set);
                }
                Ok(())
            }
            Action::SetRevision(revision) => {
                let patch = json!({"metadata": {
                    "uid": meta.uid,
                    "annotations": {super::annotations::REVISION: revision},
                }});
                self.api(deployment)
                    .patch(name(meta), &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .step_or_gone("write revision")
                    .map(drop)
            }
            Action::WriteStatus(status) => self.write_status(deployment, *status).await,
        }
    }

    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        replicas: i32,
    ) -> Result<()> {
        match sets.create(&PostParams::default(), set).await {
            Ok(created) => {
                self.own_writes.applied(created);
                if replicas > 0 {
                    self.scaled(deployment, name(&set.metadata), 0, replicas);
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => self.collided(deployment, sets, set).await,
            Err(error) if is_namespace_terminating(&error) => {
                Err(Error::Stale("the namespace is terminating"))
            }
            Err(error) => {
                let note =
                    format!("Failed to create new replica set {:?}: {}", name(&set.metadata), words(&error));
                self.events.warning(
                    reference(deployment),
                    "ReplicaSetCreateError",
                    "CreateReplicaSet",
                    note.clone(),
                );
                let now = Timestamp::now();
                let mut status = deployment.status.clone().unwrap_or_default();
                if super::progress::deadline(deployment).is_some() {
                    let progressing = super::progress::PROGRESSING;
                    super::progress::set_condition(
                        &mut status,
                        progressing,
                        "False",
                        "ReplicaSetCreateError",
                        &note,
                        now,
                    );
                    self.write_status(deployment, status).await?;
                }
                Err(Error::Api { step: "create replica set", source: error })
            }
        }
    }

    /// The name is taken: by our own set that the cache does not show yet, or by another template's.
    async fn collided(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<()> {
        let template = |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        let Some(live) = sets.get_opt(name(&set.metadata)).await.step("read replica set")? else {
            return Err(Error::Stale("the replica set that was in the way is gone"));
        };
        let ours = controller_uid(&live.metadata) == Some(uid(&deployment.metadata));
        if ours && same_template(&template(&live), &template(set)) {
            self.own_writes.applied(live);
            return Err(Error::Stale("the replica set existed already"));
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.write_status(deployment, status).await?;
        Err(Error::Stale("the name of the new replica set collided"))
    }

    async fn update(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
        replicas: i32,
        min_ready_seconds: i32,
        annotations: BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let before = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let patch = json!({
            "metadata": {
                "uid": set.metadata.uid,
                "resourceVersion": set.metadata.resource_version,
                "annotations": annotations,
            },
            "spec": {"replicas": replicas, "minReadySeconds": min_ready_seconds},
        });
        let set_name = name(&set.metadata);
        let updated = sets
            .patch(set_name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .step("update replica set")?;
        self.own_writes.applied(updated);
        if before != replicas {
            self.scaled(deployment, set_name, before, replicas);
        }
        Ok(())
    }

    fn scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let note = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.events.normal(reference(deployment), "ScalingReplicaSet", "ScaleReplicaSet", note);
    }

    async fn write_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<()> {
        // A merge patch without a resource version: the revision that this step wrote has moved it. The next look
        // corrects what a stale view may have written, and labels and annotations stay out of it.
        let patch = json!({"metadata": {"uid": deployment.metadata.uid}, "status": with_nulls(&status)});
        self.api(deployment)
            .patch_status(name(&deployment.metadata), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .step_or_gone("write status")
            .map(drop)
    }
}

/// Every field by name, so that a merge patch also clears those that have no value now.
fn with_nulls(status: &DeploymentStatus) -> serde_json::Value {
    json!({
        "availableReplicas": status.available_replicas,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
        "observedGeneration": status.observed_generation,
        "readyReplicas": status.ready_replicas,
        "replicas": status.replicas,
        "terminatingReplicas": status.terminating_replicas,
        "unavailableReplicas": status.unavailable_replicas,
        "updatedReplicas": status.updated_replicas,
    })
}
