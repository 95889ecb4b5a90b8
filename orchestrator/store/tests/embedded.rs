//! The embedded store as a user of the crate sees it: the contract, restarts, and directories it must refuse.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use loadline_store::testing::{Reader, eventually, revision, run_contract};
use loadline_store::{At, Embedded, EmbeddedOptions, Entry, Expect, Store, StoreError, prefix_range};

fn open(dir: &Path) -> loadline_store::Result<Embedded> {
    Embedded::open(dir, EmbeddedOptions::default())
}

async fn put(store: &Embedded, key: &str, value: impl Into<Bytes>) -> Entry {
    store.put(key, value.into(), Expect::Any).await.unwrap()
}

async fn all(store: &Embedded) -> Vec<Entry> {
    store.range(prefix_range(""), 0, At::Latest).await.unwrap().entries
}

fn message(result: loadline_store::Result<Embedded>) -> String {
    match result {
        Err(StoreError::Open(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contract() {
    let dir = tempfile::tempdir().unwrap();
    run_contract(Arc::new(open(dir.path()).unwrap()), "").await;
}

#[tokio::test]
async fn contract_on_one_thread() {
    let dir = tempfile::tempdir().unwrap();
    run_contract(Arc::new(open(&dir.path().join("deep/new")).unwrap()), "").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for number in 0..50 {
        let key = number.to_string();
        let put = put(&store, &key, "v");
        tokio::time::timeout(std::time::Duration::from_millis(1), put).await.unwrap();
    }
}

#[tokio::test]
async fn a_fresh_store_counts_from_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.revision().await.unwrap(), 1);
    assert_eq!(put(&store, "a", "v").await.mod_revision, 2);
    assert_eq!(put(&store, "b", "v").await.mod_revision, 3);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for number in 0..50 {
        put(&store, &format!("k{}", number % 10), format!("{number}")).await;
    }
    let (deleted, _) = store.delete("k3", Expect::Any).await.unwrap();
    let (before, revision_before) = (all(&store).await, store.revision().await.unwrap());
    let mut reader = Reader::new(store.watch("", 1).await.unwrap());
    let events = reader.until(deleted).await;
    store.close().await;

    let store = open(dir.path()).unwrap();
    assert_eq!(all(&store).await, before);
    assert_eq!(store.revision().await.unwrap(), revision_before);
    let mut reader = Reader::new(store.watch("", 1).await.unwrap());
    assert_eq!(reader.until(deleted).await, events);
    assert_eq!(store.get("k3", At::Revision(deleted - 1)).await.unwrap().0.unwrap().value, "43");
    assert_eq!(put(&store, "k3", "again").await.mod_revision, revision_before + 1);
}

#[tokio::test]
async fn compaction_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for _ in 0..10 {
        let puts = (0..500).map(|number| put(&store, if number % 2 == 0 { "a" } else { "b" }, "v"));
        futures::future::join_all(puts).await;
    }
    let (revision, _) = store.delete("b", Expect::Any).await.unwrap();
    store.compact(revision).await.unwrap();
    // At once: most of the records are still on disk and must go when it is open again.
    store.close().await;
    for _ in 0..3 {
        let store = open(dir.path()).unwrap();
        assert_eq!(store.revision().await.unwrap(), revision, "though the newest record is gone");
        assert!(matches!(
            store.get("a", At::Revision(revision - 1)).await,
            Err(StoreError::Compacted { .. })
        ));
        assert_eq!(all(&store).await.len(), 1);
        store.close().await;
    }
    let store = open(dir.path()).unwrap();
    assert_eq!(put(&store, "b", "v").await.mod_revision, revision + 1);
}

#[tokio::test]
async fn only_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "v").await;
    let said = message(open(dir.path()));
    assert!(said.contains(dir.path().to_str().unwrap()), "{said}");
    assert!(said.contains(&format!("process {} is using it", std::process::id())), "{said}");
    let watch = store.watch("", 1).await.unwrap();
    store.close().await;
    assert!(matches!(store.put("a", "v".into(), Expect::Any).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.get("a", At::Latest).await, Err(StoreError::Unavailable(_))));
    assert!(store.ready().await.is_err());
    let (_, error) = Reader::new(watch).until_error().await;
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn dropping_gives_the_directory_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", "v").await;
    drop(store);
    eventually("reopen", async || open(dir.path()).map(drop)).await;
}

