//! Sets of fields as `metav1.FieldsV1` writes them: which fields of an object one manager owns.
//!
//! A path element is kept as its wire text (`f:data`, `k:{"name":"c"}`, `v:"x"`, `i:0`), so that encoding and decoding
//! are a walk and set operations compare text. Owns the set algebra; knows no schema and no object.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A FieldsV1 that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("{0} is not a map of fields")]
    NotAMap(Value),
    #[error("{0:?} is not a path element")]
    BadElement(String),
}

/// A set of field paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Sorted by key; never a node that is neither a member nor has children.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    key: Box<str>,
    member: bool,
    children: Set,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of member paths.
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|n| usize::from(n.member) + n.children.len()).sum()
    }

    pub fn from_fields_v1(fields: &Value) -> Result<Self, FieldsError> {
        let Value::Object(map) = fields else { return Err(FieldsError::NotAMap(fields.clone())) };
        let mut set = Self { nodes: Vec::with_capacity(map.len()) };
        for (key, value) in map {
            if key == "." {
                continue;
            }
            let key = canonical_element(key)?;
            let children = Self::from_fields_v1(value)?;
            let member = children.is_empty() || value.get(".").is_some();
            set.push(key, member, children);
        }
        Ok(set)
    }

    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.to_map(false))
    }

    fn to_map(&self, member: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if member && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for node in &self.nodes {
            map.insert(node.key.to_string(), Value::Object(node.children.to_map(node.member)));
        }
        map
    }

    /// A set of one path of field names.
    pub fn of_fields(path: &[&str]) -> Self {
        let mut set = Self::default();
        for (depth, name) in path.iter().rev().enumerate() {
            let mut parent = Self::default();
            parent.push(field_element(name), depth == 0, set);
            set = parent;
        }
        set
    }

    /// Adds a node, or what it has more than the one there is.
    pub(crate) fn push(&mut self, key: impl Into<Box<str>>, member: bool, children: Self) {
        if !member && children.is_empty() {
            return;
        }
        let node = Node { key: key.into(), member, children };
        match self.nodes.last() {
            None => self.nodes.push(node),
            Some(last) if last.key < node.key => self.nodes.push(node),
            _ => match self.position(&node.key) {
                Ok(i) => {
                    if let Some(there) = self.nodes.get_mut(i) {
                        there.member |= node.member;
                        there.children.extend(node.children);
                    }
                }
                Err(i) => self.nodes.insert(i, node),
            },
        }
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| (*n.key).cmp(key))
    }

    fn node(&self, key: &str) -> Option<&Node> {
        self.position(key).ok().and_then(|i| self.nodes.get(i))
    }

    /// Whether the element itself is a member.
    pub fn has(&self, key: &str) -> bool {
        self.node(key).is_some_and(|n| n.member)
    }

    /// What lies below an element.
    pub fn under(&self, key: &str) -> Option<&Self> {
        self.node(key).map(|n| &n.children).filter(|c| !c.is_empty())
    }

    /// Whether the path of elements is a member.
    pub fn has_path(&self, path: &[&str]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.node(first).is_some_and(|n| n.children.has_path(rest)),
        }
    }

    /// Takes in another set.
    pub fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        if other.is_empty() {
            return;
        }
        let mut merged = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let mut left = std::mem::take(&mut self.nodes).into_iter().peekable();
        let mut right = other.nodes.into_iter().peekable();
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(l), Some(r)) => l.key.cmp(&r.key),
            };
            match order {
                Ordering::Less => merged.extend(left.next()),
                Ordering::Greater => merged.extend(right.next()),
                Ordering::Equal => {
                    if let (Some(mut l), Some(r)) = (left.next(), right.next()) {
                        l.member |= r.member;
                        l.children.extend(r.children);
                        merged.push(l);
                    }
                }
            }
        }
        self.nodes = merged;
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.extend(other.clone());
        set
    }

    /// Members of both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut set = Self::default();
        for node in &self.nodes {
            if let Some(there) = other.node(&node.key) {
                let children = node.children.intersection(&there.children);
                set.push(node.key.clone(), node.member && there.member, children);
            }
        }
        set
    }

    /// Takes out the members of another set. Paths below such a member stay.
    pub fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            if let Some(there) = other.node(&node.key) {
                node.member &= !there.member;
                node.children.subtract(&there.children);
            }
            node.member || !node.children.is_empty()
        });
    }

    pub fn difference(&self, other: &Self) -> Self {
        let mut set = self.clone();
        set.subtract(other);
        set
    }

    /// Takes out the members of another set with all that lies below them.
    pub fn subtract_recursively(&mut self, other: &Self) {
        self.nodes.retain_mut(|node| match other.node(&node.key) {
            Some(there) if there.member => false,
            Some(there) => {
                node.children.subtract_recursively(&there.children);
                node.member || !node.children.is_empty()
            }
            None => true,
        });
    }

    /// Only the paths that lie below none of the others.
    pub fn leaves(&self) -> Self {
        let mut set = Self::default();
        for node in &self.nodes {
            let children = node.children.leaves();
            set.push(node.key.clone(), node.member && node.children.is_empty(), children);
        }
        set
    }

    /// Makes members of all inner nodes that `named` says are named fields; it gets the element and what it returned
    /// for the parent, and returns what to pass down.
    pub(crate) fn with_inner<T: Copy>(&self, at: T, named: &impl Fn(T, &str) -> (bool, T)) -> Self {
        let nodes = self.nodes.iter().map(|node| {
            let (is_named, below) = named(at, &node.key);
            let member = node.member || is_named && !node.children.is_empty();
            Node { key: node.key.clone(), member, children: node.children.with_inner(below, named) }
        });
        Self { nodes: nodes.collect() }
    }

    /// All member paths as Kubernetes prints them (`.spec.containers[name="c"].image`): the members of a level before
    /// what lies below it.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect_paths("", &mut out);
        out
    }

    fn collect_paths(&self, prefix: &str, out: &mut Vec<String>) {
        for node in self.nodes.iter().filter(|n| n.member) {
            out.push(format!("{prefix}{}", shown_element(&node.key)));
        }
        for node in self.nodes.iter().filter(|n| !n.children.is_empty()) {
            node.children.collect_paths(&format!("{prefix}{}", shown_element(&node.key)), out);
        }
    }
}

