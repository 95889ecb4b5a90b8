//! The schemas of both dialects, written from the crate's own types.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::kinds::{GroupVersion, Snapshot, Subresource};
use crate::schema::{self, Field, List, ListMerge, Struct, Type};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

impl Dialect {
    /// A reference to a named schema.
    pub(super) fn reference(self, name: &str) -> Value {
        let at = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{at}{name}")})
    }
}

/// Collects the schemas that a document refers to.
pub(super) struct Definitions {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
    /// What the extension `x-kubernetes-group-version-kind` of a schema says.
    kinds: BTreeMap<String, Vec<Value>>,
}

impl Definitions {
    pub(super) fn new(snapshot: &Snapshot, dialect: Dialect) -> Self {
        let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for kind in snapshot.kinds() {
            kinds.entry(kind.schema.name.clone()).or_default().push(gvk(kind.group, kind.version, kind.kind));
        }
        for (group, version, kind) in [
            ("autoscaling", "v1", "Scale"),
            ("policy", "v1", "Eviction"),
            ("meta.k8s.io", "v1", "DeleteOptions"),
            ("meta.k8s.io", "v1", "Status"),
        ] {
            if let Some(found) = schema::of(group, version, kind) {
                // The options and the answer are core's by name.
                let group = if group == "meta.k8s.io" { "" } else { group };
                kinds.entry(found.name.clone()).or_insert_with(|| vec![gvk(group, version, kind)]);
            }
        }
        Self { dialect, done: BTreeMap::new(), kinds }
    }

    /// Adds what the paths of a group version refer to.
    pub(super) fn add(&mut self, gv: &GroupVersion) {
        for kind in &gv.kinds {
            self.structure(&kind.schema);
            self.list_of(&kind.schema, gvk(kind.group, kind.version, &format!("{}List", kind.kind)));
            for subresource in kind.subresources {
                if let Some(body) = body_of(*subresource) {
                    self.structure(&body);
                }
            }
        }
        for kind in ["DeleteOptions", "Status"] {
            if let Some(found) = schema::of("meta.k8s.io", "v1", kind) {
                self.structure(&found);
            }
        }
        self.done.entry(format!("{META}.Patch")).or_insert_with(|| {
            json!({"description": "Patch is the body of a PATCH request, in the form that its media type says.", "type": "object"})
        });
    }

    pub(super) fn done(self) -> BTreeMap<String, Value> {
        self.done
    }

    fn structure(&mut self, s: &Arc<Struct>) {
        if self.done.contains_key(&s.name) {
            return;
        }
        // In place before the fields are looked at, so that a type may hold itself.
        self.done.insert(s.name.clone(), Value::Null);
        let mut value = Map::new();
        describe(&mut value, &s.description);
        put(&mut value, "type", "object");
        let properties: Map<String, Value> =
            s.fields.iter().map(|f| (f.name.clone(), self.property(f))).collect();
        if !properties.is_empty() {
            value.insert("properties".to_owned(), Value::Object(properties));
        }
        // Objects may leave their own metadata out.
        let required: Vec<&str> =
            s.fields.iter().filter(|f| f.required && f.name != "metadata").map(|f| f.name.as_str()).collect();
        if !required.is_empty() {
            put(&mut value, "required", required);
        }
        if let Some(kinds) = self.kinds.get(&s.name) {
            put(&mut value, "x-kubernetes-group-version-kind", kinds.clone());
        }
        if schema::definition(&s.name).is_some_and(|d| d.atomic) {
            put(&mut value, "x-kubernetes-map-type", "atomic");
        }
        self.done.insert(s.name.clone(), Value::Object(value));
    }

    fn property(&mut self, field: &Field) -> Value {
        let Value::Object(mut value) = self.ty(&field.ty) else { return Value::Null };
        if self.dialect == Dialect::V3
            && let Some(reference) = value.remove("$ref")
        {
            // In OpenAPI 3.0 nothing may stand beside a reference.
            put(&mut value, "allOf", json!([{"$ref": reference}]));
            if field.always && matches!(field.ty, Type::Struct(_)) && !field.null_zero {
                put(&mut value, "default", json!({}));
            }
        }
        describe(&mut value, &field.description);
        if let Some(default) = &field.default {
            put(&mut value, "default", default.clone());
        }
        if field.retain_keys {
            put(&mut value, "x-kubernetes-patch-strategy", "retainKeys");
        }
        if let Type::Struct(s) = &field.ty
            && !s.atomic
            && schema::definition(&s.name).is_some_and(|d| d.atomic)
        {
            put(&mut value, "x-kubernetes-map-type", "granular");
        }
        Value::Object(value)
    }

