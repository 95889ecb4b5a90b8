//! Objects read by their schema: which fields they have, how two of them differ, and how one merges into another.
//! The structural half of server-side apply; knows nothing of managers.
//!
//! Lists and maps are taken apart only as far as the schema says: an atomic list, map or struct is one field, and so
//! is everything of unknown shape.

mod check;
mod compare;
mod merge;
mod remove;

pub(crate) use check::problems;
pub(crate) use compare::{Comparison, compare};
pub(crate) use merge::merge;
pub(crate) use remove::{drop_nulls, without};

use serde_json::{Map, Value};

use crate::schema::{List, ListMerge, Struct, Type};

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
