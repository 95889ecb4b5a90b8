//! Watches, the same for every backend. A backend publishes its events here in order; the newest stay in memory.
//! A watcher is a cursor over them that asks the backend for history when it is further back than memory reaches.
//! So history and live are one path without a seam, and nothing is buffered for a slow reader: it goes on from
//! history until compaction has taken that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::Stream;
use tokio::sync::{Notify, watch};

use crate::{Entry, Event, Result, Revision, WatchItem};

/// One item carries at most about this much.
pub(crate) const ITEM_EVENTS: usize = 500;
pub(crate) const ITEM_BYTES: usize = 4 << 20;
/// How soon after writes elsewhere a watcher without events says how far it is.
const PROGRESS_DELAY: Duration = Duration::from_millis(100);
const RECENT_EVENTS: usize = 4096;

/// What a backend gives for watching.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    fn feed(&self) -> &Feed;

    /// Why watches must end now (the store was closed), if they must.
    fn check(&self) -> Result<()>;

    /// Events of the prefix after `cursor`, when memory does not reach back that far.
    async fn history(self: Arc<Self>, prefix: String, cursor: Revision) -> Result<Found>;
}

/// Events of one read and how far it came.
pub(crate) struct Found {
    pub(crate) events: Vec<Event>,
    /// Everything up to here was looked at.
    pub(crate) upto: Revision,
    /// The read ended because nothing was left, not because it was long enough.
    pub(crate) current: bool,
}

/// The newest events of a backend and all who watch.
#[derive(Debug)]
pub(crate) struct Feed {
    recent: RwLock<Recent>,
    watchers: Mutex<Vec<Arc<Registration>>>,
    revision: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Recent {
    events: VecDeque<Event>,
    bytes: usize,
    limit_bytes: usize,
    /// All events after this revision and up to `upto` are here.
    floor: Revision,
    upto: Revision,
}

#[derive(Debug)]
struct Registration {
    prefix: String,
    wake: Notify,
    /// The revision that somebody wants to hear this watch has reached.
    wanted: AtomicU64,
}

impl Feed {
    /// Of a backend that stands at `revision`.
    pub(crate) fn new(revision: Revision, limit_bytes: usize) -> Self {
        let recent =
            Recent { events: VecDeque::new(), bytes: 0, limit_bytes, floor: revision, upto: revision };
        Feed {
            recent: RwLock::new(recent),
            watchers: Mutex::default(),
            revision: watch::Sender::new(revision),
        }
    }

    /// Complete up to here.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    pub(crate) async fn wait_for(&self, revision: Revision) {
        // The sender is `self`, so the channel cannot close.
        let _ = self.revision.subscribe().wait_for(|reached| *reached >= revision).await;
    }

    /// Takes the events between the last `upto` and this one, in order, and wakes those whom they concern; the other
    /// watchers hear of the revision by and by.
    pub(crate) fn publish(&self, events: Vec<Event>, upto: Revision) {
        let keys: Vec<Arc<str>> = events.iter().map(|event| event_key(event).clone()).collect();
        self.recent.write().unwrap_or_else(PoisonError::into_inner).push(events, upto);
        for watcher in locked(&self.watchers).iter() {
            let wanted = watcher.wanted.load(Ordering::Acquire);
            if (0 < wanted && wanted <= upto) || keys.iter().any(|key| key.starts_with(&watcher.prefix)) {
                watcher.wake.notify_one();
            }
        }
        self.revision.send_replace(upto);
    }

    /// Starts again at a revision after a gap; watchers behind it turn to history.
    pub(crate) fn restart(&self, revision: Revision) {
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.events.clear();
            (recent.bytes, recent.floor, recent.upto) = (0, revision, revision);
        }
        self.revision.send_replace(revision);
        self.wake_all();
    }

    /// Every watch shall say when it has reached the revision.
    pub(crate) fn want_progress(&self, revision: Revision) {
        for watcher in locked(&self.watchers).iter() {
            watcher.wanted.fetch_max(revision, Ordering::AcqRel);
            watcher.wake.notify_one();
        }
    }

    pub(crate) fn wake_all(&self) {
        locked(&self.watchers).iter().for_each(|watcher| watcher.wake.notify_one());
    }

    /// `None` when memory does not reach back to `cursor`.
    fn after(&self, cursor: Revision, prefix: &str) -> Option<Found> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if cursor < recent.floor {
            return None;
        }
        let mut found = Found { events: Vec::new(), upto: cursor, current: true };
        let skip = recent.events.partition_point(|event| event_revision(event) <= cursor);
        for event in recent.events.range(skip..) {
            let revision = event_revision(event);
            // Never between two events of one revision.
            if found.events.len() >= ITEM_EVENTS && revision != found.upto {
                found.current = false;
                return Some(found);
            }
            found.upto = revision;
            if event_key(event).starts_with(prefix) {
                found.events.push(event.clone());
            }
        }
        found.upto = found.upto.max(recent.upto);
        Some(found)
    }
}