#[test]
fn foreign_directories_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("member")).unwrap();
    let said = message(open(dir.path()));
    assert!(said.contains("\"member\"") && said.contains("choose an empty"), "{said}");
    let names: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["member"]);

    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(message(open(&file)).contains("cannot be used"));
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    for (content, says) in [
        (b"".to_vec(), "cut off after 0 bytes"),
        (b"redb".to_vec(), "cut off after 4 bytes"),
        (b"SQLite format 3\0 and so on".to_vec(), "not a Loadline store"),
        (b"redb\x1a\x0a\xa9\x0d\x0a".to_vec(), "damaged"),
        ([b"redb\x1a\x0a\xa9\x0d\x0a".as_slice(), &[0; 100_000]].concat(), "damaged"),
    ] {
        std::fs::write(&path, &content).unwrap();
        let said = message(open(dir.path()));
        assert!(said.contains(says) && said.contains(dir.path().to_str().unwrap()), "{said}");
        assert!(std::fs::read(&path).unwrap() == content, "changed: {said}");
    }
}

#[test]
fn other_databases_and_newer_formats() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let database = redb::Database::create(&path).unwrap();
    drop(database);
    assert!(message(open(dir.path())).contains("not a Loadline store"));

    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, u64>::new("loadline-store");
    transaction.open_table(table).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let said = message(open(dir.path()));
    assert!(said.contains("written by a newer Loadline") && said.contains("upgrade"), "{said}");
}

#[test]
fn an_interrupted_creation_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb.new"), "half").unwrap();
    open(dir.path()).unwrap();
    assert!(!dir.path().join("store.redb.new").exists());
}

/// Cut off or altered anywhere, a store either opens with exactly what it held or says that it is damaged, and is not
/// changed then.
#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    futures::future::join_all(
        (0..400)
            .map(|number| put(&store, Box::leak(format!("key{number}").into_boxed_str()), vec![b'x'; 300])),
    )
    .await;
    let before = all(&store).await;
    store.close().await;
    let path = dir.path().join("store.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    let cuts = [9, 10, 64, 100, 320, 4095, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1];
    let flips = (0..whole.len()).step_by(whole.len() / 60);
    let cases =
        cuts.map(|cut| (format!("cut at {cut}"), whole[..cut].to_vec())).into_iter().chain(flips.map(|at| {
            let mut content = whole.clone();
            content[at..].iter_mut().take(16).for_each(|byte| *byte ^= 0x55);
            (format!("altered at {at}"), content)
        }));
    for (case, content) in cases {
        std::fs::write(&path, &content).unwrap();
        match open(dir.path()) {
            Ok(store) => {
                assert!(all(&store).await == before, "{case}: opened with other contents");
                store.close().await;
            }
            Err(StoreError::Open(said)) => {
                refused += 1;
                assert!(said.contains(dir.path().to_str().unwrap()), "{case}: {said}");
                assert!(std::fs::read(&path).unwrap() == content, "{case}: the file was changed; {said}");
            }
            Err(other) => panic!("{case}: {other}"),
        }
    }
    assert!(refused > 10, "{refused}");
    std::fs::write(&path, &whole).unwrap();
    assert!(all(&open(dir.path()).unwrap()).await == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_open_quickly() {
    const OBJECTS: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for chunk in 0..OBJECTS / 1000 {
        let keys: Vec<String> =
            (0..1000).map(|number| format!("configmaps/default/{chunk}-{number}")).collect();
        futures::future::join_all(keys.iter().map(|key| put(&store, key, vec![b'x'; 400]))).await;
    }
    let mut events = Reader::new(store.watch("configmaps/default/7-", 1).await.unwrap());
    assert_eq!(events.take(1000).await.iter().map(revision).count(), 1000);
    store.close().await;
    let started = std::time::Instant::now();
    let store = open(dir.path()).unwrap();
    eprintln!("opened {OBJECTS} objects in {:?}", started.elapsed());
    let found = store.range(prefix_range("configmaps/"), 500, At::Latest).await.unwrap();
    assert_eq!((found.entries.len(), found.count), (500, OBJECTS as u64));
}

#[tokio::test(start_paused = true)]
async fn periodic_compaction_keeps_one_round() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(dir.path()).unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let keep = std::time::Duration::from_secs(300);
    let compactor = tokio::spawn(loadline_store::compact_periodically(store.clone(), keep, stop.clone()));
    let mut written = Vec::new();
    for _ in 0..4 {
        written.push(store.put("a", "v".into(), Expect::Any).await.unwrap().mod_revision);
        tokio::time::sleep(keep).await;
    }
    eventually("the first is forgotten", async || match store.get("a", At::Revision(written[0])).await {
        Err(StoreError::Compacted { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(store.get("a", At::Revision(written[3])).await.is_ok());
    stop.cancel();
    compactor.await.unwrap();
}
