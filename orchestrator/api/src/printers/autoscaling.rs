//! HorizontalPodAutoscalers of both versions, and ScalingPolicies.

use serde_json::Value;

use super::cell::{NONE, UNKNOWN, UNSET, created, list, name, number, or, present, shortened, text};
use crate::kinds::convert;

const MAX_METRICS: usize = 2;

/// autoscaling/v2
pub fn horizontal_pod_autoscaler(obj: &Value, now: i64) -> Vec<Value> {
    vec![
        name(obj),
        Value::from(target(obj)),
        Value::from(metrics(obj)),
        Value::from(limit(obj, "/spec/minReplicas")),
        Value::from(number(obj, "/spec/maxReplicas")),
        Value::from(number(obj, "/status/currentReplicas")),
        created(obj, now),
    ]
}

/// autoscaling/v1
pub fn horizontal_pod_autoscaler_v1(obj: &Value, now: i64) -> Vec<Value> {
    horizontal_pod_autoscaler(&convert::autoscaler_v1_to_v2(obj.clone()), now)
}

pub fn scaling_policy(obj: &Value, now: i64) -> Vec<Value> {
    vec![
        name(obj),
        Value::from(target(obj)),
        Value::from(limit(obj, "/spec/minReplicas")),
        Value::from(limit(obj, "/spec/maxReplicas")),
        Value::from(number(obj, "/status/currentReplicas")),
        Value::from(number(obj, "/status/desiredReplicas")),
        Value::from(or(text(obj, "/spec/mode"), "Auto")),
        created(obj, now),
    ]
}

fn target(obj: &Value) -> String {
    format!("{}/{}", text(obj, "/spec/scaleTargetRef/kind"), text(obj, "/spec/scaleTargetRef/name"))
}

fn limit(obj: &Value, pointer: &str) -> String {
    present(obj, pointer).map_or_else(|| UNSET.to_owned(), Value::to_string)
}

fn metrics(obj: &Value) -> String {
    let specs = list(obj, "/spec/metrics");
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let statuses = list(obj, "/status/currentMetrics");
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| metric(spec, statuses.get(i).unwrap_or(&Value::Null)))
        .collect();
    shortened(&all, MAX_METRICS, ", ")
}

/// `current/target` of one metric.
fn metric(spec: &Value, status: &Value) -> String {
    let (source, named) = match text(spec, "/type") {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "External" => ("external", false),
        _ => return "<unknown type>".to_owned(),
    };
    let spec = spec.get(source).unwrap_or(&Value::Null);
    let current = |field: &str| status.get(source).and_then(|s| s.pointer(&format!("/current/{field}")));
    let current_text =
        |field: &str| or(current(field).and_then(Value::as_str).unwrap_or_default(), UNKNOWN).to_owned();
    let average = text(spec, "/target/averageValue");
    if named {
        let name = text(spec, "/name");
        if !average.is_empty() {
            return format!("{name}: {}/{average}", current_text("averageValue"));
        }
        let percent = |v: Option<&Value>| v.and_then(Value::as_i64).map(|p| format!("{p}%"));
        let now = percent(current("averageUtilization")).unwrap_or_else(|| UNKNOWN.to_owned());
        let wanted =
            percent(spec.pointer("/target/averageUtilization")).unwrap_or_else(|| "<auto>".to_owned());
        return format!("{name}: {now}/{wanted}");
    }
    match (source, average) {
        ("pods", _) => format!("{}/{average}", current_text("averageValue")),
        (_, "") => format!("{}/{}", current_text("value"), text(spec, "/target/value")),
        _ => format!("{}/{average} (avg)", current_text("averageValue")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets() {
        let utilization = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let memory =
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "1Gi"}}});
        let pods = json!({"type": "Pods", "pods": {"target": {"averageValue": "10"}}});
        let external = json!({"type": "External", "external": {"target": {"value": "30"}}});
        let object = json!({"type": "Object", "object": {"target": {"averageValue": "3"}}});
        let cpu_now = json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 41, "averageValue": "82m"}}});
        for (specs, statuses, want) in [
            (json!([]), json!(null), "<none>"),
            (json!([utilization]), json!(null), "cpu: <unknown>/80%"),
            (json!([utilization]), json!([cpu_now]), "cpu: 41%/80%"),
            (json!([utilization, memory]), json!([cpu_now]), "cpu: 41%/80%, memory: <unknown>/1Gi"),
            (
                json!([utilization, memory, pods]),
                json!([]),
                "cpu: <unknown>/80%, memory: <unknown>/1Gi + 1 more...",
            ),
            (
                json!([pods, external]),
                json!([{"pods": {"current": {"averageValue": "4"}}}, {"external": {"current": {"value": "7"}}}]),
                "4/10, 7/30",
            ),
            (json!([object]), json!([{"object": {"current": {"averageValue": "2"}}}]), "2/3 (avg)"),
        ] {
            let obj = json!({"spec": {"metrics": specs}, "status": {"currentMetrics": statuses}});
            assert_eq!(metrics(&obj), want);
        }
    }

    #[test]
    fn rows() {
        let spec = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5,
            "targetCPUUtilizationPercentage": 70});
        let obj = json!({"metadata": {"name": "h"}, "spec": spec, "status": {"currentReplicas": 2, "desiredReplicas": 2,
            "currentCPUUtilizationPercentage": 50}});
        let want = json!(["h", "Deployment/d", "cpu: 50%/70%", "1", 5, 2, "<unknown>"]);
        assert_eq!(Value::from(horizontal_pod_autoscaler_v1(&obj, 0)), want);
        let want = json!(["h", "Deployment/d", "1", "5", 2, 2, "Auto", "<unknown>"]);
        assert_eq!(Value::from(scaling_policy(&obj, 0)), want);
    }
}
