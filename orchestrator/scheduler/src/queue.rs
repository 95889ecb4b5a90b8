//! Pods that wait: ready to be tried (highest priority first, then longest waiting), backing off after a failure, or
//! set aside until something changes that could help them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod::PodInfo;

const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Even without a helpful event a pod is tried again after this long.
const FLUSH: Duration = Duration::from_secs(300);

struct Waiting {
    pod: Arc<PodInfo>,
    since: u64,
    attempts: u32,
    /// Not before this moment.
    not_before: Instant,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Backoff,
    SetAside,
    /// Taken out; a decision or a bind is under way.
    Taken,
}

#[derive(Default)]
pub(crate) struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    timers: BTreeMap<(Instant, u64), String>,
    serial: u64,
}

impl Queue {
    /// A pod that waits, new or changed. A change alone does not bring back one that was set aside: its own condition is
    /// written by this scheduler, and the next change of the cluster finds the pod as it is now.
    pub(crate) fn update(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        match self.pods.get_mut(&uid) {
            Some(waiting) => waiting.pod = pod,
            None => {
                self.serial += 1;
                let waiting =
                    Waiting { pod, since: self.serial, attempts: 0, not_before: now, state: State::SetAside };
                self.pods.insert(uid.clone(), waiting);
                self.activate(&uid, now);
            }
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.active.remove(&(Reverse(waiting.pod.priority), waiting.since, uid.to_owned()));
        }
    }

    /// Something changed that may help: what was set aside is tried again, after its back-off.
    pub(crate) fn cluster_changed(&mut self, now: Instant) {
        let aside: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, w)| w.state == State::SetAside)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in aside {
            self.activate(&uid, now);
        }
    }

    pub(crate) fn take(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let uid = entry.remove();
            if self.pods.get(&uid).is_some_and(|w| matches!(w.state, State::Backoff | State::SetAside)) {
                self.activate(&uid, now);
            }
        }
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.state = State::Taken;
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// The pod could not be placed.
    pub(crate) fn unschedulable(&mut self, uid: &str, now: Instant) {
        self.failed(uid, now, State::SetAside);
    }

    /// The bind failed; the pod itself is fine.
    pub(crate) fn retry(&mut self, uid: &str, now: Instant) {
        self.failed(uid, now, State::Backoff);
    }

    fn failed(&mut self, uid: &str, now: Instant, state: State) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let backoff =
            INITIAL_BACKOFF.saturating_mul(1 << waiting.attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        waiting.not_before = now + backoff;
        waiting.state = state;
        let wake = if state == State::Backoff { waiting.not_before } else { now + FLUSH };
        self.timer(wake, uid);
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if waiting.not_before > now {
            waiting.state = State::Backoff;
            let at = waiting.not_before;
            self.timer(at, uid);
        } else {
            waiting.state = State::Active;
            self.active.insert((Reverse(waiting.pod.priority), waiting.since, uid.to_owned()));
        }
    }

    fn timer(&mut self, at: Instant, uid: &str) {
        self.serial += 1;
        self.timers.insert((at, self.serial), uid.to_owned());
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() })
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|p| p.uid.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn priority_first_then_first_come() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 0), ("c", 10)] {
            queue.update(pod(uid, priority), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, now)).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn set_aside_until_a_change_and_never_before_the_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.update(pod("a", 0), now);
        for want in [1, 2, 4, 8, 10, 10] {
            let at = queue.pods["a"].not_before;
            assert_eq!(take(&mut queue, at).as_deref(), Some("a"));
            queue.unschedulable("a", at);
            assert_eq!(take(&mut queue, at + Duration::from_secs(30)), None, "nothing changed");
            queue.cluster_changed(at);
            assert_eq!(take(&mut queue, at + Duration::from_secs(want) - Duration::from_millis(1)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_helps_is_tried_again_in_the_end() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.update(pod("a", 0), now);
        take(&mut queue, now);
        queue.unschedulable("a", now);
        assert_eq!(take(&mut queue, now + FLUSH).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_bind_comes_back_by_itself_and_a_removed_pod_does_not() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.update(pod("a", 0), now);
        take(&mut queue, now);
        queue.retry("a", now);
        assert_eq!(queue.next_deadline(), Some(now + INITIAL_BACKOFF));
        assert_eq!(take(&mut queue, now + INITIAL_BACKOFF).as_deref(), Some("a"));
        queue.retry("a", now);
        queue.remove("a");
        assert_eq!(take(&mut queue, now + FLUSH), None);
        assert_eq!(queue.len(), 0);
    }
}
