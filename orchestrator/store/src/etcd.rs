//! The store on an etcd cluster, for control planes of more than one server.
//!
//! Keys lie under a prefix (`/registry/…`). Every write is a transaction guarded by the key's modification revision;
//! no leases, no reads from followers. Bounded waits: while etcd is away, calls fail with `Unavailable` within
//! seconds, and they work again when it is back. Never repeats a write that may have arrived.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures::stream::BoxStream;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use self::fault::Fault;
use self::members::{Kind, Members};
use crate::feed::{self, Feed, Found, Source};
use crate::{At, Entry, Expect, RangeResult, Result, Revision, Store, StoreError, WatchItem, check_size};

mod fault;
mod follow;
mod members;

/// Keys asked for at once.
const PAGE: usize = 1000;
/// Newest events kept in memory for watchers.
const RECENT_BYTES: usize = 8 << 20;
/// How long a watch waits for the first contact with etcd.
const FIRST_CONTACT: Duration = Duration::from_secs(4);

#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `http://` or `https://` URLs of the members.
    pub endpoints: Vec<String>,
    /// Needed for `https://`.
    pub tls: Option<Tls>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// Where our keys lie; empty means `/registry`.
    pub prefix: String,
}

/// All as PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub ca: String,
    /// Certificate and key.
    pub client: Option<(String, String)>,
    /// If the members' certificates name something else than the URLs.
    pub server_name: Option<String>,
}

pub struct Etcd {
    shared: Arc<Shared>,
    follower: AbortHandle,
}

struct Shared {
    members: Members,
    keys: Keys,
    feed: Feed,
    /// The last tick written.
    ticked: AtomicU64,
    /// Callers that asked for a tick, counted.
    tick_requests: AtomicU64,
    /// The tick in flight and what the last one answered.
    tick_answer: Mutex<(u64, Result<Revision, String>)>,
    closed: std::sync::atomic::AtomicBool,
}

impl Etcd {
    /// Fails only on a wrong configuration. etcd may be away: `ready` says whether it answers. Needs a tokio runtime,
    /// in which it follows etcd until dropped.
    pub async fn connect(config: Config) -> Result<Self> {
        let shared = Arc::new(Shared {
            members: Members::new(&config)?,
            keys: Keys::new(&config.prefix),
            feed: Feed::new(0, RECENT_BYTES),
            ticked: AtomicU64::new(0),
            tick_requests: AtomicU64::new(0),
            tick_answer: Mutex::new((0, Err(String::new()))),
            closed: false.into(),
        });
        let follower = tokio::spawn(follow::follow(shared.clone())).abort_handle();
        Ok(Etcd { shared, follower })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.follower.abort();
        self.shared.closed.store(true, Ordering::Release);
        self.shared.feed.wake_all();
    }
}

/// Where our keys lie in etcd.
struct Keys {
    /// With a slash at the end.
    prefix: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { "/registry" } else { prefix };
        Keys { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// A key of this backend's own. It sorts before all others and no user can have it: their keys are not empty.
    fn tick(&self) -> String {
        self.prefix.clone()
    }

    fn end(&self) -> String {
        crate::prefix_range(&self.prefix).end
    }

    fn absolute(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `None`: not a key that users see.
    fn relative(&self, key: &[u8]) -> Option<Arc<str>> {
        let key = key.strip_prefix(self.prefix.as_bytes())?;
        std::str::from_utf8(key).ok().filter(|key| !key.is_empty()).map(Arc::from)
    }

    fn range(&self, range: &Range<String>) -> Range<String> {
        // The least key after the tick.
        let start = if range.start.is_empty() { "\0" } else { &range.start };
        let end = if range.end.is_empty() { self.end() } else { self.absolute(&range.end) };
        self.absolute(start)..end
    }
}

fn entry(keys: &Keys, kv: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: keys.relative(kv.key())?,
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: Revision::try_from(kv.create_revision()).ok()?,
        mod_revision: Revision::try_from(kv.mod_revision()).ok()?,
    })
}

