//! Syntax errors of JSON in the words of Go's parser.

use std::fmt::Write;

use serde_json::error::Category;

const SHOWN: usize = 30;
/// Go's parser gives up at this depth, wherever it is; serde's limits hold for what it decodes only.
const MAX_DEPTH: usize = 10_000;

pub(super) const TOO_DEEP: &str = "exceeded max depth";

/// Whether brackets are nested deeper than Go's parser goes. Short bodies cannot be.
pub(super) fn is_too_deep(bytes: &[u8]) -> bool {
    if bytes.len() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// Go's message for what serde_json found.
pub(super) fn in_go_words(error: &serde_json::Error, bytes: &[u8]) -> String {
    let text = error.to_string();
    match error.classify() {
        Category::Eof => "unexpected end of JSON input".to_owned(),
        Category::Io => text,
        Category::Data => data(&text),
        Category::Syntax if text.starts_with("recursion limit") => TOO_DEEP.to_owned(),
        Category::Syntax => format!("invalid character {} {}", character(error, bytes), place(&text)),
    }
}

/// Only the two fields of the type metadata are read by serde's own rules.
fn data(text: &str) -> String {
    let found = match text {
        t if t.contains("sequence") => "array",
        t if t.contains("type: string") => "string",
        t if t.contains("boolean") => "bool",
        t if t.contains("map") => "object",
        _ => "number",
    };
    if text.contains("expected struct") {
        let ty = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        format!("json: cannot unmarshal {found} into Go value of type {ty}")
    } else {
        format!("json: cannot unmarshal {found} into Go struct field of type string")
    }
}

/// The character at which serde_json stopped.
fn character(error: &serde_json::Error, bytes: &[u8]) -> String {
    let line = bytes.split(|b| *b == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let byte = line.get(error.column().saturating_sub(1)).copied().unwrap_or(b'\n');
    match byte {
        b'\n' => "'\\n'".to_owned(),
        b'\'' => "'\\''".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

fn place(text: &str) -> &'static str {
    for (serde, go) in [
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing characters", "after top-level value"),
        ("control character", "in string literal"),
        ("invalid escape", "in string escape code"),
        ("invalid number", "in numeric literal"),
        ("expected ident", "in literal"),
    ] {
        if text.starts_with(serde) {
            return go;
        }
    }
    "looking for beginning of value"
}

/// The beginning of a body for an error message: JSON objects as they are, everything else as hexadecimal digits.
pub(super) fn summary(bytes: &[u8]) -> String {
    let Some(first) = bytes.first() else { return "<empty>".to_owned() };
    let head = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut shown = String::new();
    if *first == b'{' {
        shown.push_str(&String::from_utf8_lossy(head));
    } else {
        for byte in head {
            let _ = write!(shown, "{byte:02x}");
        }
    }
    if bytes.len() > SHOWN {
        shown.push_str(" ...");
    }
    shown
}
