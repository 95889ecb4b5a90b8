//! Strategic merge patch, `application/strategic-merge-patch+json`: a merge patch whose lists merge by the keys that the
//! schema names, with directives (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::schema::{Struct, Type};

use super::PatchError;
use super::text::go_value;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVES: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, PatchError>;

/// Applies a decoded patch to an object of the kind that `schema` describes.
pub fn apply(schema: &Struct, target: &Value, patch: &Value) -> Result<Value> {
    let target = target.as_object().cloned().unwrap_or_default();
    let patch = patch.as_object().cloned().unwrap_or_default();
    merge_map(Kind::Struct(schema), target, patch).map(Value::Object)
}

/// What is known of the object at hand.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Struct(&'a Struct),
    Values(&'a Type),
    Unknown,
}

impl<'a> Kind<'a> {
    fn of(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::Struct(s)) => Self::Struct(s),
            Some(Type::Map(m)) => Self::Values(&m.value),
            _ => Self::Unknown,
        }
    }

    fn member(self, name: &str) -> Result<Option<&'a Type>> {
        match self {
            Self::Struct(s) => s.field(name).map(|f| Some(&f.ty)).ok_or_else(|| {
                let kind = s.short_name();
                internal(format!("unable to find api field in struct {kind} for the json field {name:?}"))
            }),
            Self::Values(ty) => Ok(Some(ty)),
            Self::Unknown => Ok(None),
        }
    }

    /// The merge key of a list (empty for scalars) and the type of its items; `None` where the list is replaced whole.
    fn list(self, name: &str) -> Result<Option<(&'a str, &'a Type)>> {
        Ok(match self.member(name)? {
            Some(Type::List(l)) => l.patch_merge_key.as_deref().map(|key| (key, &l.item)),
            _ => None,
        })
    }
}

fn merge_map(kind: Kind<'_>, mut original: Object, mut patch: Object) -> Result<Object> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                patch.insert(DIRECTIVE.to_owned(), directive.clone());
                Err(bad_directive(&directive, patch))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(kind, &mut original, &mut patch)?;
    for (key, value) in patch {
        match key.starts_with(DELETE_FROM_PRIMITIVES) {
            true => delete_from_primitives(&mut original, &key, value)?,
            false => merge_member(kind, &mut original, key, value)?,
        }
    }
    Ok(original)
}

fn merge_member(kind: Kind<'_>, original: &mut Object, key: String, value: Value) -> Result<()> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let merged = match (original.remove(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            Value::Object(merge_map(Kind::of(kind.member(&key)?), old, new)?)
        }
        (Some(Value::Array(old)), Value::Array(new)) => match kind.list(&key)? {
            Some((merge_key, item)) => Value::Array(merge_list(merge_key, item, old, new)?),
            None => Value::Array(new),
        },
        (_, new) => fresh(new),
    };
    original.insert(key, merged);
    Ok(())
}

