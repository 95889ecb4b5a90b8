//! The objects that the controller watches, reduced to what decisions need.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::{ObjectReference, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ListableResource, Metadata, NamespaceResourceScope, Resource};
use kube::Resource as _;
use loadline_api::own::{Mode, ScalingPolicy};
use loadline_api::selector::Selector;
use serde::Deserialize;

use crate::amount::milli;
use crate::policy::{HOLD_UNTIL, Policy};
use crate::record::{Amounts, Container, Pod, Ready};

/// Either kind of autoscaler.
#[derive(Clone)]
pub(crate) enum Object {
    Hpa(Arc<HorizontalPodAutoscaler>),
    Policy(Arc<ScalingPolicy>),
}

impl Object {
    pub(crate) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Hpa(o) => &o.metadata,
            Self::Policy(o) => &o.metadata,
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        match self {
            Self::Hpa(o) => Policy::from_hpa(o),
            Self::Policy(o) => Policy::from_scaling_policy(o),
        }
    }

    pub(crate) fn target(&self) -> CrossVersionObjectReference {
        match self {
            Self::Hpa(o) => o.spec.scale_target_ref.clone(),
            Self::Policy(o) => o.spec.scale_target_ref.clone(),
        }
    }

    /// Whether its decisions are carried out; one that only watches is nobody's rival.
    pub(crate) fn acts(&self) -> bool {
        match self {
            Self::Hpa(_) => true,
            Self::Policy(o) => o.spec.mode == Mode::Auto,
        }
    }

    /// For Events.
    pub(crate) fn reference(&self) -> ObjectReference {
        match self {
            Self::Hpa(o) => o.object_ref(&()),
            Self::Policy(o) => o.object_ref(&()),
        }
    }

    /// Who was there first: by creation, then by kind and name.
    pub(crate) fn rank(&self) -> (Timestamp, u8, &str) {
        let meta = self.meta();
        let created = meta.creation_timestamp.as_ref().map_or(Timestamp::MAX, |t| t.0);
        let kind = match self {
            Self::Hpa(_) => 0,
            Self::Policy(_) => 1,
        };
        (created, kind, meta.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn hold_until(&self) -> Option<i64> {
        let text = self.meta().annotations.as_ref()?.get(HOLD_UNTIL)?;
        text.parse::<Timestamp>().ok().map(|t| t.as_millisecond())
    }
}

/// A pod, of which the cache keeps only what decisions look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "RawPod")]
pub(crate) struct PodView {
    pub(crate) metadata: ObjectMeta,
    requests: Amounts,
    limits: Amounts,
    containers: Vec<Container>,
    phase: String,
    started: Option<Timestamp>,
    ready: Option<(String, Option<Timestamp>)>,
}

impl PodView {
    pub(crate) fn selected(&self, selector: &Selector) -> bool {
        let none = std::collections::BTreeMap::new();
        selector.matches(self.metadata.labels.as_ref().unwrap_or(&none))
    }

    /// The pod as a decision at `now` sees it, without a sample.
    pub(crate) fn seen(&self, now: Timestamp) -> Pod {
        let ago = |t: Timestamp| now.as_millisecond() - t.as_millisecond();
        Pod {
            name: self.metadata.name.clone().unwrap_or_default(),
            phase: self.phase.clone(),
            deleted: self.metadata.deletion_timestamp.is_some(),
            started_ago: self.started.map(ago),
            ready: self.ready.as_ref().map(|(status, changed)| Ready {
                status: status.clone(),
                // Without a time the change is as old as time itself.
                changed_ago: ago(changed.unwrap_or_default()),
            }),
            requests: self.requests.clone(),
            limits: self.limits.clone(),
            containers: self.containers.clone(),
            sample: None,
        }
    }
}

impl Resource for PodView {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl ListableResource for PodView {
    const LIST_KIND: &'static str = "PodList";
}

impl Metadata for PodView {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize)]
struct RawPod {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    resources: Option<ResourceRequirements>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    name: String,
    restart_policy: Option<String>,
    resources: Option<ResourceRequirements>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    start_time: Option<Time>,
    conditions: Vec<RawCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: Option<Time>,
}

impl From<RawPod> for PodView {
    fn from(raw: RawPod) -> Self {
        let meta = raw.metadata;
        let sidecars =
            raw.spec.init_containers.into_iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let containers = raw.spec.containers.into_iter().chain(sidecars);
        let (requests, limits) = amounts(raw.spec.resources.as_ref());
        Self {
            metadata: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                labels: meta.labels,
                deletion_timestamp: meta.deletion_timestamp,
                ..ObjectMeta::default()
            },
            requests,
            limits,
            containers: containers
                .map(|c| {
                    let (requests, limits) = amounts(c.resources.as_ref());
                    Container { name: c.name, requests, limits }
                })
                .collect(),
            phase: raw.status.phase,
            started: raw.status.start_time.map(|t| t.0),
            ready: raw
                .status
                .conditions
                .into_iter()
                .find(|c| c.type_ == "Ready")
                .map(|c| (c.status, c.last_transition_time.map(|t| t.0))),
        }
    }
}

fn amounts(resources: Option<&ResourceRequirements>) -> (Amounts, Amounts) {
    let of = |list: Option<&std::collections::BTreeMap<String, _>>| {
        list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), milli(v)?))).collect()
    };
    (of(resources.and_then(|r| r.requests.as_ref())), of(resources.and_then(|r| r.limits.as_ref())))
}
