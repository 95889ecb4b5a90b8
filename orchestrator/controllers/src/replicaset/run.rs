//! The shell: wakes on changes of the sets and their pods, carries out the plan, writes the status.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, EventSink, Scope, WorkQueue};

use super::kinds::ReplicaKind;
use super::plan::{self, Action};
use crate::adoption::{adopt_patch, claim, release_patch};
use crate::error::{
    Error, Result, Step, is_ambiguous, is_namespace_terminating, is_not_found, settle, words,
};
use crate::expectations::Expectations;
use crate::index::{Index, Overlay};
use crate::meta::{
    Key, controller_of, controller_uid, is_deleting, labels, name, namespace, owner_reference, reference,
    selects, uid,
};
use crate::pods;
use crate::shared::Shared;

const WORKERS: usize = 5;

struct Controller<K: ReplicaKind> {
    client: Client,
    sets: Cache<K>,
    sets_by_namespace: Index<K>,
    pods: Index<Pod>,
    expectations: Expectations,
    /// Uids of sets for which a creation may or may not have happened: the server is to be asked.
    unsure: Arc<Mutex<HashSet<String>>>,
    /// What it said that the cache does not show yet.
    seen_live: Overlay<Pod>,
    queue: WorkQueue<Key>,
    events: EventSink,
}

impl<K: ReplicaKind> Clone for Controller<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            sets: self.sets.clone(),
            sets_by_namespace: self.sets_by_namespace.clone(),
            pods: self.pods.clone(),
            expectations: self.expectations.clone(),
            unsure: self.unsure.clone(),
            seen_live: self.seen_live.clone(),
            queue: self.queue.clone(),
            events: self.events.clone(),
        }
    }
}

pub(crate) fn start<K: ReplicaKind>(
    scope: &Scope,
    shared: &Shared,
    sets: &Cache<K>,
    by_namespace: &Index<K>,
) {
    let controller = Controller {
        client: shared.client.clone(),
        sets: sets.clone(),
        sets_by_namespace: by_namespace.clone(),
        pods: shared.pods_by_namespace.clone(),
        expectations: Expectations::default(),
        unsure: Arc::default(),
        seen_live: Overlay::new(&shared.pods),
        queue: WorkQueue::new(K::QUEUE),
        events: EventSink::start(scope, shared.client.clone(), K::REPORTER, None),
    };
    sets.on_change({
        let (queue, expectations) = (controller.queue.clone(), controller.expectations.clone());
        let unsure = controller.unsure.clone();
        move |change| {
            if let Change::Deleted { old } = change {
                expectations.forget(uid(old.meta()));
                unsure.lock().unwrap_or_else(PoisonError::into_inner).remove(uid(old.meta()));
            }
            queue.add(Key::of(change.object().meta()));
        }
    });
    shared.pods.on_change({
        let controller = controller.clone();
        move |change| controller.pod_changed(change)
    });
    let pods = shared.pods.clone();
    scope.spawn(K::QUEUE, async move {
        controller.sets.synced().await;
        pods.synced().await;
        controller.queue.clone().run(WORKERS, |key| settle(controller.reconcile(key))).await;
    });
}

