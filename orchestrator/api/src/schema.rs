//! The structure of every type: what decoding, field validation, strategic merge, server-side apply and the
//! OpenAPI documents all read. Built once, on first use, and shared.

use std::sync::Arc;

/// A type that a field can have.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// base64 in JSON
    Bytes,
    /// `metav1.Time`, whole seconds
    Time,
    /// `metav1.MicroTime`
    MicroTime,
    /// `metav1.Duration`, as Go prints it
    Duration,
    Quantity,
    IntOrString,
    /// Anything goes: `RawExtension`, `FieldsV1`, preserved unknown fields.
    Any,
    Struct(Arc<Struct>),
    List(Box<List>),
    Map(Box<Map>),
}

#[derive(Clone, Debug)]
pub struct List {
    pub item: Type,
    pub merge: ListMerge,
    /// Strategic merge: the key by which items merge; `None` replaces the whole list. For a list of scalars with
    /// strategy `merge`, `Some("")`.
    pub patch_merge_key: Option<String>,
    /// Strategic merge strategy `retainKeys` beside `merge`.
    pub retain_keys: bool,
}

/// How server-side apply merges a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListMerge {
    Atomic,
    Set,
    /// Items are identified by these fields.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Map {
    pub value: Type,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
}

/// An object type with named fields.
#[derive(Debug)]
pub struct Struct {
    /// As in Kubernetes' OpenAPI: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    pub description: String,
    pub fields: Vec<Field>,
    /// The whole struct is one unit to server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub description: String,
    pub ty: Type,
    pub required: bool,
    /// Strategic merge `retainKeys` on a struct (e.g. a Deployment's strategy).
    pub retain_keys: bool,
    /// The Go field is a plain value with `omitempty`: its zero value is dropped when decoded.
    pub omit_zero: bool,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The Go type's name in error messages, e.g. `v1.PodSpec`.
    pub fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let kind = parts.next().unwrap_or_default();
        let version = parts.next().unwrap_or_default();
        format!("{version}.{kind}")
    }
}
