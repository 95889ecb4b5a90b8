//! Writes that fail before or after they take effect, and watches that lag: the end is the same, and on the way there
//! are never more pods than were asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{DeleteParams, ListParams};
use loadline_server::LocalService;
use serde_json::json;
use tokio::time::Sleep;

use crate::hollow::{Cluster, deployment, eventually, is};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A reproducible sequence (splitmix64), so that a failure can be looked at again.
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[derive(Clone)]
struct Flaky {
    inner: LocalService,
    dice: Dice,
}

impl tower::Service<Request<kube::client::Body>> for Flaky {
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let dice = self.dice.clone();
        // Events are written once and lost when that fails; they are not what is tested here.
        let write = *request.method() != Method::GET && !request.uri().path().contains("/events");
        let fate = if write { dice.roll(6) } else { 9 };
        Box::pin(async move {
            if fate == 0 {
                return Err("the request was lost".into());
            }
            let answer = inner.call(request).await?;
            if fate == 1 {
                return Err("the answer was lost".into());
            }
            Ok(answer.map(|body| {
                let body = body.map_err(Into::into).boxed_unsync();
                if write { body } else { Lagging { inner: body, pause: None, dice }.boxed_unsync() }
            }))
        })
    }
}

/// Lets up to a fifth of a second pass before each piece of an answer.
struct Lagging {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    pause: Option<Pin<Box<Sleep>>>,
    dice: Dice,
}

impl http_body::Body for Lagging {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.pause.is_none() {
            let pause = Duration::from_millis(self.dice.roll(200));
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
        if let Some(pause) = &mut self.pause
            && pause.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_ready() {
            self.pause = None;
        }
        frame
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

async fn running(cluster: &Cluster, replicas: usize, image: &str) {
    eventually(image, || async {
        let pods = cluster.pods().await;
        let images: Vec<&str> = pods
            .iter()
            .map(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap_or_default())
            .collect();
        is(images, vec![image; replicas])?;
        let params = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = cluster.api::<EndpointSlice>().list(&params).await.unwrap().items;
        // A lost answer may leave two small slices; what counts is that each pod is in one.
        let endpoints: usize = slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum();
        is(endpoints, replicas)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_requests_lost_answers_and_lagging_watches_change_nothing_in_the_end() {
    for seed in [2, 3, 5] {
        play(seed).await;
    }
}

/// The most that was ever seen at once.
#[derive(Default)]
struct Most {
    /// Pods by image, those that are going not counted: what a ReplicaSet made.
    pods: BTreeMap<String, usize>,
    /// Replicas of all sets together: what the Deployment asked for.
    asked: i32,
}

fn watch_numbers(cluster: &Cluster) -> Arc<Mutex<Most>> {
    let most = Arc::new(Mutex::new(Most::default()));
    cluster.scope.spawn("numbers", {
        let (pods, sets, most) = (cluster.api::<Pod>(), cluster.api::<ReplicaSet>(), most.clone());
        async move {
            loop {
                let mut now: BTreeMap<String, usize> = BTreeMap::new();
                for pod in pods.list(&ListParams::default()).await.unwrap() {
                    if pod.metadata.deletion_timestamp.is_none() {
                        let image = pod.spec.unwrap().containers.remove(0).image.unwrap();
                        *now.entry(image).or_default() += 1;
                    }
                }
                let sets = sets.list(&ListParams::default()).await.unwrap();
                let asked = sets.items.iter().filter_map(|s| s.spec.as_ref()?.replicas).sum();
                note(&mut most.lock().unwrap(), now, asked);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    most
}

fn note(most: &mut Most, now: BTreeMap<String, usize>, asked: i32) {
    most.asked = most.asked.max(asked);
    for (image, count) in now {
        let highest = most.pods.entry(image).or_default();
        *highest = count.max(*highest);
    }
}

fn check(most: &Mutex<Most>, replicas: usize, surge: i32) {
    let most = most.lock().unwrap();
    assert!(most.pods.values().all(|n| *n <= replicas), "one too many was made: {:?}", most.pods);
    assert!(most.asked <= replicas as i32 + surge, "asked for more than the surge allows: {}", most.asked);
}

async fn play(seed: u64) {
    println!("seed {seed}");
    let dice = Dice(Arc::new(AtomicU64::new(seed)));
    let cluster = Cluster::start_with(&["n1", "n2"], |inner| {
        Client::new(Flaky { inner, dice: dice.clone() }, "default")
    })
    .await;
    let most = watch_numbers(&cluster);
    let _: Service = cluster
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}))
        .await;
    let _: Deployment = cluster.create(deployment("web", 6, "v1")).await;
    running(&cluster, 6, "v1").await;
    check(&most, 6, 0);
    let _: Deployment = cluster.patch("web", deployment("web", 6, "v2")).await;
    running(&cluster, 6, "v2").await;
    check(&most, 6, 2);
    let _: Deployment = cluster.patch("web", json!({"spec": {"replicas": 2}})).await;
    running(&cluster, 2, "v2").await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    eventually("all gone", || async {
        let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len();
        is((sets, cluster.pods().await.len()), (0, 0))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_die_again_and_again_finish_their_work() {
    let mut cluster = Cluster::start(&["n1", "n2"]).await;
    let dice = Dice(Arc::new(AtomicU64::new(7)));
    let most = watch_numbers(&cluster);
    let _: Service = cluster
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}))
        .await;
    for (round, replicas) in [(1, 6), (2, 6), (3, 6), (4, 3)] {
        let image = format!("v{round}");
        let change = deployment("web", replicas, &image);
        if round == 1 {
            let _: Deployment = cluster.create(change).await;
        } else {
            let _: Deployment = cluster.patch("web", change).await;
        }
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
            cluster.restart_controllers().await;
        }
        running(&cluster, replicas as usize, &image).await;
    }
    // A creation that was under way when its controller died may still happen after the next one has looked; such a
    // pod is removed again. What was asked for never exceeds the surge.
    assert!(most.lock().unwrap().asked <= 8);
    cluster.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(dice.roll(60))).await;
        cluster.restart_controllers().await;
    }
    eventually("all gone", || async {
        let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.len();
        is((sets, cluster.pods().await.len()), (0, 0))
    })
    .await;
    cluster.stop().await;
}