impl<K: ReplicaKind> Controller<K> {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let owner = controller_of(&pod.metadata);
        if let Some(owner) = owner {
            match change {
                Change::Applied { old: None, new } if !is_deleting(&new.metadata) => {
                    self.expectations.created(&owner.uid, 1);
                }
                Change::Applied { old, new } if is_deleting(&new.metadata) => {
                    if old.is_none() {
                        self.expectations.created(&owner.uid, 1);
                    }
                    self.expectations.deleted(&owner.uid, uid(&new.metadata));
                }
                Change::Applied { .. } => {}
                Change::Deleted { old } => self.expectations.deleted(&owner.uid, uid(&old.metadata)),
            }
            self.wake_owner(&pod.metadata, owner);
        }
        let before = match change {
            Change::Applied { old: Some(old), .. } => Some(old),
            _ => None,
        };
        let owner_before = before.and_then(|old| controller_of(&old.metadata));
        if let Some(old_owner) =
            owner_before.filter(|o| Some(o.uid.as_str()) != controller_uid(&pod.metadata))
        {
            self.wake_owner(&pod.metadata, old_owner);
        }
        let news = before.is_none_or(|old| {
            labels(&old.metadata) != labels(&pod.metadata)
                || owner_before.is_some()
                || is_deleting(&pod.metadata)
        });
        if owner.is_none() && news {
            self.wake_selecting(&pod.metadata);
        }
    }

    fn wake_owner(&self, pod: &ObjectMeta, owner: &OwnerReference) {
        if owner.kind == K::kind(&()) && owner.api_version == K::api_version(&()) {
            self.queue.add(Key::new(namespace(pod), &owner.name));
        }
    }

    /// An orphan may belong to any set that selects it.
    fn wake_selecting(&self, pod: &ObjectMeta) {
        for set in self.sets_by_namespace.group(namespace(pod)) {
            if set.spec().is_ok_and(|s| !s.selector.selects_all() && selects(&s.selector, pod)) {
                self.queue.add(Key::of(set.meta()));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Done) };
        let spec = set.spec()?;
        // Looked at before the pods are read: what is fulfilled now is in what is read next.
        let may_act = self.expectations.fulfilled(uid(set.meta()));
        let owned = self.claim(&set, &spec.selector).await?;
        let now = Timestamp::now();
        let mut failure = None;
        if may_act {
            for action in plan::plan(&spec, &owned, &self.related(&set), now) {
                failure = self.execute(&set, action).await.err();
            }
        }
        let text = failure.as_ref().map(ToString::to_string);
        let old = set.status();
        let new = plan::status(&spec, &old, &owned, text.as_deref(), now);
        if new != old {
            let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
            api.replace_status(&key.name, &PostParams::default(), &set.with_status(&new))
                .await
                .step_or_gone("write status")?;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(plan::next_availability(&spec, &owned, now)
                .and_then(|left| Duration::try_from(left).ok())
                .map_or(Next::Done, Next::After)),
        }
    }

    /// The pods that are the set's, after adopting and releasing what there is to.
    async fn claim(&self, set: &K, selector: &Selector) -> Result<Vec<Arc<Pod>>> {
        let meta = set.meta();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(meta));
        self.make_sure(&api, meta, selector).await?;
        let in_namespace = |p: &Pod| p.metadata.namespace == meta.namespace;
        let pods = self.seen_live.view(self.pods.group(namespace(meta)), in_namespace);
        let claim = claim(meta, selector, pods, pods::is_active);
        let mut owned = claim.owned;
        for pod in claim.release {
            let patch = release_patch(&pod.metadata, &[uid(meta)]);
            api.patch(name(&pod.metadata), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .step_or_gone("release pod")?;
        }
        if claim.adopt.is_empty() {
            return Ok(owned);
        }
        self.check_alive(set).await?;
        for pod in claim.adopt {
            let patch = adopt_patch(&pod.metadata, owner_reference(set));
            let adopted = api
                .patch(name(&pod.metadata), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .step_or_gone("adopt pod")?;
            owned.extend(adopted.map(Arc::new));
        }
        Ok(owned)
    }

    /// After a creation whose answer was lost: what the server has and the cache does not show counts, too.
    async fn make_sure(&self, api: &Api<Pod>, set: &ObjectMeta, selector: &Selector) -> Result<()> {
        if !self.unsure().contains(uid(set)) {
            return Ok(());
        }
        let live = api.list(&ListParams::default().labels(&selector.to_string())).await.step("list pods")?;
        for pod in live.items {
            self.seen_live.applied(pod);
        }
        self.unsure().remove(uid(set));
        Ok(())
    }

    fn unsure(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server, not the cache: a set that is gone must not adopt.
    async fn check_alive(&self, set: &K) -> Result<()> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace(set.meta()));
        let live = api.get_metadata_opt(name(set.meta())).await.step("read set")?;
        match live {
            Some(live) if live.metadata.uid == set.meta().uid && !is_deleting(&live.metadata) => Ok(()),
            _ => Err(Error::Stale("the set that would adopt is gone")),
        }
    }

    /// The pods of every set with the same controller, so that a rollout does not empty one node of a Deployment.
    fn related(&self, set: &K) -> Vec<Arc<Pod>> {
        let meta = set.meta();
        let owners: Vec<String> = match controller_uid(meta) {
            Some(controller) => self
                .sets_by_namespace
                .group(namespace(meta))
                .iter()
                .filter(|s| controller_uid(s.meta()) == Some(controller))
                .map(|s| uid(s.meta()).to_owned())
                .collect(),
            None => vec![uid(meta).to_owned()],
        };
        let mut pods = self.pods.group(namespace(meta));
        pods.retain(|p| controller_uid(&p.metadata).is_some_and(|c| owners.iter().any(|o| o == c)));
        pods
    }

    async fn execute(&self, set: &K, action: Action) -> Result<()> {
        match action {
            Action::Create(count) => self.create(set, count).await,
            Action::Delete(victims) => self.delete(set, victims).await,
        }
    }

    /// In batches of 1, 2, 4 …, so that a template that the server refuses costs one request and not five hundred.
    async fn create(&self, set: &K, count: usize) -> Result<()> {
        let Some(template) = set.template() else { return Ok(()) };
        let (owner, about) = (uid(set.meta()), reference(set));
        let pod = plan::pod_from_template(template, owner_reference(set), &about);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(set.meta()));
        self.expectations.expect(owner, count, []);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let params = PostParams::default();
            let results = join_all((0..size).map(|_| api.create(&params, &pod))).await;
            left -= size;
            let mut first_error = None;
            for result in results {
                match result {
                    Ok(pod) => {
                        let note = format!("Created pod: {}", name(&pod.metadata));
                        self.events.normal(about.clone(), "SuccessfulCreate", "CreatePod", note);
                    }
                    Err(error) => {
                        if is_ambiguous(&error) {
                            self.unsure().insert(owner.to_owned());
                        }
                        self.expectations.created(owner, 1);
                        first_error.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = first_error {
                self.expectations.created(owner, left);
                return self.creation_failed(about, error);
            }
            batch *= 2;
        }
        Ok(())
    }

    fn creation_failed(&self, about: ObjectReference, error: kube::Error) -> Result<()> {
        if is_namespace_terminating(&error) {
            return Ok(());
        }
        let message = words(&error);
        self.events.warning(about, "FailedCreate", "CreatePod", format!("Error creating: {message}"));
        Err(Error::Refused(message))
    }

    async fn delete(&self, set: &K, victims: Vec<Arc<Pod>>) -> Result<()> {
        let (owner, about) = (uid(set.meta()), reference(set));
        self.expectations.expect(owner, 0, victims.iter().map(|p| uid(&p.metadata).to_owned()));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(set.meta()));
        let results = join_all(victims.iter().map(|pod| {
            let api = &api;
            async move {
                let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                api.delete(name(&pod.metadata), &DeleteParams::default().preconditions(same)).await
            }
        }))
        .await;
        let mut failed = Ok(());
        for (pod, result) in victims.iter().zip(results) {
            let pod_name = name(&pod.metadata);
            match result {
                Ok(_) => {
                    let note = format!("Deleted pod: {pod_name}");
                    self.events.normal(about.clone(), "SuccessfulDelete", "DeletePod", note);
                }
                Err(error) => {
                    self.expectations.deleted(owner, uid(&pod.metadata));
                    if !is_not_found(&error) {
                        let note = format!("Error deleting: {}", words(&error));
                        self.events.warning(about.clone(), "FailedDelete", "DeletePod", note);
                        failed = Err(Error::Api { step: "delete pod", source: error });
                    }
                }
            }
        }
        failed
    }
}
