//! What the one implementation needs to know of each of its two kinds.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{Condition, Spec, Status};
use crate::error::Result;
use crate::meta::{Labels, is_deleting, parse_selector};

pub(crate) trait ReplicaKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + Serialize
    + Debug
    + Send
    + Sync
    + 'static
{
    const QUEUE: &'static str;
    const REPORTER: &'static str;

    fn spec(&self) -> Result<Spec>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> Status;
    fn with_status(&self, status: &Status) -> Self;
}

fn template_labels(template: Option<&PodTemplateSpec>) -> Labels {
    template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default()
}

fn spec(
    meta: &ObjectMeta,
    replicas: Option<i32>,
    min_ready: Option<i32>,
    selector: kube::core::Selector,
    template: Option<&PodTemplateSpec>,
) -> Spec {
    Spec {
        replicas: replicas.unwrap_or(1),
        min_ready_seconds: min_ready.unwrap_or_default(),
        selector,
        template_labels: template_labels(template),
        deleting: is_deleting(meta),
        generation: meta.generation,
    }
}

impl ReplicaKind for ReplicaSet {
    const QUEUE: &'static str = "replicaset";
    const REPORTER: &'static str = "replicaset-controller";

    fn spec(&self) -> Result<Spec> {
        let s = self.spec.clone().unwrap_or_default();
        let selector = parse_selector(&s.selector)?;
        Ok(spec(&self.metadata, s.replicas, s.min_ready_seconds, selector, s.template.as_ref()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let s = self.status.clone().unwrap_or_default();
        Status {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or_default(),
            ready: s.ready_replicas.unwrap_or_default(),
            available: s.available_replicas.unwrap_or_default(),
            terminating: s.terminating_replicas,
            observed_generation: s.observed_generation,
            conditions: s
                .conditions
                .into_iter()
                .flatten()
                .map(|c| Condition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    message: c.message,
                    last_transition_time: c.last_transition_time,
                })
                .collect(),
        }
    }

    fn with_status(&self, s: &Status) -> Self {
        let conditions: Vec<ReplicaSetCondition> = s
            .conditions
            .iter()
            .cloned()
            .map(|c| ReplicaSetCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            })
            .collect();
        let status = ReplicaSetStatus {
            replicas: s.replicas,
            fully_labeled_replicas: nonzero(s.fully_labeled),
            ready_replicas: nonzero(s.ready),
            available_replicas: nonzero(s.available),
            terminating_replicas: s.terminating,
            observed_generation: s.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

impl ReplicaKind for ReplicationController {
    const QUEUE: &'static str = "replicationmanager";
    const REPORTER: &'static str = "replication-controller";

    fn spec(&self) -> Result<Spec> {
        let s = self.spec.clone().unwrap_or_default();
        // Defaulting fills the selector from the template; without one it selects nothing of its own.
        let labels =
            s.selector.filter(|l| !l.is_empty()).unwrap_or_else(|| template_labels(s.template.as_ref()));
        let selector = labels.into_iter().collect();
        Ok(spec(&self.metadata, s.replicas, s.min_ready_seconds, selector, s.template.as_ref()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Status {
        let s = self.status.clone().unwrap_or_default();
        Status {
            replicas: s.replicas,
            fully_labeled: s.fully_labeled_replicas.unwrap_or_default(),
            ready: s.ready_replicas.unwrap_or_default(),
            available: s.available_replicas.unwrap_or_default(),
            terminating: None,
            observed_generation: s.observed_generation,
            conditions: s
                .conditions
                .into_iter()
                .flatten()
                .map(|c| Condition {
                    type_: c.type_,
                    status: c.status,
                    reason: c.reason,
                    message: c.message,
                    last_transition_time: c.last_transition_time,
                })
                .collect(),
        }
    }

    fn with_status(&self, s: &Status) -> Self {
        let conditions: Vec<ReplicationControllerCondition> = s
            .conditions
            .iter()
            .cloned()
            .map(|c| ReplicationControllerCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            })
            .collect();
        let status = ReplicationControllerStatus {
            replicas: s.replicas,
            fully_labeled_replicas: nonzero(s.fully_labeled),
            ready_replicas: nonzero(s.ready),
            available_replicas: nonzero(s.available),
            observed_generation: s.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

/// Zero counts are left out on the wire.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
