//! How an applied object merges into the live one.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::schema::{List, Struct};

use super::{Shape, is_blank, item_element, mismatched, shape};

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
    let mut taken: HashSet<&str> = HashSet::new();
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
