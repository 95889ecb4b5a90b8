//! Events of both groups.

use serde_json::Value;

use super::cell::{name, number, or, present, text};
use super::time::age;

/// Where the two groups keep the same thing.
struct Names {
    object: &'static str,
    source: &'static str,
    first: &'static str,
    last: &'static str,
    count: &'static str,
    message: &'static str,
    controller: &'static str,
}

const CORE: Names = Names {
    object: "/involvedObject",
    source: "/source",
    first: "/firstTimestamp",
    last: "/lastTimestamp",
    count: "/count",
    message: "/message",
    controller: "/reportingComponent",
};
const EVENTS: Names = Names {
    object: "/regarding",
    source: "/deprecatedSource",
    first: "/deprecatedFirstTimestamp",
    last: "/deprecatedLastTimestamp",
    count: "/deprecatedCount",
    message: "/note",
    controller: "/reportingController",
};

/// core/v1
pub fn event(obj: &Value, now: i64) -> Vec<Value> {
    row(obj, now, &CORE)
}

/// events.k8s.io/v1
pub fn events_event(obj: &Value, now: i64) -> Vec<Value> {
    row(obj, now, &EVENTS)
}

fn row(obj: &Value, now: i64, names: &Names) -> Vec<Value> {
    let first = age(present(obj, names.first).or_else(|| present(obj, "/eventTime")), now);
    let series = present(obj, "/series");
    let (last, count) = match series {
        Some(series) => (age(series.get("lastObservedTime"), now), number(series, "/count")),
        None => {
            let last = present(obj, names.last).map_or_else(|| first.clone(), |last| age(Some(last), now));
            (last, number(obj, names.count).max(1))
        }
    };
    let object = obj.pointer(names.object).unwrap_or(&Value::Null);
    let kind = text(object, "/kind").to_lowercase();
    let target = match text(object, "/name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        Value::from(last),
        Value::from(text(obj, "/type")),
        Value::from(text(obj, "/reason")),
        Value::from(target),
        Value::from(text(object, "/fieldPath")),
        Value::from(source(obj, names)),
        Value::from(text(obj, names.message).trim()),
        Value::from(first),
        Value::from(count),
        name(obj),
    ]
}

fn source(obj: &Value, names: &Names) -> String {
    let source = obj.pointer(names.source).unwrap_or(&Value::Null);
    let component = or(text(source, "/component"), text(obj, names.controller));
    match or(text(source, "/host"), text(obj, "/reportingInstance")) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

    #[test]
    fn the_old_way() {
        let obj = json!({
            "metadata": {"name": "x.1"}, "type": "Normal", "reason": "Pulled", "message": " pulled\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2025-12-31T23:59:00Z", "lastTimestamp": "2025-12-31T23:59:50Z", "eventTime": null,
        });
        let want = json!([
            "10s",
            "Normal",
            "Pulled",
            "pod/p",
            "spec.containers{c}",
            "kubelet, n1",
            "pulled",
            "60s",
            3,
            "x.1"
        ]);
        assert_eq!(Value::from(event(&obj, NOW)), want);
    }

    #[test]
    fn a_singleton_and_a_series_of_the_new_way() {
        let mut obj = json!({
            "metadata": {"name": "x.1"}, "type": "Normal", "reason": "Binding", "note": "bound",
            "regarding": {"kind": "Pod", "name": "p"}, "deprecatedFirstTimestamp": null, "deprecatedSource": {},
            "reportingController": "scheduler", "eventTime": "2025-12-31T23:59:00.123456Z",
        });
        let cells = events_event(&obj, NOW);
        assert_eq!((&cells[0], &cells[7], &cells[8]), (&json!("60s"), &json!("60s"), &json!(1)));
        assert_eq!(cells[5], "scheduler");
        obj["series"] = json!({"count": 7, "lastObservedTime": "2025-12-31T23:59:59.000000Z"});
        let cells = events_event(&obj, NOW);
        assert_eq!((&cells[0], &cells[7], &cells[8]), (&json!("1s"), &json!("60s"), &json!(7)));
    }
}
