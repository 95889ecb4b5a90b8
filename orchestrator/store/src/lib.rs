//! Keys, bytes, revisions and watches, with etcd's semantics. Knows no kind and no JSON.
//!
//! One cluster revision counts every write; events are totally ordered by it. Two backends answer to one contract
//! suite (`testing`, behind the feature of that name): `embedded` (redb) and `etcd`.

mod compactor;
mod embedded;
mod etcd;
mod feed;
#[cfg(feature = "testing")]
pub mod testing;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use compactor::compact_periodically;
pub use embedded::{Embedded, Options as EmbeddedOptions};
pub use etcd::{Config as EtcdConfig, Etcd, Tls as EtcdTls};

pub type Revision = u64;

/// The largest key in bytes, and the largest value: what fits into one etcd request (1.5 MiB) with room for the
/// guards around it. Both backends refuse more, so that a cluster can move from one to the other.
pub const MAX_KEY_BYTES: usize = 4096;
pub const MAX_VALUE_BYTES: usize = 1536 * 1024 - 8 * MAX_KEY_BYTES;

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
    Put {
        entry: Entry,
        previous: Option<Entry>,
    },
    /// `previous` is what was deleted; `revision` is the deletion's own.
    Delete {
        key: Arc<str>,
        revision: Revision,
        previous: Option<Entry>,
    },
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
    /// The key or value cannot be stored by any backend: larger than `MAX_KEY_BYTES` or `MAX_VALUE_BYTES`, or empty key.
    #[error("{what} of {size} bytes; the store takes 1 to {limit}")]
    Size { what: &'static str, size: usize, limit: usize },
    #[error("{0}")]
    Open(String),
    #[error("store failed: {0}")]
    Fatal(String),
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The one door to durable state. A returned `Ok` of a write means that it survives `kill -9` and power loss.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry and the revision that the answer is consistent with.
    async fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision)>;

    /// Keys in `[range.start, range.end)` in order, at most `limit` (0: all). An empty `end` means no upper bound.
    async fn range(&self, range: Range<String>, limit: usize, at: At) -> Result<RangeResult>;

    /// Writes and returns the new entry.
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry>;

    /// Deletes and returns the deletion's revision and what was there. A missing key is `Conflict { None }`.
    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, Entry)>;

    /// Every event after revision `after`, once, in order, for keys that start with `prefix`. Ends with
    /// `Compacted` when history is gone, with `Unavailable` when the backend is lost (watch again from the last
    /// revision seen). Never buffers without bound: a reader that falls behind gets `Compacted`. `Future` when
    /// `after` is ahead of the store (its data was replaced). `Progress` comes once after the catch-up, then when
    /// revisions passed that did not concern the prefix, and on `request_progress`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<BoxStream<'static, Result<WatchItem>>>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;

    async fn revision(&self) -> Result<Revision>;

    /// The current revision R (linearizable); each open watch of this store soon delivers what it has up to R and
    /// then a `Progress` of R or later, so a cache filled by a watch knows when it is as fresh as R.
    async fn request_progress(&self) -> Result<Revision> {
        self.revision().await
    }

    /// Cheap check for health endpoints.
    async fn ready(&self) -> Result<()>;
}

/// The range of all keys that start with `prefix`. The end is the least string that is greater than all of them;
/// it is empty, which means unbounded, when there is none (`prefix` empty or made of the greatest character only).
pub fn prefix_range(prefix: &str) -> Range<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // UTF-8 sorts by code point, so the successor of the last character bounds the prefix.
        if let Some(next) = successor(last) {
            end.push(next);
            break;
        }
    }
    prefix.to_owned()..end
}

fn successor(character: char) -> Option<char> {
    match u32::from(character) + 1 {
        // The surrogates between are no characters.
        0xd800 => Some('\u{e000}'),
        code => char::from_u32(code),
    }
}

/// Whether every backend takes this key and value.
fn check_size(key: &str, value: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StoreError::Size { what: "key", size: key.len(), limit: MAX_KEY_BYTES });
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::Size { what: "value", size: value.len(), limit: MAX_VALUE_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges() {
        let cases = [
            ("a/", "a0"),
            ("a", "b"),
            ("pods/z", "pods/{"),
            ("", ""),
            ("a\u{7f}", "a\u{80}"),
            ("é", "ê"),
            ("a\u{d7ff}", "a\u{e000}"),
            ("a\u{10ffff}", "b"),
            ("\u{10ffff}", ""),
        ];
        for (prefix, end) in cases {
            assert_eq!(prefix_range(prefix), prefix.to_owned()..end.to_owned(), "{prefix:?}");
        }
    }

    #[test]
    fn prefix_range_bounds_exactly_the_prefix() {
        let keys = [
            "a",
            "a.",
            "a/",
            "a/\u{0}",
            "a/b",
            "a/~",
            "a/\u{7f}",
            "a/é",
            "a/\u{10ffff}z",
            "a0",
            "ab",
            "b",
            "A/",
        ];
        for prefix in ["", "a", "a/", "a/b", "a0", "é", "z"] {
            let range = prefix_range(prefix);
            for key in keys {
                let inside =
                    key >= range.start.as_str() && (range.end.is_empty() || key < range.end.as_str());
                assert_eq!(inside, key.starts_with(prefix), "{prefix:?} {key:?}");
            }
        }
    }

    #[test]
    fn sizes() {
        assert!(check_size("k", b"").is_ok());
        assert!(check_size("k", &vec![0; MAX_VALUE_BYTES]).is_ok());
        assert!(matches!(check_size("", b""), Err(StoreError::Size { what: "key", size: 0, .. })));
        assert!(check_size(&"k".repeat(MAX_KEY_BYTES + 1), b"").is_err());
        assert!(check_size("k", &vec![0; MAX_VALUE_BYTES + 1]).is_err());
    }
}
