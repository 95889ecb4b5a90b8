//! Runs probes: one light task per container that has any, ended with the container. Reports verdicts and wakes the
//! pod's worker; decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use loadline_runtime::Container;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::context::{Node, Signal};
use crate::http_probe;
use crate::names;
use crate::plan::{Probes, Verdict};
use crate::probe::{self, Counter, Kind};

type Results = Arc<Mutex<BTreeMap<String, Probes>>>;

pub(crate) struct Prober {
    node: Arc<Node>,
    signal: Arc<Signal>,
    results: Results,
    tasks: HashMap<String, DropGuard>,
}

impl Prober {
    pub(crate) fn new(node: Arc<Node>, signal: Arc<Signal>) -> Self {
        Self { node, signal, results: Results::default(), tasks: HashMap::new() }
    }

    pub(crate) fn results(&self) -> BTreeMap<String, Probes> {
        lock(&self.results).clone()
    }

    /// Probes exactly these running containers.
    pub(crate) fn watch(&mut self, pod: &Arc<Pod>, running: &[&Container], ips: &[IpAddr]) {
        let ids: BTreeSet<&str> = running.iter().map(|c| c.id.as_str()).collect();
        self.tasks.retain(|id, _| ids.contains(id.as_str()));
        lock(&self.results).retain(|id, _| ids.contains(id.as_str()));
        for container in running {
            let Some(spec) = names::container(pod, &container.name) else { continue };
            let any = spec.startup_probe.is_some()
                || spec.liveness_probe.is_some()
                || spec.readiness_probe.is_some();
            if !any || self.tasks.contains_key(&container.id) {
                continue;
            }
            let host =
                if names::host_network(pod) { Some(self.node.config.node_ip) } else { ips.first().copied() };
            let Some(host) = host else { continue };
            let token = CancellationToken::new();
            let target = Target {
                node: self.node.clone(),
                signal: self.signal.clone(),
                results: self.results.clone(),
                pod: pod.clone(),
                spec: spec.clone(),
                id: container.id.clone(),
                started_at: container.started_at.unwrap_or_else(Timestamp::now),
                host,
            };
            let stopped = token.clone();
            self.node.scope.spawn_short(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = target.run() => {}
                }
            });
            self.tasks.insert(container.id.clone(), token.drop_guard());
        }
    }
}

fn lock(results: &Results) -> MutexGuard<'_, BTreeMap<String, Probes>> {
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an attempt found: a result, or that it could not be made.
pub(crate) enum Attempt {
    Success,
    Failure(String),
    Error(String),
}

struct Target {
    node: Arc<Node>,
    signal: Arc<Signal>,
    results: Results,
    pod: Arc<Pod>,
    spec: Spec,
    id: String,
    started_at: Timestamp,
    host: IpAddr,
}

impl Target {
    async fn run(&self) {
        if let Some(startup) = &self.spec.startup_probe {
            self.repeat(Kind::Startup, startup).await;
        }
        let liveness = async {
            if let Some(p) = &self.spec.liveness_probe {
                self.repeat(Kind::Liveness, p).await;
            }
        };
        let readiness = async {
            if let Some(p) = &self.spec.readiness_probe {
                self.repeat(Kind::Readiness, p).await;
            }
        };
        tokio::join!(liveness, readiness);
    }

    /// Startup probes end with their first verdict; a failed one leaves the container to be killed.
    async fn repeat(&self, kind: Kind, p: &Probe) {
        let mut counter = Counter::new(p);
        let period = probe::period(p);
        let age = Duration::try_from(Timestamp::now().duration_since(self.started_at)).unwrap_or_default();
        let first = Instant::now() + probe::initial_delay(p).saturating_sub(age);
        tokio::time::sleep_until(first).await;
        let mut tick = first;
        loop {
            let attempt = self.attempt(p).await;
            if self.settle(kind, &mut counter, attempt) {
                return;
            }
            // A slow attempt makes ticks fall out, not pile up.
            tick = (tick + period).max(Instant::now());
            while counter.may_hurry(kind) {
                let now = Instant::now();
                let Some(delay) = probe::hurry(p.exec.is_some(), now - first, tick - now) else { break };
                tokio::time::sleep(delay).await;
                if matches!(self.attempt(p).await, Attempt::Success)
                    && self.settle(kind, &mut counter, Attempt::Success)
                {
                    return;
                }
            }
            tokio::time::sleep_until(tick).await;
        }
    }

