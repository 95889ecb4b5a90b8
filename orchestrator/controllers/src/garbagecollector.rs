//! Garbage collection: deletes what has lost its last owner, in the background or before the owner goes
//! (foreground), or lets it go (orphan). Works on metadata only. Deletes nothing that it has not looked up on the
//! server just before, by uid.

pub(crate) mod graph;
pub(crate) mod plan;
pub(crate) mod run;
