//! Whether an applied object fits its schema, worded as structured-merge-diff does.

use std::collections::HashSet;

use serde_json::Value;

use crate::patch::fields::shown_element;
use crate::patch::go_value;
use crate::schema::{List, ListMerge, Struct, Type};

use super::item_element;

/// What does not fit, as structured-merge-diff words it; empty where all is well.
pub(crate) fn problems(root: &Struct, obj: &Value) -> Option<String> {
    let mut found = Vec::new();
    check_members(root, obj, "", &mut found);
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check(ty: &Type, value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut say = |text: String| found.push(if path.is_empty() { text } else { format!("{path}: {text}") });
    let scalar = value.is_string() || value.is_number() || value.is_boolean();
    match ty {
        Type::Struct(s) => check_members(s, value, path, found),
        Type::Map(m) => match value {
            Value::Object(map) => {
                for (name, v) in map {
                    check(&m.value, v, &format!("{path}.{name}"), found);
                }
            }
            _ => say(format!("expected map, got &{{{}}}", go_value(value))),
        },
        Type::List(l) => match value {
            Value::Array(items) => check_items(l, items, path, found),
            _ => say(format!("expected list, got &{{{}}}", go_value(value))),
        },
        Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => {
            say(format!("expected numeric (int or float), got {}", go_type(value)));
        }
        Type::String | Type::Bytes if !value.is_string() => {
            say(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
        }
        Type::Bool if !value.is_boolean() => say(format!("expected boolean, got &{{{}}}", go_value(value))),
        Type::Time | Type::MicroTime | Type::Duration | Type::Quantity | Type::IntOrString if !scalar => {
            say(format!("expected any scalar, got &{{{}}}", go_value(value)));
        }
        _ => {}
    }
}

fn check_members(s: &Struct, value: &Value, path: &str, found: &mut Vec<String>) {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return,
        _ => return found.push(format!("{path}: expected map, got &{{{}}}", go_value(value))),
    };
    for (name, v) in map {
        let Some(field) = s.field(name) else {
            // Kubernetes looks no further in this struct.
            return found.push(format!("{path}.{name}: field not declared in schema"));
        };
        check(&field.ty, v, &format!("{path}.{name}"), found);
    }
}

fn check_items(list: &List, items: &[Value], path: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let shown = if list.merge == ListMerge::Atomic {
            format!("[{i}]")
        } else {
            let key = match item_element(list, item) {
                Ok(key) => key,
                Err(why) => return found.push(format!("{path}: element {i}: {why}")),
            };
            let shown = shown_element(&key);
            if !seen.insert(key) {
                found.push(format!("{path}: duplicate entries for key {shown}"));
            }
            shown
        };
        check(&list.item, item, &format!("{path}{shown}"), found);
    }
}

/// Go's `%T` of a decoded JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%#v` of a decoded JSON value.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", parts.join(", "))
        }
        Value::Null => "interface {}(nil)".to_owned(),
        scalar => scalar.to_string(),
    }
}
