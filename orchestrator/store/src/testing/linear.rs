//! Random concurrent operations and a check that one sequential history explains all their answers.
//!
//! Revisions make that easy: the acknowledged writes ordered by revision are the only candidate. Each must have been
//! right in that order, and each answer must fit a moment between the call and its return.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::{At, Entry, Expect, Revision, Store, StoreError, prefix_range};

pub struct Workload {
    pub seed: u64,
    pub tasks: usize,
    pub operations: usize,
    /// Few keys: much contention.
    pub keys: u64,
}

enum Action {
    Put { entry: Entry, expect: Expect },
    Delete { key: String, revision: Revision, previous: Entry, expect: Expect },
    Conflict { key: String, expect: Expect, current: Option<Entry> },
    Get { key: String, entry: Option<Entry>, revision: Revision },
    Range { entries: Vec<Entry>, revision: Revision },
}

/// An answer and the greatest revision that was acknowledged to anybody before the call.
struct Observation {
    acknowledged: Revision,
    action: Action,
}

type Snapshot = BTreeMap<String, Entry>;

/// Runs the workload on keys under `space` and panics if no order explains what it saw.
pub async fn check_linearizable(store: Arc<dyn Store>, space: &str, workload: Workload) {
    let start = store.revision().await.unwrap();
    let before: Snapshot = Snapshot::default();
    let existing = store.range(prefix_range(space), 0, At::Latest).await.unwrap();
    assert!(existing.entries.is_empty(), "{space} must be unused");
    let acknowledged = Arc::new(AtomicU64::new(start));
    let workers: Vec<_> = (0..workload.tasks as u64)
        .map(|task| {
            let worker = Worker {
                store: store.clone(),
                space: space.to_owned(),
                acknowledged: acknowledged.clone(),
                random: Random(workload.seed.wrapping_mul(0x9e37_79b9).wrapping_add(task + 1) | 1),
                keys: workload.keys,
                task,
            };
            tokio::spawn(worker.run(workload.operations))
        })
        .collect();
    let mut observations = Vec::new();
    for worker in workers {
        observations.extend(worker.await.unwrap());
    }
    let history = replay(before, &observations);
    let end = store.revision().await.unwrap();
    observations.iter().for_each(|observation| check(&history, observation, start, end));
    let last = store.range(prefix_range(space), 0, At::Latest).await.unwrap();
    let expected: Vec<Entry> =
        at(&history, end).map(|state| state.values().cloned().collect()).unwrap_or_default();
    assert_eq!(last.entries, expected, "final state");
}

struct Worker {
    store: Arc<dyn Store>,
    space: String,
    acknowledged: Arc<AtomicU64>,
    random: Random,
    keys: u64,
    task: u64,
}

impl Worker {
    async fn run(mut self, operations: usize) -> Vec<Observation> {
        let mut known: BTreeMap<String, Revision> = BTreeMap::new();
        let mut observations = Vec::new();
        for number in 0..operations {
            let key = format!("{}{}", self.space, self.random.below(self.keys));
            let expect = match (self.random.below(4), known.get(&key)) {
                (0, _) => Expect::Any,
                (1, _) | (_, None) => Expect::Absent,
                (_, Some(revision)) => Expect::Revision(*revision),
            };
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            let action = match self.random.below(10) {
                0..5 => self.put(key.clone(), expect, number).await,
                5..7 => self.delete(key.clone(), expect).await,
                7..9 => self.get(key.clone()).await,
                _ => self.range().await,
            };
            self.remember(&mut known, key, &action);
            observations.push(Observation { acknowledged, action });
        }
        observations
    }

    fn remember(&self, known: &mut BTreeMap<String, Revision>, key: String, action: &Action) {
        let (current, acknowledged) = match action {
            Action::Put { entry, .. } => (Some(entry.mod_revision), entry.mod_revision),
            Action::Delete { revision, .. } => (None, *revision),
            Action::Conflict { current, .. } => (current.as_ref().map(|entry| entry.mod_revision), 0),
            Action::Get { entry, revision, .. } => {
                (entry.as_ref().map(|entry| entry.mod_revision), *revision)
            }
            Action::Range { revision, .. } => {
                self.acknowledged.fetch_max(*revision, Ordering::SeqCst);
                return;
            }
        };
        self.acknowledged.fetch_max(acknowledged, Ordering::SeqCst);
        match current {
            Some(revision) => known.insert(key, revision),
            None => known.remove(&key),
        };
    }

