//! Turns the JSON schemas of the typed crates into [`Struct`]s, with the facts of the tables added.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map as Json, Value};

use super::facts::{Facts, GoField, Merge, short_name};
use super::{Field, List, ListMerge, Map, Schemas, Struct, Type, roots};

pub(super) fn schemas() -> Schemas {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let found: Vec<_> = roots::all().into_iter().map(|(gvk, schema)| (gvk, schema(&mut generator))).collect();
    let mut builder = Builder::new(generator);
    let roots = found.into_iter().filter_map(|(gvk, schema)| match builder.ty(schema.as_value()) {
        Type::Struct(s) => Some((gvk, s)),
        _ => None,
    });
    let roots = roots.collect();
    Schemas { roots, definitions: builder.done }
}

struct Builder {
    facts: Facts,
    definitions: Json<String, Value>,
    done: BTreeMap<String, Arc<Struct>>,
    /// Definitions under construction: a type that contains itself ends in [`Type::Any`] where it recurs.
    open: Vec<String>,
}

impl Builder {
    fn new(mut generator: SchemaGenerator) -> Self {
        let definitions = generator.take_definitions(true);
        Self { facts: Facts::load(), definitions, done: BTreeMap::new(), open: Vec::new() }
    }

    fn ty(&mut self, schema: &Value) -> Type {
        if let Some(name) = reference(schema) {
            return self.named(name);
        }
        // schemars writes an `Option<Struct>` as `anyOf: [Struct, null]`.
        if let Some(first) = schema.get("anyOf").and_then(Value::as_array).and_then(|any| any.first()) {
            return self.ty(first);
        }
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        match (json_type(schema), format) {
            ("string", "byte") => Type::Bytes,
            ("string", "date-time") => Type::Time,
            ("string", "duration") => Type::Duration,
            ("string", _) => Type::String,
            ("boolean", _) => Type::Bool,
            ("integer", "int64" | "uint64" | "uint32") => Type::Int64,
            ("integer", _) => Type::Int32,
            ("number", _) => Type::Double,
            ("array", _) => self.list(schema),
            ("object", _) => match schema.get("additionalProperties") {
                Some(value) if value.is_object() => {
                    Type::Map(Box::new(Map { value: self.ty(value), atomic: false }))
                }
                _ => Type::Any,
            },
            _ => Type::Any,
        }
    }

    fn list(&mut self, schema: &Value) -> Type {
        let item = schema.get("items").map_or(Type::Any, |items| self.ty(items));
        Type::List(Box::new(List {
            item,
            merge: ListMerge::Atomic,
            patch_merge_key: None,
            retain_keys: false,
        }))
    }

    fn named(&mut self, name: &str) -> Type {
        match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => return Type::Quantity,
            "IntOrString" => return Type::IntOrString,
            "Time" => return Type::Time,
            "MicroTime" => return Type::MicroTime,
            "RawExtension" | "FieldsV1" => return Type::Any,
            _ => {}
        }
        if let Some(done) = self.done.get(name) {
            return Type::Struct(done.clone());
        }
        let Some(schema) = self.definitions.get(name).cloned() else { return Type::Any };
        if schema.get("properties").is_none() && json_type(&schema) != "object" {
            return self.ty(&schema);
        }
        if self.open.iter().any(|open| open == name) {
            return Type::Any;
        }
        self.open.push(name.to_owned());
        let built = Arc::new(self.structure(name, &schema));
        self.open.pop();
        self.done.insert(name.to_owned(), built.clone());
        Type::Struct(built)
    }

    fn structure(&mut self, name: &str, schema: &Value) -> Struct {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut fields = Vec::new();
        for (field, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            fields.push(self.field(name, field, property, required.contains(&field.as_str())));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let atomic = self.facts.merge(short_name(name), "(self)").shape == "atomic map";
        Struct { name: name.to_owned(), description: description(schema), fields, atomic }
    }

    fn field(&mut self, definition: &str, name: &str, schema: &Value, required: bool) -> Field {
        let short = short_name(definition);
        let merge = self.facts.merge(short, name);
        let ty = merged(self.ty(schema), merge);
        let go = self.facts.go_field(short, name);
        let pointer_type = matches!(
            ty,
            Type::Struct(_) | Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString | Type::Any
        );
        // Every kind's own type metadata and object metadata: the server fills in the one and owns the other.
        let type_meta = matches!(name, "apiVersion" | "kind") && !required;
        Field {
            name: name.to_owned(),
            description: description(schema),
            required,
            retain_keys: merge.strategy == "retainKeys",
            omit_zero: type_meta || (!required && !pointer_type && go.is_none()),
            always: required && go != Some(GoField::Pointer)
                || matches!(go, Some(GoField::Value | GoField::Null)),
            null_zero: go == Some(GoField::Null),
            default: self.facts.default(short, name),
            go_type: self.facts.go_type(short, name),
            ty,
        }
    }
}

/// The type with the merge facts of its field.
fn merged(ty: Type, merge: Merge) -> Type {
    let mut ty = ty;
    match &mut ty {
        Type::List(list) => {
            list.merge = match merge.shape {
                "set list" => ListMerge::Set,
                "map list" => ListMerge::Map(merge.keys.split(',').map(str::to_owned).collect()),
                _ => ListMerge::Atomic,
            };
            let mut strategies = merge.strategy.split(',');
            if strategies.clone().any(|s| s == "merge") {
                list.patch_merge_key = Some(merge.patch_key.to_owned());
            }
            list.retain_keys = strategies.any(|s| s == "retainKeys");
        }
        Type::Map(map) => map.atomic = merge.shape == "atomic map",
        Type::Struct(s) if merge.shape == "granular map" && s.atomic => {
            *s = Arc::new(Struct {
                name: s.name.clone(),
                description: s.description.clone(),
                fields: s.fields.clone(),
                atomic: false,
            });
        }
        _ => {}
    }
    ty
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
}

/// The JSON type; of `["string", "null"]` the one that is not null.
fn json_type(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(ty)) => ty,
        Some(Value::Array(types)) => {
            types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or_default()
        }
        _ => "",
    }
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}
