//! The types that the schemas start from: every kind of the table and the bodies of subresources and options.

use k8s_openapi::{api, apimachinery};
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Group, version and kind of a root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gvk {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
}

pub(super) type Root = (Gvk, fn(&mut SchemaGenerator) -> Schema);

macro_rules! roots {
    ($($module:path, $group:literal $version:literal: $($kind:ident)+;)+) => {
        pub(super) fn all() -> Vec<Root> {
            let mut roots: Vec<Root> = Vec::new();
            $({
                use $module as module;
                $(roots.push((
                    Gvk { group: $group, version: $version, kind: stringify!($kind) },
                    schema::<module::$kind>,
                ));)+
            })+
            roots
        }
    };
}

roots! {
    api::core::v1, "" "v1":
        Binding ConfigMap Endpoints Event Namespace Node PersistentVolume PersistentVolumeClaim Pod
        ReplicationController Secret Service ServiceAccount;
    api::apps::v1, "apps" "v1": ControllerRevision Deployment ReplicaSet;
    api::autoscaling::v1, "autoscaling" "v1": HorizontalPodAutoscaler Scale;
    api::autoscaling::v2, "autoscaling" "v2": HorizontalPodAutoscaler;
    api::coordination::v1, "coordination.k8s.io" "v1": Lease;
    api::discovery::v1, "discovery.k8s.io" "v1": EndpointSlice;
    api::events::v1, "events.k8s.io" "v1": Event;
    api::policy::v1, "policy" "v1": Eviction;
    apimachinery::pkg::apis::meta::v1, "meta.k8s.io" "v1": DeleteOptions Status;
    crate::own, "autoscaling.loadline.io" "v1alpha1": ScalingPolicy;
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
