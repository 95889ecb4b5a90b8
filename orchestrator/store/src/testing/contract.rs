//! What every backend keeps. Each case works under keys of its own, so that all can share one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{Reader, Workload, check_linearizable, key, revision};
use crate::{
    At, Entry, Event, Expect, MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision, Store, StoreError, WatchItem,
    prefix_range,
};

type Shared = Arc<dyn Store>;
type Case = fn(Shared, String) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        const CASES: &[(&str, Case)] = &[$((stringify!($name), |store, space| Box::pin($name(store, space)))),*];
    };
}

cases![
    life_of_a_key,
    expectations,
    sizes,
    prefixes_end_where_they_end,
    ranges_and_limits,
    reads_at_old_revisions,
    pages_of_one_snapshot_while_writes_go_on,
    one_creator_wins,
    counters_lose_nothing,
    any_order_explains_the_answers,
    all_watchers_see_the_same_order,
    watch_from_the_past,
    watches_have_no_seam,
    progress_means_complete,
    watch_ahead_of_the_store,
    large_events,
    // The last: what was before is gone after them.
    compaction,
    slow_reader_meets_compaction,
];

/// Runs every case. The store may hold other keys; `space` must be unused in it.
pub async fn run_contract(store: Arc<dyn Store>, space: &str) {
    for (name, case) in CASES {
        eprintln!("contract: {name}");
        case(store.clone(), format!("{space}{name}/")).await;
    }
}

async fn put(store: &Shared, key: &str, value: &str) -> Entry {
    store.put(key, Bytes::copy_from_slice(value.as_bytes()), Expect::Any).await.unwrap()
}

async fn get(store: &Shared, key: &str) -> Option<Entry> {
    store.get(key, At::Latest).await.unwrap().0
}

async fn watch(store: &Shared, prefix: &str, after: Revision) -> Reader {
    Reader::new(store.watch(prefix, after).await.unwrap())
}

fn keys(entries: &[Entry], space: &str) -> Vec<String> {
    entries.iter().map(|entry| entry.key.strip_prefix(space).unwrap_or(&entry.key).to_owned()).collect()
}

async fn life_of_a_key(store: Shared, space: String) {
    let key = format!("{space}k");
    let start = store.revision().await.unwrap();
    assert!(start >= 1);
    assert_eq!(get(&store, &key).await, None);

    let created = store.put(&key, "1".into(), Expect::Absent).await.unwrap();
    assert!(created.mod_revision > start);
    assert_eq!(created.create_revision, created.mod_revision);
    assert_eq!((&*created.key, &created.value[..]), (&*key, &b"1"[..]));
    assert_eq!(get(&store, &key).await.as_ref(), Some(&created));

    let updated = store.put(&key, "2".into(), Expect::Revision(created.mod_revision)).await.unwrap();
    assert!(updated.mod_revision > created.mod_revision);
    assert_eq!(updated.create_revision, created.create_revision);

    let (deleted, last) = store.delete(&key, Expect::Revision(updated.mod_revision)).await.unwrap();
    assert!(deleted > updated.mod_revision);
    assert_eq!(last, updated);
    let (entry, revision) = store.get(&key, At::Latest).await.unwrap();
    assert_eq!(entry, None);
    assert!(revision >= deleted);

    let again = store.put(&key, "3".into(), Expect::Absent).await.unwrap();
    assert!(again.mod_revision > deleted);
    assert_eq!(again.create_revision, again.mod_revision, "a new life");
    assert_eq!(store.revision().await.unwrap(), store.get(&key, At::Latest).await.unwrap().1);
    store.ready().await.unwrap();
}

