//! Reading and writing fields of decoded objects. An absent field, `null` and the zero value of a type are one and the
//! same here, as they are in Go.

use serde_json::{Map, Value, json};

/// The field's text; empty if absent.
pub(super) fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The field's whole number; 0 if absent.
pub(super) fn int(v: &Value, key: &str) -> i64 {
    opt_int(v, key).unwrap_or_default()
}

pub(super) fn opt_int(v: &Value, key: &str) -> Option<i64> {
    v.get(key).and_then(Value::as_i64)
}

pub(super) fn flag(v: &Value, key: &str) -> bool {
    opt_flag(v, key).unwrap_or_default()
}

pub(super) fn opt_flag(v: &Value, key: &str) -> Option<bool> {
    v.get(key).and_then(Value::as_bool)
}

/// The field's items; none if absent.
pub(super) fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The field's texts, in order.
pub(super) fn texts<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    list(v, key).iter().map(|i| i.as_str().unwrap_or_default())
}

/// The field's entries, by key; none if absent.
pub(super) fn entries<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    v.get(key).and_then(Value::as_object).into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

/// The field if it is there and not `null`.
pub(super) fn get<'a>(v: &'a Value, key: &str) -> Option<&'a Value> {
    v.get(key).filter(|f| !f.is_null())
}

/// The field, or `null`: for structs that Go always has.
pub(super) fn at<'a>(v: &'a Value, key: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    v.get(key).unwrap_or(&NULL)
}

pub(super) fn has(v: &Value, key: &str) -> bool {
    get(v, key).is_some()
}

/// Whether two fields are equal, absent and empty being the same.
pub(super) fn same(a: &Value, b: &Value, key: &str) -> bool {
    equal(get(a, key), get(b, key))
}

pub(super) fn equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b,
        (None, None) => true,
        (Some(v), None) | (None, Some(v)) => is_empty(v),
    }
}

fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// The object, made one first if it is none.
pub(super) fn object(v: &mut Value) -> &mut Map<String, Value> {
    if !v.is_object() {
        *v = json!({});
    }
    match v {
        Value::Object(o) => o,
        _ => unreachable!("made an object above"),
    }
}

/// The field as an object, made if absent.
pub(super) fn child<'a>(v: &'a mut Value, key: &str) -> &'a mut Value {
    let field = object(v).entry(key).or_insert_with(|| json!({}));
    if field.is_null() {
        *field = json!({});
    }
    field
}

pub(super) fn list_mut<'a>(v: &'a mut Value, key: &str) -> &'a mut [Value] {
    v.get_mut(key).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The field as an object, if it is there.
pub(super) fn existing<'a>(v: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    v.get_mut(key).filter(|f| f.is_object())
}

pub(super) fn set(v: &mut Value, key: &str, value: impl Into<Value>) {
    object(v).insert(key.to_owned(), value.into());
}

pub(super) fn remove(v: &mut Value, key: &str) {
    if let Some(o) = v.as_object_mut() {
        o.remove(key);
    }
}

/// Sets a pointer field that is absent.
pub(super) fn fill(v: &mut Value, key: &str, value: impl Into<Value>) {
    if !has(v, key) {
        set(v, key, value);
    }
}

/// Sets a text that is absent or empty.
pub(super) fn fill_text(v: &mut Value, key: &str, value: &str) {
    if text(v, key).is_empty() {
        set(v, key, value);
    }
}

/// Sets a plain number that is absent or 0.
pub(super) fn fill_int(v: &mut Value, key: &str, value: i64) {
    if int(v, key) == 0 {
        set(v, key, value);
    }
}

/// Takes the field over from `from`, its absence too.
pub(super) fn copy(to: &mut Value, from: &Value, key: &str) {
    match get(from, key) {
        Some(value) => set(to, key, value.clone()),
        None => remove(to, key),
    }
}
