//! The etcd backend on real members: one, three, and members that die under it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadline_store::testing::{EtcdCluster, Reader, eventually, key, run_contract};
use loadline_store::{At, Etcd, EtcdConfig, EtcdTls, Expect, Store, StoreError, prefix_range};

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

/// A CA, and a certificate and key for 127.0.0.1 signed by it, as PEM.
fn certificates() -> (String, String, String) {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(ca, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    (ca.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, certificate, key) = certificates();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let flags = vec![
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", file("ca", &ca)),
        format!("--cert-file={}", file("cert", &certificate)),
        format!("--key-file={}", file("key", &key)),
    ];
    let Some(cluster) = EtcdCluster::start_with(1, "https", flags) else { return };
    let tls = EtcdTls { ca, client: Some((certificate, key)), server_name: None };
    let config = EtcdConfig { endpoints: cluster.urls(), tls: Some(tls.clone()), ..EtcdConfig::default() };
    let store = Etcd::connect(config.clone()).await.unwrap();
    eventually("etcd ready", async || store.ready().await).await;
    let entry = store.put("a", "v".into(), Expect::Absent).await.unwrap();
    let mut reader = Reader::new(store.watch("", entry.mod_revision - 1).await.unwrap());
    assert_eq!(reader.take(1).await.len(), 1);

    let (other_ca, ..) = certificates();
    for wrong in [EtcdTls { ca: other_ca, ..tls.clone() }, EtcdTls { client: None, ..tls }] {
        let store = Etcd::connect(EtcdConfig { tls: Some(wrong), ..config.clone() }).await.unwrap();
        let error = store.ready().await.err();
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_tokens() {
    let Some(mut cluster) = EtcdCluster::start(1) else { return };
    connect(&cluster).await;
    let mut admin = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    admin.user_add("root", "secret", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();

    let config = |user: Option<(&str, &str)>| EtcdConfig {
        endpoints: cluster.urls(),
        user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
        ..EtcdConfig::default()
    };
    for wrong in [None, Some(("root", "wrong"))] {
        let store = Etcd::connect(config(wrong)).await.unwrap();
        let error = store.ready().await.err();
        assert!(matches!(error, Some(StoreError::Fatal(_))), "{wrong:?}: {error:?}");
    }
    let store = Etcd::connect(config(Some(("root", "secret")))).await.unwrap();
    store.ready().await.unwrap();
    let start = store.put("a", "v".into(), Expect::Absent).await.unwrap().mod_revision;
    let mut reader = Reader::new(store.watch("", start).await.unwrap());
    reader.until(start).await;
    // The tokens of etcd go with its process.
    cluster.restart(0);
    put_surely(&store, "b").await;
    assert_eq!(key(&reader.next().await.unwrap()), "b");
}
