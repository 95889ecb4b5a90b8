//! Keys, bytes, revisions and watches, with etcd's semantics. Knows no kind and no JSON.
//!
//! One cluster revision counts every write; events are totally ordered by it. Two backends answer to one contract
//! suite: `embedded` (redb) and `etcd`.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub type Revision = u64;

/// A stored value and the revisions of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
}

/// What must hold of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    /// The key does not exist.
    Absent,
    /// The key was last written at this revision.
    Revision(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put { entry: Entry, previous: Option<Entry> },
    /// `previous` is what was deleted; `revision` is the deletion's own.
    Delete { key: Arc<str>, revision: Revision, previous: Option<Entry> },
}

/// All events of one revision window, in order; or the mark that everything up to a revision has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    Events(Vec<Event>),
    Progress(Revision),
}

#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    pub entries: Vec<Entry>,
    /// More keys follow the last one.
    pub more: bool,
    /// All keys of the range, those of this page included.
    pub count: u64,
    /// The revision that the answer is consistent with.
    pub revision: Revision,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The latest acknowledged state (linearizable).
    #[default]
    Latest,
    Revision(Revision),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The expectation did not hold; what the key holds now.
    #[error("the key was changed")]
    Conflict { current: Option<Entry> },
    #[error("revision {requested} has been compacted; the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    #[error("revision {requested} is ahead of the store at {current}")]
    Future { requested: Revision, current: Revision },
    /// The store cannot be reached now; the write may or may not have happened.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Open(String),
    #[error("store failed: {0}")]
    Fatal(String),
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The one door to durable state. A returned `Ok` of a write means that it survives `kill -9` and power loss.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision)>;

    /// Keys in `[range.start, range.end)` in order, at most `limit` (0: all).
    async fn range(&self, range: Range<String>, limit: usize, at: At) -> Result<RangeResult>;

    /// Writes and returns the new entry.
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry>;

    /// Deletes and returns the deletion's revision and what was there. A missing key is `Conflict { None }`.
    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, Entry)>;

    /// Every event after revision `after`, once, in order, for keys that start with `prefix`. Ends with
    /// `Compacted` when history is gone, with `Unavailable` when the backend is lost (watch again from the last
    /// revision seen). Never buffers without bound: a reader that falls behind gets `Compacted`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<BoxStream<'static, Result<WatchItem>>>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;

    async fn revision(&self) -> Result<Revision>;

    /// Cheap check for health endpoints.
    async fn ready(&self) -> Result<()>;
}

/// The range of all keys that start with `prefix`.
pub fn prefix_range(prefix: &str) -> Range<String> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0x7f {
            end.push(last + 1);
            break;
        }
    }
    prefix.to_owned()..String::from_utf8(end).unwrap_or_default()
}
