//! One watch over all our keys feeds all watchers of this process. It reconnects by itself and goes on where it was.
//!
//! How a watcher learns that it missed nothing: progress requests of etcd before 3.4.25 and 3.5.8 may overtake events,
//! so this backend writes a key of its own (the tick, see `Keys`). The tick's event comes in order like any other,
//! and whoever has seen it has seen all before.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::fault::Fault;
use super::members::{Clients, header_revision};
use super::{Keys, Shared, entry};
use crate::feed::{Found, ITEM_BYTES, ITEM_EVENTS, event_key, event_revision, weight};
use crate::{Event, Result, Revision, StoreError};

/// How long a watch may take to begin, and history to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a revision that was answered may be missing from the watch before that counts as broken.
const STALL: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(1);

/// What one answer of a watch brought.
struct Batch {
    /// Those of our keys that users see.
    events: Vec<Event>,
    /// The last revision in the answer, ticks included.
    upto: Option<Revision>,
}

/// Runs until its future is dropped.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut retry = RETRY_FIRST;
    let mut told = false;
    loop {
        let before = shared.feed.revision();
        let Err(fault) = follow_once(&shared, &mut told).await;
        if shared.feed.revision() != before {
            retry = RETRY_FIRST;
        }
        if !std::mem::replace(&mut told, true) {
            warn!(error = ?fault, "watch of etcd lost; trying again");
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MOST);
    }
}

async fn follow_once(shared: &Shared, told: &mut bool) -> Result<std::convert::Infallible, Fault> {
    // Also renews a token that expired: a watch would only be cancelled.
    let revision = shared.linearizable_revision().await?;
    if shared.feed.revision() == 0 {
        shared.feed.restart(revision);
    }
    let (number, clients) = shared.members.current().await?;
    let result = follow_member(shared, &clients, told).await;
    if let Err(Fault::Compacted) = result {
        // Away for longer than history lasts. Watchers that are behind learn it from their own history.
        shared.feed.restart(shared.linearizable_revision().await?);
    } else {
        shared.members.failed(number);
    }
    result
}

async fn follow_member(
    shared: &Shared,
    clients: &Clients,
    told: &mut bool,
) -> Result<std::convert::Infallible, Fault> {
    let mut cursor = shared.feed.revision();
    let mut stream = open(&shared.keys, clients, cursor).await?;
    if std::mem::take(told) {
        info!(revision = cursor, "watch of etcd is back");
    }
    let mut behind_since = Instant::now();
    loop {
        let answer = match timeout(STALL / 5, stream.message()).await {
            Ok(answer) => answer.map_err(|error| Fault::new(&error))?,
            // Silence is right while nothing was written.
            Err(_) if shared.ticked() <= cursor => {
                behind_since = Instant::now();
                continue;
            }
            Err(_) if behind_since.elapsed() < STALL => continue,
            Err(_) => return Err(Fault::Lost("watch stalled".to_owned())),
        };
        behind_since = Instant::now();
        let answer = answer.ok_or_else(|| Fault::Lost("watch closed".to_owned()))?;
        let batch = read(&shared.keys, &answer, cursor)?;
        if let Some(upto) = batch.upto {
            cursor = upto;
            shared.feed.publish(batch.events, upto);
        }
    }
}

/// Events of the prefix after `cursor`, from a watch of its own that ends at a tick.
pub(super) async fn history(shared: &Shared, prefix: &str, cursor: Revision) -> Result<Found> {
    let goal = shared.tick().await?;
    let result = timeout(PATIENCE, read_history(shared, prefix, cursor, goal)).await;
    let fault = match result {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(fault)) => fault,
        Err(_) => Fault::Lost(format!("no history within {PATIENCE:?}")),
    };
    match fault {
        Fault::Compacted => Err(shared.compacted(cursor).await),
        fault => Err(fault.unavailable()),
    }
}