    fn ty(&mut self, ty: &Type) -> Value {
        match ty {
            Type::String | Type::Duration => json!({"type": "string"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Any => json!({"type": "object"}),
            Type::Time => {
                self.named(&format!("{META}.Time"), &json!({"type": "string", "format": "date-time"}))
            }
            Type::MicroTime => {
                self.named(&format!("{META}.MicroTime"), &json!({"type": "string", "format": "date-time"}))
            }
            Type::Quantity => {
                let schema = match self.dialect {
                    Dialect::V2 => json!({"type": "string"}),
                    Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
                };
                self.named(QUANTITY, &schema)
            }
            Type::IntOrString => {
                let schema = match self.dialect {
                    Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
                    Dialect::V3 => {
                        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
                    }
                };
                self.named(INT_OR_STRING, &schema)
            }
            Type::Struct(s) => {
                self.structure(s);
                self.dialect.reference(&s.name)
            }
            Type::List(list) => self.list(list),
            Type::Map(map) => {
                let mut value = json!({"type": "object", "additionalProperties": self.item(&map.value)});
                if let (true, Some(object)) = (map.atomic, value.as_object_mut()) {
                    put(object, "x-kubernetes-map-type", "atomic");
                }
                value
            }
        }
    }

    fn list(&mut self, list: &List) -> Value {
        let mut value = Map::new();
        put(&mut value, "type", "array");
        put(&mut value, "items", self.item(&list.item));
        let ty = match &list.merge {
            ListMerge::Atomic => "atomic",
            ListMerge::Set => "set",
            ListMerge::Map(keys) => {
                put(&mut value, "x-kubernetes-list-map-keys", keys.clone());
                "map"
            }
        };
        put(&mut value, "x-kubernetes-list-type", ty);
        if let Some(key) = &list.patch_merge_key {
            put(
                &mut value,
                "x-kubernetes-patch-strategy",
                if list.retain_keys { "merge,retainKeys" } else { "merge" },
            );
            if !key.is_empty() {
                put(&mut value, "x-kubernetes-patch-merge-key", key.as_str());
            }
        }
        Value::Object(value)
    }

    /// An item of a list or a value of a map.
    fn item(&mut self, ty: &Type) -> Value {
        let mut value = self.ty(ty);
        if let (Dialect::V3, Type::Struct(_), Some(object)) = (self.dialect, ty, value.as_object_mut())
            && let Some(reference) = object.remove("$ref")
        {
            put(object, "allOf", json!([{"$ref": reference}]));
            put(object, "default", json!({}));
        }
        value
    }

    fn named(&mut self, name: &str, schema: &Value) -> Value {
        self.done.entry(name.to_owned()).or_insert_with(|| schema.clone());
        self.dialect.reference(name)
    }

    /// The schema of a kind's list.
    fn list_of(&mut self, item: &Arc<Struct>, gvk: Value) {
        let name = format!("{}List", item.name);
        if self.done.contains_key(&name) {
            return;
        }
        let items = self.item(&Type::Struct(item.clone()));
        let metadata = schema::definition(&format!("{META}.ListMeta")).map(|meta| {
            self.structure(&meta);
            self.dialect.reference(&meta.name)
        });
        let value = json!({
            "description": format!("{}List is a list of {} objects.", item.short_name(), item.short_name()),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": "The group and version of this object's schema."},
                "kind": {"type": "string", "description": "The kind of this object."},
                "items": {"type": "array", "items": items, "description": "The objects."},
                "metadata": metadata,
            },
            "x-kubernetes-group-version-kind": [gvk],
        });
        self.done.insert(name, value);
    }
}

/// The type of a subresource's body, where it is another than its parent's.
pub(super) fn body_of(subresource: Subresource) -> Option<Arc<Struct>> {
    match subresource {
        Subresource::Scale => schema::of("autoscaling", "v1", "Scale"),
        Subresource::Other("binding") => schema::of("", "v1", "Binding"),
        Subresource::Other("eviction") => schema::of("policy", "v1", "Eviction"),
        Subresource::Status | Subresource::Other(_) => None,
    }
}

pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn put(object: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    object.insert(name.to_owned(), value.into());
}

fn describe(object: &mut Map<String, Value>, description: &str) {
    if !description.is_empty() {
        put(object, "description", description);
    }
}
