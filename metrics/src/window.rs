//! The last fifteen minutes at one second: for every container and node its CPU counter and its memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// How much is kept.
const KEEP_MS: i64 = 15 * 60 * 1000;
/// A series without a sample for this long is forgotten: its container or node is gone.
const FORGET_MS: i64 = 2 * 60 * 1000;
/// The newest sample may be this old and still count as how things are.
const FRESH_MS: i64 = 60 * 1000;
/// A rate over less would be noise.
const MIN_SPAN_MS: i64 = 900;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Core-seconds used since the container started.
    pub cpu_seconds: f64,
    /// Working set in bytes.
    pub memory: f64,
}

/// What is used, over how long, and until when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub at: i64,
    pub span_ms: i64,
    pub cpu_cores: f64,
    pub memory: f64,
}

#[derive(Default)]
struct Series(VecDeque<Point>);

impl Series {
    fn push(&mut self, point: Point) {
        if let Some(last) = self.0.back() {
            if point.at <= last.at {
                return;
            }
            if point.cpu_seconds < last.cpu_seconds {
                // A counter that falls is a new container under the old name.
                self.0.clear();
            }
        }
        self.0.push_back(point);
        while self.0.front().is_some_and(|p| p.at < point.at - KEEP_MS) {
            self.0.pop_front();
        }
    }

    /// The rate between the newest sample and the oldest one within `window_ms` before it.
    fn usage(&self, window_ms: i64, now: i64) -> Option<Usage> {
        let last = *self.0.back()?;
        if last.at < now - FRESH_MS {
            return None;
        }
        // Half a second of slack, so that a window of N seconds reaches the sample N rounds ago.
        let start = self.0.partition_point(|p| p.at < last.at - window_ms - 500);
        let first = *self.0.get(start)?;
        let span_ms = last.at - first.at;
        (span_ms >= MIN_SPAN_MS).then(|| Usage {
            at: last.at,
            span_ms,
            cpu_cores: (last.cpu_seconds - first.cpu_seconds).max(0.0) * 1000.0 / span_ms as f64,
            memory: last.memory,
        })
    }
}

/// Namespace and name.
pub(crate) type PodKey = (String, String);

#[derive(Default)]
pub(crate) struct Window {
    pods: HashMap<PodKey, BTreeMap<String, Series>>,
    nodes: BTreeMap<String, Series>,
}

impl Window {
    pub(crate) fn push_container(&mut self, namespace: &str, pod: &str, container: &str, point: Point) {
        let pod = self.pods.entry((namespace.to_owned(), pod.to_owned())).or_default();
        match pod.get_mut(container) {
            Some(series) => series.push(point),
            None => pod.entry(container.to_owned()).or_default().push(point),
        }
    }

    pub(crate) fn push_node(&mut self, node: &str, point: Point) {
        self.nodes.entry(node.to_owned()).or_default().push(point);
    }

    /// Every container's usage, or nothing: half a pod would be a wrong sum.
    pub(crate) fn pod(&self, key: &PodKey, window_ms: i64, now: i64) -> Option<Vec<(&str, Usage)>> {
        let live =
            self.pods.get(key)?.iter().filter(|(_, s)| s.0.back().is_some_and(|p| p.at >= now - FRESH_MS));
        let usages: Option<Vec<_>> =
            live.map(|(name, s)| Some((name.as_str(), s.usage(window_ms, now)?))).collect();
        usages.filter(|u| !u.is_empty())
    }

    pub(crate) fn node(&self, name: &str, window_ms: i64, now: i64) -> Option<Usage> {
        self.nodes.get(name)?.usage(window_ms, now)
    }

    pub(crate) fn pod_keys(&self) -> impl Iterator<Item = &PodKey> {
        self.pods.keys()
    }

    pub(crate) fn node_names(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    pub(crate) fn forget_old(&mut self, now: i64) {
        let live = |s: &Series| s.0.back().is_some_and(|p| p.at >= now - FORGET_MS);
        self.pods.retain(|_, containers| {
            containers.retain(|_, s| live(s));
            !containers.is_empty()
        });
        self.nodes.retain(|_, s| live(s));
    }

    pub(crate) fn series(&self) -> usize {
        self.nodes.len() + self.pods.values().map(BTreeMap::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(second: i64, cpu_seconds: f64) -> Point {
        Point { at: second * 1000, cpu_seconds, memory: 100.0 }
    }

    fn usage(points: &[(i64, f64)], window_s: i64, now_s: i64) -> Option<(i64, f64)> {
        let mut window = Window::default();
        for (at, cpu) in points {
            window.push_container("n", "p", "c", point(*at, *cpu));
        }
        let found = window.pod(&("n".into(), "p".into()), window_s * 1000, now_s * 1000)?;
        Some((found[0].1.span_ms, found[0].1.cpu_cores))
    }

    /// Name, points, window and moment in seconds, and the span and rate that come out.
    type Case = (&'static str, Vec<(i64, f64)>, i64, i64, Option<(i64, f64)>);

    #[test]
    fn rates_need_two_samples_and_stay_within_one_container() {
        let steady: Vec<(i64, f64)> = (0..30).map(|s| (s, s as f64 * 0.5)).collect();
        let cases: Vec<Case> = vec![
            ("nothing", vec![], 15, 0, None),
            ("one sample", vec![(0, 1.0)], 15, 0, None),
            ("two samples", vec![(0, 1.0), (1, 1.5)], 15, 1, Some((1000, 0.5))),
            ("the whole window", steady.clone(), 15, 29, Some((15_000, 0.5))),
            ("a short window", steady.clone(), 3, 29, Some((3000, 0.5))),
            ("a restart", vec![(0, 5.0), (1, 6.0), (2, 0.5), (3, 1.5)], 15, 3, Some((1000, 1.0))),
            ("just restarted", vec![(0, 5.0), (1, 6.0), (2, 0.5)], 15, 2, None),
            ("time runs backwards", vec![(5, 1.0), (4, 9.0), (6, 2.0)], 15, 6, Some((1000, 1.0))),
            ("stale", steady, 15, 200, None),
        ];
        for (name, points, window_s, now_s, want) in cases {
            assert_eq!(usage(&points, window_s, now_s), want, "{name}");
        }
    }

    #[test]
    fn a_pod_is_whole_or_absent() {
        let mut window = Window::default();
        let key = ("n".to_owned(), "p".to_owned());
        for second in 0..3 {
            window.push_container("n", "p", "a", point(second, second as f64));
        }
        window.push_container("n", "p", "b", point(2, 0.0));
        assert_eq!(window.pod(&key, 15_000, 2000), None, "b has one sample only");
        window.push_container("n", "p", "b", point(3, 0.1));
        assert_eq!(window.pod(&key, 15_000, 3000).map(|u| u.len()), Some(2));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut window = Window::default();
        window.push_container("n", "p", "c", point(0, 0.0));
        window.push_node("node", point(0, 0.0));
        window.forget_old(100_000);
        assert_eq!(window.series(), 2);
        window.forget_old(200_000);
        assert_eq!(window.series(), 0);
    }
}
