//! Events read back from disk, for watchers that are further behind than memory reaches.

use std::sync::Arc;

use bytes::Bytes;
use redb::ReadableTable;

use super::Shared;
use super::file::EVENTS;
use super::index::Version;
use super::record::Record;
use super::writer::load;
use crate::feed::{Found, ITEM_BYTES, ITEM_EVENTS};
use crate::{Entry, Event, Result, Revision, StoreError};

/// Records looked at in one read, whether they match or not.
const SCAN_RECORDS: usize = 20_000;

pub(super) fn read(shared: &Shared, prefix: &str, cursor: Revision) -> Result<Found> {
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
            found.upto = at.value();
            if let Some(event) = event(&table, at.value(), row.value(), prefix)? {
                bytes += row.value().len();
                found.events.push(event);
            }
        }
        found.upto = revision;
        Ok(found)
    };
    read().map_err(super::read_failed)
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
        let value = Bytes::copy_from_slice(record.value);
        let entry = Entry { key, value, create_revision: record.created, mod_revision: revision };
        Event::Put { entry, previous }
    }))
}

/// Never compacted before its successor: a compaction keeps the newest version of a key that it still shows.
fn load_previous(
    table: &impl ReadableTable<Revision, &'static [u8]>,
    key: &Arc<str>,
    modified: Revision,
) -> Result<Entry, redb::Error> {
    let created =
        table.get(modified)?.and_then(|row| Record::decode(row.value()).map(|record| record.created));
    load(table, key, Version { modified, created: created.unwrap_or(0) })
}
