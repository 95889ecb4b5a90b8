//! The node's own last word on a pod: what the scheduler should have seen but another binder may not have. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::names;
use crate::resources::{self, Amounts};
use crate::status::Failure;

/// What the node is and has.
pub(crate) struct NodeFacts<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a std::collections::BTreeMap<String, String>,
    pub(crate) taints: &'a [Taint],
    pub(crate) allocatable: &'a Amounts,
}

pub(crate) fn admit<'a>(
    pod: &Pod,
    node: &NodeFacts<'_>,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Result<(), Failure> {
    let fail = |reason: &str, message: String| Err(Failure { reason: reason.to_owned(), message });
    if let Some(os) = pod.spec.as_ref().and_then(|s| s.os.as_ref()).filter(|o| o.name != "linux") {
        return fail(
            "PodOSNotSupported",
            format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name),
        );
    }
    fits(pod, node, others.clone())?;
    if !selected(pod, node) {
        return fail("NodeAffinity", "Predicate NodeAffinity failed".to_owned());
    }
    let wanted = host_ports(pod);
    if others.clone().any(|other| host_ports(other).iter().any(|p| wanted.iter().any(|w| conflicts(p, w)))) {
        return fail("NodePorts", "Predicate NodePorts failed".to_owned());
    }
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let mut intolerable = node.taints.iter().filter(|t| t.effect == "NoExecute");
    if intolerable.any(|taint| !tolerations.iter().any(|t| tolerates(t, taint))) {
        return fail("TaintToleration", "Predicate TaintToleration failed".to_owned());
    }
    Ok(())
}

fn fits<'a>(pod: &Pod, node: &NodeFacts<'_>, others: impl Iterator<Item = &'a Pod>) -> Result<(), Failure> {
    let mut used = Amounts::new();
    let mut count = 0;
    for other in others {
        count += 1;
        resources::add(&mut used, &resources::pod_requests(other));
    }
    let over = |name: &str, requested: i64, used: i64, capacity: i64| Failure {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let pods = node.allocatable.get("pods").map_or(i64::MAX, |q| q.value());
    if count + 1 > pods {
        return Err(over("pods", 1, count, pods));
    }
    for (name, asked) in resources::pod_requests(pod) {
        if asked.is_zero() {
            continue;
        }
        // CPU in thousandths, everything else in units, as upstream prints it.
        let number = |q: &loadline_api::quantity::Quantity| {
            if name == "cpu" { q.milli_value() } else { q.value() }
        };
        let capacity = node.allocatable.get(&name).map_or(0, number);
        let taken = used.get(&name).map_or(0, number);
        if number(&asked) > capacity - taken {
            return Err(over(&name, number(&asked), taken, capacity));
        }
    }
    Ok(())
}

/// `spec.nodeSelector` and the required node affinity.
fn selected(pod: &Pod, node: &NodeFacts<'_>) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let by_labels = spec.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term(t, node)))
}

fn term(term: &NodeSelectorTerm, node: &NodeFacts<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && requirement(r, Some(node.name)))
}

fn requirement(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match r.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(v, w)| v > w),
        "Lt" => number().is_some_and(|(v, w)| v < w),
        _ => false,
    }
}

/// (address, protocol, port)
pub(crate) fn host_ports(pod: &Pod) -> BTreeSet<(String, String, i32)> {
    let any = "0.0.0.0".to_owned();
    let mut ports = BTreeSet::new();
    for port in names::all_containers(pod).flat_map(|c| c.ports.iter().flatten()) {
        let host_port = port.host_port.filter(|p| *p > 0);
        let Some(host_port) = host_port else { continue };
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| any.clone());
        ports.insert((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), host_port));
    }
    ports
}

fn conflicts(a: &(String, String, i32), b: &(String, String, i32)) -> bool {
    let wildcard = |ip: &str| ip == "0.0.0.0";
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || wildcard(&a.0) || wildcard(&b.0))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadline_api::quantity::Quantity;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asks(cpu: &str) -> Value {
        json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}])
    }

    #[test]
    fn reasons_and_messages() {
        let labels = [("zone".to_owned(), "a".to_owned()), ("size".to_owned(), "5".to_owned())].into();
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "gone", "value": "x", "effect": "NoExecute"}, {"key": "soft", "effect": "NoSchedule"}]))
        .unwrap();
        let amount = |k: &str, q: &str| (k.to_owned(), Quantity::parse(q).unwrap());
        let allocatable: Amounts = [amount("cpu", "2"), amount("memory", "1Gi"), amount("pods", "3")].into();
        let tolerate = json!([{"operator": "Exists"}]);
        let other = pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]}));
        let port =
            |ip: &str| json!([{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]);
        let affinity = |op: &str, values: Value| {
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "size", "operator": op, "values": values}]}]}}})
        };
        let cases = [
            (json!({"tolerations": tolerate}), ""),
            (json!({"tolerations": tolerate, "containers": asks("500m")}), ""),
            (json!({"tolerations": tolerate, "containers": asks("501m")}), "OutOfcpu"),
            (json!({"tolerations": tolerate, "nodeSelector": {"zone": "a"}}), ""),
            (json!({"tolerations": tolerate, "nodeSelector": {"zone": "b"}}), "NodeAffinity"),
            (json!({"tolerations": tolerate, "affinity": affinity("Gt", json!(["4"]))}), ""),
            (json!({"tolerations": tolerate, "affinity": affinity("Lt", json!(["4"]))}), "NodeAffinity"),
            (json!({"tolerations": tolerate, "affinity": affinity("NotIn", json!(["5"]))}), "NodeAffinity"),
            (json!({"tolerations": tolerate, "containers": port("127.0.0.1")}), "NodePorts"),
            (json!({}), "TaintToleration"),
            (json!({"tolerations": [{"key": "gone", "value": "x", "effect": "NoExecute"}]}), ""),
            (json!({"tolerations": [{"key": "gone", "value": "y"}]}), "TaintToleration"),
            (json!({"os": {"name": "windows"}}), "PodOSNotSupported"),
        ];
        let node = NodeFacts { name: "n", labels: &labels, taints: &taints, allocatable: &allocatable };
        for (spec, expected) in cases {
            let reason = admit(&pod(spec.clone()), &node, std::iter::once(&other)).err().map(|f| f.reason);
            assert_eq!(reason.unwrap_or_default(), expected, "{spec}");
        }
        let failure =
            admit(&pod(json!({"containers": asks("1")})), &node, std::iter::once(&other)).unwrap_err();
        assert_eq!(
            failure.message,
            "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
        );
        let three = [other.clone(), other.clone(), other];
        let failure = admit(&pod(json!({})), &node, three.iter()).unwrap_err();
        assert_eq!(failure.reason, "OutOfpods");
    }
}
