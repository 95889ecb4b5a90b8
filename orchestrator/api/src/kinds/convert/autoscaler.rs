//! HorizontalPodAutoscaler v1 and v2. v1 knows one metric, CPU utilization; the others, their statuses, the conditions
//! and the behavior travel in annotations, in the shapes that Kubernetes gives them. Stored as v2.

use serde_json::{Map, Value, json};

use super::metric;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// From autoscaling/v1 to autoscaling/v2.
pub fn autoscaler_v1_to_v2(mut obj: Value) -> Value {
    let mut annotation = |name: &str| -> Option<Value> {
        let text = obj.pointer_mut("/metadata/annotations")?.as_object_mut()?.remove(name)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let others = annotation(METRICS).and_then(list).unwrap_or_default();
    let statuses = annotation(STATUSES).and_then(list);
    let conditions = annotation(CONDITIONS);
    let behavior = annotation(BEHAVIOR);

    let mut metrics: Vec<Value> = others.iter().map(metric::spec_to_v2).collect();
    if let Some(cpu) = take(&mut obj, "/spec", "targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": cpu});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !metrics.is_empty() {
        put(&mut obj, "spec", "metrics", Value::from(metrics));
    }
    if let Some(behavior) = behavior {
        put(&mut obj, "spec", "behavior", lower_keys(behavior));
    }
    let cpu = take(&mut obj, "/status", "currentCPUUtilizationPercentage").map(|cpu| {
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": cpu, "averageValue": "0"}}}])
    });
    let statuses = statuses.map(|all| all.iter().map(metric::status_to_v2).collect::<Value>()).or(cpu);
    // v2 always writes this list.
    put(&mut obj, "status", "currentMetrics", statuses.unwrap_or_default());
    if let Some(conditions) = conditions {
        put(&mut obj, "status", "conditions", conditions);
    }
    if obj.pointer("/status/currentReplicas") == Some(&json!(0)) {
        take(&mut obj, "/status", "currentReplicas");
    }
    finish(obj, "autoscaling/v2")
}

/// From autoscaling/v2 to autoscaling/v1.
pub fn autoscaler_v2_to_v1(mut obj: Value) -> Value {
    let metrics = take(&mut obj, "/spec", "metrics").and_then(list).unwrap_or_default();
    let statuses = take(&mut obj, "/status", "currentMetrics").and_then(list).unwrap_or_default();
    let conditions = take(&mut obj, "/status", "conditions").and_then(list).unwrap_or_default();
    let behavior = take(&mut obj, "/spec", "behavior");
    take(&mut obj, "/status", "currentMetrics");

    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics.into_iter().partition(is_cpu_utilization);
    if let Some(target) = cpu.first().and_then(|m| m.pointer("/resource/target/averageUtilization")) {
        put(&mut obj, "spec", "targetCPUUtilizationPercentage", target.clone());
    }
    let cpu_now = statuses.iter().find(|s| s.pointer("/resource/name") == Some(&json!("cpu")));
    if let Some(now) = cpu_now.and_then(|s| s.pointer("/resource/current/averageUtilization")) {
        put(&mut obj, "status", "currentCPUUtilizationPercentage", now.clone());
    }
    if !others.is_empty() {
        annotate(&mut obj, METRICS, metric::array(others.iter().map(metric::spec_to_v1)));
    }
    if !statuses.is_empty() {
        annotate(&mut obj, STATUSES, metric::array(statuses.iter().map(metric::status_to_v1)));
    }
    if !conditions.is_empty() {
        annotate(&mut obj, CONDITIONS, metric::array(conditions.iter().map(condition_text)));
    }
    if let Some(behavior) = behavior {
        annotate(&mut obj, BEHAVIOR, behavior_text(&behavior));
    }
    for name in ["currentReplicas", "desiredReplicas"] {
        if obj.pointer("/status").and_then(|s| s.get(name)).is_none() {
            put(&mut obj, "status", name, Value::from(0));
        }
    }
    finish(obj, "autoscaling/v1")
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric.get("type") == Some(&json!("Resource"))
        && metric.pointer("/resource/name") == Some(&json!("cpu"))
        && metric.pointer("/resource/target/averageUtilization").is_some()
}

fn finish(mut obj: Value, api_version: &str) -> Value {
    // An object of which only the round-trip annotations were left has none.
    if obj.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
        take(&mut obj, "/metadata", "annotations");
    }
    if let Some(object) = obj.as_object_mut() {
        object.insert("apiVersion".to_owned(), Value::from(api_version));
    }
    obj
}

fn condition_text(condition: &Value) -> String {
    let names = ["type", "status", "lastTransitionTime", "reason", "message"];
    metric::object(&names.map(|name| (name, condition.get(name).cloned())))
}

/// The behavior as Go prints the internal type, which has no JSON names.
fn behavior_text(behavior: &Value) -> String {
    let rules = |name: &str| behavior.get(name).map_or_else(|| "null".to_owned(), rules_text);
    format!("{{\"ScaleUp\":{},\"ScaleDown\":{}}}", rules("scaleUp"), rules("scaleDown"))
}