/// A value that has nothing to merge with: without its nulls and directives.
fn fresh(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(k, v)| !v.is_null() && !is_directive(k));
            Value::Object(kept.map(|(k, v)| (k, fresh(v))).collect())
        }
        Value::Array(items) => {
            let kept = items.into_iter().filter(|item| {
                let directive = item.get(DIRECTIVE).and_then(Value::as_str);
                // `$patch: replace` alone is a marker, not an item.
                let marker = directive == Some("replace") && item.as_object().is_some_and(|m| m.len() == 1);
                directive != Some("delete") && !marker
            });
            Value::Array(kept.map(fresh).collect())
        }
        scalar => scalar,
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE
        || key == RETAIN_KEYS
        || key.starts_with(SET_ELEMENT_ORDER)
        || key.starts_with(DELETE_FROM_PRIMITIVES)
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(list) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let invalid = || PatchError::BadRequest("invalid patch format of retainKeys".to_owned());
    let Value::Array(list) = list else { return Err(invalid()) };
    let listed = |key: &str| list.iter().any(|v| v.as_str() == Some(key));
    let sets = |(key, value): (&String, &Value)| !value.is_null() && !is_directive(key) && !listed(key);
    if patch.iter().any(sets) {
        return Err(invalid());
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

fn delete_from_primitives(original: &mut Object, key: &str, value: Value) -> Result<()> {
    let name = directive_field(key, DELETE_FROM_PRIMITIVES)
        .ok_or_else(|| PatchError::BadRequest("invalid patch format of primitive list".to_owned()))?;
    if let (Some(Value::Array(list)), Value::Array(gone)) = (original.get_mut(name), value) {
        let gone = places(&gone, "");
        list.retain(|v| !gone.contains_key(&v.to_string()));
    }
    Ok(())
}

fn directive_field<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

/// Merges the lists that come with an order, and takes them out of the patch.
fn ordered_lists(kind: Kind<'_>, original: &mut Object, patch: &mut Object) -> Result<()> {
    let directives: Vec<String> =
        patch.keys().filter(|k| k.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(wrong_type("[]interface {}", other.as_ref())),
        };
        let name = directive_field(&directive, SET_ELEMENT_ORDER).ok_or_else(|| {
            PatchError::BadRequest("invalid patch format of setElementOrder list".to_owned())
        })?;
        let old = list_member(original.get(name))?;
        let new = list_member(patch.get(name))?;
        let merging = kind.list(name)?;
        let key = merging.map_or("", |(key, _)| key);
        if let Some(new) = &new {
            check_order(new, &order, key)?;
        }
        let merged = match (old.clone(), new.clone()) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => match fresh(Value::Array(new)) {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            (Some(old), Some(new)) => match merging {
                Some((key, item)) => merge_list(key, item, old, new)?,
                None => new,
            },
        };
        let arranged = arrange(merged, &order, &old.unwrap_or_default(), key)?;
        original.insert(name.to_owned(), Value::Array(arranged));
        patch.remove(name);
    }
    Ok(())
}

fn list_member(value: Option<&Value>) -> Result<Option<Vec<Value>>> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        other => Err(wrong_type("[]interface {}", other)),
    }
}

/// The items that the patch sets must come in the order that it asks for.
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).peekable();
    for place in order {
        wanted.next_if(|item| same(item, place, key));
    }
    match wanted.peek() {
        None => Ok(()),
        Some(_) => Err(internal(format!(
            "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
            go_value(&Value::from(patch)),
            go_value(&Value::from(order))
        ))),
    }
}

fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

fn merge_list(key: &str, item: &Type, original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !of_maps(&original, &patch)? {
        let mut seen = HashSet::new();
        let both = original.iter().chain(&patch);
        let merged = both.filter(|v| seen.insert(identity(v, ""))).cloned().collect();
        return arrange(merged, &patch, &original, "");
    }
    if key.is_empty() {
        let kind = Kind::of(Some(item));
        let name = if let Kind::Struct(s) = kind { s.short_name() } else { "map" };
        return Err(internal(format!("cannot merge lists without merge key for {name}")));
    }
    let (original, patch) = special_items(key, original, patch)?;
    let mut merged = original.clone();
    let mut place = places(&original, key);
    for value in &patch {
        let id = identity(value, key).ok_or_else(|| no_merge_key(value, key))?;
        match (place.get(&id).and_then(|i| merged.get_mut(*i)), value) {
            (Some(there), Value::Object(new)) => {
                let old = there.as_object().cloned().unwrap_or_default();
                *there = Value::Object(merge_map(Kind::of(Some(item)), old, new.clone())?);
            }
            _ => {
                place.insert(id, merged.len());
                merged.push(fresh(value.clone()));
            }
        }
    }
    arrange(merged, &patch, &original, key)
}

/// What tells one item from another: its merge key, or itself where the list is of scalars.
fn identity(value: &Value, key: &str) -> Option<String> {
    if key.is_empty() { Some(value.to_string()) } else { value.get(key).map(Value::to_string) }
}

/// The first place of each item.
fn places(list: &[Value], key: &str) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        if let Some(id) = identity(value, key) {
            places.entry(id).or_insert(i);
        }
    }
    places
}

