//! What the store knows in memory: the index, the newest events, the revision. The writer is the only one who
//! changes it, and only after the change is on disk; everybody reads it under a short lock.

use std::collections::VecDeque;
use std::sync::Arc;

use super::index::{Index, Version};
use crate::{Event, Result, Revision, StoreError};

/// The revision of a store that was never written to, as etcd counts.
pub(super) const FIRST_REVISION: Revision = 1;

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) revision: Revision,
    /// 0 while nothing was compacted.
    pub(super) compacted: Revision,
    pub(super) recent: Recent,
}

impl State {
    /// The revision to read at, or why that cannot be.
    pub(super) fn resolve(&self, at: crate::At) -> Result<Revision> {
        let crate::At::Revision(requested) = at else { return Ok(self.revision) };
        if requested > self.revision {
            return Err(StoreError::Future { requested, current: self.revision });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted { requested, oldest: self.compacted });
        }
        Ok(requested)
    }

    /// Takes over events that are on disk. They are consecutive and follow `revision`.
    pub(super) fn publish(&mut self, events: Vec<Event>) {
        for event in events {
            let (key, version) = match &event {
                Event::Put { entry, .. } => {
                    (&entry.key, Version { modified: entry.mod_revision, created: entry.create_revision })
                }
                Event::Delete { key, revision, .. } => (key, Version { modified: *revision, created: 0 }),
            };
            self.revision = version.modified;
            self.index.record(key, version);
            self.recent.push(event);
        }
    }
}

/// The newest events, so that watchers seldom read the disk. Bounded in count and bytes.
#[derive(Debug)]
pub(super) struct Recent {
    events: VecDeque<Event>,
    bytes: usize,
    limit_bytes: usize,
}

const LIMIT_EVENTS: usize = 4096;

impl Recent {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Recent { events: VecDeque::new(), bytes: 0, limit_bytes }
    }

    fn push(&mut self, event: Event) {
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > LIMIT_EVENTS || self.bytes > self.limit_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= weight(&oldest);
        }
    }

    /// All events after `revision`, if the oldest of them is still here. `current` is the store's revision.
    pub(super) fn after(
        &self,
        revision: Revision,
        current: Revision,
    ) -> Option<impl Iterator<Item = &Event>> {
        let missed = usize::try_from(current - revision).ok()?;
        let skip = self.events.len().checked_sub(missed)?;
        Some(self.events.range(skip..))
    }
}

pub(super) fn event_revision(event: &Event) -> Revision {
    match event {
        Event::Put { entry, .. } => entry.mod_revision,
        Event::Delete { revision, .. } => *revision,
    }
}

pub(super) fn event_key(event: &Event) -> &Arc<str> {
    match event {
        Event::Put { entry, .. } => &entry.key,
        Event::Delete { key, .. } => key,
    }
}

fn weight(event: &Event) -> usize {
    let (entry, previous) = match event {
        Event::Put { entry, previous } => (Some(entry), previous.as_ref()),
        Event::Delete { previous, .. } => (None, previous.as_ref()),
    };
    let bytes = |entry: Option<&crate::Entry>| entry.map_or(0, |entry| entry.key.len() + entry.value.len());
    128 + bytes(entry) + bytes(previous)
}
