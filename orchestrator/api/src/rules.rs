//! The rules of every kind: defaults, preparation of writes, validation, selectable fields and warnings, one module per
//! kind, as Kubernetes 1.36 has them. Everything works on decoded objects (types are right, unknown fields are gone).
//!
//! Owns no storage and no allocation: addresses, ports, uids and times come from the server.

mod base64;
mod checks;
pub mod config_map;
mod containers;
pub mod controller_revision;
pub mod deployment;
pub mod durations;
pub mod endpoint_slice;
pub mod endpoints;
mod env;
pub mod event;
pub mod events_event;
mod handlers;
pub mod horizontal_pod_autoscaler;
pub mod horizontal_pod_autoscaler_v1;
mod labels;
pub mod lease;
pub mod meta;
pub mod names;
pub mod namespace;
pub mod node;
pub mod path;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
mod pod_defaults;
pub mod pod_spec;
pub mod pod_template;
mod pod_warnings;
pub mod replica_set;
pub mod replication_controller;
mod resources;
pub mod scale;
pub mod scaling_policy;
mod scheduling;
pub mod secret;
mod security;
pub mod service;
pub mod service_account;
mod service_update;
mod value;
mod volumes;
mod workload;

#[cfg(test)]
mod default_tests;
#[cfg(test)]
mod invalid_tests;
#[cfg(test)]
mod wire_tests;
