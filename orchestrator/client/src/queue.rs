//! A keyed work queue with the semantics of client-go's: a key waits at most once, is never worked on twice at the
//! same time, and comes back after a failure with exponential delay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, exponential_buckets, register_histogram_vec,
    register_int_counter_vec, register_int_gauge_vec,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(60);

struct Metrics {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
}

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let buckets = exponential_buckets(1e-6, 10.0, 9).unwrap();
    Metrics {
        depth: register_int_gauge_vec!("workqueue_depth", "Current depth of the queue.", &["name"]).unwrap(),
        adds: register_int_counter_vec!("workqueue_adds_total", "Keys added to the queue.", &["name"])
            .unwrap(),
        retries: register_int_counter_vec!(
            "workqueue_retries_total",
            "Keys added after a failure.",
            &["name"]
        )
        .unwrap(),
        waited: register_histogram_vec!(
            "workqueue_queue_duration_seconds",
            "How long a key waits before it is worked on.",
            &["name"],
            buckets.clone()
        )
        .unwrap(),
        worked: register_histogram_vec!(
            "workqueue_work_duration_seconds",
            "How long working on a key takes.",
            &["name"],
            buckets
        )
        .unwrap(),
    }
});

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting, or changed while being worked on.
    dirty: HashMap<K, Instant>,
    working: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    failures: HashMap<K, u32>,
    serial: u64,
}

struct Inner<K> {
    name: &'static str,
    state: Mutex<State<K>>,
    wake: Notify,
}

pub struct WorkQueue<K>(Arc<Inner<K>>);

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What a reconciler asks for when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next change.
    Done,
    /// Look again after this long even if nothing changes.
    After(Duration),
}

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            working: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            failures: HashMap::new(),
            serial: 0,
        };
        Self(Arc::new(Inner { name, state: Mutex::new(state), wake: Notify::new() }))
    }

    pub fn add(&self, key: K) {
        let mut state = self.lock();
        self.enqueue(&mut state, key);
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.lock();
        state.serial += 1;
        let serial = state.serial;
        state.delayed.push(Reverse((Instant::now() + delay, serial)));
        state.delayed_keys.insert(serial, key);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Comes back after 5 ms × 2ⁿ, at most a minute; n counts the failures since [`WorkQueue::forget`].
    pub fn add_failed(&self, key: K) {
        let failures = {
            let mut state = self.lock();
            let n = state.failures.entry(key.clone()).or_default();
            *n += 1;
            *n - 1
        };
        METRICS.retries.with_label_values(&[self.0.name]).inc();
        self.add_after(key, BASE_DELAY.saturating_mul(1 << failures.min(20)).min(MAX_DELAY));
    }

    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    pub fn failures(&self, key: &K) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// The next key; call [`WorkQueue::done`] with it afterwards.
    pub async fn next(&self) -> K {
        loop {
            let deadline = {
                let mut state = self.lock();
                let now = Instant::now();
                while let Some(Reverse((at, serial))) = state.delayed.peek().copied() {
                    if at > now {
                        break;
                    }
                    state.delayed.pop();
                    if let Some(key) = state.delayed_keys.remove(&serial) {
                        self.enqueue(&mut state, key);
                    }
                }
                if let Some(key) = state.ready.pop_front() {
                    if let Some(since) = state.dirty.remove(&key) {
                        METRICS.waited.with_label_values(&[self.0.name]).observe((now - since).as_secs_f64());
                    }
                    state.working.insert(key.clone());
                    METRICS.depth.with_label_values(&[self.0.name]).set(state.ready.len() as i64);
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        // Another worker takes the rest, or waits for the next deadline.
                        self.0.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match deadline {
                Some(at) => tokio::select! {
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.0.wake.notified().await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.working.remove(key);
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Works through the queue with `workers` tasks until dropped; a failed key is logged and tried again.
    pub async fn run<F, Fut, E>(self, workers: usize, reconcile: F)
    where
        K: Debug,
        F: Fn(K) -> Fut,
        Fut: Future<Output = Result<Next, E>>,
        E: Display,
    {
        let worker = || async {
            loop {
                let key = self.next().await;
                let started = Instant::now();
                let result = reconcile(key.clone()).await;
                METRICS.worked.with_label_values(&[self.0.name]).observe(started.elapsed().as_secs_f64());
                match result {
                    Ok(next) => {
                        self.forget(&key);
                        if let Next::After(delay) = next {
                            self.add_after(key.clone(), delay);
                        }
                    }
                    Err(error) => {
                        // The first failures are mostly lost races; only lasting ones deserve attention.
                        if self.failures(&key) < 3 {
                            debug!(%error, ?key, queue = self.0.name, "reconcile failed");
                        } else {
                            warn!(%error, ?key, queue = self.0.name, "reconcile keeps failing");
                        }
                        self.add_failed(key.clone());
                    }
                }
                self.done(&key);
            }
        };
        futures::future::join_all((0..workers).map(|_| worker())).await;
    }

    fn enqueue(&self, state: &mut State<K>, key: K) {
        if state.dirty.contains_key(&key) {
            return;
        }
        state.dirty.insert(key.clone(), Instant::now());
        METRICS.adds.with_label_values(&[self.0.name]).inc();
        if !state.working.contains(&key) {
            state.ready.push_back(key);
            METRICS.depth.with_label_values(&[self.0.name]).set(state.ready.len() as i64);
            self.0.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_not_worked_on_twice() {
        let queue = WorkQueue::new("test-once");
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        let second = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(second.is_err(), "handed out while being worked on");
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_delay_exponentially_until_forgotten() {
        let queue = WorkQueue::new("test-delay");
        let mut waits = Vec::new();
        for _ in 0..4 {
            queue.add_failed("a");
            let start = Instant::now();
            let key = queue.next().await;
            waits.push(start.elapsed().as_millis());
            queue.done(&key);
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"a");
        queue.add_failed("a");
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed().as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_wakes_a_waiting_worker() {
        let queue = WorkQueue::new("test-deadline");
        queue.add_after("late", Duration::from_secs(60));
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        queue.add_after("soon", Duration::from_secs(1));
        assert_eq!(waiting.await.unwrap(), "soon");
    }
}
