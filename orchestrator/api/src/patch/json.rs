//! JSON Patch (RFC 6902), `application/json-patch+json`.

use json_patch::PatchOperation;
use serde_json::Value;

use super::PatchError;
use super::text::{json_error, json_kind};

/// As many operations as Kubernetes takes in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a patch body to an object. A failing operation leaves the object as it was.
pub fn apply(target: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let operations = decode(body)?;
    let mut result = target.clone();
    json_patch::patch(&mut result, &operations).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    Ok(result)
}

fn decode(body: &[u8]) -> Result<Vec<PatchOperation>, PatchError> {
    let bad = |why: String| PatchError::BadRequest(format!("error decoding patch: {why}"));
    let value: Value = serde_json::from_slice(body).map_err(|e| bad(json_error(body, &e)))?;
    let Value::Array(operations) = value else {
        let kind = json_kind(&value);
        return Err(bad(format!("json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch")));
    };
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        let limit =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
        return Err(PatchError::TooLarge(limit));
    }
    operations.into_iter().map(operation).collect()
}

/// An operation that is an object but not a known operation fails when it is applied, as in Kubernetes.
fn operation(value: Value) -> Result<PatchOperation, PatchError> {
    if !value.is_object() {
        let kind = json_kind(&value);
        let why = format!(
            "error decoding patch: json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation"
        );
        return Err(PatchError::BadRequest(why));
    }
    serde_json::from_value(value).map_err(|e| PatchError::Unprocessable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        let target = json!({"data": {"a": "1"}, "list": [1, 2]});
        let cases = [
            (
                json!([{"op": "add", "path": "/data/b", "value": "2"}]),
                json!({"data": {"a": "1", "b": "2"}, "list": [1, 2]}),
            ),
            (json!([{"op": "remove", "path": "/list/0"}]), json!({"data": {"a": "1"}, "list": [2]})),
            (
                json!([{"op": "add", "path": "/list/-", "value": 3}]),
                json!({"data": {"a": "1"}, "list": [1, 2, 3]}),
            ),
            (
                json!([{"op": "copy", "from": "/data/a", "path": "/data/c"}, {"op": "move", "from": "/data/a", "path": "/d"}]),
                json!({"data": {"c": "1"}, "list": [1, 2], "d": "1"}),
            ),
            (json!([{"op": "test", "path": "/data/a", "value": "1"}]), target.clone()),
            (json!([]), target.clone()),
        ];
        for (patch, want) in cases {
            assert_eq!(apply(&target, patch.to_string().as_bytes()), Ok(want), "{patch}");
        }
    }

    #[test]
    fn refused() {
        let target = json!({"data": {"a": "1"}});
        for patch in [
            json!([{"op": "remove", "path": "/data/zz"}]),
            json!([{"op": "test", "path": "/data/a", "value": "9"}]),
            json!([{"op": "bogus", "path": "/data/a"}]),
            json!([{"op": "add", "path": "/metadata/labels/x", "value": "9"}]),
        ] {
            let error = apply(&target, patch.to_string().as_bytes()).unwrap_err();
            assert!(matches!(error, PatchError::Unprocessable(_)), "{patch}: {error:?}");
            assert_eq!(error.to_string(), "the server rejected our request due to an error in our request");
        }
        let texts = [
            ("not json", "error decoding patch: invalid character 'o' in literal null (expecting 'u')"),
            (
                "{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
            ),
            (
                "[1]",
                "error decoding patch: json: cannot unmarshal number into Go value of type jsonpatch.Operation",
            ),
        ];
        for (body, want) in texts {
            assert_eq!(apply(&target, body.as_bytes()), Err(PatchError::BadRequest(want.to_owned())));
        }
        let many =
            Value::Array(vec![json!({"op": "test", "path": "/data/a", "value": "1"}); MAX_OPERATIONS + 1]);
        let error = apply(&target, many.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().ends_with("in a JSON patch is 10000, got 10001"), "{error}");
    }
}