async fn expectations(store: Shared, space: String) {
    let there = put(&store, &format!("{space}there"), "v").await;
    let missing = format!("{space}missing");
    let revision = store.revision().await.unwrap();
    for (expect, key, current) in [
        (Expect::Absent, &*there.key, Some(&there)),
        (Expect::Revision(there.mod_revision - 1), &*there.key, Some(&there)),
        (Expect::Revision(there.mod_revision + 1), &*there.key, Some(&there)),
        (Expect::Revision(0), &*there.key, Some(&there)),
        (Expect::Revision(there.mod_revision), &*missing, None),
        (Expect::Revision(0), &*missing, None),
    ] {
        match store.put(key, "x".into(), expect).await {
            Err(StoreError::Conflict { current: found }) => {
                assert_eq!(found.as_ref(), current, "put {key} {expect:?}")
            }
            other => panic!("put {key} {expect:?}: {other:?}"),
        }
        match store.delete(key, expect).await {
            Err(StoreError::Conflict { current: found }) => {
                assert_eq!(found.as_ref(), current, "delete {key} {expect:?}");
            }
            other => panic!("delete {key} {expect:?}: {other:?}"),
        }
    }
    match store.delete(&missing, Expect::Any).await {
        Err(StoreError::Conflict { current: None }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.revision().await.unwrap(), revision, "a refused write takes no revision");
    assert_eq!(get(&store, &there.key).await, Some(there.clone()));
    let (_, last) = store.delete(&there.key, Expect::Any).await.unwrap();
    assert_eq!(last, there);
}

async fn sizes(store: Shared, space: String) {
    let long = space.clone() + &"k".repeat(MAX_KEY_BYTES - space.len());
    let large = Bytes::from(vec![b'x'; MAX_VALUE_BYTES]);
    for (key, value) in [(format!("{space}empty"), Bytes::new()), (long.clone(), large.clone())] {
        let entry = store.put(&key, value.clone(), Expect::Absent).await.unwrap();
        assert_eq!(get(&store, &key).await.as_ref(), Some(&entry));
        assert_eq!(entry.value, value);
        let again = store.put(&key, value.clone(), Expect::Revision(entry.mod_revision)).await.unwrap();
        match store.put(&key, value, Expect::Absent).await {
            Err(StoreError::Conflict { current }) => assert_eq!(current, Some(again)),
            other => panic!("{other:?}"),
        }
        store.delete(&key, Expect::Any).await.unwrap();
    }
    let too_large = Bytes::from(vec![b'x'; MAX_VALUE_BYTES + 1]);
    for (key, value) in
        [(String::new(), Bytes::new()), (long + "k", Bytes::new()), (format!("{space}large"), too_large)]
    {
        let result = store.put(&key, value, Expect::Any).await;
        assert!(matches!(result, Err(StoreError::Size { .. })), "{result:?}");
    }
    assert_eq!(get(&store, "").await, None);
}

async fn prefixes_end_where_they_end(store: Shared, space: String) {
    let start = store.revision().await.unwrap();
    for name in ["a", "a-b", "a.", "a/", "a/b", "a/b/c", "a/~", "a/é", "a0", "ab", "ab/c", "A/b"] {
        put(&store, &format!("{space}{name}"), name).await;
    }
    let end = store.revision().await.unwrap();
    for (prefix, inside) in [
        ("a/", vec!["a/", "a/b", "a/b/c", "a/~", "a/é"]),
        ("a/b", vec!["a/b", "a/b/c"]),
        ("ab", vec!["ab", "ab/c"]),
        ("a/b/c/", vec![]),
    ] {
        let prefix = format!("{space}{prefix}");
        let found = store.range(prefix_range(&prefix), 0, At::Latest).await.unwrap();
        assert_eq!(keys(&found.entries, &space), inside, "range {prefix}");
        let seen = watch(&store, &prefix, start).await.until(end).await;
        let seen: Vec<&str> = seen.iter().map(|event| key(event).strip_prefix(&space).unwrap()).collect();
        assert_eq!(seen, inside, "watch {prefix}");
    }
}

async fn ranges_and_limits(store: Shared, space: String) {
    for number in 0..10 {
        put(&store, &format!("{space}{number}"), "v").await;
    }
    store.delete(&format!("{space}4"), Expect::Any).await.unwrap();
    let range = |from: &str, to: &str| format!("{space}{from}")..format!("{space}{to}");
    for (from, to, limit, expected, more, count) in [
        ("", "~", 0, "012356789", false, 9),
        ("", "~", 9, "012356789", false, 9),
        ("", "~", 8, "01235678", true, 9),
        ("3", "6", 0, "35", false, 2),
        ("3", "6", 1, "3", true, 2),
        ("4", "5", 0, "", false, 0),
        ("6", "3", 0, "", false, 0),
        ("3", "3", 5, "", false, 0),
    ] {
        let found = store.range(range(from, to), limit, At::Latest).await.unwrap();
        let case = format!("{from}..{to} limit {limit}");
        assert_eq!(keys(&found.entries, &space).concat(), expected, "{case}");
        assert_eq!((found.more, found.count), (more, count), "{case}");
        assert!(found.revision >= 1, "{case}");
    }
    let all = store.range(String::new()..String::new(), 0, At::Latest).await.unwrap();
    assert_eq!(all.entries.iter().filter(|entry| entry.key.starts_with(&space)).count(), 9);
    assert_eq!(all.count, all.entries.len() as u64);
    assert!(all.entries.is_sorted_by(|one, other| one.key < other.key));
    let tail = store.range(format!("{space}8")..String::new(), 2, At::Latest).await.unwrap();
    assert_eq!(keys(&tail.entries, &space), ["8", "9"]);
}

async fn reads_at_old_revisions(store: Shared, space: String) {
    let key = format!("{space}k");
    let before = store.revision().await.unwrap();
    let first = put(&store, &key, "1").await;
    let second = put(&store, &key, "2").await;
    let (deleted, _) = store.delete(&key, Expect::Any).await.unwrap();
    let third = put(&store, &key, "3").await;
    for (at, expected) in [
        (before, None),
        (first.mod_revision, Some(&first)),
        (second.mod_revision, Some(&second)),
        (deleted, None),
        (third.mod_revision, Some(&third)),
    ] {
        let (entry, revision) = store.get(&key, At::Revision(at)).await.unwrap();
        assert_eq!((entry.as_ref(), revision), (expected, at));
        let found = store.range(prefix_range(&key), 0, At::Revision(at)).await.unwrap();
        assert_eq!((found.entries.first(), found.revision), (expected, at));
        assert_eq!(found.count, u64::from(expected.is_some()));
    }
    let ahead = store.revision().await.unwrap() + 1000;
    for result in [
        store.get(&key, At::Revision(ahead)).await.map(drop),
        store.range(prefix_range(&key), 0, At::Revision(ahead)).await.map(drop),
    ] {
        match result {
            Err(StoreError::Future { requested, current }) => assert!(requested == ahead && current < ahead),
            other => panic!("{other:?}"),
        }
    }
}

async fn pages_of_one_snapshot_while_writes_go_on(store: Shared, space: String) {
    const KEYS: usize = 60;
    let name = |number: usize| format!("{space}{number:03}");
    join_all((0..KEYS).map(|number| store.put_owned(name(number)))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let disturber = tokio::spawn({
        let (store, stop, space) = (store.clone(), stop.clone(), space.clone());
        async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let key = format!("{space}{:03}", number * 7 % KEYS);
                let _ = store.delete(&key, Expect::Any).await;
                put(&store, &format!("{space}{:03}+", number % KEYS), "new").await;
                put(&store, &key, "changed").await;
            }
        }
    });
    for limit in [1, 7, 59, 60, 61] {
        let mut range = prefix_range(&space);
        let whole = store.range(range.clone(), 0, At::Latest).await.unwrap();
        let at = At::Revision(whole.revision);
        let mut paged = Vec::new();
        loop {
            let page = store.range(range.clone(), limit, at).await.unwrap();
            assert!(page.entries.len() <= limit);
            assert_eq!(page.revision, whole.revision);
            assert_eq!(page.count as usize + paged.len(), whole.entries.len());
            paged.extend(page.entries);
            if !page.more {
                break;
            }
            range.start = format!("{}\0", paged.last().unwrap().key);
        }
        assert_eq!(paged, whole.entries, "limit {limit}");
    }
    stop.store(true, Ordering::Relaxed);
    disturber.await.unwrap();
}

