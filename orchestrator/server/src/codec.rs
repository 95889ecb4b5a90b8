//! From request bodies to objects: media type, decoding, what `fieldValidation` makes of unknown fields, defaults.

use axum::http::HeaderMap;
use loadline_api::decode::{self, Decoded, Expected};
use loadline_api::kinds::{Kind, Snapshot};
use loadline_api::protobuf;
use loadline_api::schema::{self, Struct};
use loadline_api::status::ApiError;
use loadline_api::yaml;
use serde_json::Value;

use crate::negotiate::{BodyType, object_body, unknown_format};
use crate::options::FieldValidation;
use crate::respond::Result;

/// A decoded, defaulted object and what to warn the client of.
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) warnings: Vec<String>,
}

/// The object in a create or update request.
pub(crate) fn object(
    kinds: &Snapshot,
    kind: &Kind,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Object> {
    let mut decoded = body(kinds, Expected::from(kind), headers, bytes, validation)?;
    kind.strategy.default(&mut decoded.value);
    Ok(decoded)
}

/// A body of any expected type, without defaults.
pub(crate) fn body(
    kinds: &Snapshot,
    expected: Expected<'_>,
    headers: &HeaderMap,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Object> {
    let Decoded { value, strict } = match object_body(headers)? {
        BodyType::Yaml => decode::yaml_body(kinds, expected, bytes)?,
        // Loadline's own kinds have no protobuf form, like custom resources.
        BodyType::Protobuf if !protobuf::knows(expected.schema) => return Err(unknown_format(false).into()),
        BodyType::Protobuf => decode::protobuf_body(kinds, expected, bytes)?,
        _ => decode::body(kinds, expected, bytes)?,
    };
    let warnings = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn => strict,
        FieldValidation::Strict if strict.is_empty() => strict,
        FieldValidation::Strict => return Err(decode::strict_error(expected, &strict).into()),
    };
    Ok(Object { value, warnings })
}

/// A document that goes with a request about something else (DeleteOptions, Binding, Eviction): typed by its schema, of
/// whatever group it says it is.
pub(crate) fn plain(
    headers: &HeaderMap,
    bytes: &[u8],
    group: &str,
    version: &str,
    kind: &str,
) -> Result<Value> {
    let bad = |why: String| ApiError::bad_request(format!("the {kind} in the body cannot be read: {why}"));
    let schema = schema::of(group, version, kind).ok_or_else(|| bad("its type is not known".to_owned()))?;
    let mut value = match object_body(headers)? {
        BodyType::Yaml => yaml_value(bytes).map_err(bad)?,
        BodyType::Protobuf => protobuf::document(&schema, bytes).map_err(|e| bad(e.to_string()))?,
        _ => decode::parse(bytes).map_err(|e| bad(e.message))?.0,
    };
    if !value.is_null() && !value.is_object() {
        return Err(bad("it is not an object".to_owned()).into());
    }
    decode::object(&schema, &mut value).map_err(|e| bad(e.message))?;
    Ok(value)
}

pub(crate) fn yaml_value(bytes: &[u8]) -> std::result::Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    yaml::parse(text).map(|d| d.value).map_err(|e| e.to_string())
}

/// Brings what a patch made into the form of its type; the unknown fields come back as messages.
pub(crate) fn conform(schema: &Struct, value: &mut Value) -> std::result::Result<Vec<String>, ApiError> {
    decode::object(schema, value)
}
