//! Exponential back-off as client-go's `flowcontrol.Backoff` has it: per key, with the time passed in.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Restarts and pulls: 10 s, doubling to 300 s, forgotten after twice the maximum without a failure.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(300))
    }
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, entries: HashMap::new() }
    }

    /// Counts a failure at `at`.
    pub(crate) fn next(&mut self, key: &str, at: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(e) if !self.expired(e, at) => e.delay.saturating_mul(2).min(self.max),
            _ => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: at });
    }

    /// Until when to wait after what happened at `event`, and the delay behind it; `None` when it may go on now.
    pub(crate) fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let entry = self.entries.get(key)?;
        if self.expired(entry, event) {
            return None;
        }
        let end = event + SignedDuration::try_from(entry.delay).unwrap_or(SignedDuration::MAX);
        (end > now).then_some((end, entry.delay))
    }

    /// The same, counted from the last failure itself.
    pub(crate) fn until_since_update(&self, key: &str, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let updated = self.entries.get(key)?.updated;
        self.until(key, updated, now)
    }

    /// Whether the failure at `at` is the last one that was counted.
    pub(crate) fn counted(&self, key: &str, at: Timestamp) -> bool {
        self.entries.get(key).is_some_and(|e| e.updated == at)
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn expired(&self, entry: &Entry, at: Timestamp) -> bool {
        at.duration_since(entry.updated).as_secs_f64() > 2.0 * self.max.as_secs_f64()
    }
}

/// A duration as Go prints whole seconds and minutes: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn doubles_to_the_maximum() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until("a", at(0), at(0)), None, "the first restart is immediate");
        let mut delays = Vec::new();
        let mut now = 0;
        for _ in 0..7 {
            backoff.next("a", at(now));
            let (_, delay) = backoff.until("a", at(now), at(now)).unwrap();
            delays.push(delay.as_secs());
            now += delay.as_secs() as i64;
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ends_and_expires() {
        let mut backoff = Backoff::default();
        backoff.next("a", at(0));
        assert_eq!(backoff.until("a", at(5), at(14)), Some((at(15), Duration::from_secs(10))));
        assert_eq!(backoff.until("a", at(5), at(15)), None);
        assert_eq!(backoff.until("a", at(601), at(601)), None, "forgotten after ten minutes");
        backoff.next("a", at(601));
        assert_eq!(backoff.until_since_update("a", at(601)), Some((at(611), Duration::from_secs(10))));
        backoff.forget("a");
        assert_eq!(backoff.until_since_update("a", at(601)), None);
    }

    #[test]
    fn durations_read_as_in_go() {
        for (seconds, text) in [(0, "0s"), (10, "10s"), (160, "2m40s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
