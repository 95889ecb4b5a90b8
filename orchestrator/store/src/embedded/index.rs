//! Which revisions each key has. Kept in memory, rebuilt at open; the values stay on disk, under those revisions.
//! Pure: no IO, no locks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::Revision;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) modified: Revision,
    /// 0: this version is a deletion.
    pub(super) created: Revision,
}

impl Version {
    fn live(self) -> Option<Version> {
        (self.created != 0).then_some(self)
    }
}

#[derive(Debug)]
struct Versions {
    last: Version,
    /// Ascending; empty (and then without an allocation) for most keys.
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<Version> {
        if self.last.modified <= revision {
            return self.last.live();
        }
        let after = self.older.partition_point(|version| version.modified <= revision);
        self.older[..after].last().and_then(|version| version.live())
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Versions>,
}

impl Index {
    /// Revisions of one key must come in ascending order.
    pub(super) fn record(&mut self, key: &Arc<str>, version: Version) {
        match self.keys.get_mut(key) {
            Some(versions) => {
                let older = std::mem::replace(&mut versions.last, version);
                versions.older.push(older);
            }
            None => {
                self.keys.insert(key.clone(), Versions { last: version, older: Vec::new() });
            }
        }
    }

    /// As `record`, for a key that may or may not be known.
    pub(super) fn load(&mut self, key: &str, version: Version) {
        let key = self.key(key).cloned().unwrap_or_else(|| key.into());
        self.record(&key, version);
    }

    pub(super) fn key(&self, key: &str) -> Option<&Arc<str>> {
        self.keys.get_key_value(key).map(|(key, _)| key)
    }

    /// The live version of the key as of `revision`.
    pub(super) fn at(&self, key: &str, revision: Revision) -> Option<(Arc<str>, Version)> {
        let (key, versions) = self.keys.get_key_value(key)?;
        Some((key.clone(), versions.at(revision)?))
    }

    pub(super) fn latest(&self, key: &str) -> Option<Version> {
        self.keys.get(key)?.last.live()
    }

    /// The first `limit` (0: all) live keys in `[start, end)` as of `revision`, and how many there are in all.
    pub(super) fn range(
        &self,
        start: &str,
        end: &str,
        limit: usize,
        revision: Revision,
    ) -> (Vec<(Arc<str>, Version)>, u64) {
        let mut found = Vec::new();
        let mut count = 0;
        if !end.is_empty() && end <= start {
            return (found, count);
        }
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        for (key, versions) in self.keys.range::<str, _>((Bound::Included(start), upper)) {
            let Some(version) = versions.at(revision) else { continue };
            count += 1;
            if limit == 0 || found.len() < limit {
                found.push((key.clone(), version));
            }
        }
        (found, count)
    }

    /// Forgets what no read at `revision` or later can see; returns the revisions whose records may go.
    pub(super) fn compact(&mut self, revision: Revision) -> Vec<Revision> {
        let mut gone = Vec::new();
        self.keys.retain(|_, versions| {
            let past = versions.older.partition_point(|version| version.modified <= revision);
            let last_is_past = versions.last.modified <= revision;
            // Of the past versions the newest stays, unless it is a deletion.
            let mut drop = past;
            if !last_is_past && past > 0 && versions.older[past - 1].live().is_some() {
                drop -= 1;
            }
            gone.extend(versions.older.drain(..drop).map(|version| version.modified));
            if versions.older.capacity() > 4 * versions.older.len() {
                versions.older.shrink_to_fit();
            }
            let dead = last_is_past && versions.last.live().is_none();
            if dead {
                gone.push(versions.last.modified);
            }
            !dead
        });
        gone.sort_unstable();
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(writes: &[(&str, Revision, Revision)]) -> Index {
        let mut index = Index::default();
        for (key, modified, created) in writes {
            index.record(&Arc::from(*key), Version { modified: *modified, created: *created });
        }
        index
    }

    fn keys(found: &(Vec<(Arc<str>, Version)>, u64)) -> Vec<(&str, Revision)> {
        found.0.iter().map(|(key, version)| (&**key, version.modified)).collect()
    }

    #[test]
    fn reads_as_of_a_revision() {
        let index = index(&[("a", 2, 2), ("b", 3, 3), ("a", 4, 2), ("a", 5, 0), ("ab", 6, 6), ("a", 7, 7)]);
        for (revision, modified) in
            [(1, None), (2, Some(2)), (3, Some(2)), (4, Some(4)), (5, None), (6, None), (7, Some(7))]
        {
            assert_eq!(index.at("a", revision).map(|(_, version)| version.modified), modified, "{revision}");
        }
        assert_eq!(keys(&index.range("", "", 0, 4)), [("a", 4), ("b", 3)]);
        let page = index.range("a", "b", 1, 7);
        assert_eq!((keys(&page), page.1), (vec![("a", 7)], 2));
        assert_eq!(index.range("b", "a", 0, 7).1, 0);
    }

    #[test]
    fn compaction_keeps_what_the_revision_sees() {
        let writes = [("a", 2, 2), ("b", 3, 3), ("a", 4, 2), ("a", 5, 0), ("a", 7, 7), ("b", 8, 0)];
        for (revision, gone) in [
            (1, vec![]),
            (3, vec![]),
            (4, vec![2]),
            (5, vec![2, 4, 5]),
            (7, vec![2, 4, 5]),
            (8, vec![2, 3, 4, 5, 8]),
        ] {
            let mut compacted = index(&writes);
            assert_eq!(compacted.compact(revision), gone, "{revision}");
            for at in revision..9 {
                let expected = index(&writes).range("", "", 0, at);
                assert_eq!(compacted.range("", "", 0, at), expected, "compacted {revision} at {at}");
            }
        }
    }
}
