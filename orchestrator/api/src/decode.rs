//! From bytes to an object of a known type, as Kubernetes' decoder does it: wrong types are refused in Go's words,
//! unknown and duplicate fields are dropped and listed, nulls and zero values that Go would leave out are left out,
//! fields that Go always writes are written, quantities and times become canonical.
//!
//! One pass over the bytes builds the object under the eyes of its schema. Owns neither defaults nor validation, and
//! does not decide what becomes of the listed fields: that is `fieldValidation`, which the server knows.

mod meta;
mod scalar;
mod syntax;
mod walk;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};

use crate::kinds::{Kind, Snapshot, split_api_version};
use crate::protobuf;
use crate::schema::{Struct, Type};
use crate::status::{ApiError, Result};
use crate::yaml;
use meta::TypeMeta;
use walk::{Context, Seed};

/// A decoded object and what `fieldValidation` is about: `unknown field "spec.foo"`, `duplicate field "data.a"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub strict: Vec<String>,
}

/// The type that a request expects in its body.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub schema: &'a Struct,
}

impl<'a> From<&'a Kind> for Expected<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self { group: kind.group, version: kind.version, kind: kind.kind, schema: &kind.schema }
    }
}

/// Decodes a JSON request body. A body without apiVersion or kind gets the expected ones; another kind is refused with
/// the message of Kubernetes.
pub fn body(kinds: &Snapshot, expected: Expected<'_>, bytes: &[u8]) -> Result<Decoded> {
    if syntax::is_too_deep(bytes) {
        let why = format!("couldn't get version/kind; json parse error: {}", syntax::TOO_DEEP);
        return Err(unrecognized(expected, &why, bytes));
    }
    // Nearly every body is right. Only for a wrong one the error that matters must be found, which may be another than
    // the first: what the document says it is counts before what its fields hold.
    if let Ok(mut decoded) = typed(expected.schema, bytes)
        && is_expected(expected, &decoded.value)
    {
        stamp(expected, &mut decoded.value);
        return Ok(decoded);
    }
    let meta: TypeMeta = match serde_json::from_slice(bytes) {
        Ok(meta) => meta,
        Err(error) => {
            let why = format!(
                "couldn't get version/kind; json parse error: {}",
                syntax::in_go_words(&error, bytes)
            );
            return Err(unrecognized(expected, &why, bytes));
        }
    };
    check_meta(kinds, expected, &meta)?;
    let mut decoded = typed(expected.schema, bytes).map_err(|e| refused(expected, &meta, &e.message))?;
    stamp(expected, &mut decoded.value);
    Ok(decoded)
}

/// Decodes a YAML request body in the same way.
pub fn yaml_body(kinds: &Snapshot, expected: Expected<'_>, bytes: &[u8]) -> Result<Decoded> {
    let text = str::from_utf8(bytes).map_err(|_| unrecognized(expected, "yaml: invalid UTF-8", bytes))?;
    let document = yaml::parse(text).map_err(|e| unrecognized(expected, &e.to_string(), bytes))?;
    let meta = TypeMeta::deserialize(&document.value).map_err(|error| {
        let why = syntax::in_go_words(&error, bytes);
        unrecognized(expected, &format!("couldn't get version/kind; json parse error: {why}"), bytes)
    })?;
    check_meta(kinds, expected, &meta)?;
    let mut value = document.value;
    let unknown = object(expected.schema, &mut value).map_err(|e| refused(expected, &meta, &e.message))?;
    stamp(expected, &mut value);
    let mut strict: Vec<String> = Vec::new();
    if !document.duplicates.is_empty() {
        strict.push(format!("yaml: unmarshal errors:\n  {}", document.duplicates.join("\n  ")));
    }
    strict.extend(unknown);
    Ok(Decoded { value, strict })
}

/// Decodes a protobuf request body in the same way. It has neither unknown nor duplicate fields to list.
pub fn protobuf_body(kinds: &Snapshot, expected: Expected<'_>, bytes: &[u8]) -> Result<Decoded> {
    let envelope = protobuf::envelope(bytes).map_err(|e| unrecognized(expected, &e.to_string(), bytes))?;
    let meta = TypeMeta { api_version: envelope.api_version, kind: envelope.kind };
    check_meta(kinds, expected, &meta)?;
    let mut value = protobuf::object(expected.schema, envelope.raw)
        .map_err(|e| refused(expected, &meta, &e.to_string()))?;
    object(expected.schema, &mut value).map_err(|e| refused(expected, &meta, &e.message))?;
    stamp(expected, &mut value);
    Ok(Decoded { value, strict: Vec::new() })
}

/// The refusal of a body with unknown or duplicate fields under `fieldValidation=Strict`.
pub fn strict_error(expected: Expected<'_>, strict: &[String]) -> ApiError {
    let Expected { version, kind, .. } = expected;
    let why = strict.join(", ");
    ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {why}"
    ))
}

