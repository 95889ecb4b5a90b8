//! The rows of the kinds that are built in, as data. Names, verbs and columns are Kubernetes' own.

use serde_json::Value;

use super::Subresource::{Other, Scale, Status};
use super::{Column, Kind, Strategy, Subresource};
use crate::field::FieldError;
use crate::rules;
use crate::schema::{self, Struct};

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces are never deleted by the collection.
const NAMESPACE_VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

/// The built-in kinds in the order of discovery: of a group's versions the preferred one comes first.
pub(super) fn rows() -> Vec<Kind> {
    let mut rows = core();
    rows.extend(groups());
    rows
}

fn core() -> Vec<Kind> {
    let core = |kind, resource, singular, short, namespaced, subresources, columns, strategy| {
        row(
            "",
            "v1",
            kind,
            Names(resource, singular, short, &[]),
            namespaced,
            subresources,
            columns,
            strategy,
        )
    };
    vec![
        Kind {
            verbs: &["create"],
            ..core("Binding", "bindings", "binding", &[], true, &[], NAME_AGE, &BindingRules)
        },
        core(
            "ConfigMap",
            "configmaps",
            "configmap",
            &["cm"],
            true,
            &[],
            CONFIG_MAP,
            &rules::config_map::STRATEGY,
        ),
        core(
            "Endpoints",
            "endpoints",
            "endpoints",
            &["ep"],
            true,
            &[],
            ENDPOINTS,
            &rules::endpoints::STRATEGY,
        ),
        core("Event", "events", "event", &["ev"], true, &[], EVENT, &rules::event::STRATEGY),
        Kind {
            verbs: NAMESPACE_VERBS,
            ..core(
                "Namespace",
                "namespaces",
                "namespace",
                &["ns"],
                false,
                &[Other("finalize"), Status],
                NAMESPACE,
                &rules::namespace::STRATEGY,
            )
        },
        core("Node", "nodes", "node", &["no"], false, &[Status], NODE, &rules::node::STRATEGY),
        core(
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            &["pvc"],
            true,
            &[Status],
            CLAIM,
            &rules::persistent_volume_claim::STRATEGY,
        ),
        core(
            "PersistentVolume",
            "persistentvolumes",
            "persistentvolume",
            &["pv"],
            false,
            &[Status],
            VOLUME,
            &rules::persistent_volume::STRATEGY,
        ),
        Kind {
            categories: &["all"],
            ..core("Pod", "pods", "pod", &["po"], true, POD_SUBRESOURCES, POD, &rules::pod::STRATEGY)
        },
        Kind {
            categories: &["all"],
            ..core(
                "ReplicationController",
                "replicationcontrollers",
                "replicationcontroller",
                &["rc"],
                true,
                &[Scale, Status],
                REPLICAS,
                &rules::replication_controller::STRATEGY,
            )
        },
        core("Secret", "secrets", "secret", &[], true, &[], SECRET, &rules::secret::STRATEGY),
        core(
            "ServiceAccount",
            "serviceaccounts",
            "serviceaccount",
            &["sa"],
            true,
            &[],
            NAME_AGE,
            &rules::service_account::STRATEGY,
        ),
        Kind {
            categories: &["all"],
            ..core(
                "Service",
                "services",
                "service",
                &["svc"],
                true,
                &[Status],
                SERVICE,
                &rules::service::STRATEGY,
            )
        },
    ]
}

