//! ReplicaSet and ReplicationController: keeps as many pods of a template as asked for. One implementation for both
//! kinds. Owns the pods' existence and the status of its object; never touches a running pod.

mod kinds;
pub(crate) mod plan;
pub(crate) mod run;
