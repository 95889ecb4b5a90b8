//! The store goes away, and comes back.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use loadline_store::{
    At, Embedded, EmbeddedOptions, Entry, Expect, RangeResult, Revision, Store, StoreError, WatchItem,
};
use serde_json::json;
use tokio::sync::watch;

use crate::support::{Cluster, eventually};

/// A store behind a line that can be cut.
struct Line {
    inner: Embedded,
    cut: AtomicBool,
    cuts: watch::Sender<()>,
}

impl Line {
    fn check(&self) -> Result<(), StoreError> {
        if self.cut.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable("the line is cut".to_owned()))
        } else {
            Ok(())
        }
    }

    fn set(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        self.cuts.send_replace(());
    }
}

#[async_trait]
impl Store for Line {
    async fn get(&self, key: &str, at: At) -> Result<(Option<Entry>, Revision), StoreError> {
        self.check()?;
        self.inner.get(key, at).await
    }
    async fn range(&self, range: Range<String>, limit: usize, at: At) -> Result<RangeResult, StoreError> {
        self.check()?;
        self.inner.range(range, limit, at).await
    }
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Entry, StoreError> {
        self.check()?;
        self.inner.put(key, value, expect).await
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, Entry), StoreError> {
        self.check()?;
        self.inner.delete(key, expect).await
    }
    async fn watch(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<WatchItem, StoreError>>, StoreError> {
        self.check()?;
        let stream = self.inner.watch(prefix, after).await?;
        let mut cuts = self.cuts.subscribe();
        let cut = Box::pin(async move {
            let _ = cuts.changed().await;
        });
        let end = futures::stream::once(async { Err(StoreError::Unavailable("the line is cut".to_owned())) });
        Ok(stream.take_until(cut).chain(end).boxed())
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.check()?;
        self.inner.compact(revision).await
    }
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.check()?;
        self.inner.revision().await
    }
    async fn request_progress(&self) -> Result<Revision, StoreError> {
        self.check()?;
        self.inner.request_progress().await
    }
    async fn ready(&self) -> Result<(), StoreError> {
        self.check()?;
        self.inner.ready().await
    }
}

#[tokio::test]
async fn nothing_is_made_up_while_the_store_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let inner = Embedded::open(dir.path().join("store"), EmbeddedOptions::default()).unwrap();
    let line = Arc::new(Line { inner, cut: AtomicBool::new(false), cuts: watch::Sender::new(()) });
    let cluster = Cluster::start_on(dir, line.clone(), |_| {}).await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    admin.config_map("ns", "a", "1").await;
    let path = "/api/v1/namespaces/ns/configmaps";
    let list = admin.get(path).await.expect(200);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = admin.watch(&format!("{path}?watch=1&resourceVersion={from}")).await;

    line.set(true);
    let refused = admin.post(path, &json!({"metadata": {"name": "b"}})).await.expect(503);
    assert_eq!(refused["reason"], "ServiceUnavailable");
    // The latest state is not known, so it is not told; any state still is.
    admin.get(&format!("{path}/a")).await.expect(503);
    admin.get(path).await.expect(503);
    admin.get(&format!("{path}?resourceVersion=0")).await.expect(200);
    admin.get("/readyz").await.expect(500);
    admin.get("/livez").await.expect(200);

    line.set(false);
    eventually(|| async {
        let answer = admin.get(&format!("{path}/a")).await;
        if answer.code == 200 { Ok(()) } else { Err(answer.body) }
    })
    .await;
    admin.config_map("ns", "b", "1").await;
    // The watch that was open loses nothing.
    assert_eq!(events.brief().await, crate::support::pair("ADDED", "b"));
    admin.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    let made = admin.config_map("ns", "a", "1").await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let service = admin.post("/api/v1/namespaces/ns/services", &service).await.expect(201);
    let dir = cluster.stop().await;
    let cluster = Cluster::start_in(dir, |_| {}).await;
    let admin = cluster.admin();
    assert_eq!(admin.get("/api/v1/namespaces/ns/configmaps/a").await.expect(200), made);
    // Addresses that are taken stay taken.
    let clash = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort",
        "ports": [{"port": 80, "nodePort": service["spec"]["ports"][0]["nodePort"]}]}});
    admin.post("/api/v1/namespaces/ns/services", &clash).await.expect(422);
}

#[tokio::test]
async fn a_damaged_object_says_so_and_the_rest_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path().join("store"), EmbeddedOptions::default()).unwrap();
    store.put("/registry/configmaps/ns/bad", Bytes::from_static(b"{broken"), Expect::Absent).await.unwrap();
    store.put("/registry/widgets.example/ns/w", Bytes::from_static(b"{}"), Expect::Absent).await.unwrap();
    let cluster = Cluster::start_on(dir, Arc::new(store), |_| {}).await;
    let admin = cluster.admin();
    admin.namespace("ns").await;
    admin.config_map("ns", "good", "1").await;
    let path = "/api/v1/namespaces/ns/configmaps";
    let broken = admin.get(&format!("{path}/bad")).await.expect(500);
    assert!(broken["message"].as_str().unwrap().contains("damaged"), "{broken}");
    assert_eq!(crate::support::names(&admin.get(path).await.expect(200)), ["good"]);
    admin.delete(&format!("{path}/bad")).await.expect(200);
    admin.get(&format!("{path}/bad")).await.expect(404);
}