fn groups() -> Vec<Kind> {
    let hpa = |version, strategy| {
        let names = Names("horizontalpodautoscalers", "horizontalpodautoscaler", &["hpa"], &["all"]);
        row("autoscaling", version, "HorizontalPodAutoscaler", names, true, &[Status], AUTOSCALER, strategy)
    };
    vec![
        Kind {
            stored_as: Some(("", "v1")),
            ..row(
                "events.k8s.io",
                "v1",
                "Event",
                Names("events", "event", &["ev"], &[]),
                true,
                &[],
                EVENT,
                &rules::events_event::STRATEGY,
            )
        },
        row(
            "apps",
            "v1",
            "ControllerRevision",
            Names("controllerrevisions", "controllerrevision", &[], &[]),
            true,
            &[],
            REVISION,
            &rules::controller_revision::STRATEGY,
        ),
        row(
            "apps",
            "v1",
            "Deployment",
            Names("deployments", "deployment", &["deploy"], &["all"]),
            true,
            &[Scale, Status],
            DEPLOYMENT,
            &rules::deployment::STRATEGY,
        ),
        row(
            "apps",
            "v1",
            "ReplicaSet",
            Names("replicasets", "replicaset", &["rs"], &["all"]),
            true,
            &[Scale, Status],
            REPLICAS,
            &rules::replica_set::STRATEGY,
        ),
        hpa("v2", &rules::horizontal_pod_autoscaler::STRATEGY),
        Kind {
            stored_as: Some(("autoscaling", "v2")),
            ..hpa("v1", &rules::horizontal_pod_autoscaler_v1::STRATEGY)
        },
        row(
            "coordination.k8s.io",
            "v1",
            "Lease",
            Names("leases", "lease", &[], &[]),
            true,
            &[],
            LEASE,
            &rules::lease::STRATEGY,
        ),
        row(
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            Names("endpointslices", "endpointslice", &[], &[]),
            true,
            &[],
            ENDPOINT_SLICE,
            &rules::endpoint_slice::STRATEGY,
        ),
        row(
            crate::own::GROUP,
            "v1alpha1",
            "ScalingPolicy",
            Names("scalingpolicies", "scalingpolicy", &["sp"], &["all"]),
            true,
            &[Status],
            SCALING_POLICY,
            &rules::scaling_policy::STRATEGY,
        ),
    ]
}

/// Plural, singular, short names and categories.
struct Names(&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    Names(resource, singular, short_names, categories): Names,
    namespaced: bool,
    subresources: &'static [Subresource],
    columns: &'static [Column],
    strategy: &'static dyn Strategy,
) -> Kind {
    // A test sees to it that every row has a schema; an empty one would refuse all fields.
    let schema = schema::of(group, version, kind).unwrap_or_else(|| {
        let (name, description) = (format!("{group}.{version}.{kind}"), String::new());
        std::sync::Arc::new(Struct { name, description, fields: Vec::new(), atomic: false })
    });
    Kind {
        group,
        version,
        kind,
        resource,
        singular,
        short_names,
        categories,
        namespaced,
        verbs: ALL_VERBS,
        subresources,
        schema,
        columns,
        strategy,
        stored_as: None,
    }
}

const POD_SUBRESOURCES: &[Subresource] =
    &[Other("attach"), Other("binding"), Other("eviction"), Other("exec"), Other("log"), Status];

/// The virtual kind `Binding`: it is created to assign a pod to a node and is never stored.
struct BindingRules;

impl Strategy for BindingRules {
    fn default(&self, _obj: &mut Value) {}

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let target = |field: &str| {
            obj.pointer(&format!("/target/{field}")).and_then(Value::as_str).unwrap_or_default()
        };
        let mut errors = Vec::new();
        if !matches!(target("kind"), "" | "Node") {
            errors.push(FieldError::not_supported(
                "target.kind",
                &Value::from(target("kind")),
                &["", "Node"],
            ));
        }
        if target("name").is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        errors
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        rules::pod::STRATEGY.validate_name(name)
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        crate::printers::name_and_age(obj, now)
    }
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
};
const AGE: Column = text(
    "Age",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.",
);

const fn column(name: &'static str, ty: &'static str, priority: u8, description: &'static str) -> Column {
    Column { name, ty, format: "", priority, description }
}

const fn text(name: &'static str, description: &'static str) -> Column {
    column(name, "string", 0, description)
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    column(name, "string", 1, description)
}

const fn number(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", 0, description)
}

const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
const LABEL_SELECTOR: Column = wide("Selector", "The label selector for the pods of this object.");

const NAME_AGE: &[Column] = &[NAME, AGE];
const CONFIG_MAP: &[Column] = &[NAME, text("Data", "The number of entries in data and binaryData."), AGE];
const ENDPOINTS: &[Column] =
    &[NAME, text("Endpoints", "The addresses and ports of the ready endpoints."), AGE];
