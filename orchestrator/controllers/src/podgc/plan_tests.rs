//! Which pods nobody needs any more.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn pod(name: &str, node: &str, phase: &str, deleting: bool) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": format!("2026-01-01T11:00:0{}Z", name.len()),
                "deletionTimestamp": if deleting { json!("2026-01-01T11:59:00Z") } else { Value::Null },
            },
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase},
        }))
        .unwrap(),
    )
}

fn node(ready: &str, taint: Option<&str>) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": taint.map(|t| json!([{"key": t, "effect": "NoExecute"}]))},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap(),
    )
}

fn run(
    pods: &[Arc<Pod>],
    nodes: &[(&str, Arc<Node>)],
    missing: &[(&str, i64)],
    threshold: usize,
) -> (Vec<(String, Why)>, Option<SignedDuration>) {
    let nodes = nodes.iter().map(|(n, o)| ((*n).to_owned(), o.clone())).collect();
    let missing =
        missing.iter().map(|(n, s)| ((*n).to_owned(), now() - SignedDuration::from_secs(*s))).collect();
    let plan = plan(&Observed {
        pods,
        nodes: &nodes,
        missing: &missing,
        quarantine: SignedDuration::from_secs(40),
        terminated_threshold: threshold,
        now: now(),
    });
    let removed = plan.remove.into_iter().map(|(p, why)| (name(&p.metadata).to_owned(), why)).collect();
    (removed, plan.look_again)
}

#[test]
fn pods_of_a_node_that_is_gone_go_after_the_quarantine() {
    let pods = [pod("a", "gone", "Running", false), pod("b", "n", "Running", false)];
    let nodes = [("n", node("True", None))];
    assert_eq!(run(&pods, &nodes, &[], 10), (vec![], Some(SignedDuration::from_secs(40))));
    assert_eq!(run(&pods, &nodes, &[("gone", 15)], 10), (vec![], Some(SignedDuration::from_secs(25))));
    assert_eq!(run(&pods, &nodes, &[("gone", 40)], 10), (vec![("a".to_owned(), Why::NodeGone)], None));
}

#[test]
fn terminating_pods_that_nobody_can_stop() {
    let out = "node.kubernetes.io/out-of-service";
    let cases: &[(Arc<Pod>, Arc<Node>, Option<Why>)] = &[
        (pod("a", "", "Pending", true), node("True", None), Some(Why::NeverScheduled)),
        (pod("a", "", "Pending", false), node("True", None), None),
        (pod("a", "n", "Running", true), node("True", None), None),
        (pod("a", "n", "Running", true), node("Unknown", None), None),
        (pod("a", "n", "Running", true), node("Unknown", Some(out)), Some(Why::OutOfService)),
        (pod("a", "n", "Running", true), node("True", Some(out)), None),
        (pod("a", "n", "Running", false), node("Unknown", Some(out)), None),
    ];
    for (pod, node, expected) in cases {
        let (removed, _) = run(std::slice::from_ref(pod), &[("n", node.clone())], &[], 10);
        assert_eq!(removed.first().map(|(_, why)| *why), *expected, "{pod:?} {node:?}");
    }
}

#[test]
fn finished_pods_beyond_the_number_go_oldest_first() {
    let pods: Vec<_> = ["a", "bb", "ccc", "dddd"].iter().map(|n| pod(n, "n", "Succeeded", false)).collect();
    let nodes = [("n", node("True", None))];
    let (removed, _) = run(&pods, &nodes, &[], 2);
    assert_eq!(removed, [("a".to_owned(), Why::TooManyFinished), ("bb".to_owned(), Why::TooManyFinished)]);
    assert_eq!(run(&pods, &nodes, &[], 4).0, []);
}