    async fn put(&self, key: String, expect: Expect, number: usize) -> Action {
        let value = Bytes::from(format!("{}-{number}", self.task));
        match self.store.put(&key, value.clone(), expect).await {
            Ok(entry) => {
                assert_eq!((&*entry.key, &entry.value), (&*key, &value));
                Action::Put { entry, expect }
            }
            Err(StoreError::Conflict { current }) => Action::Conflict { key, expect, current },
            Err(error) => panic!("put {key}: {error}"),
        }
    }

    async fn delete(&self, key: String, expect: Expect) -> Action {
        match self.store.delete(&key, expect).await {
            Ok((revision, previous)) => Action::Delete { key, revision, previous, expect },
            // A missing key cannot be deleted, whatever was expected.
            Err(StoreError::Conflict { current: None }) => {
                Action::Conflict { key, expect: Expect::Revision(0), current: None }
            }
            // Absence is never a reason to delete.
            Err(StoreError::Conflict { current }) => Action::Conflict { key, expect, current },
            Err(error) => panic!("delete {key}: {error}"),
        }
    }

    async fn get(&self, key: String) -> Action {
        let (entry, revision) = self.store.get(&key, At::Latest).await.unwrap();
        Action::Get { key, entry, revision }
    }

    async fn range(&self) -> Action {
        let found = self.store.range(prefix_range(&self.space), 0, At::Latest).await.unwrap();
        assert_eq!((found.count, found.more), (found.entries.len() as u64, false));
        Action::Range { entries: found.entries, revision: found.revision }
    }
}

/// All states by the revision that began them; panics if a write did not fit the state before it.
fn replay(mut state: Snapshot, observations: &[Observation]) -> BTreeMap<Revision, Snapshot> {
    let mut writes: BTreeMap<Revision, &Observation> = BTreeMap::new();
    for observation in observations {
        let revision = match &observation.action {
            Action::Put { entry, .. } => entry.mod_revision,
            Action::Delete { revision, .. } => *revision,
            _ => continue,
        };
        assert!(revision > observation.acknowledged, "a write was given the old revision {revision}");
        assert!(writes.insert(revision, observation).is_none(), "two writes of revision {revision}");
    }
    let mut history = BTreeMap::from([(0, state.clone())]);
    for (revision, observation) in writes {
        match &observation.action {
            Action::Put { entry, expect } => {
                let current = state.get(&*entry.key);
                assert!(holds(*expect, current), "put {entry:?} with {expect:?} on {current:?}");
                let created = current.map_or(revision, |entry| entry.create_revision);
                assert_eq!(entry.create_revision, created, "{entry:?} on {current:?}");
                state.insert(entry.key.to_string(), entry.clone());
            }
            Action::Delete { key, previous, expect, .. } => {
                let current = state.remove(key);
                assert!(holds(*expect, current.as_ref()), "delete {key} with {expect:?} of {current:?}");
                assert_eq!(current.as_ref(), Some(previous), "deleted {key} at {revision}");
            }
            _ => {}
        }
        history.insert(revision, state.clone());
    }
    history
}

fn at(history: &BTreeMap<Revision, Snapshot>, revision: Revision) -> Option<&Snapshot> {
    history.range(..=revision).next_back().map(|(_, state)| state)
}

fn check(history: &BTreeMap<Revision, Snapshot>, observation: &Observation, start: Revision, end: Revision) {
    let low = observation.acknowledged.max(start);
    match &observation.action {
        Action::Get { key, entry, revision } => {
            assert!(
                low <= *revision && *revision <= end,
                "get {key} at {revision}, {low} was acknowledged before"
            );
            assert_eq!(at(history, *revision).unwrap().get(key), entry.as_ref(), "get {key} at {revision}");
        }
        Action::Range { entries, revision } => {
            assert!(
                low <= *revision && *revision <= end,
                "range at {revision}, {low} was acknowledged before"
            );
            let expected: Vec<Entry> = at(history, *revision).unwrap().values().cloned().collect();
            assert_eq!(entries, &expected, "range at {revision}");
        }
        Action::Conflict { key, expect, current } => {
            assert!(
                !holds(*expect, current.as_ref()) || *expect == Expect::Absent,
                "conflict of {expect:?} with {current:?}"
            );
            let first = at(history, low).unwrap();
            let mut states = std::iter::once(first).chain(history.range(low..=end).map(|(_, state)| state));
            let seen = states.any(|state| state.get(key) == current.as_ref());
            assert!(seen, "{key} never held {current:?} after {low}");
        }
        Action::Put { .. } | Action::Delete { .. } => {}
    }
}

fn holds(expect: Expect, current: Option<&Entry>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|entry| entry.mod_revision == revision),
    }
}

/// xorshift64: good enough to mix operations, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}
