//! Finds a node for every pod that names this scheduler: filters what cannot run it, scores what can, binds.
//!
//! Decisions are pure functions over a snapshot that one task keeps up to date from events. Another scheduler may run
//! beside it: pods that name a different one are never touched.

mod affinity;
mod filter;
mod plan;
mod pod;
mod queue;
mod run;
mod score;
mod snapshot;
mod spread;

pub use plan::{FitError, decide};
pub use pod::PodInfo;
pub use run::{Config, start};
pub use snapshot::{NodeInfo, Snapshot};
