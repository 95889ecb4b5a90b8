//! `kill -9` under load: a child writes and prints what was acknowledged; whatever it printed must be there afterwards.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use loadline_store::testing::{Reader, key, revision};
use loadline_store::{At, Embedded, EmbeddedOptions, Expect, Revision, Store, prefix_range};
use rand::RngExt;

const DIR: &str = "LOADLINE_STORE_CRASH_DIR";
const ROUND: &str = "LOADLINE_STORE_CRASH_ROUND";

/// Not a test: what the children run.
#[test]
#[ignore = "run by kill_under_load"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(Path::new(&dir), EmbeddedOptions::default()).unwrap());
        let writers = (0..16).map(|writer| tokio::spawn(write(store.clone(), format!("{round}/{writer}"))));
        futures::future::join_all(writers).await;
    });
}

/// Puts, overwrites and deletes for ever; one line for each acknowledgement.
async fn write(store: Arc<Embedded>, name: String) {
    for number in 0.. {
        let key = format!("{name}/{}", number % 50);
        let value = format!("{number}:{}", "x".repeat(number * 37 % 2000));
        let line = if number % 7 == 6 {
            match store.delete(&key, Expect::Any).await {
                Ok((revision, _)) => format!("acknowledged {revision} {key} -\n"),
                Err(_) => continue,
            }
        } else {
            let entry = store.put(&key, Bytes::from(value), Expect::Any).await.unwrap();
            format!("acknowledged {} {key} {number}\n", entry.mod_revision)
        };
        if number % 400 == 399 {
            let _ = store.compact(store.revision().await.unwrap().saturating_sub(500)).await;
        }
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// Revision → key and what it holds since (`-`: deleted).
type Acknowledged = BTreeMap<Revision, (String, String)>;

fn run_and_kill(dir: &Path, round: usize, after: usize) -> Acknowledged {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Acknowledged::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The last line may be cut off; a line of the test harness precedes the first.
        if let ["acknowledged", revision, key, value] = line.split(' ').collect::<Vec<_>>()[..] {
            acknowledged.insert(revision.parse().unwrap(), (key.to_owned(), value.to_owned()));
        }
        if acknowledged.len() == after {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    acknowledged
}

#[tokio::test]
async fn kill_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..8 {
        let after = rand::rng().random_range(1..3000);
        acknowledged.extend(run_and_kill(dir.path(), round, after));
        let store = Embedded::open(dir.path(), EmbeddedOptions::default()).unwrap();
        check(&store, &acknowledged).await;
        store.close().await;
    }
    eprintln!("{} acknowledged writes, none lost", acknowledged.len());
}

async fn check(store: &Embedded, acknowledged: &Acknowledged) {
    let newest = *acknowledged.keys().next_back().unwrap();
    assert!(store.revision().await.unwrap() >= newest, "{newest} was acknowledged");
    let mut last: BTreeMap<&str, (Revision, &str)> = BTreeMap::new();
    for (revision, (key, value)) in acknowledged {
        last.insert(key, (*revision, value));
    }
    for (name, (revision, value)) in last {
        let (entry, _) = store.get(name, At::Latest).await.unwrap();
        match entry {
            // A later write may have gone through unseen.
            Some(entry) if entry.mod_revision > revision => {}
            Some(entry) => {
                assert_eq!(entry.mod_revision, revision, "{name}");
                assert!(entry.value.starts_with(format!("{value}:").as_bytes()), "{name} at {revision}");
            }
            None if value == "-" => {}
            None => {
                // The deletion that was on its way when the child died.
                assert!(deleted_since(store, name, revision).await, "{name} at {revision} is lost");
            }
        }
    }
    // History has no hole either.
    let found = store.range(prefix_range(""), 1, At::Latest).await.unwrap();
    assert!(found.count > 0);
}

async fn deleted_since(store: &Embedded, name: &str, after: Revision) -> bool {
    let now = store.revision().await.unwrap();
    let watch = match store.watch(name, after).await {
        Ok(watch) => watch,
        Err(error) => panic!("{name} after {after} at {now}: {error}"),
    };
    let events = Reader::new(watch).until(now).await;
    events.iter().any(|event| key(event) == name && revision(event) > after)
}
