//! What the API does with an events.k8s.io Event: the strict form of core's Event, whose objects it shares.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::kinds::{Strategy, convert};
use crate::printers;
use crate::rules::checks::{Errors, immutable};
use crate::rules::value::{at, child, get, has, int, same, text};
use crate::rules::{event, meta, names};

pub static STRATEGY: EventsEventStrategy = EventsEventStrategy;

/// What an update leaves as it was, by its names in the core form.
const FIXED: [(&str, &str); 14] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
    ("reason", "reason"),
];

pub struct EventsEventStrategy;

impl Strategy for EventsEventStrategy {
    fn default(&self, obj: &mut Value) {
        child(obj, "deprecatedSource");
        child(obj, "regarding");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let core = convert::event_to_core(obj.clone());
        let mut errs = event::legacy(&core);
        series(&mut errs, &core);
        if !has(&core, "eventTime") {
            errs.push(FieldError::required("eventTime", ""));
        }
        let kind = text(&core, "type");
        if !matches!(kind, "Normal" | "Warning") {
            errs.push(FieldError::invalid("type", &json!(""), &format!("has invalid value: {kind}")));
        }
        let source = at(&core, "source");
        let old = [
            ("firstTimestamp", has(&core, "firstTimestamp")),
            ("lastTimestamp", has(&core, "lastTimestamp")),
            ("count", int(&core, "count") != 0),
            ("source", ["component", "host"].iter().any(|k| !text(source, k).is_empty())),
        ];
        for (key, _) in old.iter().filter(|(_, set)| *set) {
            errs.push(FieldError::invalid(key, &json!(""), "needs to be unset"));
        }
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let [now, before] = [new, old].map(|o| convert::event_to_core(o.clone()));
        let mut errs = event::legacy(&now);
        errs.extend(meta::validate_update(at(new, "metadata"), at(old, "metadata")));
        if !same(&now, &before, "series") {
            series(&mut errs, &now);
        }
        for (key, shown) in FIXED {
            immutable(&mut errs, get(&now, key), get(&before, key), shown);
        }
        errs
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    /// Works on the served form and on the stored one, so that a cache of stored objects needs no conversion.
    fn selectable(&self, obj: &Value, field: &str) -> String {
        let value = match field.split_once('.') {
            Some(("regarding", key)) => {
                let object = get(obj, "regarding").unwrap_or_else(|| at(obj, "involvedObject"));
                text(object, key)
            }
            _ if field == "reportingController" && !has(obj, field) => text(obj, "reportingComponent"),
            _ => text(obj, field),
        };
        value.to_owned()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::events_event(obj, now)
    }

    fn to_stored(&self, obj: Value) -> Value {
        convert::event_to_core(obj)
    }

    fn from_stored(&self, obj: Value) -> Value {
        convert::event_from_core(obj)
    }
}

fn series(errs: &mut Errors, core: &Value) {
    let Some(series) = get(core, "series") else { return };
    if int(series, "count") < 2 {
        errs.push(FieldError::invalid("series.count", &json!(""), "should be at least 2"));
    }
    if !has(series, "lastObservedTime") {
        errs.push(FieldError::required("series.lastObservedTime", ""));
    }
}
