//! Node life cycle: notices nodes that fell silent, says so in their status and taints, and takes their pods out of
//! the Services. Decides whether a node may be evicted; the deed is the taint eviction's. Never deletes anything.

pub(crate) mod plan;
pub(crate) mod run;
