//! The records of past decisions, bounded in time and number, for whoever asks why. Changes are kept longer than
//! decisions to leave things as they are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::policy::Policy;
use crate::record::Record;
use crate::state::State;

const KEEP_MS: i64 = 24 * 3600 * 1000;
const CHANGES: usize = 500;
const NO_OPS: usize = 120;

/// Which object decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Hpa,
    ScalingPolicy,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hpa => "HorizontalPodAutoscaler",
            Self::ScalingPolicy => "ScalingPolicy",
        }
    }
}

/// One decision with all that it was made from: `decide(policy, record, state)` gives `decision` again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub policy: Policy,
    pub record: Record,
    pub state: State,
    pub decision: Decision,
    /// Why a change could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
}

impl Entry {
    fn is_change(&self) -> bool {
        self.decision.rescale.is_some()
    }
}

#[derive(Default)]
pub struct Ring(Mutex<HashMap<Key, VecDeque<Arc<Entry>>>>);

impl Ring {
    pub fn push(&self, key: &Key, entry: Arc<Entry>) {
        let mut rings = self.lock();
        let ring = rings.entry(key.clone()).or_default();
        let oldest = entry.record.time - KEEP_MS;
        ring.push_back(entry);
        let count =
            |ring: &VecDeque<Arc<Entry>>, change| ring.iter().filter(|e| e.is_change() == change).count();
        if count(ring, false) > NO_OPS {
            drop_first(ring, false);
        }
        if count(ring, true) > CHANGES {
            drop_first(ring, true);
        }
        while ring.front().is_some_and(|e| e.record.time < oldest) {
            ring.pop_front();
        }
    }

    /// From now on the object is known, even before it decides.
    pub fn open(&self, key: &Key) {
        self.lock().entry(key.clone()).or_default();
    }

    /// Oldest first; none if the object is not known.
    pub fn get(&self, key: &Key) -> Option<Vec<Arc<Entry>>> {
        self.lock().get(key).map(|ring| ring.iter().cloned().collect())
    }

    pub fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, VecDeque<Arc<Entry>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_first(ring: &mut VecDeque<Arc<Entry>>, change: bool) {
    if let Some(i) = ring.iter().position(|e| e.is_change() == change) {
        ring.remove(i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Rescale;
    use crate::fast;

    fn entry(time: i64, change: bool) -> Arc<Entry> {
        let rescale = change.then(|| Rescale { to: 2, reason: String::new() });
        Arc::new(Entry {
            policy: Policy::Fast(fast::Policy::default()),
            record: Record { time, ..Record::default() },
            state: State::default(),
            decision: Decision { rescale, ..Decision::default() },
            refused: None,
        })
    }

    #[test]
    fn changes_outlive_no_ops() {
        let (ring, key) = (Ring::default(), Key { kind: Kind::Hpa, namespace: "a".into(), name: "b".into() });
        ring.push(&key, entry(0, true));
        for i in 1..1000 {
            ring.push(&key, entry(i * 1000, i == 2));
        }
        let kept = ring.get(&key).unwrap();
        assert_eq!(kept.iter().filter(|e| !e.is_change()).count(), NO_OPS);
        assert_eq!(
            kept.iter().filter(|e| e.is_change()).map(|e| e.record.time).collect::<Vec<_>>(),
            [0, 2000]
        );
        assert!(kept.is_sorted_by_key(|e| e.record.time));
        ring.push(&key, entry(KEEP_MS + 1500, false));
        assert_eq!(ring.get(&key).unwrap()[0].record.time, 2000, "older than a day");
        ring.remove(&key);
        assert_eq!(ring.get(&key), None);
        ring.open(&key);
        assert_eq!(ring.get(&key), Some(Vec::new()));
    }
}
