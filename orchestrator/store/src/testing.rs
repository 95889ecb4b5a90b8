//! For tests of this crate and of others: the contract that every backend keeps, a check of concurrent histories, and
//! real etcd members on free ports. Panics when something does not hold, as tests do.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod contract;
mod etcd_cluster;
mod linear;

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;

pub use contract::run_contract;
pub use etcd_cluster::EtcdCluster;
pub use linear::{Workload, check_linearizable};

use crate::{Event, Result, Revision, StoreError, WatchItem};

/// Nothing here takes long; this is for machines that do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A watch whose events are taken one by one.
pub struct Reader {
    stream: BoxStream<'static, Result<WatchItem>>,
    pending: std::collections::VecDeque<Event>,
    /// The last revision seen, from events or progress.
    pub reached: Revision,
}

impl Reader {
    pub fn new(stream: BoxStream<'static, Result<WatchItem>>) -> Self {
        Reader { stream, pending: Default::default(), reached: 0 }
    }

    /// The next item; revisions must not go backwards.
    async fn item(&mut self) -> Result<WatchItem> {
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        let item = match next {
            Ok(Some(item)) => item?,
            Ok(None) => panic!("the watch ended without an error after revision {}", self.reached),
            Err(_) => panic!("no item in {PATIENCE:?} after revision {}", self.reached),
        };
        match &item {
            WatchItem::Events(events) => {
                assert!(!events.is_empty());
                for event in events {
                    assert!(revision(event) > self.reached, "{event:?} after {}", self.reached);
                    self.reached = revision(event);
                }
            }
            WatchItem::Progress(revision) => {
                assert!(*revision >= self.reached, "progress {revision} after {}", self.reached);
                self.reached = *revision;
            }
        }
        Ok(item)
    }

    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if let WatchItem::Events(events) = self.item().await? {
                self.pending.extend(events);
            }
        }
    }

    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let event = self.next().await;
            events.push(
                event.unwrap_or_else(|error| panic!("after {} of {count} events: {error}", events.len())),
            );
        }
        events
    }

    /// All events until the watch says that it has reached `revision`.
    pub async fn until(&mut self, revision: Revision) -> Vec<Event> {
        let mut events: Vec<Event> = self.pending.drain(..).collect();
        while self.reached < revision {
            if let WatchItem::Events(more) = self.item().await.unwrap() {
                events.extend(more);
            }
        }
        events
    }

    /// Events until the watch ends, and why it did.
    pub async fn until_error(&mut self) -> (Vec<Event>, StoreError) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Ok(event) => events.push(event),
                Err(error) => return (events, error),
            }
        }
    }
}

pub fn revision(event: &Event) -> Revision {
    crate::feed::event_revision(event)
}

pub fn key(event: &Event) -> &str {
    crate::feed::event_key(event)
}

/// Polls until `probe` gives `Ok`; panics with the last thing it said.
pub async fn eventually<T, E: std::fmt::Display>(
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(error) if tokio::time::Instant::now() > deadline => {
                panic!("{what}: not within {PATIENCE:?}: {error}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
