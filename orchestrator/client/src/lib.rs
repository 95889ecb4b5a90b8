//! How components meet the API: shared caches over watches, work queues, an event sink, task supervision and
//! telemetry, all on a `kube::Client`, whether that reaches a server over TLS or the router in this process.
//! Knows no server and no component.

pub mod cache;
mod delegated;
pub mod events;
pub mod queue;
pub mod supervise;
pub mod telemetry;

pub use cache::{Cache, Change};
pub use delegated::Delegated;
pub use events::EventSink;
pub use queue::WorkQueue;
pub use supervise::Scope;
