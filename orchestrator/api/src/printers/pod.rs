//! Pods. The status column sums up the phase and the states of all containers.

use serde_json::Value;

use super::cell::{NONE, created, deleted, flag, list, name, number, or, present, text};
use super::time::seconds;

pub fn pod(obj: &Value, now: i64) -> Vec<Value> {
    let summary = Summary::of(obj);
    let ip = match list(obj, "/status/podIPs").first() {
        Some(first) => text(first, "/ip"),
        None => text(obj, "/status/podIP"),
    };
    vec![
        name(obj),
        Value::from(format!("{}/{}", summary.ready, summary.total)),
        Value::from(summary.reason),
        Value::from(summary.restarts.shown(now)),
        created(obj, now),
        Value::from(or(ip, NONE)),
        Value::from(or(text(obj, "/spec/nodeName"), NONE)),
        Value::from(or(text(obj, "/status/nominatedNodeName"), NONE)),
        Value::from(readiness_gates(obj)),
    ]
}

/// The status column alone: `Running`, `Init:0/1`, `CrashLoopBackOff`, `Terminating` ….
pub fn pod_status(obj: &Value) -> String {
    Summary::of(obj).reason
}

/// Restarts, and the latest end of a container, which the last restart followed.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "/restartCount");
        self.last = self.last.max(seconds(status.pointer("/lastState/terminated/finishedAt")));
    }

    fn shown(self, now: i64) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, super::human_duration(now - last))
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = list(pod, "/spec/initContainers").iter().filter(|c| restartable(c)).count();
        let mut summary = Self {
            reason: first_reason(pod),
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars,
            restarts: Restarts::default(),
        };
        let (initializing, sidecar_restarts) = summary.init_containers(pod);
        if !initializing || condition(pod, "Initialized") {
            summary.restarts = sidecar_restarts;
            summary.containers(pod);
        }
        if deleted(pod) {
            if text(pod, "/status/reason") == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Whether an init container is not done, and the restarts of those that run beside the others.
    fn init_containers(&mut self, pod: &Value) -> (bool, Restarts) {
        let specs = list(pod, "/spec/initContainers");
        let mut sidecars = Restarts::default();
        for (i, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            let sidecar = specs.iter().any(|c| c.get("name") == status.get("name") && restartable(c));
            self.restarts.add(status);
            if sidecar {
                sidecars.add(status);
            }
            let terminated = present(status, "/state/terminated");
            if terminated.is_some_and(|t| number(t, "/exitCode") == 0) {
                continue;
            }
            if sidecar && flag(status, "/started") {
                self.ready += usize::from(flag(status, "/ready"));
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", end_of(terminated)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{i}/{}", specs.len()),
            };
            return (true, sidecars);
        }
        (false, sidecars)
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(terminated) = present(status, "/state/terminated") {
                self.reason = end_of(terminated);
            } else if flag(status, "/ready") && present(status, "/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // Some containers are done and some still run.
        if self.reason == "Completed" && running {
            self.reason = if condition(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// The reason before the containers are looked at.
fn first_reason(pod: &Value) -> String {
    let gated = list(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated");
    if gated {
        return "SchedulingGated".to_owned();
    }
    or(text(pod, "/status/reason"), text(pod, "/status/phase")).to_owned()
}

/// How a container ended: its reason, or else its signal or exit code.
fn end_of(terminated: &Value) -> String {
    let signal = number(terminated, "/signal");
    match text(terminated, "/reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", number(terminated, "/exitCode")),
        reason => reason.to_owned(),
    }
}

fn restartable(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn condition(pod: &Value, ty: &str) -> bool {
    list(pod, "/status/conditions").iter().any(|c| text(c, "/type") == ty && text(c, "/status") == "True")
}

/// How many of the readiness gates are open.
fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|g| condition(pod, text(g, "/conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

    fn check(spec: Value, status: Value, want: [&str; 3]) {
        let obj = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let row = pod(&obj, NOW);
        assert_eq!([&row[1], &row[2], &row[3]], want, "{status}");
    }

    fn two() -> Value {
        json!({"containers": [{"name": "a"}, {"name": "b"}]})
    }

    #[test]
    fn phases_and_container_states() {
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let completed = json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        check(two(), json!({"phase": "Pending"}), ["0/2", "Pending", "0"]);
        check(two(), json!({"phase": "Failed", "reason": "Evicted"}), ["0/2", "Evicted", "0"]);
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [running, running]}),
            ["2/2", "Running", "0"],
        );
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [
                running,
                {"ready": false, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2025-12-31T23:58:00Z"}}},
            ]}),
            ["1/2", "CrashLoopBackOff", "4 (2m ago)"],
        );
        check(
            two(),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running, completed]}),
            ["1/2", "Running", "0"],
        );
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [running, completed]}),
            ["1/2", "NotReady", "0"],
        );
        for (terminated, want) in [
            (json!({"exitCode": 137, "signal": 9}), "Signal:9"),
            (json!({"exitCode": 3}), "ExitCode:3"),
            (json!({"exitCode": 1, "reason": "OOMKilled"}), "OOMKilled"),
        ] {
            let status =
                json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": terminated}}]});
            check(two(), status, ["0/2", want, "0"]);
        }
    }

    #[test]
    fn init_containers_and_sidecars() {
        let spec = json!({
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}],
        });
        let done = json!({"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}});
        let sidecar =
            json!({"name": "s", "restartCount": 2, "started": true, "ready": true, "state": {"running": {}}});
        for (status, want) in [
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                ["0/2", "Init:0/2", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                ["0/2", "Init:CrashLoopBackOff", "3"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]}),
                ["0/2", "Init:ExitCode:2", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
                ["0/2", "Init:0/2", "0"],
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [done, {"name": "s", "state": {"running": {}}}]}),
                ["0/2", "Init:1/2", "1"],
            ),
            (
                json!({"phase": "Running", "initContainerStatuses": [done, sidecar],
                    "containerStatuses": [{"ready": true, "restartCount": 5, "state": {"running": {}}}]}),
                ["2/2", "Running", "7"],
            ),
        ] {
            check(spec.clone(), status, want);
        }
    }

    #[test]
    fn deletion_gates_and_lost_nodes() {
        let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        check(two(), gated, ["0/2", "SchedulingGated", "0"]);
        for (status, want) in [
            (json!({"phase": "Running"}), "Terminating"),
            (json!({"phase": "Succeeded"}), "Succeeded"),
            (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
        ] {
            let obj = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": two(), "status": status});
            assert_eq!(pod_status(&obj), want);
        }
    }

    #[test]
    fn wide_cells() {
        let obj = json!({
            "metadata": {"name": "p", "creationTimestamp": "2025-12-31T23:50:00Z"},
            "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}]},
            "status": {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}], "conditions": [{"type": "b", "status": "True"}]},
        });
        assert_eq!(Value::from(&pod(&obj, NOW)[4..]), json!(["10m", "10.1.1.1", "n1", "<none>", "1/2"]));
    }
}
