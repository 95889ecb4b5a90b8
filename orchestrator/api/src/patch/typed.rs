//! Objects read by their schema: which fields they have, how two of them differ, and how one merges into another.
//! The structural half of server-side apply; knows nothing of managers.
//!
//! Lists and maps are taken apart only as far as the schema says: an atomic list, map or struct is one field, and so
//! is everything of unknown shape.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::schema::{self, List, ListMerge, Struct, Type};

use super::fields::{Set, field_element};

/// How a value is to be walked.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    Leaf,
    Struct(&'a Struct),
    Map(&'a Type),
    List(&'a List),
}

pub(crate) fn shape(ty: &Type) -> Shape<'_> {
    match ty {
        Type::Struct(s) if !s.atomic => Shape::Struct(s),
        Type::Map(m) if !m.atomic => Shape::Map(&m.value),
        Type::List(l) if l.merge != ListMerge::Atomic => Shape::List(l),
        _ => Shape::Leaf,
    }
}

impl<'a> Shape<'a> {
    /// The shape of a member, and whether the schema names it (rather than its being a map's key).
    fn member(self, name: &str) -> (Shape<'a>, bool) {
        match self {
            Shape::Struct(s) => s.field(name).map_or((Shape::Leaf, false), |f| (shape(&f.ty), true)),
            Shape::Map(value) => (shape(value), false),
            Shape::Leaf | Shape::List(_) => (Shape::Leaf, false),
        }
    }
}

/// The element by which an item of an associative list is known; the error says why it has none.
pub(crate) fn item_element(list: &List, item: &Value) -> Result<String, String> {
    match &list.merge {
        ListMerge::Map(keys) => keyed_element(list, keys, item),
        _ => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => Ok(format!("v:{scalar}")),
        },
    }
}

fn keyed_element(list: &List, keys: &[String], item: &Value) -> Result<String, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut names: Vec<&str> = keys.iter().map(String::as_str).collect();
    names.sort_unstable();
    let mut out = String::from("k:{");
    for (i, name) in names.into_iter().enumerate() {
        let value = map.get(name).or_else(|| key_default(list, name)).ok_or_else(|| {
            format!("associative list with keys has an element that omits key field {name:?} (and doesn't have default value)")
        })?;
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(name);
        out.push_str("\":");
        out.push_str(&value.to_string());
    }
    out.push('}');
    Ok(out)
}

fn key_default<'a>(list: &'a List, name: &str) -> Option<&'a Value> {
    let Type::Struct(s) = &list.item else { return None };
    s.field(name).and_then(|f| f.default.as_ref())
}

fn is_blank(v: Option<&Value>) -> bool {
    match v {
        Some(Value::Object(m)) => m.is_empty(),
        Some(Value::Array(a)) => a.is_empty(),
        _ => true,
    }
}

/// The managers' own record is never anybody's field.
fn untracked(shape: Shape<'_>, name: &str) -> bool {
    name == "managedFields" && matches!(shape, Shape::Struct(s) if s.name.ends_with(".ObjectMeta"))
}

// ---- which fields an object has ----

/// The fields that an object sets, as an applier owns them.
pub(crate) fn field_set(root: &Struct, obj: &Value) -> Set {
    below(Shape::Struct(root), obj)
}

fn below(shape: Shape<'_>, value: &Value) -> Set {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => members(shape, map),
        (Shape::List(list), Value::Array(items)) => list_items(list, items),
        _ => Set::default(),
    }
}

fn members(parent: Shape<'_>, map: &Map<String, Value>) -> Set {
    let mut set = Set::default();
    for (name, value) in map {
        let (kind, named) = parent.member(name);
        let leaf = matches!(kind, Shape::Leaf) || mismatched(kind, value);
        let empty = value.is_null() || matches!(value, Value::Object(m) if m.is_empty());
        let children = if leaf { Set::default() } else { below(kind, value) };
        set.push(field_element(name), leaf || empty || !named, children);
    }
    set
}

fn list_items(list: &List, items: &[Value]) -> Set {
    let mut keyed: Vec<(String, &Value)> =
        items.iter().filter_map(|item| item_element(list, item).ok().map(|key| (key, item))).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut set = Set::default();
    let mut rest = keyed.into_iter().peekable();
    while let Some((key, item)) = rest.next() {
        let mut repeated = false;
        while rest.next_if(|(k, _)| *k == key).is_some() {
            repeated = true;
        }
        let children = if repeated { Set::default() } else { below(shape(&list.item), item) };
        set.push(key, true, children);
    }
    set
}