/// Only to keep `join_all` readable.
trait PutOwned {
    fn put_owned(&self, key: String) -> impl Future<Output = Entry> + Send;
}

impl PutOwned for Shared {
    async fn put_owned(&self, key: String) -> Entry {
        put(self, &key, "v").await
    }
}

async fn one_creator_wins(store: Shared, space: String) {
    for round in 0..5 {
        let key = format!("{space}{round}");
        let attempts = join_all((0..32).map(|task| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put(&key, Bytes::from(format!("{task}")), Expect::Absent).await })
        }))
        .await;
        let current = get(&store, &key).await;
        let mut winners = 0;
        for attempt in attempts {
            match attempt.unwrap() {
                Ok(entry) => {
                    winners += 1;
                    assert_eq!(Some(&entry), current.as_ref());
                }
                Err(StoreError::Conflict { current: found }) => assert_eq!(found, current),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners, 1);
    }
}

async fn counters_lose_nothing(store: Shared, space: String) {
    const TASKS: usize = 8;
    const INCREMENTS: usize = 20;
    let key = format!("{space}counter");
    put(&store, &key, "0").await;
    join_all((0..TASKS).map(|_| {
        let (store, key) = (store.clone(), key.clone());
        async move {
            let mut current = get(&store, &key).await.unwrap();
            for _ in 0..INCREMENTS {
                loop {
                    let count: usize = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
                    let value = Bytes::from((count + 1).to_string());
                    match store.put(&key, value, Expect::Revision(current.mod_revision)).await {
                        Ok(entry) => {
                            current = entry;
                            break;
                        }
                        Err(StoreError::Conflict { current: Some(found) }) => current = found,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }))
    .await;
    let value = get(&store, &key).await.unwrap().value;
    assert_eq!(value, (TASKS * INCREMENTS).to_string());
}

async fn any_order_explains_the_answers(store: Shared, space: String) {
    for (seed, keys) in [(1, 1), (2, 3), (3, 12)] {
        let workload = Workload { seed, tasks: 8, operations: 60, keys };
        check_linearizable(store.clone(), &format!("{space}{seed}/"), workload).await;
    }
}

async fn all_watchers_see_the_same_order(store: Shared, space: String) {
    const WRITERS: usize = 8;
    const WRITES: usize = 25;
    let start = store.revision().await.unwrap();
    let readers = join_all((0..4).map(|_| watch(&store, &space, start))).await;
    let written = join_all((0..WRITERS).map(|writer| {
        let (store, space) = (store.clone(), space.clone());
        async move {
            let mut revisions = Vec::new();
            for number in 0..WRITES {
                let key = format!("{space}{}", (writer + number) % 5);
                revisions.push((put(&store, &key, &format!("{writer}-{number}")).await.mod_revision, key));
            }
            assert!(revisions.is_sorted(), "a writer's own order");
            revisions
        }
    }))
    .await;
    let mut written = written.concat();
    written.sort();
    for mut reader in readers {
        let seen = reader.take(WRITERS * WRITES).await;
        let seen: Vec<_> = seen.iter().map(|event| (revision(event), key(event).to_owned())).collect();
        assert_eq!(seen, written);
    }
}

async fn watch_from_the_past(store: Shared, space: String) {
    let key = format!("{space}k");
    let start = store.revision().await.unwrap();
    let first = put(&store, &key, "1").await;
    put(&store, &format!("{}other", space.trim_end_matches('/')), "elsewhere").await;
    let second = put(&store, &key, "2").await;
    let (deleted, _) = store.delete(&key, Expect::Any).await.unwrap();
    let third = put(&store, &key, "").await;
    let all = [
        Event::Put { entry: first.clone(), previous: None },
        Event::Put { entry: second.clone(), previous: Some(first.clone()) },
        Event::Delete { key: key.as_str().into(), revision: deleted, previous: Some(second.clone()) },
        Event::Put { entry: third.clone(), previous: None },
    ];
    for (after, skipped) in [
        (start, 0),
        (first.mod_revision, 1),
        (first.mod_revision + 1, 1),
        (second.mod_revision, 2),
        (deleted, 3),
        (third.mod_revision, 4),
    ] {
        let mut reader = watch(&store, &space, after).await;
        assert_eq!(reader.until(third.mod_revision).await, all[skipped..], "after {after}");
        if after == third.mod_revision {
            let (revision, _) = store.delete(&key, Expect::Any).await.unwrap();
            let live = Event::Delete { key: key.as_str().into(), revision, previous: Some(third.clone()) };
            assert_eq!(reader.next().await.unwrap(), live);
        }
    }
}

/// Watches begun at every moment of a stream of writes get each event once.
async fn watches_have_no_seam(store: Shared, space: String) {
    const WRITES: usize = 200;
    let start = store.revision().await.unwrap();
    let writer = tokio::spawn({
        let (store, space) = (store.clone(), space.clone());
        async move {
            let mut revisions = Vec::new();
            for number in 0..WRITES {
                revisions.push(put(&store, &format!("{space}{}", number % 7), "v").await.mod_revision);
            }
            revisions
        }
    });
    let mut readers = Vec::new();
    for _ in 0..20 {
        let after = store.revision().await.unwrap();
        readers.push((after, watch(&store, &space, after).await));
        readers.push((start, watch(&store, &space, start).await));
        tokio::task::yield_now().await;
    }
    let revisions = writer.await.unwrap();
    for (after, mut reader) in readers {
        let expected: Vec<Revision> =
            revisions.iter().copied().filter(|revision| *revision > after).collect();
        let seen: Vec<Revision> = reader.take(expected.len()).await.iter().map(revision).collect();
        assert_eq!(seen, expected, "after {after}");
    }
}

async fn progress_means_complete(store: Shared, space: String) {
    let start = store.revision().await.unwrap();
    let mut busy = watch(&store, &format!("{space}busy/"), start).await;
    let mut idle = watch(&store, &format!("{space}idle/"), start).await;
    for round in 0..5 {
        let mut last = 0;
        for number in 0..10 {
            last = put(&store, &format!("{space}busy/{round}-{number}"), "v").await.mod_revision;
        }
        let fresh = store.request_progress().await.unwrap();
        assert!(fresh >= last);
        assert_eq!(busy.until(fresh).await.len(), 10, "round {round}");
        assert_eq!(idle.until(fresh).await, []);
    }
    // Without being asked it comes as well, if later.
    let last = put(&store, &format!("{space}busy/last"), "v").await.mod_revision;
    assert_eq!(idle.until(last).await, []);
    assert_eq!(busy.until(last).await.len(), 1);
}

async fn watch_ahead_of_the_store(store: Shared, space: String) {
    let ahead = store.revision().await.unwrap() + 1000;
    match store.watch(&space, ahead).await.err() {
        Some(StoreError::Future { requested, current }) => assert!(requested == ahead && current < ahead),
        other => panic!("{other:?}"),
    }
}

/// More bytes than one message of etcd holds, in one history.
async fn large_events(store: Shared, space: String) {
    let start = store.revision().await.unwrap();
    let mut live = watch(&store, &space, start).await;
    let value = |number: u8| Bytes::from(vec![number; 1_000_000]);
    for number in 0..6 {
        store.put(&format!("{space}k"), value(number), Expect::Any).await.unwrap();
    }
    let mut past = watch(&store, &space, start).await;
    for reader in [&mut live, &mut past] {
        for (number, event) in reader.take(6).await.into_iter().enumerate() {
            let Event::Put { entry, previous } = event else { panic!("{event:?}") };
            let number = u8::try_from(number).unwrap();
            assert!(entry.value == value(number), "value {number}");
            let before = previous.map(|entry| entry.value);
            assert!(before == number.checked_sub(1).map(value), "value before {number}");
        }
    }
    store.delete(&format!("{space}k"), Expect::Any).await.unwrap();
}

async fn compaction(store: Shared, space: String) {
    let name = |key: &str| format!("{space}{key}");
    let start = store.revision().await.unwrap();
    let old = put(&store, &name("a"), "1").await;
    let gone = put(&store, &name("gone"), "1").await;
    let (deleted, _) = store.delete(&gone.key, Expect::Any).await.unwrap();
    let kept = put(&store, &name("b"), "1").await;
    let new = put(&store, &name("a"), "2").await;
    let oldest = new.mod_revision;
    let later = put(&store, &name("a"), "3").await;
    store.compact(oldest).await.unwrap();

    for at in [old.mod_revision, kept.mod_revision, oldest - 1] {
        for result in [
            store.get(&name("a"), At::Revision(at)).await.map(drop),
            store.range(prefix_range(&space), 1, At::Revision(at)).await.map(drop),
        ] {
            match result {
                Err(StoreError::Compacted { requested, oldest: found }) => {
                    assert_eq!((requested, found), (at, oldest));
                }
                other => panic!("at {at}: {other:?}"),
            }
        }
        // A watch may still know by itself what the store has forgotten, but then all of it.
        let written =
            [old.mod_revision, gone.mod_revision, deleted, kept.mod_revision, oldest, later.mod_revision];
        let expected: Vec<Revision> = written.into_iter().filter(|revision| *revision >= at).collect();
        match watch_all(&store, &space, at - 1, later.mod_revision).await {
            Ok(seen) => assert_eq!(seen, expected, "watch after {}", at - 1),
            Err(StoreError::Compacted { requested, oldest: found }) => {
                assert_eq!((requested, found), (at - 1, oldest));
            }
            Err(error) => panic!("watch after {}: {error}", at - 1),
        }
    }
    assert_eq!(store.get(&name("a"), At::Revision(oldest)).await.unwrap().0, Some(new.clone()));
    let found = store.range(prefix_range(&space), 0, At::Revision(oldest)).await.unwrap();
    assert_eq!(found.entries, [new.clone(), kept.clone()]);
    let found = store.range(prefix_range(&space), 0, At::Latest).await.unwrap();
    assert_eq!(found.entries, [later.clone(), kept]);
    let event = watch(&store, &space, oldest).await.next().await.unwrap();
    assert_eq!(event, Event::Put { entry: later, previous: Some(new) });

    let again = store.compact(start).await;
    assert!(matches!(again, Err(StoreError::Compacted { .. })), "{again:?}");
    let ahead = store.revision().await.unwrap() + 1000;
    let result = store.compact(ahead).await;
    assert!(matches!(result, Err(StoreError::Future { .. })), "{result:?}");
    put(&store, &gone.key, "again").await;
}

async fn watch_all(
    store: &Shared,
    prefix: &str,
    after: Revision,
    upto: Revision,
) -> crate::Result<Vec<Revision>> {
    let mut reader = Reader::new(store.watch(prefix, after).await?);
    let mut seen = Vec::new();
    while reader.reached < upto {
        if let WatchItem::Events(events) = reader.item().await? {
            seen.extend(events.iter().map(revision));
        }
    }
    Ok(seen)
}

/// A reader that sleeps through a compaction gets what is left without a gap, or is told that it is too late.
async fn slow_reader_meets_compaction(store: Shared, space: String) {
    const TASKS: usize = 50;
    const WRITES: usize = 100;
    let start = store.revision().await.unwrap();
    let mut reader = watch(&store, &space, start).await;
    put(&store, &format!("{space}first"), "v").await;
    reader.next().await.unwrap();
    join_all((0..TASKS).map(|task| {
        let (store, space) = (store.clone(), space.clone());
        async move {
            for _ in 0..WRITES {
                put(&store, &format!("{space}{task}"), "v").await;
            }
        }
    }))
    .await;
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let (events, error) = tokio::select! {
        ended = reader.until_error() => ended,
        () = tokio::time::sleep(super::PATIENCE) => panic!("the reader was not told"),
    };
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    assert!(events.len() < TASKS * WRITES, "more was kept for the reader than there is room for");
}
