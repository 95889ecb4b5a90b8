//! Taint eviction: deletes the pods that do not tolerate a NoExecute taint of their node, when their toleration runs
//! out. In the fast profile, pods of ReplicaSets on an unreachable node go at once, so that replacements start.

pub(crate) mod plan;
pub(crate) mod run;