impl Recent {
    fn push(&mut self, events: Vec<Event>, upto: Revision) {
        for event in events {
            self.bytes += weight(&event);
            self.events.push_back(event);
        }
        self.upto = upto;
        while self.events.len() > RECENT_EVENTS || self.bytes > self.limit_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.floor = event_revision(&oldest);
        }
    }
}

/// Watches the source's events after `after` for keys that start with `prefix`.
pub(crate) fn watch<S: Source>(
    source: Arc<S>,
    prefix: &str,
    after: Revision,
) -> impl Stream<Item = Result<WatchItem>> + Send + 'static {
    let registration =
        Arc::new(Registration { prefix: prefix.to_owned(), wake: Notify::new(), wanted: AtomicU64::new(0) });
    locked(&source.feed().watchers).push(registration.clone());
    let revisions = source.feed().revision.subscribe();
    let watcher =
        Watcher { source, registration, revisions, cursor: after, announced: None, progress_due: false };
    futures::stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(item) => Some((Ok(item), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct Watcher<S: Source> {
    source: Arc<S>,
    registration: Arc<Registration>,
    revisions: watch::Receiver<Revision>,
    /// Everything up to here was looked at.
    cursor: Revision,
    /// What the reader knows to be complete; `None` until the catch-up is over.
    announced: Option<Revision>,
    /// Also say so when no event came.
    progress_due: bool,
}

impl<S: Source> Drop for Watcher<S> {
    fn drop(&mut self) {
        locked(&self.source.feed().watchers).retain(|other| !Arc::ptr_eq(other, &self.registration));
    }
}

impl<S: Source> Watcher<S> {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            self.source.check()?;
            let found = match self.source.feed().after(self.cursor, &self.registration.prefix) {
                Some(found) => found,
                None => self.source.clone().history(self.registration.prefix.clone(), self.cursor).await?,
            };
            self.cursor = found.upto;
            if let Some(last) = found.events.last() {
                self.announced = self.announced.map(|_| event_revision(last));
                return Ok(WatchItem::Events(found.events));
            }
            if !found.current {
                continue;
            }
            if self.must_announce() {
                self.progress_due = false;
                self.announced = Some(self.cursor);
                return Ok(WatchItem::Progress(self.cursor));
            }
            self.wait().await;
        }
    }

    fn must_announce(&self) -> bool {
        let Some(announced) = self.announced else { return true };
        let wanted = self.registration.wanted.load(Ordering::Acquire);
        if wanted != 0 && wanted <= self.cursor {
            // Leaves a later wish in place.
            let answered =
                self.registration.wanted.compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Acquire);
            return answered.is_ok();
        }
        self.progress_due && announced < self.cursor
    }

    /// Until an event of the prefix came, progress was asked for, or the revision moved on without us.
    async fn wait(&mut self) {
        let cursor = self.cursor;
        let behind = self.announced.is_some_and(|announced| announced < cursor);
        let revisions = &mut self.revisions;
        let moved = async {
            if !behind && revisions.wait_for(|revision| *revision > cursor).await.is_err() {
                // The backend is gone with all its events.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PROGRESS_DELAY).await;
        };
        tokio::select! {
            () = self.registration.wake.notified() => {}
            () = moved => self.progress_due = true,
        }
    }
}

pub(crate) fn event_revision(event: &Event) -> Revision {
    match event {
        Event::Put { entry, .. } => entry.mod_revision,
        Event::Delete { revision, .. } => *revision,
    }
}

pub(crate) fn event_key(event: &Event) -> &Arc<str> {
    match event {
        Event::Put { entry, .. } => &entry.key,
        Event::Delete { key, .. } => key,
    }
}

/// About what an event holds of memory.
pub(crate) fn weight(event: &Event) -> usize {
    let (entry, previous) = match event {
        Event::Put { entry, previous } => (Some(entry), previous.as_ref()),
        Event::Delete { previous, .. } => (None, previous.as_ref()),
    };
    let bytes = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.key.len() + entry.value.len());
    128 + bytes(entry) + bytes(previous)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole between statements; a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
