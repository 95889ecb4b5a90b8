//! `/metrics/resource`: readings of all containers and of the node, taken when somebody asks and encoded once. Whoever
//! asks within the same half second gets the same page, so many who ask make the node work no harder than one who asks
//! twice a second. Where there is no reading there is no line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use loadline_runtime::ContainerStats;
use tokio::time::Instant;
use tracing::debug;

use crate::context::{Node, Owner};
use crate::machine;

/// A page is this fresh or made anew: an autoscaler that looks every second must not look at a second ago.
const FRESH: Duration = Duration::from_millis(500);

pub(crate) struct Sampler {
    node: Arc<Node>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    totals: Totals,
    latest: Option<(Instant, Bytes)>,
}

impl Sampler {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, state: Default::default() }
    }

    pub(crate) async fn text(&self) -> Bytes {
        let mut state = self.state.lock().await;
        match &state.latest {
            Some((at, text)) if at.elapsed() < FRESH => text.clone(),
            _ => self.sample(&mut state).await,
        }
    }

    async fn sample(&self, state: &mut State) -> Bytes {
        let config = &self.node.config;
        let (stats, failed) = match config.runtime.stats().await {
            Ok(stats) => (stats, false),
            Err(error) => {
                debug!(%error, "container stats could not be read");
                (Vec::new(), true)
            }
        };
        let owners = self.node.directory.snapshot();
        let node = (!config.simulated && !config.shared_machine).then(machine::usage);
        if !failed {
            state.totals.update(&stats, &owners);
        }
        let text = encode(&stats, &owners, &state.totals, node, failed, Timestamp::now());
        let text = Bytes::from(text);
        state.latest = Some((Instant::now(), text.clone()));
        text
    }
}

/// CPU time of pods and node that does not go back when a container ends: what ended containers used stays counted.
#[derive(Debug, Default)]
struct Totals {
    /// Last reading by container id, and whose it was.
    last: HashMap<String, (String, u64)>,
    /// By pod uid.
    ended: HashMap<String, u64>,
    node_ended: u64,
}

impl Totals {
    fn update(&mut self, stats: &[(String, ContainerStats)], owners: &HashMap<String, Owner>) {
        let ids: HashSet<&str> = stats.iter().map(|(id, _)| id.as_str()).collect();
        let gone: Vec<String> = self.last.keys().filter(|id| !ids.contains(id.as_str())).cloned().collect();
        for id in gone {
            if let Some((uid, nanos)) = self.last.remove(&id) {
                *self.ended.entry(uid).or_default() += nanos;
                self.node_ended += nanos;
            }
        }
        for (id, reading) in stats {
            if let (Some(owner), Some(nanos)) = (owners.get(id), reading.cpu_usage_nanos) {
                self.last.insert(id.clone(), (owner.uid.clone(), nanos));
            }
        }
        let pods: HashSet<&str> = self.last.values().map(|(uid, _)| uid.as_str()).collect();
        let alive: HashSet<&str> = owners.values().map(|o| o.uid.as_str()).collect();
        self.ended.retain(|uid, _| pods.contains(uid.as_str()) || alive.contains(uid.as_str()));
    }

    fn node(&self) -> u64 {
        self.node_ended + self.last.values().map(|(_, nanos)| nanos).sum::<u64>()
    }
}

#[derive(Default)]
struct PodSum<'a> {
    namespace: &'a str,
    name: &'a str,
    cpu: Option<u64>,
    memory: Option<u64>,
}

fn encode(
    stats: &[(String, ContainerStats)],
    owners: &HashMap<String, Owner>,
    totals: &Totals,
    machine: Option<(Option<f64>, Option<i64>)>,
    failed: bool,
    now: Timestamp,
) -> String {
    let mut rows: Vec<(&Owner, &ContainerStats)> =
        stats.iter().filter_map(|(id, s)| Some((owners.get(id)?, s))).collect();
    rows.sort_by(|a, b| {
        let key = |o: &Owner| (o.namespace.clone(), o.pod.clone(), o.container.clone());
        key(a.0).cmp(&key(b.0))
    });
    let mut pods: BTreeMap<&str, PodSum<'_>> = BTreeMap::new();
    for (owner, reading) in &rows {
        let sum = pods.entry(&owner.uid).or_default();
        (sum.namespace, sum.name) = (&owner.namespace, &owner.pod);
        add(&mut sum.cpu, reading.cpu_usage_nanos);
        add(&mut sum.memory, reading.memory_working_set);
    }
    for (uid, sum) in &mut pods {
        if let (Some(cpu), Some(ended)) = (&mut sum.cpu, totals.ended.get(*uid)) {
            *cpu += ended;
        }
    }
    let (node_cpu, node_memory) = match machine {
        Some((cpu, memory)) => (cpu, memory.map(|m| m as f64)),
        None if failed => (None, None),
        None => {
            let memory = pods.values().filter_map(|p| p.memory).sum::<u64>();
            (Some(seconds(totals.node())), Some(memory as f64))
        }
    };
    let mut out = Text::default();
    let ms = now.as_millisecond();
    out.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for (o, s) in &rows {
        out.container(o, s.cpu_usage_nanos.map(seconds), s.at.as_millisecond());
    }
    out.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for (o, s) in &rows {
        out.container(o, s.memory_working_set.map(|b| b as f64), s.at.as_millisecond());
    }
    out.family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    for (o, s) in &rows {
        let start = o.started_at.map(|t| t.as_millisecond() as f64 / 1000.0);
        out.container(o, start, s.at.as_millisecond());
    }
    out.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    out.line("", node_cpu, ms);
    out.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    out.line("", node_memory, ms);
    out.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for p in pods.values() {
        out.pod(p, p.cpu.map(seconds), ms);
    }
    out.family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    for p in pods.values() {
        out.pod(p, p.memory.map(|b| b as f64), ms);
    }
    out.family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    let _ = writeln!(out.text, "resource_scrape_error {}", u8::from(failed));
    out.text
}

