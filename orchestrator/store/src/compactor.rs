//! Periodic compaction, as kube-apiserver does it: each round forgets what was already past at the round before.
//! Owns no state of the store; whoever assembles the server decides whether it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Revision, Store, StoreError};

/// Keeps between one and two `keep` of history until `stop`. Failures are logged and tried again next round.
pub async fn compact_periodically(store: Arc<dyn Store>, keep: Duration, stop: CancellationToken) {
    let mut previous: Option<Revision> = None;
    let mut ticks = tokio::time::interval(keep);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(current) = store.revision().await else { continue };
        if let Some(revision) = previous.filter(|revision| *revision < current) {
            match store.compact(revision).await {
                // Somebody else was first: as good.
                Ok(()) | Err(StoreError::Compacted { .. }) => debug!(revision, "history compacted"),
                Err(error) => warn!(%error, revision, "compaction failed"),
            }
        }
        previous = Some(current);
    }
}