    /// Counts an attempt; whether this probe is over.
    fn settle(&self, kind: Kind, counter: &mut Counter, attempt: Attempt) -> bool {
        let (ok, output) = match attempt {
            Attempt::Success => (true, String::new()),
            Attempt::Failure(output) => (false, output),
            Attempt::Error(error) => {
                self.unhealthy(format!(
                    "{} probe errored and resulted in unknown state: {error}",
                    kind.name()
                ));
                return false;
            }
        };
        if !ok {
            self.unhealthy(format!("{} probe failed: {output}", kind.name()));
        }
        let verdict = counter.record(ok);
        let mut results = lock(&self.results);
        let entry = results.entry(self.id.clone()).or_default();
        let slot = match kind {
            Kind::Startup => &mut entry.startup,
            Kind::Liveness => &mut entry.liveness,
            Kind::Readiness => &mut entry.readiness,
        };
        let changed = *slot != verdict;
        *slot = verdict;
        drop(results);
        if changed {
            self.signal.wake();
        }
        kind == Kind::Startup && (counter.succeeded() || verdict == Some(Verdict::Failure))
            || kind == Kind::Liveness && verdict == Some(Verdict::Failure)
    }

    fn unhealthy(&self, note: String) {
        let about = names::container_reference(&self.pod, &self.spec.name);
        self.node.events.warning(about, "Unhealthy", "Probing", note);
    }

    async fn attempt(&self, p: &Probe) -> Attempt {
        let timeout = probe::timeout(p);
        if let Some(exec) = &p.exec {
            let command = exec.command.clone().unwrap_or_default();
            return match self.node.config.runtime.exec_sync(&self.id, &command, timeout).await {
                Ok(result) if result.exit_code == 0 => Attempt::Success,
                Ok(result) => Attempt::Failure(String::from_utf8_lossy(&result.output).into_owned()),
                Err(loadline_runtime::RuntimeError::Timeout(after)) => Attempt::Failure(format!(
                    "command timed out: {:?} timed out after {after:?}",
                    command.join(" ")
                )),
                Err(error) => Attempt::Error(error.to_string()),
            };
        }
        if let Some(http) = &p.http_get {
            return self.http(http, timeout).await;
        }
        if let Some(tcp) = &p.tcp_socket {
            let Some(port) = port(&self.spec, &tcp.port) else { return Attempt::Error(bad_port(&tcp.port)) };
            let host = tcp.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| self.host.to_string());
            return match self.node.config.simulated {
                true => self.simulated(&["tcp-probe", &host, &port.to_string()], timeout).await,
                false => http_probe::tcp(&host, port, timeout).await,
            };
        }
        Attempt::Error("this kind of probe is not supported by this node".to_owned())
    }

    /// Nobody listens at a simulated pod's address: the runtime itself is asked how the container is.
    async fn simulated(&self, what: &[&str], timeout: Duration) -> Attempt {
        let command: Vec<String> = what.iter().map(|w| (*w).to_owned()).collect();
        match self.node.config.runtime.exec_sync(&self.id, &command, timeout).await {
            Ok(result) if result.exit_code == 0 => Attempt::Success,
            Ok(result) => Attempt::Failure(String::from_utf8_lossy(&result.output).into_owned()),
            Err(error) => Attempt::Error(error.to_string()),
        }
    }

    async fn http(&self, action: &HTTPGetAction, timeout: Duration) -> Attempt {
        let Some(port) = port(&self.spec, &action.port) else {
            return Attempt::Error(bad_port(&action.port));
        };
        if self.node.config.simulated {
            return self.simulated(&["http-probe", &self.host.to_string(), &port.to_string()], timeout).await;
        }
        http_probe::get(action, &self.host.to_string(), port, timeout).await
    }
}

fn bad_port(port: &IntOrString) -> String {
    format!("couldn't find a container port for {port:?}")
}

/// A port by number, or by its name among the container's.
pub(crate) fn port(spec: &Spec, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).ok(),
        IntOrString::String(name) => {
            let named = spec.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |p| u16::try_from(p.container_port).ok())
        }
    }
    .filter(|p| *p > 0)
}
