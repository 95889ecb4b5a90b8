//! The etcd backend on real members: one, three, and members that die under it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadline_store::testing::{EtcdCluster, Reader, eventually, key, run_contract};
use loadline_store::{At, Etcd, EtcdConfig, Expect, Store, StoreError, prefix_range};

async fn connect(cluster: &EtcdCluster) -> Arc<Etcd> {
    let store =
        Etcd::connect(EtcdConfig { endpoints: cluster.urls(), ..EtcdConfig::default() }).await.unwrap();
    eventually("etcd ready", async || store.ready().await).await;
    Arc::new(store)
}

/// Until it is settled: an `Unavailable` write may or may not have happened.
async fn put_surely(store: &Etcd, name: &str) {
    eventually("put", async || match store.put(name, Bytes::from_static(b"v"), Expect::Absent).await {
        Ok(_) | Err(StoreError::Conflict { current: Some(_) }) => Ok(()),
        Err(error) => Err(error),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contract_on_one_member() {
    let Some(cluster) = EtcdCluster::start(1) else { return };
    run_contract(connect(&cluster).await, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contract_on_three_members() {
    let Some(cluster) = EtcdCluster::start(3) else { return };
    run_contract(connect(&cluster).await, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_goes_away_and_comes_back() {
    let Some(mut cluster) = EtcdCluster::start(1) else { return };
    let store = connect(&cluster).await;
    let before = store.put("a", "1".into(), Expect::Absent).await.unwrap();
    let mut reader = Reader::new(store.watch("", before.mod_revision).await.unwrap());
    reader.until(before.mod_revision).await;

    cluster.kill(0);
    let started = Instant::now();
    for result in [
        store.put("a", "2".into(), Expect::Any).await.map(drop),
        store.get("a", At::Latest).await.map(drop),
        store.ready().await,
        store.request_progress().await.map(drop),
    ] {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    cluster.restart(0);
    put_surely(&store, "b").await;
    assert_eq!(store.get("a", At::Latest).await.unwrap().0, Some(before.clone()));
    assert_eq!(key(&reader.next().await.unwrap()), "b", "the watch goes on by itself");
    let fresh = eventually("progress", async || store.request_progress().await).await;
    reader.until(fresh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_members_dies_under_load() {
    const WRITERS: usize = 8;
    const WRITES: usize = 60;
    let Some(mut cluster) = EtcdCluster::start(3) else { return };
    let store = connect(&cluster).await;
    let start = store.revision().await.unwrap();
    let mut reader = Reader::new(store.watch("k/", start).await.unwrap());
    let writers = (0..WRITERS).map(async |writer| {
        for number in 0..WRITES {
            put_surely(&store, &format!("k/{writer}/{number}")).await;
        }
    });
    let killer = async {
        reader.take(WRITERS * WRITES / 4).await;
        // The one that the store talks to; it may lead as well.
        cluster.kill(0);
    };
    tokio::join!(futures::future::join_all(writers), killer);
    reader.take(WRITERS * WRITES * 3 / 4).await;
    let found = store.range(prefix_range("k/"), 0, At::Latest).await.unwrap();
    assert_eq!(found.entries.len(), WRITERS * WRITES);
    cluster.restart(0);
    cluster.kill(1);
    put_surely(&store, "after").await;
    let fresh = eventually("progress", async || store.request_progress().await).await;
    assert_eq!(reader.until(fresh).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_is_left() {
    let Some(cluster) = EtcdCluster::start(3) else { return };
    let store = connect(&cluster).await;
    let start = store.put("a", "1".into(), Expect::Absent).await.unwrap().mod_revision;
    let mut reader = Reader::new(store.watch("", start).await.unwrap());
    reader.until(start).await;
    cluster.freeze(0, true);
    let started = Instant::now();
    let result = store.put("frozen", "1".into(), Expect::Absent).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {result:?}", started.elapsed());
    put_surely(&store, "b").await;
    let fresh = eventually("progress", async || store.request_progress().await).await;
    let seen = reader.until(fresh).await;
    assert!(seen.iter().any(|event| key(event) == "b"), "{seen:?}");
    cluster.freeze(0, false);
    store.ready().await.unwrap();
}

#[tokio::test]
async fn without_etcd_it_says_so() {
    let endpoints = vec!["http://127.0.0.1:1".to_owned()];
    let store = Etcd::connect(EtcdConfig { endpoints, ..EtcdConfig::default() }).await.unwrap();
    let error = store.ready().await.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("http://127.0.0.1:1") && error.contains("refused"), "{error}");
    assert!(matches!(store.watch("", 1).await.err(), Some(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn two_prefixes_do_not_meet() {
    let Some(cluster) = EtcdCluster::start(1) else { return };
    let one = connect(&cluster).await;
    let config =
        EtcdConfig { endpoints: cluster.urls(), prefix: "/registry0".to_owned(), ..EtcdConfig::default() };
    let other = Etcd::connect(config).await.unwrap();
    let written = other.put("a", "v".into(), Expect::Absent).await.unwrap();
    assert_eq!(one.get("a", At::Latest).await.unwrap().0, None);
    assert_eq!(one.range(prefix_range(""), 0, At::Latest).await.unwrap().count, 0);
    let mut reader = Reader::new(one.watch("", 1).await.unwrap());
    let fresh = one.request_progress().await.unwrap();
    assert!(fresh > written.mod_revision);
    assert_eq!(reader.until(fresh).await, []);
}