const EVENT: &[Column] = &[
    text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    text("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    text(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the event.",
    ),
    text("Object", "The object that this event is about."),
    wide("Subobject", "The part of the object that this event is about."),
    wide("Source", "The component reporting this event."),
    text("Message", "A human-readable description of the status of this operation."),
    wide("First Seen", "The time at which the event was first recorded."),
    wide("Count", "The number of times this event has occurred."),
    Column { priority: 1, ..NAME },
];
const NAMESPACE: &[Column] = &[NAME, text("Status", "The status of the namespace"), AGE];
const NODE: &[Column] = &[
    NAME,
    text("Status", "The status of the node"),
    text("Roles", "The roles of the node"),
    AGE,
    text("Version", "Kubelet Version reported by the node."),
    wide("Internal-IP", "The first address of type InternalIP."),
    wide("External-IP", "The first address of type ExternalIP."),
    wide("OS-Image", "OS Image reported by the node."),
    wide("Kernel-Version", "Kernel Version reported by the node."),
    wide("Container-Runtime", "ContainerRuntime Version reported by the node."),
];
const CLAIM: &[Column] = &[
    NAME,
    text("Status", "The current phase of the claim."),
    text("Volume", "The binding reference to the PersistentVolume backing this claim."),
    text("Capacity", "The actual resources of the underlying volume."),
    text("Access Modes", "The access modes of the volume backing the claim."),
    text("StorageClass", "The name of the StorageClass required by the claim."),
    text("VolumeAttributesClass", "The name of the VolumeAttributesClass used by this claim."),
    AGE,
    wide("VolumeMode", "What type of volume is required by the claim."),
];
const VOLUME: &[Column] = &[
    NAME,
    text("Capacity", "The volume's resources and capacity."),
    text("Access Modes", "All ways the volume can be mounted."),
    text("Reclaim Policy", "What happens to the volume when it is released from its claim."),
    text("Status", "Whether the volume is available, bound to a claim, or released by a claim."),
    text("Claim", "The claim that the volume is bound to."),
    text("StorageClass", "The name of the StorageClass to which this volume belongs."),
    text("VolumeAttributesClass", "The name of the VolumeAttributesClass to which this volume belongs."),
    text("Reason", "Why the volume is in this state."),
    AGE,
    wide("VolumeMode", "Whether the volume is used with a filesystem or as a raw block device."),
];
const POD: &[Column] = &[
    NAME,
    text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    text("Status", "The aggregate status of the containers in this pod."),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide("IP", "The address allocated to the pod."),
    wide("Node", "The node that the pod was assigned to."),
    wide("Nominated Node", "The node on which a place for the pod is being made."),
    wide("Readiness Gates", "Conditions beside the containers' own that the pod's readiness needs."),
];
const REPLICAS: &[Column] = &[
    NAME,
    number("Desired", "The number of desired replicas."),
    number("Current", "The most recently observed number of replicas."),
    number("Ready", "The number of ready replicas."),
    AGE,
    CONTAINERS,
    IMAGES,
    LABEL_SELECTOR,
];
const SECRET: &[Column] = &[
    NAME,
    text("Type", "Used to facilitate programmatic handling of secret data."),
    text("Data", "The number of entries in data."),
    AGE,
];
const SERVICE: &[Column] = &[
    NAME,
    text("Type", "How the Service is exposed."),
    text("Cluster-IP", "The address of the service inside the cluster."),
    text("External-IP", "Addresses at which the service can be reached from outside."),
    text("Port(s)", "The ports that are exposed by this service."),
    AGE,
    wide("Selector", "The labels of the pods that traffic is routed to."),
];
const REVISION: &[Column] = &[
    NAME,
    text("Controller", "Controller of the object"),
    text("Revision", "Revision indicates the revision of the state represented by Data."),
    AGE,
];
const DEPLOYMENT: &[Column] = &[
    NAME,
    text("Ready", "Number of the pod with ready state"),
    text("Up-to-date", "Total number of pods of this deployment that have the desired template."),
    text("Available", "Total number of pods of this deployment that are available."),
    AGE,
    CONTAINERS,
    IMAGES,
    LABEL_SELECTOR,
];
const AUTOSCALER: &[Column] = &[
    NAME,
    text("Reference", "The workload that is scaled."),
    text("Targets", "Each metric's current value and its target."),
    text("MinPods", "The lower limit for the number of replicas."),
    text("MaxPods", "The upper limit for the number of replicas."),
    text("Replicas", "The current number of replicas."),
    AGE,
];
const LEASE: &[Column] = &[NAME, text("Holder", "The identity of the holder of the lease."), AGE];
const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    text("AddressType", "The type of address carried by this EndpointSlice."),
    text("Ports", "The ports exposed by each endpoint in this slice."),
    text("Endpoints", "The addresses of the endpoints."),
    AGE,
];
const SCALING_POLICY: &[Column] = &[
    NAME,
    text("Target", "The workload that is scaled."),
    text("Min", "The lower limit for the number of replicas."),
    text("Max", "The upper limit for the number of replicas."),
    text("Current", "The replicas that the target has."),
    text("Desired", "The replicas that the last decision asks for."),
    text("Mode", "Whether decisions are carried out."),
    AGE,
];
