//! Taking fields out of an object.

use serde_json::{Map, Value};

use crate::patch::fields::{Set, field_element};
use crate::schema::Struct;

use super::{Shape, item_element, shape};

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
