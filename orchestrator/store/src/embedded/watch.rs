//! Watches of the embedded store. A watcher is a cursor: it reads what came after its last revision, from the newest
//! events in memory or, when it is further back, from disk. So history and live are one path without a seam, and
//! nothing is buffered for a slow reader: it reads older records until compaction has taken them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use redb::ReadableTable;
use tokio::sync::{Notify, watch};

use super::file::EVENTS;
use super::index::Version;
use super::record::Record;
use super::state::{event_key, event_revision};
use super::writer::load;
use super::{Shared, locked};
use crate::{Entry, Event, Result, Revision, StoreError, WatchItem};

/// One item carries at most about this much.
const ITEM_EVENTS: usize = 500;
const ITEM_BYTES: usize = 4 << 20;
/// Records looked at in one read from disk, whether they match or not.
const SCAN_RECORDS: usize = 20_000;
/// How soon after writes elsewhere a watcher without events says how far it is.
const PROGRESS_DELAY: Duration = Duration::from_millis(100);

/// All watchers: whom to wake.
#[derive(Debug)]
pub(super) struct Watchers {
    registered: Mutex<Vec<Arc<Registration>>>,
    revision: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Registration {
    prefix: String,
    wake: Notify,
    /// Somebody asked how far this watch is.
    progress: AtomicBool,
}

impl Watchers {
    pub(super) fn new(revision: Revision) -> Self {
        Watchers { registered: Mutex::default(), revision: watch::Sender::new(revision) }
    }

    /// Wakes those whom one of the events concerns; the others hear of the revision by and by.
    pub(super) fn announce(&self, keys: &[Arc<str>], revision: Revision) {
        for registration in locked(&self.registered).iter() {
            if keys.iter().any(|key| key.starts_with(&registration.prefix)) {
                registration.wake.notify_one();
            }
        }
        self.revision.send_replace(revision);
    }

