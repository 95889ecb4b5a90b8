//! The cells of server-side tables: what `kubectl get` shows. One function per kind, each in the order of the kind's
//! columns, wide ones included.
//!
//! Pure: `now` (Unix seconds) is passed in for ages. Never fails: a field that is missing or malformed shows as a
//! client of Kubernetes would see it, `<none>`, `<unknown>` or empty.

mod autoscaling;
mod cell;
mod cluster;
mod config;
mod event;
mod network;
mod pod;
mod time;
mod workload;

pub use autoscaling::{horizontal_pod_autoscaler, horizontal_pod_autoscaler_v1, scaling_policy};
pub use cluster::{lease, namespace, node, persistent_volume, persistent_volume_claim};
pub use config::{config_map, name_and_age, secret, service_account};
pub use event::{event, events_event};
pub use network::{endpoint_slice, endpoints, service};
pub use pod::{pod, pod_status};
pub use time::{age, human_duration};
pub use workload::{controller_revision, deployment, replica_set, replication_controller};
