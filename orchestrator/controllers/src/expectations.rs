//! What a controller has asked for and its cache has not shown yet. While something is outstanding, the controller
//! neither creates nor deletes: a stale cache must never make it act twice.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A lost event must not block a controller for ever; client-go waits as long.
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Outstanding {
    creations: i64,
    /// Uids of the objects whose deletion was asked for.
    deletions: HashSet<String>,
    since: Instant,
}

/// By the uid of the controller object. Cloning shares.
#[derive(Clone, Default)]
pub(crate) struct Expectations(Arc<Mutex<HashMap<String, Outstanding>>>);

impl Expectations {
    pub(crate) fn fulfilled(&self, owner: &str) -> bool {
        self.lock()
            .get(owner)
            .is_none_or(|o| (o.creations <= 0 && o.deletions.is_empty()) || o.since.elapsed() > TIMEOUT)
    }

    /// Replaces what was expected before; call it before the requests go out.
    pub(crate) fn expect(&self, owner: &str, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let outstanding = Outstanding {
            creations: i64::try_from(creations).unwrap_or(i64::MAX),
            deletions: deletions.into_iter().collect(),
            since: Instant::now(),
        };
        self.lock().insert(owner.to_owned(), outstanding);
    }

    /// Seen in the cache, or failed for good.
    pub(crate) fn created(&self, owner: &str, count: usize) {
        if let Some(o) = self.lock().get_mut(owner) {
            o.creations -= i64::try_from(count).unwrap_or(i64::MAX);
        }
    }

    pub(crate) fn deleted(&self, owner: &str, uid: &str) {
        if let Some(o) = self.lock().get_mut(owner) {
            o.deletions.remove(uid);
        }
    }

    pub(crate) fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Outstanding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn blocks_until_everything_was_seen_or_five_minutes_have_passed() {
        let e = Expectations::default();
        assert!(e.fulfilled("a"));
        e.expect("a", 2, []);
        e.created("a", 1);
        assert!(!e.fulfilled("a"));
        e.created("a", 1);
        assert!(e.fulfilled("a"));
        e.expect("a", 0, ["x".to_owned(), "y".to_owned()]);
        e.deleted("a", "x");
        e.deleted("a", "x");
        assert!(!e.fulfilled("a"), "y is still there");
        tokio::time::advance(TIMEOUT + Duration::from_secs(1)).await;
        assert!(e.fulfilled("a"));
        e.expect("a", 1, []);
        e.forget("a");
        assert!(e.fulfilled("a"));
    }
}