/// Decodes JSON by a schema. The error's message is Go's, without what a request would put before it.
pub fn typed(schema: &Struct, bytes: &[u8]) -> Result<Decoded> {
    let mut context = Context::default();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed::root(schema, &mut context);
    let value = seed.deserialize(&mut source).and_then(|value| source.end().map(|()| value));
    match value {
        Ok(value) => Ok(Decoded { value: or_zero(schema, value), strict: context.strict() }),
        Err(error) => Err(failure(context, &error, bytes)),
    }
}

/// The same on a parsed object, in place: what a patch made, or YAML. Returns the unknown fields as messages.
pub fn object(schema: &Struct, value: &mut Value) -> Result<Vec<String>> {
    let mut context = Context::default();
    let seed = Seed::root(schema, &mut context);
    match seed.deserialize(value.take()) {
        Ok(decoded) => {
            *value = or_zero(schema, decoded);
            Ok(context.strict())
        }
        Err(error) => Err(failure(context, &error, &[])),
    }
}

/// Parses JSON of any shape. Beside the value: the paths of keys that an object has twice (the last one counts).
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>)> {
    if syntax::is_too_deep(bytes) {
        return Err(ApiError::bad_request(syntax::TOO_DEEP));
    }
    let mut context = Context::untyped();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed::new(&Type::Any, &mut context);
    match seed.deserialize(&mut source).and_then(|value| source.end().map(|()| value)) {
        Ok(value) => Ok((value, context.duplicates())),
        Err(error) => Err(ApiError::bad_request(syntax::in_go_words(&error, bytes))),
    }
}

/// Adds the fields of the object itself that Go always writes and that are missing, such as `status: {}`. What a
/// strategy took away comes back with its zero value.
pub fn complete(schema: &Struct, value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    for field in schema.fields.iter().filter(|f| f.always) {
        if !object.contains_key(&field.name) {
            object.insert(field.name.clone(), field.zero());
        }
    }
}

/// `null` is the zero object.
fn or_zero(schema: &Struct, value: Value) -> Value {
    if value.is_null() { schema.zero() } else { value }
}

fn failure(context: Context<'_>, error: &serde_json::Error, bytes: &[u8]) -> ApiError {
    ApiError::bad_request(context.error().unwrap_or_else(|| syntax::in_go_words(error, bytes)))
}

fn is_expected(expected: Expected<'_>, value: &Value) -> bool {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = split_api_version(text("apiVersion"));
    let kind = text("kind");
    (kind.is_empty() || kind == expected.kind)
        && (text("apiVersion").is_empty() || (group == expected.group && version == expected.version))
}

/// Writes the expected apiVersion and kind.
fn stamp(expected: Expected<'_>, value: &mut Value) {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), Value::from(api_version(expected.group, expected.version)));
        object.insert("kind".to_owned(), Value::from(expected.kind));
    }
}

fn check_meta(kinds: &Snapshot, expected: Expected<'_>, meta: &TypeMeta) -> Result<()> {
    let given = meta.api_version.as_str();
    let kind = meta.kind_or(expected.kind);
    if given.matches('/').count() > 1 {
        return Err(ApiError::bad_request(format!("unexpected GroupVersion string: {given}")));
    }
    let (group, version) = match given {
        "" => (expected.group, expected.version),
        given => split_api_version(given),
    };
    if kind == expected.kind && group == expected.group && version == expected.version {
        return Ok(());
    }
    if kinds.kind(group, version, kind).is_none() {
        let why = format!(
            "no kind {kind:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            api_version(group, version),
        );
        return Err(cannot_handle(kind, version, expected.kind, &why));
    }
    if kind == expected.kind && group == expected.group {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            api_version(group, version),
            api_version(expected.group, expected.version),
        )));
    }
    let package = |group: &str| match group.split('.').next() {
        None | Some("") => "core".to_owned(),
        Some(first) => first.to_owned(),
    };
    let wanted = package(expected.group);
    let why = format!("converting ({version}.{kind}) to ({wanted}.{}): unknown conversion", expected.kind);
    Err(cannot_handle(kind, version, expected.kind, &why))
}

fn cannot_handle(kind: &str, version: &str, expected: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {expected}: {why}"))
}

fn refused(expected: Expected<'_>, meta: &TypeMeta, why: &str) -> ApiError {
    let kind = meta.kind_or(expected.kind);
    cannot_handle(kind, expected.version, expected.kind, why)
}

fn unrecognized(expected: Expected<'_>, why: &str, bytes: &[u8]) -> ApiError {
    let kind = expected.kind;
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        syntax::summary(bytes)
    ))
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests;
