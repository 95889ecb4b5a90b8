//! One step of a Deployment: from its sets as they are to the next sizes, a new set where there is none for the
//! template, and the status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::annotations::{self, REVISION, revision, set_sizes};
use super::hash::template_hash;
use super::progress;
use super::sets::{HASH_LABEL, Set, Sizes, position_of_current, scale_in_proportion, total, total_available};
use crate::meta::{annotations as annotations_of, controller_uid, is_deleting, name, owner_reference, uid};
use crate::pods;

pub(crate) struct Observed {
    pub(crate) deployment: Arc<Deployment>,
    /// The sets that the Deployment owns.
    pub(crate) sets: Vec<Arc<ReplicaSet>>,
    /// Pods in the namespace; read only for the strategy Recreate.
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) now: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    CreateSet {
        set: Box<ReplicaSet>,
        replicas: i32,
    },
    /// Annotations that are to go have the value `None`.
    UpdateSet {
        set: Arc<ReplicaSet>,
        replicas: i32,
        min_ready_seconds: i32,
        annotations: BTreeMap<String, Option<String>>,
    },
    DeleteSet(Arc<ReplicaSet>),
    SetRevision(String),
    WriteStatus(Box<DeploymentStatus>),
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// To be carried out in order; one that fails makes the rest void.
    pub(crate) actions: Vec<Action>,
    pub(crate) look_again: Option<SignedDuration>,
}

pub(crate) fn plan(observed: &Observed) -> Plan {
    Step::new(observed).run()
}

struct Step<'a> {
    observed: &'a Observed,
    deployment: &'a Deployment,
    sizes: Sizes,
    /// The set of the current template, if there is one.
    new: Option<Set>,
    /// All others, oldest first.
    old: Vec<Set>,
    /// The status as the server has it, with the conditions that this step sets.
    base: DeploymentStatus,
    revision: Option<String>,
    delete: Vec<Arc<ReplicaSet>>,
}

impl<'a> Step<'a> {
    fn new(observed: &'a Observed) -> Self {
        let deployment = &*observed.deployment;
        let mut old: Vec<Set> = observed.sets.iter().cloned().map(Set::observed).collect();
        old.sort_by(|a, b| a.created().cmp(&b.created()));
        let new = template_of(deployment).and_then(|t| position_of_current(&old, t)).map(|i| old.remove(i));
        Self {
            observed,
            deployment,
            sizes: Sizes::of(deployment),
            new,
            old,
            base: deployment.status.clone().unwrap_or_default(),
            revision: None,
            delete: Vec::new(),
        }
    }

    fn run(mut self) -> Plan {
        let now = self.observed.now;
        if is_deleting(&self.deployment.metadata) {
            let status = self.counted();
            return self.finish(status, None);
        }
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        progress::check_paused(self.deployment, paused, &mut self.base, now);
        if paused || self.is_scaling() {
            self.adopt_current();
            self.scale();
            if paused {
                self.clean_up();
            }
            let status = self.counted();
            return self.finish(status, None);
        }
        let settled = if self.sizes.rolling { self.roll() } else { self.recreate() };
        let before = self.deployment.status.clone().unwrap_or_default();
        if settled && progress::is_complete(self.deployment, &self.sizes, &before) {
            self.clean_up();
        }
        let status = progress::rollout(
            self.deployment,
            &before,
            &self.base,
            &self.old,
            self.new.as_ref(),
            &self.sizes,
            now,
        );
        let look_again = progress::deadline_in(self.deployment, &self.sizes, &status, now);
        self.finish(status, look_again)
    }

    fn counted(&self) -> DeploymentStatus {
        let now = self.observed.now;
        progress::calculate(self.deployment, &self.base, &self.old, self.new.as_ref(), &self.sizes, now)
    }