fn rules_text(rules: &Value) -> String {
    let at = |name: &str| rules.get(name).cloned().unwrap_or_default();
    let policies = rules.get("policies").and_then(Value::as_array).map(|policies| {
        metric::array(policies.iter().map(|p| {
            let at = |name: &str| p.get(name).cloned();
            metric::object(&[
                ("Type", at("type")),
                ("Value", at("value")),
                ("PeriodSeconds", at("periodSeconds")),
            ])
        }))
    });
    format!(
        "{{\"StabilizationWindowSeconds\":{},\"SelectPolicy\":{},\"Policies\":{},\"Tolerance\":{}}}",
        at("stabilizationWindowSeconds"),
        at("selectPolicy"),
        policies.unwrap_or_else(|| "null".to_owned()),
        at("tolerance"),
    )
}

/// Go's field names to JSON names, at any depth; nulls are left out.
fn lower_keys(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let given = object.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(given.map(|(k, v)| (first_lower(&k), lower_keys(v))).collect())
        }
        Value::Array(items) => items.into_iter().map(lower_keys).collect(),
        scalar => scalar,
    }
}

fn first_lower(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn take(obj: &mut Value, parent: &str, name: &str) -> Option<Value> {
    obj.pointer_mut(parent)?.as_object_mut()?.remove(name).filter(|v| !v.is_null())
}

fn put(obj: &mut Value, parent: &str, name: &str, value: Value) {
    let parent = obj.as_object_mut().map(|o| o.entry(parent).or_insert_with(|| json!({})));
    if let Some(parent) = parent.and_then(Value::as_object_mut) {
        parent.insert(name.to_owned(), value);
    }
}

fn annotate(obj: &mut Value, name: &str, text: String) {
    let metadata = obj.as_object_mut().map(|o| o.entry("metadata").or_insert_with(|| json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(name.to_owned(), Value::from(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(spec: Value, status: Value) -> Value {
        let mut all = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 5});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": all, "status": status})
    }

    fn cpu(percent: i64) -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    #[test]
    fn cpu_utilization_is_a_field_of_v1() {
        let two = v2(json!({"metrics": [cpu(60)]}), json!({"currentMetrics": null, "desiredReplicas": 0}));
        let one = autoscaler_v2_to_v1(two.clone());
        assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(one["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
        assert_eq!(one["metadata"], json!({"name": "h"}));
        assert_eq!(one["apiVersion"], "autoscaling/v1");
        assert_eq!(autoscaler_v1_to_v2(one), two);
    }

    #[test]
    fn the_behavior_travels_as_go_prints_it() {
        let behavior = json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
        });
        let two = v2(json!({"behavior": behavior}), json!({"currentMetrics": null, "desiredReplicas": 1}));
        let one = autoscaler_v2_to_v1(two.clone());
        let want = "{\"ScaleUp\":{\"StabilizationWindowSeconds\":0,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Pods\",\"Value\":4,\"PeriodSeconds\":15}],\"Tolerance\":null},\"ScaleDown\":{\"StabilizationWindowSeconds\":60,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null}}";
        assert_eq!(one["metadata"]["annotations"][BEHAVIOR], want);
        assert_eq!(autoscaler_v1_to_v2(one), two);
    }

    #[test]
    fn all_kinds_of_metrics_come_back() {
        let object = json!({"kind": "Service", "name": "s"});
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 5}}},
            {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "Object", "object": {"describedObject": object, "metric": {"name": "m"}, "target": {"type": "Value", "value": "3"}}},
            {"type": "Object", "object": {"describedObject": object, "metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "30"}}},
            cpu(80),
        ]);
        let statuses = json!([
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 41, "averageValue": "82m"}}},
            {"type": "Object", "object": {"describedObject": object, "metric": {"name": "m"}, "current": {"value": "3"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "current": {"value": "7", "averageValue": "2"}}},
        ]);
        let conditions =
            json!([{"type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let two = v2(
            json!({"metrics": metrics}),
            json!({"currentMetrics": statuses, "conditions": conditions, "currentReplicas": 2, "desiredReplicas": 3}),
        );
        let one = autoscaler_v2_to_v1(two.clone());
        assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 80);
        assert_eq!(one["status"]["currentCPUUtilizationPercentage"], 41);
        assert!(one["spec"].get("metrics").is_none() && one["status"].get("conditions").is_none());
        assert_eq!(autoscaler_v1_to_v2(one), two);
    }

    #[test]
    fn broken_annotations_are_dropped() {
        let mut one = autoscaler_v2_to_v1(v2(json!({}), json!({"desiredReplicas": 0})));
        one["metadata"]["annotations"] = json!({METRICS: "nonsense", "keep": "me"});
        let two = autoscaler_v1_to_v2(one);
        assert_eq!(two["metadata"]["annotations"], json!({"keep": "me"}));
        assert!(two["spec"].get("metrics").is_none());
    }
}
