//! Keeps every watch cache in step with the store: one load, one watch for all, again from where it was when the
//! store comes back. Knows how far the caches are, so that reads can wait until they are fresh.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use loadline_api::status::{ApiError, Reason};
use loadline_store::{At, Event, Revision, Store, StoreError, WatchItem, prefix_range};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cache::{Cache, Object, ROOT};
use crate::respond::{store_error, too_large};

const PAGE: usize = 2_000;
/// How long a read waits for the caches before it fails.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(250);

pub(crate) struct Feed {
    store: Arc<dyn Store>,
    /// By the first segment of the key after the root: `deployments.apps`.
    caches: ArcSwap<HashMap<String, Arc<Cache>>>,
    progress: AtomicU64,
    reached: watch::Sender<Revision>,
}

impl Feed {
    pub(crate) fn new(store: Arc<dyn Store>, caches: impl IntoIterator<Item = Arc<Cache>>) -> Self {
        let caches = caches.into_iter().map(|c| (segment(&c.prefix).to_owned(), c)).collect();
        Self {
            store,
            caches: ArcSwap::from_pointee(caches),
            progress: AtomicU64::new(0),
            reached: watch::Sender::new(0),
        }
    }

    /// Everything up to here is in the caches; 0 before the first load.
    pub(crate) fn progress(&self) -> Revision {
        self.progress.load(Ordering::Acquire)
    }

    /// Waits until the caches hold everything up to `revision`.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), ApiError> {
        if self.progress() >= revision && self.progress() > 0 {
            return Ok(());
        }
        let mut reached = self.reached.subscribe();
        let waited = tokio::time::timeout(PATIENCE, reached.wait_for(|p| *p >= revision.max(1))).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ if self.progress() == 0 => Err(loading()),
            _ => Err(too_large(revision, self.progress())),
        }
    }

    /// Waits until the caches hold what the store has acknowledged at the time of the call, and tells up to where.
    pub(crate) async fn fresh(&self) -> Result<Revision, ApiError> {
        let current = self.store.revision().await.map_err(store_error)?;
        let progress = self.progress();
        if progress >= current && progress > 0 {
            return Ok(progress);
        }
        self.catch_up(current).await
    }

    #[cold]
    async fn catch_up(&self, current: Revision) -> Result<Revision, ApiError> {
        let mut reached = self.reached.subscribe();
        if self.progress() < current {
            // The store says when it has sent everything, also where other keys moved its revision.
            let asked = self.store.request_progress().await.map_err(store_error)?;
            tracing::trace!(asked, current, "waiting for the cache");
        }
        match tokio::time::timeout(PATIENCE, reached.wait_for(|p| *p >= current.max(1))).await {
            Ok(Ok(progress)) => Ok(*progress),
            _ if self.progress() == 0 => Err(loading()),
            _ => {
                warn!(current, progress = self.progress(), "the watch cache does not keep up with the store");
                Err(ApiError::new(
                    Reason::ServiceUnavailable,
                    "the watch cache does not keep up with the store at the moment, please try again",
                )
                .retry_after(1))
            }
        }
    }

    /// Any state will do, as long as there is one.
    pub(crate) fn any(&self) -> Result<Revision, ApiError> {
        match self.progress() {
            0 => Err(loading()),
            revision => Ok(revision),
        }
    }

    /// Follows the store for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut from = None;
        loop {
            let after = match from {
                Some(revision) => revision,
                None => match self.load().await {
                    Ok(revision) => revision,
                    Err(error) => {
                        warn!(%error, "the caches cannot be loaded, trying again");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                },
            };
            let end = self.follow(after).await;
            from = match end {
                StoreError::Compacted { requested, oldest } => {
                    warn!(requested, oldest, "history was compacted past the caches, loading again");
                    None
                }
                StoreError::Future { requested, current } => {
                    warn!(requested, current, "the store went back, loading again");
                    None
                }
                error => {
                    warn!(%error, "the watch on the store ended, watching again");
                    tokio::time::sleep(RETRY).await;
                    Some(self.progress())
                }
            };
        }
    }

    async fn load(&self) -> Result<Revision, StoreError> {
        let caches = self.caches.load_full();
        let mut range = prefix_range(ROOT);
        let mut at = At::Latest;
        let mut revision = 0;
        let mut objects: HashMap<&str, Vec<Object>> = HashMap::new();
        loop {
            let page = self.store.range(range.clone(), PAGE, at).await?;
            revision = if let At::Revision(r) = at { r } else { revision.max(page.revision) };
            at = At::Revision(revision);
            for entry in &page.entries {
                if let Some((name, cache)) = caches.get_key_value(segment(&entry.key)) {
                    objects.entry(name).or_default().push(cache.object(entry));
                }
            }
            match page.entries.last() {
                Some(last) if page.more => range.start = format!("{}\0", last.key),
                _ => break,
            }
        }
        // An empty store stands at revision 0; readers take 0 for "not loaded".
        let revision = revision.max(1);
        let count: usize = objects.values().map(Vec::len).sum();
        for (name, cache) in caches.iter() {
            cache.load(objects.remove(name.as_str()).unwrap_or_default(), revision);
        }
        info!(objects = count, revision, "watch caches loaded");
        self.advance(revision);
        Ok(revision)
    }

    async fn follow(&self, after: Revision) -> StoreError {
        let mut stream = match self.store.watch(ROOT, after).await {
            Ok(stream) => stream,
            // See the empty store above.
            Err(StoreError::Future { requested: 1, current: 0 }) => match self.store.watch(ROOT, 0).await {
                Ok(stream) => stream,
                Err(error) => return error,
            },
            Err(error) => return error,
        };
        let mut touched: Vec<Arc<Cache>> = Vec::new();
        while let Some(item) = stream.next().await {
            match item {
                Ok(WatchItem::Progress(revision)) => self.advance(revision),
                Ok(WatchItem::Events(events)) => {
                    if let Some(last) = self.apply(&events, &mut touched) {
                        self.advance(last);
                    }
                    touched.drain(..).for_each(|c| c.notify());
                }
                Err(error) => return error,
            }
        }
        StoreError::Unavailable("the watch on the store was closed".to_owned())
    }

    fn apply(&self, events: &[Event], touched: &mut Vec<Arc<Cache>>) -> Option<Revision> {
        let caches = self.caches.load();
        let mut last = None;
        for event in events {
            let (key, revision) = match event {
                Event::Put { entry, .. } => (&entry.key, entry.mod_revision),
                Event::Delete { key, revision, .. } => (key, *revision),
            };
            last = Some(revision);
            let Some(cache) = caches.get(segment(key)) else { continue };
            match event {
                Event::Put { entry, .. } => cache.put(entry),
                Event::Delete { key, revision, .. } => cache.delete(key, *revision),
            }
            if !touched.iter().any(|c| Arc::ptr_eq(c, cache)) {
                touched.push(cache.clone());
            }
        }
        last
    }

    fn advance(&self, revision: Revision) {
        if revision > self.progress() {
            self.progress.store(revision, Ordering::Release);
            self.reached.send_replace(revision);
        }
    }

    /// Lets go of old events, also of kinds that are quiet now.
    pub(crate) fn prune(&self) {
        self.caches.load().values().for_each(|c| c.prune());
    }
}

fn loading() -> ApiError {
    ApiError::new(
        Reason::ServiceUnavailable,
        "the server is still loading its data from the store, please try again",
    )
    .retry_after(1)
}

fn segment(key: &str) -> &str {
    key.strip_prefix(ROOT).and_then(|rest| rest.split('/').next()).unwrap_or_default()
}
