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

#[cfg(test)]
mod tests {
    use axum::http::header;
    use loadline_api::kinds::Registry;
    use loadline_api::status::Reason;
    use serde_json::json;

    use super::*;
    use crate::respond::Failure;

    fn headers(media: &'static str) -> HeaderMap {
        [(header::CONTENT_TYPE, media.parse().unwrap())].into_iter().collect()
    }

    /// Reads a body as a kind's object, with unknown fields refused.
    fn read(kind: (&str, &str, &str), bytes: &[u8]) -> std::result::Result<Value, Reason> {
        let kinds = Registry::builtin().snapshot();
        let row = kinds.kind(kind.0, kind.1, kind.2).unwrap();
        match object(&kinds, row, &headers(protobuf::MEDIA_TYPE), bytes, FieldValidation::Strict) {
            Ok(object) => Ok(object.value),
            Err(Failure::Api(error)) => Err(error.reason),
            Err(_) => panic!("not an API error"),
        }
    }

    #[test]
    fn protobuf_bodies() {
        // A ConfigMap named c, and a field of a number that there is not.
        let map = b"k8s\0\x12\x08\x0a\x03\x0a\x01c\x52\x01x";
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
        assert_eq!(read(("", "v1", "ConfigMap"), map), Ok(want));
        assert_eq!(read(("", "v1", "ConfigMap"), b"{}"), Err(Reason::BadRequest));
        let own = ("autoscaling.loadline.io", "v1alpha1", "ScalingPolicy");
        assert_eq!(read(own, map), Err(Reason::UnsupportedMediaType));
    }

    #[test]
    fn options_come_in_every_format() {
        let want = json!({"gracePeriodSeconds": 0, "dryRun": ["All"]});
        for (media, bytes) in [
            ("application/json", &b"{\"gracePeriodSeconds\": 0, \"dryRun\": [\"All\"]}"[..]),
            ("application/yaml", b"gracePeriodSeconds: 0\ndryRun: [All]\n"),
            (protobuf::MEDIA_TYPE, b"k8s\0\x12\x07\x08\x00\x2a\x03All"),
        ] {
            let Ok(value) = plain(&headers(media), bytes, "meta.k8s.io", "v1", "DeleteOptions") else {
                panic!("{media} is refused")
            };
            assert_eq!(value, want, "{media}");
        }
    }
}