/// The element of a named field or map key.
pub(crate) fn field_element(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 2);
    key.push_str("f:");
    key.push_str(name);
    key
}

/// How an element looks in a path.
pub(crate) fn shown_element(key: &str) -> String {
    match key.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("i:", index)) => format!("[{index}]"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", json)) => {
            let map: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
            let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", parts.join(","))
        }
        _ => key.to_owned(),
    }
}

/// Checks an element and gives the JSON in it one spelling.
fn canonical_element(key: &str) -> Result<String, FieldsError> {
    let bad = || FieldsError::BadElement(key.to_owned());
    match key.split_at_checked(2) {
        Some(("f:", _)) => Ok(key.to_owned()),
        Some(("i:", index)) if index.parse::<i64>().is_ok() => Ok(key.to_owned()),
        Some(("v:", json)) => {
            let value: Value = serde_json::from_str(json).map_err(|_| bad())?;
            Ok(format!("v:{value}"))
        }
        Some(("k:", json)) => {
            let map: std::collections::BTreeMap<String, Value> =
                serde_json::from_str(json).map_err(|_| bad())?;
            serde_json::to_string(&map).map(|s| format!("k:{s}")).map_err(|_| bad())
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(v: Value) -> Set {
        Set::from_fields_v1(&v).unwrap()
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}}));
        let b = set(json!({"f:a": {"f:y": {}, "f:z": {}}, "f:c": {}}));
        assert_eq!(a.len(), 4);
        assert_eq!(
            a.union(&b).to_fields_v1(),
            json!({"f:a": {".": {}, "f:x": {}, "f:y": {}, "f:z": {}}, "f:b": {}, "f:c": {}})
        );
        assert_eq!(a.intersection(&b).to_fields_v1(), json!({"f:a": {"f:y": {}}}));
        assert_eq!(a.difference(&b).to_fields_v1(), json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}}));
        let parent = set(json!({"f:a": {}}));
        assert_eq!(a.difference(&parent).to_fields_v1(), json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}));
        let mut rest = a.clone();
        rest.subtract_recursively(&parent);
        assert_eq!(rest.to_fields_v1(), json!({"f:b": {}}));
        assert_eq!(a.leaves().to_fields_v1(), json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}));
        assert!(a.has_path(&["f:a", "f:x"]) && a.has("f:a") && !b.has("f:a") && !a.has_path(&["f:a", "f:z"]));
        assert_eq!(
            Set::of_fields(&["metadata", "labels"]).to_fields_v1(),
            json!({"f:metadata": {"f:labels": {}}})
        );
    }

    #[test]
    fn paths_as_printed() {
        let s = set(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}, "f:z": {"i:3": {}}}),
        );
        let want = [
            ".metadata.finalizers[=\"x\"]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
            ".z[3]",
        ];
        assert_eq!(s.paths(), want);
    }

    #[test]
    fn spellings_of_keys() {
        let s = set(json!({"f:p": {"k:{ \"b\": \"x\", \"a\": 1 }": {}}}));
        assert_eq!(s.to_fields_v1(), json!({"f:p": {"k:{\"a\":1,\"b\":\"x\"}": {}}}));
        for bad in [
            json!([]),
            json!({"x": {}}),
            json!({"k:[": {}}),
            json!({"i:a": {}}),
            json!({"f:a": 1}),
            json!({"é": {}}),
        ] {
            assert!(Set::from_fields_v1(&bad).is_err(), "{bad}");
        }
    }

    fn any_fields() -> impl Strategy<Value = Value> {
        let element = "(f:[a-d])|(v:[0-3])|(i:[0-2])|(k:\\{\"n\":[0-2]\\})";
        let leaf = Just(json!({}));
        leaf.prop_recursive(4, 24, 4, move |inner| {
            (any::<bool>(), prop::collection::btree_map(element, inner, 0..4)).prop_map(|(member, map)| {
                let mut map: Map<String, Value> = map.into_iter().collect();
                if member && !map.is_empty() {
                    map.insert(".".to_owned(), json!({}));
                }
                Value::Object(map)
            })
        })
        .prop_map(|mut v| {
            v.as_object_mut().unwrap().remove(".");
            v
        })
    }

    proptest! {
        #[test]
        fn encoding_round_trips(v in any_fields()) {
            prop_assert_eq!(set(v.clone()).to_fields_v1(), v);
        }

        #[test]
        fn union_and_difference(a in any_fields(), b in any_fields()) {
            let (a, b) = (set(a), set(b));
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.union(&b).len() + a.intersection(&b).len(), a.len() + b.len());
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&a).is_empty());
        }
    }
}