fn as_i64(revision: Revision) -> Result<i64, Fault> {
    i64::try_from(revision).map_err(|_| Fault::Future)
}

impl Shared {
    async fn linearizable_revision(&self) -> Result<Revision, Fault> {
        let ask = |mut kv: etcd_client::KvClient| async move {
            let answer = kv.get(self.keys.tick(), Some(GetOptions::new().with_count_only())).await?;
            let revision = answer.header().map(|header| header.revision());
            Ok((revision, revision))
        };
        members::header_revision(self.members.call(Kind::Read, ask).await?)
    }

    fn ticked(&self) -> Revision {
        self.ticked.load(Ordering::Acquire)
    }

    /// Writes the tick and returns its revision. Callers that come while one is under way share the next.
    async fn tick(&self) -> Result<Revision> {
        let ticket = self.tick_requests.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answer = self.tick_answer.lock().await;
        if answer.0 < ticket {
            // All who are counted by now asked before this tick.
            let served = self.tick_requests.load(Ordering::Acquire);
            let put = |mut kv: etcd_client::KvClient| async move {
                let answer = kv.put(self.keys.tick(), "", None).await?;
                let revision = answer.header().map(|header| header.revision());
                Ok((revision, revision))
            };
            // Without a guard and harmless twice, so it may be asked again like a read.
            let result = self.members.call(Kind::Read, put).await.and_then(members::header_revision);
            *answer = (served, result.map_err(|fault| fault.unavailable().to_string()));
        }
        match &answer.1 {
            Ok(revision) => {
                self.ticked.fetch_max(*revision, Ordering::AcqRel);
                Ok(*revision)
            }
            Err(why) => Err(StoreError::Unavailable(why.clone())),
        }
    }

    async fn explain(&self, fault: Fault, requested: Revision) -> StoreError {
        match fault {
            Fault::Compacted => self.compacted(requested).await,
            Fault::Future => match self.linearizable_revision().await {
                Ok(current) => StoreError::Future { requested, current },
                Err(fault) => fault.unavailable(),
            },
            fault => fault.unavailable(),
        }
    }

    async fn page(&self, range: &Range<String>, limit: usize, at: Option<i64>) -> Result<Page, Fault> {
        let ask = |mut kv: etcd_client::KvClient| {
            let mut options = GetOptions::new().with_range(range.end.clone()).with_limit(limit as i64);
            if let Some(revision) = at {
                options = options.with_revision(revision);
            }
            async move {
                let answer = kv.get(range.start.clone(), Some(options)).await?;
                let revision = answer.header().map(|header| header.revision());
                Ok((answer, revision))
            }
        };
        let answer = self.members.call(Kind::Read, ask).await?;
        Ok(Page {
            last_key: answer.kvs().last().map(|kv| kv.key().to_vec()),
            entries: answer.kvs().iter().filter_map(|kv| entry(&self.keys, kv)).collect(),
            more: answer.more(),
            count: u64::try_from(answer.count()).unwrap_or(0),
            revision: members::header_revision(answer.header().map(|header| header.revision()))?,
        })
    }

    /// All pages at the revision of the first.
    async fn range(&self, range: Range<String>, limit: usize, at: Option<i64>) -> Result<RangeResult, Fault> {
        let mut range = self.keys.range(&range);
        if range.start >= range.end {
            let revision = self.linearizable_revision().await?;
            return Ok(RangeResult { revision, ..RangeResult::default() });
        }
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let mut page = self.page(&range, wanted.min(PAGE), at).await?;
        let revision = at.and_then(|at| Revision::try_from(at).ok()).unwrap_or(page.revision);
        let mut result = RangeResult { entries: page.entries, more: page.more, count: page.count, revision };
        while result.more && result.entries.len() < wanted {
            let Some(last) = page.last_key.take().and_then(|key| String::from_utf8(key).ok()) else {
                return Err(Fault::Refused("a key under our prefix is not UTF-8".to_owned()));
            };
            range.start = last + "\0";
            let rest = wanted - result.entries.len();
            page = self.page(&range, rest.min(PAGE), Some(as_i64(revision)?)).await?;
            result.more = page.more;
            result.entries.append(&mut page.entries);
        }
        Ok(result)
    }

