//! JSON Patch (RFC 6902), `application/json-patch+json`.

use json_patch::PatchOperation;
use serde_json::Value;

use super::PatchError;
use super::text::{json_error, json_kind};

/// How many bytes all copies of one patch may add, as in Kubernetes.
const MAX_COPIED: usize = 3 << 20;
/// How deep a patch may nest an object. Nothing real comes near it, and deeper values overflow the stack.
const MAX_DEPTH: usize = 512;
/// How deep an object or a patch body can be: what serde_json reads.
const READ_DEPTH: usize = 128;

/// As many operations as Kubernetes takes in one patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a patch body to an object. A failing operation leaves the object as it was.
pub fn apply(target: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let operations = decode(body)?;
    let mut result = target.clone();
    let (mut copied, mut depth) = (0, READ_DEPTH);
    for operation in operations {
        depth = depth.max(depth_after(&operation, depth));
        if depth > MAX_DEPTH {
            return Err(PatchError::Unprocessable("the object would be nested too deeply".to_owned()));
        }
        if let PatchOperation::Copy(copy) = &operation {
            copied += copy.from.resolve(&result).map_or(0, |v| v.to_string().len());
            if copied > MAX_COPIED {
                return Err(PatchError::Unprocessable("the copies are too large".to_owned()));
            }
        }
        json_patch::patch(&mut result, &[operation]).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    }
    Ok(result)
}

/// How deep what an operation writes may be, given how deep the object may be before it.
fn depth_after(operation: &PatchOperation, depth: usize) -> usize {
    let below = |from: usize| depth.saturating_sub(from);
    match operation {
        PatchOperation::Add(add) => add.path.count() + depth_of(&add.value),
        PatchOperation::Replace(replace) => replace.path.count() + depth_of(&replace.value),
        PatchOperation::Copy(copy) => copy.path.count() + below(copy.from.count()),
        PatchOperation::Move(moved) => moved.path.count() + below(moved.from.count()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => 0,
    }
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
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