fn add(sum: &mut Option<u64>, reading: Option<u64>) {
    if let Some(reading) = reading {
        *sum = Some(sum.unwrap_or(0) + reading);
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[derive(Default)]
struct Text {
    text: String,
    name: &'static str,
}

impl Text {
    fn family(&mut self, name: &'static str, type_: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {type_}");
    }

    fn line(&mut self, labels: &str, value: Option<f64>, ms: i64) {
        if let Some(value) = value {
            let _ = writeln!(self.text, "{}{labels} {value} {ms}", self.name);
        }
    }

    // Names of objects are DNS labels: nothing in them needs escaping.
    fn container(&mut self, o: &Owner, value: Option<f64>, ms: i64) {
        let labels =
            format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", o.container, o.namespace, o.pod);
        self.line(&labels, value, ms);
    }

    fn pod(&mut self, p: &PodSum<'_>, value: Option<f64>, ms: i64) {
        let labels = format!("{{namespace=\"{}\",pod=\"{}\"}}", p.namespace, p.name);
        self.line(&labels, value, ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, container: &str) -> Owner {
        Owner {
            uid: uid.to_owned(),
            namespace: "ns".to_owned(),
            pod: format!("pod-{uid}"),
            container: container.to_owned(),
            started_at: Some(Timestamp::from_second(100).unwrap()),
        }
    }

    fn reading(cpu: Option<u64>, memory: Option<u64>) -> ContainerStats {
        ContainerStats {
            at: Timestamp::from_millisecond(1_500).unwrap(),
            cpu_usage_nanos: cpu,
            memory_working_set: memory,
            ..ContainerStats::default()
        }
    }

    #[test]
    fn lines_and_absences() {
        let owners = HashMap::from([("1".to_owned(), owner("a", "x")), ("2".to_owned(), owner("a", "y"))]);
        let stats = [
            ("1".to_owned(), reading(Some(1_500_000_000), Some(100))),
            ("2".to_owned(), reading(None, Some(50))),
            ("stranger".to_owned(), reading(Some(1), Some(1))),
        ];
        let mut totals = Totals::default();
        totals.update(&stats, &owners);
        let text = encode(&stats, &owners, &totals, None, false, Timestamp::from_millisecond(2_000).unwrap());
        for line in [
            "container_cpu_usage_seconds_total{container=\"x\",namespace=\"ns\",pod=\"pod-a\"} 1.5 1500",
            "container_memory_working_set_bytes{container=\"y\",namespace=\"ns\",pod=\"pod-a\"} 50 1500",
            "container_start_time_seconds{container=\"x\",namespace=\"ns\",pod=\"pod-a\"} 100 1500",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"pod-a\"} 1.5 2000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"pod-a\"} 150 2000",
            "node_cpu_usage_seconds_total 1.5 2000",
            "node_memory_working_set_bytes 150 2000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("container_cpu_usage_seconds_total{container=\"y\""), "no reading, no line");
        let text = encode(&[], &owners, &totals, None, true, Timestamp::UNIX_EPOCH);
        assert!(text.contains("resource_scrape_error 1") && !text.contains("node_cpu_usage_seconds_total 1"));
    }

    #[test]
    fn totals_never_go_back() {
        let owners = HashMap::from([("1".to_owned(), owner("a", "x")), ("2".to_owned(), owner("a", "x"))]);
        let mut totals = Totals::default();
        totals.update(&[("1".to_owned(), reading(Some(100), None))], &owners);
        totals.update(&[("2".to_owned(), reading(Some(5), None))], &owners);
        assert_eq!((totals.node(), totals.ended["a"]), (105, 100));
        totals.update(&[], &HashMap::new());
        assert_eq!(totals.node(), 105);
        assert!(totals.ended.is_empty(), "the pod is gone");
    }
}
