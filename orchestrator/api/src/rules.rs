//! The rules of every kind: defaults, preparation of writes, validation, selectable fields and warnings, one module per
//! kind, as Kubernetes 1.36 has them. Everything works on decoded objects (types are right, unknown fields are gone).
//!
//! Owns no storage and no allocation: addresses, ports, uids and times come from the server.

pub mod config_map;
pub mod controller_revision;
pub mod deployment;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod events_event;
pub mod horizontal_pod_autoscaler;
pub mod horizontal_pod_autoscaler_v1;
pub mod lease;
pub mod names;
pub mod namespace;
pub mod node;
pub mod path;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod replica_set;
pub mod replication_controller;
pub mod scaling_policy;
pub mod secret;
pub mod service;
pub mod service_account;