async fn read_history(
    shared: &Shared,
    prefix: &str,
    cursor: Revision,
    goal: Revision,
) -> Result<Found, Fault> {
    let (_, clients) = shared.members.current().await?;
    let mut stream = open(&shared.keys, &clients, cursor).await?;
    let mut found = Found { events: Vec::new(), upto: cursor, current: false };
    let mut bytes = 0;
    while !found.current && found.events.len() < ITEM_EVENTS && bytes < ITEM_BYTES {
        let answer = stream.message().await.map_err(|error| Fault::new(&error))?;
        let answer = answer.ok_or_else(|| Fault::Lost("watch closed".to_owned()))?;
        let batch = read(&shared.keys, &answer, found.upto)?;
        found.upto = batch.upto.unwrap_or(found.upto);
        found.current = found.upto >= goal;
        let ours = batch.events.into_iter().filter(|event| event_key(event).starts_with(prefix));
        found.events.extend(ours.inspect(|event| bytes += weight(event)));
    }
    Ok(found)
}

/// The oldest revision that etcd still has, given one that it has not; `None` if it does not say.
pub(super) async fn oldest(shared: &Shared, gone: Revision) -> Option<Revision> {
    let ask = async {
        let (_, mut clients) = shared.members.current().await.ok()?;
        let options = WatchOptions::new().with_start_revision(i64::try_from(gone.max(1)).ok()?);
        let mut stream = clients.watch.watch(shared.keys.tick(), Some(options)).await.ok()?;
        while let Some(answer) = stream.message().await.ok()? {
            if answer.canceled() {
                return Revision::try_from(answer.compact_revision()).ok();
            }
        }
        None
    };
    timeout(PATIENCE, ask).await.ok().flatten()
}

/// A watch over all our keys and the tick from `after` on, confirmed.
async fn open(keys: &Keys, clients: &Clients, after: Revision) -> Result<WatchStream, Fault> {
    let start = i64::try_from(after + 1).map_err(|_| Fault::Future)?;
    let options =
        WatchOptions::new().with_range(keys.end()).with_start_revision(start).with_prev_key().with_fragment();
    let mut client = clients.watch.clone();
    let begin = async {
        let mut stream =
            client.watch(keys.tick(), Some(options)).await.map_err(|error| Fault::new(&error))?;
        let answer = stream.message().await.map_err(|error| Fault::new(&error))?;
        Ok((stream, answer))
    };
    let begun = timeout(PATIENCE, begin).await;
    let (stream, answer) = begun.unwrap_or_else(|_| Err(Fault::Lost("no watch in time".to_owned())))?;
    let answer = answer.ok_or_else(|| Fault::Lost("watch closed".to_owned()))?;
    check_canceled(&answer)?;
    let revision = header_revision(answer.header().map(|header| header.revision()))?;
    if revision < after {
        // A member that lags behind, or data that was replaced.
        return Err(Fault::Lost(format!("etcd is at revision {revision}, behind {after}: refused")));
    }
    Ok(stream)
}

fn check_canceled(answer: &WatchResponse) -> Result<(), Fault> {
    if answer.compact_revision() > 0 {
        return Err(Fault::Compacted);
    }
    if answer.canceled() {
        return Err(Fault::Lost(format!("watch cancelled: {}", answer.cancel_reason())));
    }
    Ok(())
}

fn read(keys: &Keys, answer: &WatchResponse, cursor: Revision) -> Result<Batch, Fault> {
    check_canceled(answer)?;
    let mut batch = Batch { events: Vec::new(), upto: None };
    for event in answer.events() {
        let Some(kv) = event.kv() else { continue };
        let revision = header_revision(Some(kv.mod_revision()))?;
        if revision <= cursor || batch.upto.is_some_and(|last| revision < last) {
            return Err(Fault::Lost(format!("event of revision {revision} after {cursor}: refused")));
        }
        batch.upto = Some(revision);
        let previous = event.prev_kv().and_then(|kv| entry(keys, kv));
        let event = match event.event_type() {
            EventType::Put => entry(keys, kv).map(|entry| Event::Put { entry, previous }),
            EventType::Delete => keys.relative(kv.key()).map(|key| Event::Delete { key, revision, previous }),
        };
        batch.events.extend(event);
    }
    debug_assert!(batch.events.iter().is_sorted_by_key(event_revision));
    Ok(batch)
}

impl Shared {
    /// The error for a read at a revision that etcd no longer has.
    pub(super) async fn compacted(&self, requested: Revision) -> StoreError {
        // If etcd does not say what it has, this much is certain.
        let oldest = oldest(self, requested).await.unwrap_or(requested + 1);
        StoreError::Compacted { requested, oldest }
    }
}
