//! Node selectors, tolerations, and which pods a pod affinity term means.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use crate::pod::{PodInfo, Term};
use crate::snapshot::{NodeInfo, Snapshot};

/// Whether `nodeSelector` and the required node affinity let the pod onto the node.
pub(crate) fn node_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        && pod.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|t| term_matches(t, node)))
}

/// All requirements of a term must hold; an empty term matches nothing.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let own = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    expressions.iter().all(|r| requirement_holds(r, &node.labels))
        && fields.iter().all(|r| requirement_holds(r, &own))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |s: &str| s.parse::<i64>().ok();
    let compares = |holds: fn(i64, i64) -> bool| match (value.and_then(|v| number(v)), values) {
        (Some(have), [want]) => number(want).is_some_and(|want| holds(have, want)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compares(|have, want| have > want),
        "Lt" => compares(|have, want| have < want),
        _ => false,
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        "Exists" => true,
        _ => false,
    }
}

/// The first taint that keeps the pod away.
pub(crate) fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    node.taints.iter().find(|t| {
        matches!(t.effect.as_str(), "NoSchedule" | "NoExecute")
            && !pod.tolerations.iter().any(|o| tolerates(o, t))
    })
}

/// Whether a term means this pod.
pub(crate) fn term_selects(term: &Term, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let in_namespace = term.namespaces.contains(&pod.namespace)
        || term.namespace_selector.as_ref().is_some_and(|s| {
            s.is_everything()
                || snapshot.namespaces.get(&pod.namespace).is_some_and(|labels| s.matches(labels))
        });
    in_namespace && term.selector.matches(&pod.labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn node_selector_operators() {
        let node = NodeInfo {
            name: "n".into(),
            labels: BTreeMap::from([("zone".into(), "a".into()), ("cores".into(), "8".into())]),
            ..NodeInfo::default()
        };
        let cases = [
            (json!([{"key": "zone", "operator": "In", "values": ["a", "b"]}]), true),
            (json!([{"key": "zone", "operator": "In", "values": ["b"]}]), false),
            (json!([{"key": "zone", "operator": "NotIn", "values": ["b"]}]), true),
            (json!([{"key": "rack", "operator": "NotIn", "values": ["b"]}]), true),
            (json!([{"key": "rack", "operator": "Exists"}]), false),
            (json!([{"key": "rack", "operator": "DoesNotExist"}]), true),
            (json!([{"key": "cores", "operator": "Gt", "values": ["4"]}]), true),
            (json!([{"key": "cores", "operator": "Lt", "values": ["8"]}]), false),
            (json!([{"key": "zone", "operator": "Gt", "values": ["4"]}]), false),
            (json!([]), false),
        ];
        for (expressions, want) in cases {
            let term: NodeSelectorTerm =
                serde_json::from_value(json!({"matchExpressions": expressions.clone()})).unwrap();
            assert_eq!(term_matches(&term, &node), want, "{expressions}");
        }
    }

    #[test]
    fn tolerations() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"})).unwrap();
        let cases = [
            (json!({}), false),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"key": "gpu", "value": "yes"}), true),
            (json!({"key": "gpu", "value": "no"}), false),
            (json!({"key": "gpu", "value": "yes", "effect": "NoExecute"}), false),
            (json!({"key": "cpu", "operator": "Exists"}), false),
        ];
        for (toleration, want) in cases {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), want, "{toleration}");
        }
    }
}
