//! How Go prints values and JSON errors: clients see these texts in patch errors.

use serde_json::Value;

/// Go's `%v` of decoded JSON: `map[a:1 b:[x y]]`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(s) => s.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
            parts.sort_unstable();
            format!("map[{}]", parts.join(" "))
        }
    }
}

/// What encoding/json says about a text that serde_json refused with `error`.
pub fn json_error(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let start = text.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    let at = offset(text, error).max(start);
    for word in ["true", "false", "null"] {
        let from = literal_start(text, at);
        let same = word.bytes().zip(text.iter().skip(from)).take_while(|(a, b)| a == *b).count();
        if let (true, Some(wanted)) = (same > 0, word.get(same..=same)) {
            return match text.get(from + same) {
                Some(b) => {
                    format!("invalid character {} in literal {word} (expecting '{wanted}')", shown(*b))
                }
                None => "unexpected end of JSON input".to_owned(),
            };
        }
    }
    let Some(byte) = text.get(at) else { return "unexpected end of JSON input".to_owned() };
    let message = error.to_string();
    let place = match () {
        _ if message.starts_with("trailing characters") => "after top-level value",
        _ if message.starts_with("key must be a string") => "looking for beginning of object key string",
        _ if message.starts_with("expected `:`") => "after object key",
        _ if message.starts_with("expected `,` or `}`") => "after object key:value pair",
        _ if message.starts_with("expected `,` or `]`") => "after array element",
        _ if message.starts_with("control character") => "in string literal",
        _ if message.starts_with("invalid escape") => "in string escape code",
        _ => "looking for beginning of value",
    };
    format!("invalid character {} {place}", shown(*byte))
}

/// The byte that the error points at.
fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let before: usize =
        text.split_inclusive(|b| *b == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    before + error.column().saturating_sub(1)
}

/// Back from inside a word to its first letter.
fn literal_start(text: &[u8], at: usize) -> usize {
    let mut from = at.min(text.len());
    while from > 0 && text.get(from - 1).is_some_and(u8::is_ascii_lowercase) {
        from -= 1;
    }
    from
}

fn shown(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        _ => format!("'{}'", char::from(byte)),
    }
}

/// The JSON type in `json: cannot unmarshal …`.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_as_go_prints_them() {
        let v = json!({"spec": {"b": [1, "x", null], "a": {"image": "i"}}, "n": 1.5, "t": true});
        assert_eq!(go_value(&v), "map[n:1.5 spec:map[a:map[image:i] b:[1 x <nil>]] t:true]");
    }

    #[test]
    fn errors_as_go_words_them() {
        let cases = [
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("<x>", "invalid character '<' looking for beginning of value"),
            ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 \"b\": 2}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\": tru}", "invalid character '}' in literal true (expecting 'e')"),
        ];
        for (text, want) in cases {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(json_error(text.as_bytes(), &error), want, "{text}: {error}");
        }
    }
}
