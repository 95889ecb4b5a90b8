//! Small readers of JSON objects that the printers share.

use serde_json::{Map, Value};

use super::time;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";
pub(super) const UNSET: &str = "<unset>";

/// A text at a JSON pointer; empty where there is none.
pub(super) fn text<'a>(obj: &'a Value, pointer: &str) -> &'a str {
    obj.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number at a JSON pointer; 0 where there is none.
pub(super) fn number(obj: &Value, pointer: &str) -> i64 {
    obj.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn flag(obj: &Value, pointer: &str) -> bool {
    obj.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of a list at a JSON pointer.
pub(super) fn list<'a>(obj: &'a Value, pointer: &str) -> &'a [Value] {
    obj.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn map<'a>(obj: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    obj.pointer(pointer).and_then(Value::as_object)
}

/// Something that is there and not null.
pub(super) fn present<'a>(obj: &'a Value, pointer: &str) -> Option<&'a Value> {
    obj.pointer(pointer).filter(|v| !v.is_null())
}

pub(super) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

pub(super) fn name(obj: &Value) -> Value {
    Value::from(text(obj, "/metadata/name"))
}

pub(super) fn created(obj: &Value, now: i64) -> Value {
    Value::from(time::age(obj.pointer("/metadata/creationTimestamp"), now))
}

pub(super) fn deleted(obj: &Value) -> bool {
    present(obj, "/metadata/deletionTimestamp").is_some()
}

/// The names and the images of the containers of a pod template.
pub(super) fn containers(obj: &Value, pointer: &str) -> [Value; 2] {
    let column = |field: &str| {
        let cells: Vec<&str> = list(obj, pointer).iter().map(|c| text(c, field)).collect();
        Value::from(cells.join(","))
    };
    [column("/name"), column("/image")]
}

/// `k=v,k=v` in order of the keys.
pub(super) fn labels(obj: &Value, pointer: &str) -> String {
    let pairs: Vec<String> = map(obj, pointer).map(pairs).unwrap_or_default();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

fn pairs(map: &Map<String, Value>) -> Vec<String> {
    let mut pairs: Vec<String> =
        map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs
}

/// A `metav1.LabelSelector` as its text; `<none>` where it selects everything.
pub(super) fn selector(obj: &Value, pointer: &str) -> String {
    let Some(selector) = obj.pointer(pointer) else { return NONE.to_owned() };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in map(selector, "/matchLabels").into_iter().flatten() {
        parts.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let mut values: Vec<&str> = list(requirement, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<invalid>".to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    if parts.is_empty() {
        return NONE.to_owned();
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// At most `max` items, and how many more there are.
pub(super) fn shortened(items: &[String], max: usize, separator: &str) -> String {
    match items.get(..max) {
        Some(head) if items.len() > max => {
            format!("{} + {} more...", head.join(separator), items.len() - max)
        }
        _ => items.join(separator),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors() {
        for (selector_value, want) in [
            (json!({}), "<none>"),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                json!({"matchLabels": {"b": "2"}, "matchExpressions": [
                    {"key": "c", "operator": "In", "values": ["y", "x"]},
                    {"key": "a", "operator": "DoesNotExist"},
                    {"key": "d", "operator": "Exists"},
                    {"key": "e", "operator": "NotIn", "values": ["z"]},
                ]}),
                "!a,b=2,c in (x,y),d,e notin (z)",
            ),
            (json!({"matchExpressions": [{"key": "c", "operator": "Near"}]}), "<invalid>"),
        ] {
            assert_eq!(selector(&json!({"s": selector_value}), "/s"), want);
        }
        assert_eq!(selector(&json!({}), "/s"), "<none>");
    }

    #[test]
    fn long_lists_are_shortened() {
        let items: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(shortened(&items, 3, ","), "a,b,c + 1 more...");
        assert_eq!(shortened(&items, 4, ","), "a,b,c,d");
        assert_eq!(shortened(&[], 3, ","), "");
    }
}
