//! The default store: one directory, one process, one redb file.
//!
//! On disk every write is one record under its revision; in memory an index says which revisions each key has. A
//! write therefore appends to the end of one B-tree, which makes commits small. `writer` commits, `history` reads
//! events back for old watchers, `file` guards the directory.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use tokio::sync::oneshot;
use tracing::info;

use self::file::{COMPACTED_KEY, EVENTS, META, StoreFile};
use self::index::{Index, Version};
use self::record::Record;
use self::state::{FIRST_REVISION, State};
use self::writer::{Changes, Job, Queue};
use crate::feed::{self, Feed, Found, Source, locked};
use crate::{At, Entry, Expect, RangeResult, Result, Revision, Store, StoreError, WatchItem, check_size};

#[cfg(test)]
mod fault_tests;
mod file;
mod history;
mod index;
mod record;
mod state;
mod writer;

#[derive(Clone, Debug)]
pub struct Options {
    /// Pages of the file kept in memory. The operating system caches the file besides.
    pub cache_bytes: usize,
    /// Newest events kept in memory for watchers; older ones are read from the file.
    pub recent_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { cache_bytes: 16 << 20, recent_bytes: 4 << 20 }
    }
}

/// The embedded store. Dropping it, its watches and their runtime's last commit closes the file; `close` does so at once.
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` once closed.
    file: RwLock<Option<StoreFile>>,
    state: RwLock<State>,
    queue: Mutex<Queue>,
    feed: Feed,
}

impl Embedded {
    /// Opens the store in `dir` and makes one if `dir` is empty or does not exist. Blocks while it verifies and
    /// reads the whole file.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let dir = dir.as_ref();
        let started = std::time::Instant::now();
        let file = StoreFile::open(dir, options.cache_bytes)?;
        let (state, garbage) = load_state(&file).map_err(|error| file::damaged(dir, &error.to_string()))?;
        info!(dir = %dir.display(), revision = state.revision, elapsed = ?started.elapsed(), "store open");
        Ok(Self::new(file, state, garbage, &options))
    }

    fn new(file: StoreFile, state: State, garbage: Vec<Revision>, options: &Options) -> Self {
        let shared = Shared {
            file: RwLock::new(Some(file)),
            feed: Feed::new(state.revision, options.recent_bytes),
            state: RwLock::new(state),
            queue: Mutex::new(Queue::with_garbage(garbage)),
        };
        Embedded { shared: Arc::new(shared) }
    }

    /// Finishes the running commit, refuses everything later, ends the watches and gives the directory free.
    pub async fn close(&self) {
        writer::close(&self.shared.queue);
        let shared = self.shared.clone();
        let close = move || drop(shared.file.write().unwrap_or_else(PoisonError::into_inner).take());
        // Fails only when the runtime ends, which drops the file as well.
        let _ = tokio::task::spawn_blocking(close).await;
        self.shared.feed.wake_all();
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        writer::submit(&self.shared, job(reply))?;
        match answer.await {
            Ok(answer) => answer,
            Err(_) => {
                locked(&self.shared.queue).check()?;
                Err(StoreError::Unavailable("the store's writer has stopped".to_owned()))
            }
        }
    }
}

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<()> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().map(|_| ()).ok_or_else(closed)
    }

    fn begin_read(&self) -> Result<ReadTransaction> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.as_ref().ok_or_else(closed)?.database.begin_read().map_err(|error| read_failed(error.into()))
    }

    /// Makes visible what a commit wrote.
    fn publish(&self, changes: Changes) {
        if changes.events.is_empty() && changes.compacted.is_none() {
            return;
        }
        let (revision, garbage) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.record(&changes.events);
            let garbage = changes.compacted.map(|compacted| {
                state.compacted = compacted;
                state.index.compact(compacted)
            });
            (state.revision, garbage)
        };
        if let Some(garbage) = garbage {
            locked(&self.queue).add_garbage(garbage);
        }
        self.feed.publish(changes.events, revision);
    }

    fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision)> {
        let (key, version, transaction, revision) = {
            let state = self.state();
            let revision = state.resolve(at)?;
            match state.index.at(key, revision) {
                // Begun under the lock, before any compaction could take the record.
                Some((key, version)) => (key, version, self.begin_read()?, revision),
                None => {
                    self.check_open()?;
                    return Ok((None, revision));
                }
            }
        };
        let table = transaction.open_table(EVENTS).map_err(|error| read_failed(error.into()))?;
        let entry = writer::load(&table, &key, version).map_err(read_failed)?;
        Ok((Some(entry), revision))
    }

    fn range(&self, start: &str, end: &str, limit: usize, at: At) -> Result<RangeResult> {
        let (found, count, transaction, revision) = {
            let state = self.state();
            let revision = state.resolve(at)?;
            let (found, count) = state.index.range(start, end, limit, revision);
            (found, count, self.begin_read()?, revision)
        };
        let more = count > found.len() as u64;
        let table = transaction.open_table(EVENTS).map_err(|error| read_failed(error.into()))?;
        let load = |(key, version): (Arc<str>, Version)| writer::load(&table, &key, version);
        let entries = found.into_iter().map(load).collect::<Result<_, _>>().map_err(read_failed)?;
        Ok(RangeResult { entries, more, count, revision })
    }
}

#[async_trait]
impl Source for Shared {
    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn check(&self) -> Result<()> {
        self.check_open()
    }

    async fn history(self: Arc<Self>, prefix: String, cursor: Revision) -> Result<Found> {
        let read = move || history::read(&self, &prefix, cursor);
        tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision)> {
        // One short read, nearly always from memory: not worth another thread.
        self.shared.get(key, at)
    }

    async fn range(&self, range: std::ops::Range<String>, limit: usize, at: At) -> Result<RangeResult> {
        let shared = self.shared.clone();
        let read = move || shared.range(&range.start, &range.end, limit, at);
        tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry> {
        check_size(key, &value)?;
        let key = Arc::from(key);
        self.write(|reply| Job::Put { key, value, expect, reply }).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, Entry)> {
        check_size(key, &[])?;
        let key = Arc::from(key);
        self.write(|reply| Job::Delete { key, expect, reply }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<BoxStream<'static, Result<WatchItem>>> {
        {
            let state = self.shared.state();
            if after > state.revision {
                return Err(StoreError::Future { requested: after, current: state.revision });
            }
            if after < state.compacted {
                return Err(StoreError::Compacted { requested: after, oldest: state.compacted });
            }
        }
        Ok(Box::pin(feed::watch(self.shared.clone(), prefix, after)))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.write(|reply| Job::Compact { revision, reply }).await
    }

    async fn revision(&self) -> Result<Revision> {
        self.shared.check_open()?;
        Ok(self.shared.state().revision)
    }

    async fn request_progress(&self) -> Result<Revision> {
        let revision = self.revision().await?;
        self.shared.feed.want_progress(revision);
        Ok(revision)
    }

    async fn ready(&self) -> Result<()> {
        locked(&self.shared.queue).check()
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store was closed".to_owned())
}

fn read_failed(error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseClosed => closed(),
        error => StoreError::Fatal(format!("reading the store failed: {error}")),
    }
}

/// Rebuilds the index. Also returns the records that a compaction left behind when the process ended.
fn load_state(file: &StoreFile) -> Result<(State, Vec<Revision>), redb::Error> {
    let transaction = file.database.begin_read()?;
    let compacted = transaction.open_table(META)?.get(COMPACTED_KEY)?.map_or(0, |revision| revision.value());
    let table = transaction.open_table(EVENTS)?;
    let mut index = Index::default();
    let mut revision = FIRST_REVISION.max(compacted);
    for row in table.iter()? {
        let (at, row) = row?;
        revision = revision.max(at.value());
        let Some(record) = Record::decode(row.value()) else {
            return Err(redb::Error::Corrupted(format!("no record at revision {}", at.value())));
        };
        index.load(record.key, Version { modified: at.value(), created: record.created });
    }
    let garbage = if compacted == 0 { Vec::new() } else { index.compact(compacted) };
    Ok((State { index, revision, compacted }, garbage))
}
