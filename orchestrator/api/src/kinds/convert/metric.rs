//! Metrics of autoscalers between autoscaling/v2 and the texts of autoscaling/v1's annotations.

use serde_json::{Value, json};

/// The type of a metric, the name of its source's field, and the source.
fn source(metric: &Value) -> (&str, &'static str, &Value) {
    let ty = metric.get("type").and_then(Value::as_str).unwrap_or_default();
    let field = match ty {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => "external",
    };
    (ty, field, metric.get(field).unwrap_or(&Value::Null))
}

pub(super) fn spec_to_v1(metric: &Value) -> String {
    let (ty, field, spec) = source(metric);
    let at = |pointer: &str| spec.pointer(pointer).cloned();
    let (value, average) = (at("/target/value"), at("/target/averageValue"));
    let inner = match field {
        "resource" | "containerResource" => object(&[
            ("name", at("/name")),
            ("targetAverageUtilization", at("/target/averageUtilization")),
            ("targetAverageValue", average),
            ("container", at("/container")),
        ]),
        "pods" => object(&[
            ("metricName", at("/metric/name")),
            ("targetAverageValue", average),
            ("selector", at("/metric/selector")),
        ]),
        "object" => object(&[
            ("target", at("/describedObject")),
            ("metricName", at("/metric/name")),
            ("targetValue", or_zero(value)),
            ("selector", at("/metric/selector")),
            ("averageValue", average),
        ]),
        _ => object(&[
            ("metricName", at("/metric/name")),
            ("metricSelector", at("/metric/selector")),
            ("targetValue", value),
            ("targetAverageValue", average),
        ]),
    };
    format!("{{\"type\":{},\"{field}\":{inner}}}", Value::from(ty))
}

pub(super) fn spec_to_v2(metric: &Value) -> Value {
    let (ty, field, spec) = source(metric);
    let at = |name: &str| spec.get(name).cloned();
    let named = |selector: &str| Some(fields([("name", at("metricName")), ("selector", at(selector))]));
    let inner = match field {
        "resource" | "containerResource" => {
            let target = target(None, at("targetAverageValue"), at("targetAverageUtilization"));
            fields([("name", at("name")), ("container", at("container")), ("target", Some(target))])
        }
        "pods" => fields([
            ("metric", named("selector")),
            ("target", Some(target(None, at("targetAverageValue"), None))),
        ]),
        "object" => fields([
            ("describedObject", at("target")),
            ("metric", named("selector")),
            ("target", Some(target(at("targetValue"), at("averageValue"), None))),
        ]),
        _ => fields([
            ("metric", named("metricSelector")),
            ("target", Some(target(at("targetValue"), at("targetAverageValue"), None))),
        ]),
    };
    fields([("type", Some(Value::from(ty))), (field, Some(inner))])
}

/// A v2 target; an average excludes the total, which v1 writes as 0 beside it.
fn target(value: Option<Value>, average: Option<Value>, utilization: Option<Value>) -> Value {
    if let Some(utilization) = utilization {
        json!({"type": "Utilization", "averageUtilization": utilization})
    } else if let Some(average) = average {
        json!({"type": "AverageValue", "averageValue": average})
    } else {
        fields([("type", Some(json!("Value"))), ("value", value)])
    }
}

pub(super) fn status_to_v1(status: &Value) -> String {
    let (ty, field, status) = source(status);
    let at = |pointer: &str| status.pointer(pointer).cloned();
    let (value, average) = (at("/current/value"), at("/current/averageValue"));
    let inner = match field {
        "resource" | "containerResource" => object(&[
            ("name", at("/name")),
            ("currentAverageUtilization", at("/current/averageUtilization")),
            ("currentAverageValue", or_zero(average)),
            ("container", at("/container")),
        ]),
        "pods" => object(&[
            ("metricName", at("/metric/name")),
            ("currentAverageValue", or_zero(average)),
            ("selector", at("/metric/selector")),
        ]),
        "object" => object(&[
            ("target", at("/describedObject")),
            ("metricName", at("/metric/name")),
            ("currentValue", or_zero(value)),
            ("selector", at("/metric/selector")),
            ("averageValue", average),
        ]),
        _ => object(&[
            ("metricName", at("/metric/name")),
            ("metricSelector", at("/metric/selector")),
            ("currentValue", or_zero(value)),
            ("currentAverageValue", average),
        ]),
    };
    format!("{{\"type\":{},\"{field}\":{inner}}}", Value::from(ty))
}

pub(super) fn status_to_v2(status: &Value) -> Value {
    let (ty, field, status) = source(status);
    let at = |name: &str| status.get(name).cloned();
    let named = |selector: &str| Some(fields([("name", at("metricName")), ("selector", at(selector))]));
    let inner = match field {
        "resource" | "containerResource" => {
            let current = fields([
                ("averageUtilization", at("currentAverageUtilization")),
                ("averageValue", at("currentAverageValue")),
            ]);
            fields([("name", at("name")), ("container", at("container")), ("current", Some(current))])
        }
        "pods" => {
            let current = fields([("averageValue", at("currentAverageValue"))]);
            fields([("metric", named("selector")), ("current", Some(current))])
        }
        "object" => {
            let current = fields([("value", at("currentValue")), ("averageValue", at("averageValue"))]);
            fields([
                ("describedObject", at("target")),
                ("metric", named("selector")),
                ("current", Some(current)),
            ])
        }
        _ => {
            let current =
                fields([("value", at("currentValue")), ("averageValue", at("currentAverageValue"))]);
            fields([("metric", named("metricSelector")), ("current", Some(current))])
        }
    };
    fields([("type", Some(Value::from(ty))), (field, Some(inner))])
}

/// v1 has plain quantities where v2 has pointers.
fn or_zero(quantity: Option<Value>) -> Option<Value> {
    Some(quantity.unwrap_or_else(|| json!("0")))
}

/// The given ones of some fields.
fn fields<const N: usize>(all: [(&str, Option<Value>); N]) -> Value {
    Value::Object(all.into_iter().filter_map(|(name, value)| value.map(|v| (name.to_owned(), v))).collect())
}

/// A JSON object whose fields stand in the given order, as Go writes structs.
pub(super) fn object(fields: &[(&str, Option<Value>)]) -> String {
    let given = fields.iter().filter_map(|(name, value)| value.as_ref().map(|v| format!("\"{name}\":{v}")));
    format!("{{{}}}", given.collect::<Vec<_>>().join(","))
}

pub(super) fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}