/// A value that has not the shape its schema says counts as one field.
fn mismatched(shape: Shape<'_>, value: &Value) -> bool {
    match shape {
        Shape::Leaf => false,
        Shape::Struct(_) | Shape::Map(_) => !matches!(value, Value::Object(_) | Value::Null),
        Shape::List(_) => !matches!(value, Value::Array(_) | Value::Null),
    }
}

/// Every inner node that is a named field becomes a member too.
pub(crate) fn with_named_fields(root: &Struct, set: &Set) -> Set {
    set.with_inner(Shape::Struct(root), &|at, key| match (at, key.split_at_checked(2)) {
        (Shape::Struct(_) | Shape::Map(_), Some(("f:", name))) => {
            let (below, named) = at.member(name);
            (named, below)
        }
        (Shape::List(list), Some(("k:", _))) => (false, shape(&list.item)),
        _ => (false, Shape::Leaf),
    })
}

// ---- how two objects differ ----

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

impl Comparison {
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    pub(crate) fn exclude(&mut self, fields: &Set) {
        if !fields.is_empty() {
            self.added.subtract_recursively(fields);
            self.modified.subtract_recursively(fields);
            self.removed.subtract_recursively(fields);
        }
    }
}

/// What became of one path: at most one of the three is set for the path itself.
#[derive(Default)]
struct Change {
    added: bool,
    modified: bool,
    removed: bool,
    below: Comparison,
}

pub(crate) fn compare(root: &Struct, old: &Value, new: &Value) -> Comparison {
    change(Shape::Struct(root), Some(old), Some(new)).below
}

fn change(kind: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Change {
    let whole = match kind {
        Shape::Leaf => true,
        _ => {
            is_blank(old) && is_blank(new)
                || old.is_some_and(|v| mismatched(kind, v))
                || new.is_some_and(|v| mismatched(kind, v))
        }
    };
    let mut change = Change { added: old.is_none(), removed: new.is_none(), ..Change::default() };
    if whole {
        change.modified = old.is_some() && new.is_some() && old != new;
        return change;
    }
    match kind {
        Shape::List(list) => compare_items(list, old, new, &mut change.below),
        _ => compare_members(kind, old, new, &mut change.below),
    }
    change
}

fn compare_members(kind: Shape<'_>, old: Option<&Value>, new: Option<&Value>, out: &mut Comparison) {
    let none = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&none);
    let new = new.and_then(Value::as_object).unwrap_or(&none);
    for (name, value) in new {
        if !untracked(kind, name) {
            let (member, _) = kind.member(name);
            record(out, || field_element(name), change(member, old.get(name), Some(value)));
        }
    }
    for (name, value) in old {
        if !new.contains_key(name) && !untracked(kind, name) {
            let (member, _) = kind.member(name);
            record(out, || field_element(name), change(member, Some(value), None));
        }
    }
}

fn record(out: &mut Comparison, key: impl Fn() -> String, change: Change) {
    let Change { added, modified, removed, below } = change;
    if added || !below.added.is_empty() {
        out.added.push(key(), added, below.added);
    }
    if modified || !below.modified.is_empty() {
        out.modified.push(key(), modified, below.modified);
    }
    if removed || !below.removed.is_empty() {
        out.removed.push(key(), removed, below.removed);
    }
}

fn compare_items(list: &List, old: Option<&Value>, new: Option<&Value>, out: &mut Comparison) {
    if old.is_some() && old == new {
        return;
    }
    let (old, new) = (grouped(list, old), grouped(list, new));
    let kind = shape(&list.item);
    let (mut left, mut right) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some((l, _)), Some((r, _))) => l.min(r).clone(),
            (Some((l, _)), None) => l.clone(),
            (None, Some((r, _))) => r.clone(),
        };
        let before = left.next_if(|(k, _)| *k == next).map(|(_, v)| v).unwrap_or_default();
        let after = right.next_if(|(k, _)| *k == next).map(|(_, v)| v).unwrap_or_default();
        match (before.as_slice(), after.as_slice()) {
            // Items that share a key are one field together.
            ([_, _, ..], [_, _, ..]) if before != after => out.modified.push(next, true, Set::default()),
            ([_, _, ..], [_, _, ..]) => {}
            ([_, _, ..], after) => {
                if let Some(item) = after.first() {
                    record(out, || next.clone(), change(kind, None, Some(item)));
                }
                out.removed.push(next, true, Set::default());
            }
            (before, [_, _, ..]) => {
                if let Some(item) = before.first() {
                    record(out, || next.clone(), change(kind, Some(item), None));
                }
                out.added.push(next, true, Set::default());
            }
            (before, after) => {
                let change = change(kind, before.first().copied(), after.first().copied());
                record(out, || next.clone(), change);
            }
        }
    }
}

