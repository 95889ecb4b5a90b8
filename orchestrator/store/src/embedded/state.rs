//! What the store knows in memory of its keys. The writer is the only one who changes it, and only after the change
//! is on disk; everybody reads it under a short lock.

use super::index::{Index, Version};
use crate::{At, Event, Result, Revision, StoreError};

/// The revision of a store that was never written to, as etcd counts.
pub(super) const FIRST_REVISION: Revision = 1;

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) revision: Revision,
    /// 0 while nothing was compacted.
    pub(super) compacted: Revision,
}

impl State {
    /// The revision to read at, or why that cannot be.
    pub(super) fn resolve(&self, at: At) -> Result<Revision> {
        let At::Revision(requested) = at else { return Ok(self.revision) };
        if requested > self.revision {
            return Err(StoreError::Future { requested, current: self.revision });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted { requested, oldest: self.compacted });
        }
        Ok(requested)
    }

    /// Takes over events that are on disk, in order.
    pub(super) fn record(&mut self, events: &[Event]) {
        for event in events {
            let (key, version) = match event {
                Event::Put { entry, .. } => {
                    (&entry.key, Version { modified: entry.mod_revision, created: entry.create_revision })
                }
                Event::Delete { key, revision, .. } => (key, Version { modified: *revision, created: 0 }),
            };
            self.revision = version.modified;
            self.index.record(key, version);
        }
    }
}
