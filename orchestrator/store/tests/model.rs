//! The embedded store does what a list of events does: random operations, restarts and compactions, compared with a
//! model after each; and random concurrent histories.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use loadline_store::testing::{Reader, Workload, check_linearizable};
use loadline_store::{
    At, Embedded, EmbeddedOptions, Entry, Event, Expect, Revision, Store, StoreError, prefix_range,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        size: u16,
        guard: Guard,
    },
    Delete {
        key: u8,
        guard: Guard,
    },
    /// How far back, in parts of 256 of history.
    ReadBack {
        back: u8,
        limit: u8,
    },
    Watch {
        back: u8,
        prefix: u8,
    },
    Compact {
        back: u8,
    },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Guard {
    Any,
    Absent,
    Right,
    Wrong,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guard = prop_oneof![4 => Just(Guard::Any), 2 => Just(Guard::Absent), 3 => Just(Guard::Right), 1 => Just(Guard::Wrong)];
    let step = prop_oneof![
        8 => (0..8u8, 0..6000u16, guard.clone()).prop_map(|(key, size, guard)| Step::Put { key, size, guard }),
        3 => (0..8u8, guard).prop_map(|(key, guard)| Step::Delete { key, guard }),
        2 => (any::<u8>(), 0..5u8).prop_map(|(back, limit)| Step::ReadBack { back, limit }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(back, prefix)| Step::Watch { back, prefix }),
        1 => any::<u8>().prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..120)
}

#[derive(Default)]
struct Model {
    /// The event of revision n + 2 at n.
    events: Vec<Event>,
    compacted: Revision,
}

impl Model {
    fn revision(&self) -> Revision {
        self.events.len() as Revision + 1
    }

    fn state(&self, at: Revision) -> BTreeMap<String, Entry> {
        let mut state = BTreeMap::new();
        for event in &self.events[..at as usize - 1] {
            match event {
                Event::Put { entry, .. } => state.insert(entry.key.to_string(), entry.clone()),
                Event::Delete { key, .. } => state.remove(&**key),
            };
        }
        state
    }

    fn current(&self, key: &str) -> Option<Entry> {
        self.state(self.revision()).remove(key)
    }

    fn back(&self, parts: u8) -> Revision {
        self.revision() - (self.revision() - 1) * Revision::from(parts) / 256
    }
}

fn name(key: u8) -> String {
    ["a", "a/", "a/b", "a/c", "ab", "b", "b/x", "c"][usize::from(key)].to_owned()
}

fn expectation(guard: Guard, current: Option<&Entry>) -> (Expect, bool) {
    let revision = current.map_or(0, |entry| entry.mod_revision);
    match guard {
        Guard::Any => (Expect::Any, true),
        Guard::Absent => (Expect::Absent, current.is_none()),
        Guard::Right => (Expect::Revision(revision), current.is_some()),
        Guard::Wrong => (Expect::Revision(revision + 1), false),
    }
}

struct Run {
    dir: tempfile::TempDir,
    store: Embedded,
    model: Model,
}

fn open(dir: &tempfile::TempDir) -> Embedded {
    // Little memory for events, so that history is read from disk as well.
    let options = EmbeddedOptions { recent_bytes: 10_000, ..EmbeddedOptions::default() };
    Embedded::open(dir.path(), options).unwrap()
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        Run { dir, store, model: Model::default() }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { key, size, guard } => self.put(&name(key), size, guard).await,
            Step::Delete { key, guard } => self.delete(&name(key), guard).await,
            Step::ReadBack { back, limit } => self.read(self.model.back(back), limit.into()).await,
            Step::Watch { back, prefix } => {
                self.watch(self.model.back(back), ["", "a/", "b"][usize::from(prefix)]).await
            }
            Step::Compact { back } => self.compact(self.model.back(back)).await,
            Step::Restart => {
                self.store.close().await;
                self.store = open(&self.dir);
            }
        }
        assert_eq!(self.store.revision().await.unwrap(), self.model.revision());
    }

    async fn put(&mut self, key: &str, size: u16, guard: Guard) {
        let current = self.model.current(key);
        let (expect, holds) = expectation(guard, current.as_ref());
        let value = Bytes::from(vec![size as u8; size.into()]);
        match self.store.put(key, value.clone(), expect).await {
            Ok(entry) => {
                assert!(holds);
                let revision = self.model.revision() + 1;
                let created = current.as_ref().map_or(revision, |entry| entry.create_revision);
                let expected =
                    Entry { key: key.into(), value, create_revision: created, mod_revision: revision };
                assert_eq!(entry, expected);
                self.model.events.push(Event::Put { entry, previous: current });
            }
            Err(StoreError::Conflict { current: found }) => assert!(!holds && found == current),
            Err(error) => panic!("{error}"),
        }
    }

    async fn delete(&mut self, key: &str, guard: Guard) {
        let current = self.model.current(key);
        let (expect, holds) = expectation(guard, current.as_ref());
        match self.store.delete(key, expect).await {
            Ok((revision, entry)) => {
                assert!(holds);
                assert_eq!((revision, Some(&entry)), (self.model.revision() + 1, current.as_ref()));
                self.model.events.push(Event::Delete { key: key.into(), revision, previous: current });
            }
            Err(StoreError::Conflict { current: found }) => {
                assert!((!holds || current.is_none()) && found == current);
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn read(&self, at: Revision, limit: usize) {
        let found = self.store.range(prefix_range("a"), limit, At::Revision(at)).await;
        if at < self.model.compacted {
            assert!(matches!(found, Err(StoreError::Compacted { .. })), "{found:?}");
            return;
        }
        let found = found.unwrap();
        let expected: Vec<Entry> =
            self.model.state(at).into_values().filter(|entry| entry.key.starts_with('a')).collect();
        let page = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        assert_eq!(found.entries, expected[..page]);
        assert_eq!((found.count, found.more), (expected.len() as u64, page < expected.len()));
    }

    async fn watch(&self, after: Revision, prefix: &str) {
        let watch = self.store.watch(prefix, after).await;
        if after < self.model.compacted {
            assert!(matches!(watch.err(), Some(StoreError::Compacted { .. })));
            return;
        }
        let events = Reader::new(watch.unwrap()).until(self.model.revision()).await;
        let key = loadline_store::testing::key;
        let later = self.model.events[after as usize - 1..].iter();
        let expected: Vec<Event> = later.filter(|event| key(event).starts_with(prefix)).cloned().collect();
        assert_eq!(events, expected);
    }

    async fn compact(&mut self, at: Revision) {
        match self.store.compact(at).await {
            Ok(()) => {
                assert!(at > self.model.compacted);
                self.model.compacted = at;
            }
            Err(StoreError::Compacted { .. }) => assert!(at <= self.model.compacted),
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in &steps {
                run.step(step).await;
            }
            run.step(&Step::Restart).await;
            run.read(run.model.revision(), 0).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_histories_have_an_order() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&dir));
    for seed in 0..20 {
        let workload = Workload { seed, tasks: 12, operations: 80, keys: 1 + seed % 6 };
        check_linearizable(store.clone(), &format!("{seed}/"), workload).await;
    }
}