/// Items by key, sorted by it. What has no key cannot be tracked and is left out.
fn grouped<'a>(list: &List, value: Option<&'a Value>) -> Vec<(String, Vec<&'a Value>)> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut keyed: Vec<(String, Vec<&Value>)> =
        items.iter().filter_map(|item| item_element(list, item).ok().map(|key| (key, vec![item]))).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.dedup_by(|b, a| {
        let same = a.0 == b.0;
        if same {
            a.1.append(&mut b.1);
        }
        same
    });
    keyed
}

// ---- how one merges into another ----

/// `over` merged into `base`: what `over` sets wins, and shared list items keep the order of `over`.
pub(crate) fn merge(root: &Struct, base: &Value, over: &Value) -> Value {
    merged(Shape::Struct(root), Some(base), Some(over)).unwrap_or_else(|| Value::Object(Map::new()))
}

fn merged(kind: Shape<'_>, base: Option<&Value>, over: Option<&Value>) -> Option<Value> {
    let whole = match kind {
        Shape::Leaf => true,
        _ => {
            is_blank(base) && is_blank(over)
                || over.is_some_and(|v| mismatched(kind, v))
                || base.is_some_and(|v| mismatched(kind, v))
        }
    };
    if whole {
        return over.or(base).cloned();
    }
    match kind {
        Shape::List(list) => merged_items(list, base, over),
        _ => merged_members(kind, base, over),
    }
}

