//! Deployment: moves pods from one template to the next by scaling ReplicaSets, one per template. Owns those
//! ReplicaSets, the revision annotations and the status; never touches a pod.

pub(crate) mod annotations;
pub(crate) mod hash;
pub(crate) mod plan;
mod progress;
pub(crate) mod run;
mod sets;