/// Carries out the items that are directives; what is left of both lists is to be merged.
fn special_items(key: &str, mut original: Vec<Value>, patch: Vec<Value>) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut plain, mut gone, mut replace) = (Vec::new(), HashSet::new(), false);
    for value in patch {
        match value.get(DIRECTIVE) {
            None => plain.push(value),
            Some(Value::String(d)) if d == "delete" => {
                gone.insert(identity(&value, key).ok_or_else(|| no_merge_key(&value, key))?);
            }
            Some(Value::String(d)) if d == "replace" => replace = true,
            Some(Value::String(d)) if d == "merge" => {
                return Err(internal("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(other) => return Err(bad_directive(other, value.as_object().cloned().unwrap_or_default())),
        }
    }
    original.retain(|there| !identity(there, key).is_some_and(|id| gone.contains(&id)));
    if replace { Ok((plain, Vec::new())) } else { Ok((original, plain)) }
}

/// Whether the items are maps; both lists must agree.
fn of_maps(original: &[Value], patch: &[Value]) -> Result<bool> {
    let rank = |v: &Value| match v {
        Value::Object(_) => 0,
        Value::Array(_) => 1,
        Value::String(_) => 2,
        Value::Bool(_) => 3,
        Value::Number(_) => 4,
        Value::Null => 5,
    };
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else { return Ok(false) };
    if first.is_array() {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    if all.any(|v| rank(v) != rank(first)) {
        let lists = Value::from(vec![Value::from(original), Value::from(patch)]);
        return Err(internal(format!("list element types are not identical: {}", go_value(&lists))));
    }
    Ok(first.is_object())
}

/// Puts the items of `order` in its order and the others in the order that they had on the server, each new item as
/// early as both orders allow.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: &str) -> Result<Vec<Value>> {
    let nameless = merged.iter().chain(order).find(|v| !key.is_empty() && v.get(key).is_none());
    if let Some(nameless) = nameless {
        return Err(no_merge_key(nameless, key));
    }
    let (ordered, before) = (places(order, key), places(server, key));
    let at =
        |places: &HashMap<String, usize>, v: &Value| identity(v, key).and_then(|id| places.get(&id).copied());
    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| at(&ordered, v).is_some());
    ours.sort_by_cached_key(|v| at(&ordered, v));
    theirs.sort_by_cached_key(|v| at(&before, v));
    let mut out = Vec::with_capacity(ours.len() + theirs.len());
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let theirs_first = match (theirs.peek(), ours.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(t), Some(o)) => matches!((at(&before, t), at(&before, o)), (Some(t), Some(o)) if t < o),
        };
        out.extend(if theirs_first { theirs.next() } else { ours.next() });
    }
}

fn internal(message: String) -> PatchError {
    PatchError::Internal(message)
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    internal(format!("map: {} does not contain declared merge key: {key}", go_value(item)))
}

fn bad_directive(directive: &Value, map: Object) -> PatchError {
    internal(format!("unknown patch type: {} in map: {}", go_value(directive), go_value(&Value::Object(map))))
}

