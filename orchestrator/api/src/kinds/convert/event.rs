//! events.k8s.io/v1 Event and core/v1 Event: the same object under other names. Stored as core/v1.

use serde_json::{Map, Value, json};

use super::rename;

/// Names in events.k8s.io and in core.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// From events.k8s.io/v1 to core/v1.
pub fn event_to_core(event: Value) -> Value {
    convert(event, "v1", |object| {
        for (ours, core) in NAMES {
            rename(object, ours, core);
        }
        for (name, zero) in [
            ("involvedObject", json!({})),
            ("source", json!({})),
            ("firstTimestamp", Value::Null),
            ("lastTimestamp", Value::Null),
            ("eventTime", Value::Null),
            ("reportingComponent", json!("")),
            ("reportingInstance", json!("")),
        ] {
            object.entry(name).or_insert(zero);
        }
    })
}

/// From core/v1 to events.k8s.io/v1.
pub fn event_from_core(event: Value) -> Value {
    convert(event, "events.k8s.io/v1", |object| {
        for (ours, core) in NAMES {
            rename(object, core, ours);
        }
        // Here these two are left out when empty.
        for name in ["reportingController", "reportingInstance"] {
            if object.get(name).and_then(Value::as_str) == Some("") {
                object.remove(name);
            }
        }
        object.entry("eventTime").or_insert(Value::Null);
    })
}

fn convert(mut event: Value, api_version: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> Value {
    if let Some(object) = event.as_object_mut() {
        edit(object);
        object.insert("apiVersion".to_owned(), Value::from(api_version));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_everything_both_ways() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e1"}, "count": 2, "eventTime": null,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": null, "involvedObject": {"kind": "Pod", "name": "p"},
            "message": "m", "reason": "R", "reportingComponent": "", "reportingInstance": "",
            "source": {"component": "t"}, "type": "Normal",
        });
        let events = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e1"}, "deprecatedCount": 2,
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": null,
            "deprecatedSource": {"component": "t"}, "eventTime": null, "note": "m", "reason": "R",
            "regarding": {"kind": "Pod", "name": "p"}, "type": "Normal",
        });
        assert_eq!(event_from_core(core.clone()), events);
        assert_eq!(event_to_core(events), core);
    }

    #[test]
    fn new_events_get_the_fields_that_core_always_has() {
        let event = json!({"reportingController": "c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z"});
        let core = event_to_core(event);
        assert_eq!(core["source"], json!({}));
        assert_eq!(core["firstTimestamp"], Value::Null);
        assert_eq!((&core["reportingComponent"], &core["reportingInstance"]), (&json!("c"), &json!("i")));
    }
}
