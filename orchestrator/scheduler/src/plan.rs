//! The decision: where one pod goes, or why nowhere. Pure; ties are broken by the number passed in.

use std::collections::BTreeMap;
use std::fmt;

use crate::filter::{self, Context};
use crate::pod::PodInfo;
use crate::score;
use crate::snapshot::{NodeInfo, Snapshot};

/// No node fits: how many nodes gave each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    pub reasons: BTreeMap<String, usize>,
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

impl std::error::Error for FitError {}

/// The best node for `pod`; `tie` chooses among equals.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot, tie: u64) -> Result<String, FitError> {
    let context = Context::new(pod, snapshot);
    let mut error = FitError { nodes: 0, reasons: BTreeMap::new() };
    let mut fitting: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.live_nodes() {
        error.nodes += 1;
        match filter::check(pod, node, &context) {
            Ok(()) => fitting.push(node),
            Err(reasons) => {
                for reason in reasons {
                    *error.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }
    match fitting.as_slice() {
        [] => Err(error),
        [only] => Ok(only.name.clone()),
        many => {
            let scores = score::scores(pod, many, &context);
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let equals: Vec<&str> = many
                .iter()
                .zip(&scores)
                .filter(|(_, s)| best - **s < 1e-9)
                .map(|(n, _)| n.name.as_str())
                .collect();
            let chosen = equals[(tie % equals.len() as u64) as usize];
            Ok(chosen.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, extra: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
        });
        merge(&mut node, extra);
        serde_json::from_value(node).unwrap()
    }

    fn pod(name: &str, extra: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "web:1", "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}}}]},
        });
        merge(&mut pod, extra);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (k, v) in from {
                    merge(into.entry(k).or_insert(Value::Null), v);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn cluster(nodes: Vec<Node>, pods: Vec<Pod>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.namespaces.insert("default".into(), BTreeMap::from([("team".into(), "a".into())]));
        for n in &nodes {
            snapshot.set_node(n);
        }
        for p in &pods {
            snapshot.set_pod(Arc::new(PodInfo::new(p)));
        }
        snapshot
    }

    fn on(node: &str) -> Value {
        json!({"spec": {"nodeName": node}})
    }

    fn place(newcomer: Value, nodes: Vec<Node>, pods: Vec<Pod>) -> String {
        match decide(&PodInfo::new(&pod("new", newcomer)), &cluster(nodes, pods), 0) {
            Ok(node) => node,
            Err(e) => e.to_string(),
        }
    }

    /// Name, newcomer, nodes, pods that are there, answer.
    type Case = (&'static str, Value, Vec<Node>, Vec<Pod>, &'static str);

    /// Three nodes in two zones.
    fn three() -> Vec<Node> {
        let zone = |z: &str| json!({"metadata": {"labels": {"zone": z}}});
        vec![node("n1", zone("a")), node("n2", zone("a")), node("n3", zone("b"))]
    }

    #[test]
    fn filters_say_why() {
        let term = |selector: Value, key: &str| json!([{"labelSelector": selector, "topologyKey": key}]);
        let web = json!({"matchLabels": {"app": "web"}});
        let spread = |when: &str| {
            json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
                "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {"app": "web"}}}]}})
        };
        let cases: Vec<Case> = vec![
            ("no nodes", json!({}), vec![], vec![], "no nodes available to schedule pods"),
            (
                "full",
                json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3", "memory": "9Gi"}}}]}}),
                three(),
                vec![],
                "0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory.",
            ),
            (
                "what is placed counts",
                json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1600m"}}}]}}),
                three(),
                vec![pod("a", on("n1")), pod("b", on("n2"))],
                "n3",
            ),
            (
                "unschedulable",
                json!({}),
                vec![node("n1", json!({"spec": {"unschedulable": true}}))],
                vec![],
                "0/1 nodes are available: 1 node(s) were unschedulable.",
            ),
            (
                "taint",
                json!({}),
                vec![node(
                    "n1",
                    json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}),
                )],
                vec![],
                "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.",
            ),
            (
                "toleration",
                json!({"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}),
                vec![node(
                    "n1",
                    json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}),
                )],
                vec![],
                "n1",
            ),
            ("node selector", json!({"spec": {"nodeSelector": {"zone": "b"}}}), three(), vec![], "n3"),
            (
                "node affinity",
                json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}}}),
                three(),
                vec![],
                "n2",
            ),
            (
                "no match",
                json!({"spec": {"nodeSelector": {"zone": "c"}}}),
                three(),
                vec![],
                "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            ),
            (
                "host port",
                json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
                vec![node("n1", json!({}))],
                vec![pod(
                    "a",
                    json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
                    "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}]}]}}),
                )],
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
            ),
            ("hard spread", spread("DoNotSchedule"), three(), vec![pod("a", on("n1"))], "n3"),
            (
                "hard spread without the label",
                spread("DoNotSchedule"),
                vec![node("n1", json!({}))],
                vec![],
                "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
            ),
            ("soft spread", spread("ScheduleAnyway"), three(), vec![pod("a", on("n1"))], "n3"),
            (
                "anti-affinity",
                json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    term(web.clone(), "zone")}}}}),
                three(),
                vec![pod("a", on("n1"))],
                "n3",
            ),
            (
                "anti-affinity of those who are there",
                json!({}),
                vec![node("n1", json!({}))],
                vec![pod(
                    "a",
                    json!({"spec": {"nodeName": "n1", "affinity": {"podAntiAffinity":
                    {"requiredDuringSchedulingIgnoredDuringExecution": term(web.clone(), "kubernetes.io/hostname")}}}}),
                )],
                "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
            ),
            (
                "affinity",
                json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    term(json!({"matchLabels": {"app": "cache"}}), "kubernetes.io/hostname")}}}}),
                three(),
                vec![pod("a", json!({"metadata": {"labels": {"app": "cache"}}, "spec": {"nodeName": "n2"}}))],
                "n2",
            ),
            (
                "the first of its series",
                json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    term(web, "kubernetes.io/hostname")}}, "nodeSelector": {"zone": "b"}}}),
                three(),
                vec![],
                "n3",
            ),
            (
                "affinity that nothing meets",
                json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    term(json!({"matchLabels": {"app": "cache"}}), "zone")}}}}),
                three(),
                vec![],
                "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.",
            ),
        ];
        for (name, newcomer, nodes, pods, want) in cases {
            assert_eq!(place(newcomer, nodes, pods), want, "{name}");
        }
    }

    #[test]
    fn too_many_pods() {
        let pods = (0..10)
            .map(|i| {
                pod(
                    &format!("p{i}"),
                    json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}),
                )
            })
            .collect();
        let text = place(json!({}), vec![node("n1", json!({}))], pods);
        assert!(text.contains("1 Too many pods"), "{text}");
    }

    #[test]
    fn siblings_are_spread_and_empty_nodes_are_preferred() {
        let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]}});
        let mut on_n1 = owner.clone();
        merge(&mut on_n1, on("n1"));
        let nodes = || vec![node("n1", json!({})), node("n2", json!({}))];
        assert_eq!(place(owner, nodes(), vec![pod("a", on_n1)]), "n2");
        assert_eq!(place(json!({}), nodes(), vec![pod("a", on("n2"))]), "n1");
    }

    #[test]
    fn an_image_that_is_there_tips_the_balance() {
        let with = json!({"status": {"images": [{"names": ["web:1"], "sizeBytes": 900_000_000}]}});
        assert_eq!(place(json!({}), vec![node("n1", json!({})), node("n2", with)], vec![]), "n2");
    }

    #[test]
    fn equal_nodes_are_chosen_by_the_number_passed_in() {
        let snapshot = cluster(vec![node("n1", json!({})), node("n2", json!({}))], vec![]);
        let newcomer = PodInfo::new(&pod("new", json!({})));
        let chosen: Vec<String> = (0..4).map(|tie| decide(&newcomer, &snapshot, tie).unwrap()).collect();
        assert_eq!(chosen, ["n1", "n2", "n1", "n2"]);
    }

    proptest::proptest! {
        /// Whatever comes and goes, the sums stay the sums of what is there, and no node is overcommitted.
        #[test]
        fn nodes_are_never_overcommitted(sizes in proptest::collection::vec((0_u64..1200, 0_usize..8), 1..40)) {
            let mut snapshot = cluster(three(), vec![]);
            for (i, (milli, leaves)) in sizes.iter().enumerate() {
                let extra = json!({"spec": {"containers": [{"name": "c", "image": "i",
                    "resources": {"requests": {"cpu": format!("{milli}m")}}}]}});
                let mut info = PodInfo::new(&pod(&format!("p{i}"), extra));
                if let Ok(node) = decide(&info, &snapshot, i as u64) {
                    info.node = node;
                    snapshot.set_pod(Arc::new(info));
                }
                snapshot.remove_pod(&format!("p{leaves}"));
                for node in snapshot.live_nodes() {
                    let sum: i64 = node.pods.values().map(|p| p.requests.milli_cpu).sum();
                    proptest::prop_assert_eq!(sum, node.requested.milli_cpu);
                    proptest::prop_assert!(sum <= node.allocatable.milli_cpu);
                }
            }
        }
    }
}