    /// `then` happens if the guard holds, else the key is read.
    async fn transact(&self, key: &str, guard: Option<Compare>, then: Vec<TxnOp>) -> Result<TxnResponse> {
        let when: Vec<Compare> = guard.into_iter().collect();
        let txn = Txn::new().when(when).and_then(then).or_else([TxnOp::get(key, None)]);
        let ask = |mut kv: etcd_client::KvClient| {
            let txn = txn.clone();
            async move {
                let answer = kv.txn(txn).await?;
                let revision = answer.header().map(|header| header.revision());
                Ok((answer, revision))
            }
        };
        self.members.call(Kind::Write, ask).await.map_err(Fault::unavailable)
    }

    fn conflict(&self, answer: &TxnResponse) -> StoreError {
        let current = answer.op_responses().into_iter().find_map(|operation| match operation {
            TxnOpResponse::Get(found) => found.kvs().first().and_then(|kv| entry(&self.keys, kv)),
            _ => None,
        });
        StoreError::Conflict { current }
    }
}

struct Page {
    entries: Vec<Entry>,
    last_key: Option<Vec<u8>>,
    more: bool,
    count: u64,
    revision: Revision,
}

fn incomplete() -> StoreError {
    StoreError::Unavailable("etcd: incomplete answer".to_owned())
}

fn guard(key: &str, expect: Expect) -> Result<Option<Compare>> {
    Ok(match expect {
        Expect::Any => None,
        Expect::Absent => Some(Compare::mod_revision(key, CompareOp::Equal, 0)),
        Expect::Revision(revision) => {
            // No key has revision 0, but to etcd it means that there is no key.
            let revision = if revision == 0 { Ok(-1) } else { as_i64(revision) };
            let revision = revision.map_err(Fault::unavailable)?;
            Some(Compare::mod_revision(key, CompareOp::Equal, revision))
        }
    })
}

#[async_trait]
impl Source for Shared {
    fn feed(&self) -> &Feed {
        &self.feed
    }

    fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("the store was closed".to_owned()));
        }
        Ok(())
    }

    async fn history(self: Arc<Self>, prefix: String, cursor: Revision) -> Result<Found> {
        follow::history(&self, &prefix, cursor).await
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision)> {
        let shared = &self.shared;
        // One key is the range up to its successor.
        let found = self.range(key.to_owned()..format!("{key}\0"), 1, at).await?;
        debug_assert!(
            found.entries.iter().all(|entry| shared.keys.absolute(&entry.key) == shared.keys.absolute(key))
        );
        Ok((found.entries.into_iter().next(), found.revision))
    }

    async fn range(&self, range: Range<String>, limit: usize, at: At) -> Result<RangeResult> {
        let requested = match at {
            At::Latest => None,
            // To etcd 0 means the latest.
            At::Revision(0) => return Err(self.shared.compacted(0).await),
            At::Revision(revision) => Some(revision),
        };
        let read = async { self.shared.range(range, limit, requested.map(as_i64).transpose()?).await };
        match read.await {
            Ok(result) => Ok(result),
            Err(fault) => Err(self.shared.explain(fault, requested.unwrap_or(0)).await),
        }
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry> {
        check_size(key, &value)?;
        let absolute = self.shared.keys.absolute(key);
        let then = vec![
            TxnOp::put(&*absolute, &*value, None),
            TxnOp::get(&*absolute, Some(GetOptions::new().with_keys_only())),
        ];
        let answer = self.shared.transact(&absolute, guard(&absolute, expect)?, then).await?;
        if !answer.succeeded() {
            return Err(self.shared.conflict(&answer));
        }
        let written = answer.op_responses().into_iter().find_map(|operation| match operation {
            TxnOpResponse::Get(found) => found.kvs().first().and_then(|kv| entry(&self.shared.keys, kv)),
            _ => None,
        });
        Ok(Entry { value, ..written.ok_or_else(incomplete)? })
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, Entry)> {
        check_size(key, &[])?;
        let absolute = self.shared.keys.absolute(key);
        let exists = Compare::mod_revision(&*absolute, CompareOp::Greater, 0);
        let guard = match expect {
            // Nothing can be deleted that is absent.
            Expect::Absent => Some(Compare::mod_revision(&*absolute, CompareOp::Equal, -1)),
            expect => guard(&absolute, expect)?.or(Some(exists)),
        };
        let then = vec![TxnOp::delete(&*absolute, Some(DeleteOptions::new().with_prev_key()))];
        let answer = self.shared.transact(&absolute, guard, then).await?;
        if !answer.succeeded() {
            return Err(self.shared.conflict(&answer));
        }
        let revision = answer.header().and_then(|header| Revision::try_from(header.revision()).ok());
        let deleted = answer.op_responses().into_iter().find_map(|operation| match operation {
            TxnOpResponse::Delete(deleted) => {
                deleted.prev_kvs().first().and_then(|kv| entry(&self.shared.keys, kv))
            }
            _ => None,
        });
        revision.zip(deleted).ok_or_else(incomplete)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<BoxStream<'static, Result<WatchItem>>> {
        let shared = &self.shared;
        let contact = shared.feed.wait_for(1);
        if tokio::time::timeout(FIRST_CONTACT, contact).await.is_err() {
            return Err(StoreError::Unavailable("etcd has not answered yet".to_owned()));
        }
        if after > shared.feed.revision() {
            let current = shared.linearizable_revision().await.map_err(Fault::unavailable)?;
            if after > current {
                return Err(StoreError::Future { requested: after, current });
            }
        }
        Ok(Box::pin(feed::watch(shared.clone(), prefix, after)))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let ask = |mut kv: etcd_client::KvClient| async move {
            let answer = kv.compact(i64::try_from(revision).unwrap_or(i64::MAX), None).await?;
            Ok(((), answer.header().map(|header| header.revision())))
        };
        // Twice is once, so it may be asked again like a read.
        match self.shared.members.call(Kind::Read, ask).await {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.shared.explain(fault, revision).await),
        }
    }

    async fn revision(&self) -> Result<Revision> {
        self.shared.linearizable_revision().await.map_err(Fault::unavailable)
    }

    async fn request_progress(&self) -> Result<Revision> {
        let revision = self.shared.tick().await?;
        self.shared.feed.want_progress(revision);
        Ok(revision)
    }

    async fn ready(&self) -> Result<()> {
        self.revision().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_under_the_prefix() {
        for prefix in ["", "/registry", "/registry/"] {
            let keys = Keys::new(prefix);
            assert_eq!(keys.absolute("pods/a/b"), "/registry/pods/a/b");
            assert_eq!(keys.relative(b"/registry/pods/a/b").as_deref(), Some("pods/a/b"));
            assert_eq!(keys.relative(b"/registry/"), None, "the tick");
            assert_eq!(keys.relative(b"/registry0/x"), None);
            assert_eq!(keys.relative(b"/registry/\xff"), None);
            assert_eq!(keys.end(), "/registry0");
            let range = |start: &str, end: &str| keys.range(&(start.to_owned()..end.to_owned()));
            assert_eq!(range("", ""), "/registry/\0".to_owned().."/registry0".to_owned());
            assert_eq!(range("a/", "a0"), "/registry/a/".to_owned().."/registry/a0".to_owned());
        }
    }

    #[tokio::test]
    async fn wrong_configurations_say_what_to_write() {
        for (endpoints, says) in [
            (vec![], "no endpoint"),
            (vec!["127.0.0.1:2379"], "must start with http"),
            (vec!["https://127.0.0.1:2379"], "CA certificate"),
        ] {
            let endpoints = endpoints.into_iter().map(str::to_owned).collect();
            let error = Etcd::connect(Config { endpoints, ..Config::default() }).await.err();
            let message = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(says), "{message}");
        }
    }
}