fn wrong_type(wanted: &str, got: Option<&Value>) -> PatchError {
    let got = match got {
        None | Some(Value::Null) => "<nil>",
        Some(Value::Bool(_)) => "bool",
        Some(Value::Number(_)) => "float64",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "[]interface {}",
        Some(Value::Object(_)) => "map[string]interface {}",
    };
    internal(format!("expected a {wanted}, but received a {got}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::schema;

    fn deployment() -> Arc<Struct> {
        schema::of("apps", "v1", "Deployment").unwrap()
    }

    fn pod(spec: Value) -> Value {
        json!({"spec": {"template": {"spec": spec}}})
    }

    fn patched(old: Value, patch: Value) -> Value {
        apply(&deployment(), &pod(old), &pod(patch)).unwrap()["spec"]["template"]["spec"].take()
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let two = json!({"containers": [{"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}]});
        let cases = [
            (
                json!({"containers": [{"name": "c", "image": "2"}]}),
                json!({"containers": [{"name": "c", "image": "2", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}]}),
            ),
            (
                json!({"containers": [{"name": "c", "env": [{"name": "B"}, {"name": "A", "value": null}]}]}),
                json!({"containers": [{"name": "c", "image": "1", "env": [{"name": "B"}, {"name": "A"}]}, {"name": "d"}]}),
            ),
            (
                json!({"containers": [{"name": "new", "$patch": "delete"}, {"name": "c", "$patch": "delete"}]}),
                json!({"containers": [{"name": "d"}]}),
            ),
            (
                json!({"containers": [{"$patch": "replace"}, {"name": "x"}]}),
                json!({"containers": [{"name": "x"}]}),
            ),
            (
                json!({"containers": [{"name": "x", "args": ["a"], "tty": null}]}),
                json!({"containers": [{"name": "x", "args": ["a"]},
                    {"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}]}),
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}]}),
                json!({"containers": [{"name": "d"}, {"name": "c", "image": "1", "env": [{"name": "A", "value": "1"}]}]}),
            ),
            (
                json!({"containers": [{"name": "c", "$patch": "replace", "image": "9"}, {"name": "d"}]}),
                json!({"containers": [{"name": "d"}]}),
            ),
        ];
        for (patch, want) in cases {
            assert_eq!(patched(two.clone(), patch.clone()), want, "{patch}");
        }
    }

    #[test]
    fn maps_scalars_and_replaced_lists() {
        let old = json!({"nodeSelector": {"a": "1", "b": "2"}, "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}]});
        assert_eq!(
            patched(old.clone(), json!({"nodeSelector": {"a": null, "c": "3"}}))["nodeSelector"],
            json!({"b": "2", "c": "3"})
        );
        assert_eq!(
            patched(old.clone(), json!({"nodeSelector": {"$patch": "replace", "z": "1"}}))["nodeSelector"],
            json!({"z": "1"})
        );
        assert_eq!(
            patched(old.clone(), json!({"nodeSelector": {"$patch": "delete"}}))["nodeSelector"],
            json!({})
        );
        assert_eq!(
            patched(old.clone(), json!({"tolerations": [{"key": "x"}]}))["tolerations"],
            json!([{"key": "x"}])
        );
        let retained = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]});
        assert_eq!(
            patched(old.clone(), retained)["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/"}}])
        );
        let meta = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        let got = apply(&deployment(), &meta, &patch).unwrap();
        assert_eq!(got, json!({"metadata": {"finalizers": ["c", "b"]}}));
        let patch =
            json!({"metadata": {"$setElementOrder/finalizers": ["b", "c", "a"], "finalizers": ["c"]}});
        let got = apply(&deployment(), &meta, &patch).unwrap();
        assert_eq!(got, json!({"metadata": {"finalizers": ["b", "c", "a"]}}));
    }

    #[test]
    fn broken_patches() {
        let old = json!({"containers": [{"name": "c", "image": "1"}], "volumes": [{"name": "v"}]});
        let cases = [
            (
                json!({"containers": [{"image": "no-name"}]}),
                "map: map[image:no-name] does not contain declared merge key: name",
            ),
            (
                json!({"containers": [{"name": "c", "$patch": "x"}]}),
                "unknown patch type: x in map: map[$patch:x name:c]",
            ),
            (json!({"$patch": "merge"}), "unknown patch type: merge in map: map[$patch:merge]"),
            (
                json!({"containers": [{"name": "c", "$patch": "merge"}]}),
                "merging lists cannot yet be specified in the patch",
            ),
            (
                json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}),
                "invalid patch format of retainKeys",
            ),
            (json!({"$setElementOrder/volumes": 3}), "expected a []interface {}, but received a float64"),
            (json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list"),
            (json!({"$deleteFromPrimitiveList": []}), "invalid patch format of primitive list"),
            (
                json!({"containers": ["c"]}),
                "list element types are not identical: [[map[image:1 name:c]] [c]]",
            ),
            (
                json!({"$setElementOrder/containers": [{"name": "x"}], "containers": [{"name": "c"}]}),
                "The order in patch list:\n[map[name:c]]\n doesn't match $setElementOrder list:\n[map[name:x]]\n",
            ),
        ];
        for (patch, want) in cases {
            let error = apply(&deployment(), &pod(old.clone()), &pod(patch.clone())).unwrap_err();
            assert_eq!(error.to_string(), want, "{patch}");
        }
    }
}