    /// Somebody changed the number of replicas since the sets were last sized.
    fn is_scaling(&self) -> bool {
        self.old.iter().chain(&self.new).filter(|s| s.is_active()).any(|s| {
            annotations::number(&s.annotations, annotations::DESIRED)
                .is_some_and(|n| n != i64::from(self.sizes.replicas))
        })
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|s| revision(&s.annotations)).max().unwrap_or_default() + 1
    }

    /// Brings the set of the current template, if there is one, up to date with the Deployment's metadata.
    fn adopt_current(&mut self) {
        let next = self.next_revision();
        let Some(set) = &mut self.new else { return };
        annotations::set_current(&mut set.annotations, annotations_of(&self.deployment.metadata), next);
        set.min_ready_seconds = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        self.revision = set.annotations.get(REVISION).cloned();
        if progress::condition(&self.base, progress::PROGRESSING).is_none()
            && progress::deadline(self.deployment).is_some()
        {
            let message = format!("Found new replica set {:?}", set.name());
            let now = self.observed.now;
            progress::set_condition(
                &mut self.base,
                progress::PROGRESSING,
                "True",
                "FoundNewReplicaSet",
                &message,
                now,
            );
        }
    }

    /// Makes sure that there is a set for the current template.
    fn ensure_current(&mut self) {
        if self.new.is_some() {
            return self.adopt_current();
        }
        let Some(template) = template_of(self.deployment) else { return };
        let next = self.next_revision();
        let mut object = new_set(self.deployment, template, self.base.collision_count);
        let mut notes = BTreeMap::new();
        annotations::set_current(&mut notes, annotations_of(&self.deployment.metadata), next);
        set_sizes(&mut notes, self.sizes.replicas, self.sizes.replicas + self.sizes.max_surge);
        let replicas = self.allowed_for_new(0);
        object.metadata.annotations = Some(notes.clone());
        if let Some(spec) = &mut object.spec {
            spec.replicas = Some(replicas);
        }
        let message = format!("Created new replica set {:?}", name(&object.metadata));
        let mut set = Set::observed(Arc::new(object));
        set.is_new = true;
        self.revision = Some(next.to_string());
        if progress::deadline(self.deployment).is_some() {
            let now = self.observed.now;
            progress::set_condition(
                &mut self.base,
                progress::PROGRESSING,
                "True",
                "NewReplicaSetCreated",
                &message,
                now,
            );
        }
        self.new = Some(set);
    }

    /// How large the new set, now of `size`, may be.
    fn allowed_for_new(&self, size: i32) -> i32 {
        let wanted = self.sizes.replicas;
        if !self.sizes.rolling || size > wanted {
            return wanted;
        }
        let room = wanted + self.sizes.max_surge - (total(&self.old) + size);
        size + room.min(wanted - size).max(0)
    }

    fn scale(&mut self) {
        let active: Vec<usize> = (0..self.old.len()).filter(|i| self.old[*i].is_active()).collect();
        let new_active = self.new.as_ref().is_some_and(Set::is_active);
        let wanted = self.sizes.replicas;
        let sizes = self.sizes;
        // One active set, or none and only the latest to think of: it gets everything.
        let only = match (active.as_slice(), new_active) {
            ([], _) => self.new.as_mut().or(self.old.last_mut()),
            ([one], false) => Some(&mut self.old[*one]),
            _ => None,
        };
        if let Some(only) = only {
            return only.scale(wanted, &sizes);
        }
        let saturated = self.new.as_ref().is_some_and(|s| {
            s.replicas == wanted
                && s.available() == wanted
                && annotations::number(&s.annotations, annotations::DESIRED) == Some(wanted.into())
        });
        if saturated {
            return active.into_iter().for_each(|i| self.old[i].scale(0, &sizes));
        }
        if sizes.rolling {
            let had_new = self.new.is_some();
            let mut all: Vec<Set> = self.old.drain(..).chain(self.new.take()).collect();
            scale_in_proportion(&mut all, &sizes, self.base.replicas.unwrap_or_default());
            self.new = if had_new { all.pop() } else { None };
            self.old = all;
        }
    }

    /// One step of a rolling update; whether nothing was left to do.
    fn roll(&mut self) -> bool {
        self.ensure_current();
        let sizes = self.sizes;
        let Some(size) = self.new.as_ref().map(|s| s.replicas) else { return true };
        let next = if size == sizes.replicas { size } else { self.allowed_for_new(size) };
        if let Some(set) = &mut self.new
            && next != size
        {
            set.scale(next, &sizes);
            return false;
        }
        !self.shrink_old()
    }

    /// Takes from the old sets what availability allows, broken pods first; whether anything was taken.
    fn shrink_old(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let sizes = self.sizes;
        let before = total(&self.old);
        let new_unavailable = new.replicas - new.available();
        let most = before + new.replicas - sizes.min_available() - new_unavailable;
        if before == 0 || most <= 0 {
            return false;
        }
        let mut broken_left = most;
        for set in &mut self.old {
            let broken = set.replicas - set.available();
            let take = broken.min(broken_left).min(set.replicas);
            if take > 0 {
                set.scale(set.replicas - take, &sizes);
                broken_left -= take;
            }
        }
        let available = total_available(&self.old) + new.available();
        let mut left = available - sizes.min_available();
        for set in &mut self.old {
            let take = set.replicas.min(left);
            if take > 0 {
                set.scale(set.replicas - take, &sizes);
                left -= take;
            }
        }
        total(&self.old) != before
    }

    /// One step of Recreate: all old pods must be gone before the first new one starts.
    fn recreate(&mut self) -> bool {
        self.adopt_current();
        let sizes = self.sizes;
        let mut scaled = false;
        for set in self.old.iter_mut().filter(|s| s.is_active()) {
            set.scale(0, &sizes);
            scaled = true;
        }
        if scaled || self.old_pods_run() {
            return false;
        }
        self.ensure_current();
        match &mut self.new {
            Some(set) if set.replicas != sizes.replicas => {
                set.scale(sizes.replicas, &sizes);
                false
            }
            _ => true,
        }
    }

    fn old_pods_run(&self) -> bool {
        if self.old.iter().any(|s| s.status().0 > 0) {
            return true;
        }
        let old: Vec<&str> = self.old.iter().map(|s| uid(&s.object.metadata)).collect();
        self.observed
            .pods
            .iter()
            .filter(|p| controller_uid(&p.metadata).is_some_and(|c| old.contains(&c)))
            .any(|p| !pods::is_terminal(p))
    }

    /// Forgets the oldest empty sets beyond the history limit.
    fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit) else {
            return;
        };
        let mut kept: Vec<&Set> = self.old.iter().filter(|s| !is_deleting(&s.object.metadata)).collect();
        let excess = kept.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        kept.sort_by_key(|s| revision(&s.annotations));
        let idle = |s: &Set| {
            let status = s.object.status.as_ref();
            s.replicas == 0
                && s.replicas_before() == 0
                && status.is_none_or(|st| st.replicas == 0)
                && s.object.metadata.generation <= status.and_then(|st| st.observed_generation)
        };
        self.delete = kept.into_iter().take(excess).filter(|s| idle(s)).map(|s| s.object.clone()).collect();
    }

    fn finish(self, status: DeploymentStatus, look_again: Option<SignedDuration>) -> Plan {
        let mut actions = Vec::new();
        for set in self.new.iter().chain(&self.old) {
            if set.is_new {
                actions
                    .push(Action::CreateSet { set: Box::new((*set.object).clone()), replicas: set.replicas });
            } else if set.changed() {
                actions.push(update(set));
            }
        }
        actions.extend(self.delete.into_iter().map(Action::DeleteSet));
        let known = annotations_of(&self.deployment.metadata).get(REVISION);
        if let Some(revision) = self.revision.filter(|r| Some(r) != known) {
            actions.push(Action::SetRevision(revision));
        }
        if Some(&status) != self.deployment.status.as_ref() {
            actions.push(Action::WriteStatus(Box::new(status)));
        }
        Plan { actions, look_again }
    }
}

fn update(set: &Set) -> Action {
    let before = annotations_of(&set.object.metadata);
    let mut annotations: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (key, value) in set.annotations.iter().filter(|(k, v)| before.get(*k) != Some(v)) {
        annotations.insert(key.clone(), Some(value.clone()));
    }
    Action::UpdateSet {
        set: set.object.clone(),
        replicas: set.replicas,
        min_ready_seconds: set.min_ready_seconds.unwrap_or_default(),
        annotations,
    }
}

fn template_of(deployment: &Deployment) -> Option<&PodTemplateSpec> {
    deployment.spec.as_ref().map(|s| &s.template)
}

/// The set for `template`: the Deployment's selector and labels, and the hash in both.
fn new_set(deployment: &Deployment, template: &PodTemplateSpec, collisions: Option<i32>) -> ReplicaSet {
    let hash = template_hash(template, collisions);
    let spec = deployment.spec.as_ref();
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.map(|s| s.selector.clone()).unwrap_or_default();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds).filter(|s| *s != 0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