fn merged_members(kind: Shape<'_>, base: Option<&Value>, over: Option<&Value>) -> Option<Value> {
    let none = Map::new();
    let base = base.and_then(Value::as_object).unwrap_or(&none);
    let over = over.and_then(Value::as_object).unwrap_or(&none);
    let mut out = Map::new();
    for (name, value) in base {
        let (member, _) = kind.member(name);
        if let Some(v) = merged(member, Some(value), over.get(name)) {
            out.insert(name.clone(), v);
        }
    }
    for (name, value) in over.iter().filter(|(name, _)| !base.contains_key(*name)) {
        let (member, _) = kind.member(name);
        if let Some(v) = merged(member, None, Some(value)) {
            out.insert(name.clone(), v);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn keyed_items<'a>(list: &List, value: Option<&'a Value>) -> Vec<(String, &'a Value)> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item_element(list, item).ok().map(|key| (key, item))).collect()
}

/// Base items keep their places; shared ones come in the order of `over`, new ones where `over` has them.
fn merged_items(list: &List, base: Option<&Value>, over: Option<&Value>) -> Option<Value> {
    let (base, over) = (keyed_items(list, base), keyed_items(list, over));
    let in_over: HashMap<&str, &Value> = over.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let mut in_base: HashMap<&str, Option<&Value>> = HashMap::new();
    for (key, item) in &base {
        // Items that share a key are not merged with the applied one.
        in_base.entry(key).and_modify(|v| *v = None).or_insert(Some(item));
    }
    let mut shared = over.iter().map(|(k, _)| k.as_str()).filter(|k| in_base.contains_key(k)).peekable();
    let kind = shape(&list.item);
    let mut taken: std::collections::HashSet<&str> = std::collections::HashSet::new();
    let mut out = Vec::with_capacity(base.len().max(over.len()));
    let (mut l, mut r) = (0, 0);
    while l < base.len() || r < over.len() {
        if let (Some((key, _)), Some((wanted, item))) = (base.get(l), over.get(r)) {
            if key == wanted {
                taken.insert(key);
                out.extend(merged(kind, in_base.get(key.as_str()).copied().flatten(), Some(item)));
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            let later = shared.peek().is_some_and(|s| s != key);
            if in_over.contains_key(key.as_str()) && later {
                l += 1;
                continue;
            }
        }
        if let Some((key, item)) = base.get(l) {
            if !in_over.contains_key(key.as_str()) {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            if taken.contains(key.as_str()) {
                l += 1;
            }
        }
        if let Some((key, item)) = over.get(r) {
            taken.insert(key);
            out.extend(merged(kind, in_base.get(key.as_str()).copied().flatten(), Some(item)));
            r += 1;
            shared.next_if(|s| s == key);
        } else if l < base.len()
            && base
                .get(l)
                .is_some_and(|(k, _)| in_over.contains_key(k.as_str()) && !taken.contains(k.as_str()))
        {
            // Unreachable by construction: every applied item was taken above.
            l += 1;
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

// ---- taking fields out ----

/// The object without the members of `set`. What loses all its members becomes `null`, not absent.
pub(crate) fn without(root: &Struct, obj: &Value, set: &Set) -> Value {
    removed(Shape::Struct(root), obj, set)
}

fn removed(kind: Shape<'_>, value: &Value, set: &Set) -> Value {
    match (kind, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) if !map.is_empty() => {
            let mut out = Map::new();
            for (name, v) in map {
                let key = field_element(name);
                if set.has(&key) {
                    continue;
                }
                let (member, _) = kind.member(name);
                let v = set.under(&key).map_or_else(|| v.clone(), |below| removed(member, v, below));
                out.insert(name.clone(), v);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Shape::List(list), Value::Array(items)) if !items.is_empty() => {
            let mut out = Vec::new();
            for item in items {
                let Ok(key) = item_element(list, item) else {
                    out.push(item.clone());
                    continue;
                };
                if set.has(&key) {
                    continue;
                }
                let below = set.under(&key);
                out.push(below.map_or_else(|| item.clone(), |below| removed(shape(&list.item), item, below)));
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => value.clone(),
    }
}

/// Drops the nulls that [`without`] leaves in structs; decoding would drop them too.
pub(crate) fn drop_nulls(root: &Struct, obj: &mut Value) {
    drop_nulls_in(Shape::Struct(root), obj);
}

fn drop_nulls_in(kind: Shape<'_>, value: &mut Value) {
    match (kind, value) {
        (Shape::Struct(_), Value::Object(map)) => {
            map.retain(|_, v| !v.is_null());
            for (name, v) in map {
                drop_nulls_in(kind.member(name).0, v);
            }
        }
        (Shape::Map(_), Value::Object(map)) => {
            for (name, v) in map {
                drop_nulls_in(kind.member(name).0, v);
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for item in items {
                drop_nulls_in(shape(&list.item), item);
            }
        }
        _ => {}
    }
}

// ---- does an applied object fit its schema ----

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
            _ => say(format!("expected map, got &{{{}}}", super::go_value(value))),
        },
        Type::List(l) => match value {
            Value::Array(items) => check_items(l, items, path, found),
            _ => say(format!("expected list, got &{{{}}}", super::go_value(value))),
        },
        Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => {
            say(format!("expected numeric (int or float), got {}", go_type(value)));
        }
        Type::String | Type::Bytes if !value.is_string() => {
            say(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
        }
        Type::Bool if !value.is_boolean() => {
            say(format!("expected boolean, got &{{{}}}", super::go_value(value)))
        }
        Type::Time | Type::MicroTime | Type::Duration | Type::Quantity | Type::IntOrString if !scalar => {
            say(format!("expected any scalar, got &{{{}}}", super::go_value(value)));
        }
        _ => {}
    }
}

fn check_members(s: &Struct, value: &Value, path: &str, found: &mut Vec<String>) {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return,
        _ => return found.push(format!("{path}: expected map, got &{{{}}}", super::go_value(value))),
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
    let mut seen = std::collections::HashSet::new();
    for (i, item) in items.iter().enumerate() {
        let shown = if list.merge == ListMerge::Atomic {
            format!("[{i}]")
        } else {
            let key = match item_element(list, item) {
                Ok(key) => key,
                Err(why) => return found.push(format!("{path}: element {i}: {why}")),
            };
            let shown = super::fields::shown_element(&key);
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

/// The zero object that a create is compared with.
pub(crate) fn zero(root: &schema::Struct) -> Value {
    root.zero()
}
