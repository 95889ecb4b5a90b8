//! How two objects differ: which fields were added, modified and removed.

use serde_json::{Map, Value};

use crate::patch::fields::{Set, field_element};
use crate::schema::{List, Struct};

use super::{Shape, is_blank, item_element, mismatched, shape};

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

/// The managers' own record is never anybody's field.
fn untracked(shape: Shape<'_>, name: &str) -> bool {
    name == "managedFields" && matches!(shape, Shape::Struct(s) if s.name.ends_with(".ObjectMeta"))
}