    pub(super) fn request_progress(&self) {
        for registration in locked(&self.registered).iter() {
            registration.progress.store(true, Ordering::Release);
            registration.wake.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        locked(&self.registered).iter().for_each(|registration| registration.wake.notify_one());
    }
}

/// Events of one read and how far it came.
struct Found {
    events: Vec<Event>,
    upto: Revision,
    /// Nothing was left at the time of reading.
    current: bool,
}

struct Watcher {
    shared: Arc<Shared>,
    registration: Arc<Registration>,
    revisions: watch::Receiver<Revision>,
    /// Everything up to here was looked at.
    cursor: Revision,
    /// What the reader knows to be complete; `None` until the catch-up is over.
    announced: Option<Revision>,
    /// Also say so when no event came.
    progress_due: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        locked(&self.shared.watchers.registered).retain(|other| !Arc::ptr_eq(other, &self.registration));
    }
}

pub(super) fn watch(
    shared: Arc<Shared>,
    prefix: &str,
    after: Revision,
) -> impl Stream<Item = Result<WatchItem>> + Send + 'static {
    let registration = Arc::new(Registration {
        prefix: prefix.to_owned(),
        wake: Notify::new(),
        progress: AtomicBool::new(false),
    });
    locked(&shared.watchers.registered).push(registration.clone());
    let revisions = shared.watchers.revision.subscribe();
    let watcher =
        Watcher { shared, registration, revisions, cursor: after, announced: None, progress_due: false };
    futures::stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(item) => Some((Ok(item), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchItem> {
        loop {
            let found = self.read().await?;
            self.cursor = found.upto;
            if let Some(last) = found.events.last() {
                self.announced = self.announced.map(|_| event_revision(last));
                return Ok(WatchItem::Events(found.events));
            }
            if !found.current {
                continue;
            }
            let asked = self.registration.progress.swap(false, Ordering::AcqRel);
            let news = self.announced.is_none_or(|announced| announced < self.cursor);
            if asked || self.announced.is_none() || (self.progress_due && news) {
                self.progress_due = false;
                self.announced = Some(self.cursor);
                return Ok(WatchItem::Progress(self.cursor));
            }
            self.wait().await;
        }
    }

    /// Until an event of the prefix came, progress was asked for, or the revision moved on without us.
    async fn wait(&mut self) {
        let cursor = self.cursor;
        let behind = self.announced.is_some_and(|announced| announced < cursor);
        let revisions = &mut self.revisions;
        let moved = async {
            if !behind && revisions.wait_for(|revision| *revision > cursor).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PROGRESS_DELAY).await;
        };
        tokio::select! {
            () = self.registration.wake.notified() => {}
            () = moved => self.progress_due = true,
        }
    }

    async fn read(&self) -> Result<Found> {
        if let Some(found) = self.from_memory()? {
            return Ok(found);
        }
        let (shared, prefix, cursor) = (self.shared.clone(), self.registration.clone(), self.cursor);
        let read = move || from_disk(&shared, &prefix.prefix, cursor);
        tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    fn from_memory(&self) -> Result<Option<Found>> {
        self.shared.check_open()?;
        let state = self.shared.state();
        // What is in memory is complete, compacted or not.
        let Some(recent) = state.recent.after(self.cursor, state.revision) else { return Ok(None) };
        let mut found = Found { events: Vec::new(), upto: self.cursor, current: true };
        for event in recent {
            if found.events.len() == ITEM_EVENTS {
                found.current = false;
                return Ok(Some(found));
            }
            found.upto = event_revision(event);
            if event_key(event).starts_with(&self.registration.prefix) {
                found.events.push(event.clone());
            }
        }
        Ok(Some(found))
    }
}

fn from_disk(shared: &Shared, prefix: &str, cursor: Revision) -> Result<Found> {
    // The transaction begins under the state's lock: it sees all that the state tells of, and no later compaction.
    let (transaction, revision) = {
        let state = shared.state();
        if cursor < state.compacted {
            return Err(StoreError::Compacted { requested: cursor, oldest: state.compacted });
        }
        (shared.begin_read()?, state.revision)
    };
    let read = || -> Result<Found, redb::Error> {
        let table = transaction.open_table(EVENTS)?;
        let mut found = Found { events: Vec::new(), upto: cursor, current: true };
        let mut bytes = 0;
        for (looked, row) in table.range(cursor + 1..=revision)?.enumerate() {
            if looked == SCAN_RECORDS || found.events.len() == ITEM_EVENTS || bytes > ITEM_BYTES {
                found.current = false;
                return Ok(found);
            }
            let (at, row) = row?;
            let at = at.value();
            let event = event(&table, at, row.value(), prefix)?;
            bytes += event.as_ref().map_or(0, |_| row.value().len());
            found.events.extend(event);
            found.upto = at;
        }
        found.upto = revision;
        Ok(found)
    };
    read().map_err(|error| StoreError::Fatal(format!("reading history failed: {error}")))
}

/// The event that a row tells of, if it concerns the prefix.
fn event(
    table: &impl ReadableTable<Revision, &'static [u8]>,
    revision: Revision,
    row: &[u8],
    prefix: &str,
) -> Result<Option<Event>, redb::Error> {
    let Some(record) = Record::decode(row) else {
        return Err(redb::Error::Corrupted(format!("no record at revision {revision}")));
    };
    if !record.key.starts_with(prefix) {
        return Ok(None);
    }
    let key: Arc<str> = record.key.into();
    let previous = match record.previous {
        0 => None,
        modified => Some(load_previous(table, &key, modified)?),
    };
    Ok(Some(if record.created == 0 {
        Event::Delete { key, revision, previous }
    } else {
        let value = bytes::Bytes::copy_from_slice(record.value);
        let entry = Entry { key, value, create_revision: record.created, mod_revision: revision };
        Event::Put { entry, previous }
    }))
}

fn load_previous(
    table: &impl ReadableTable<Revision, &'static [u8]>,
    key: &Arc<str>,
    modified: Revision,
) -> Result<Entry, redb::Error> {
    let created =
        table.get(modified)?.and_then(|row| Record::decode(row.value()).map(|record| record.created));
    load(table, key, Version { modified, created: created.unwrap_or(0) })
}
