//! Writes values as Kubernetes' tools do: block style, list items at the column of their key, texts quoted only where
//! a YAML 1.1 reader would take them for something else.

use std::fmt::Write;

use serde_json::Value;

use super::scalar;

pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => object(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => array(&mut out, value, 0),
        scalar => {
            inline(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out
}

fn object(out: &mut String, value: &Value, indent: usize) {
    for (i, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first key stands where the writer already is: at the margin or behind a dash.
        if i > 0 || indent == 0 {
            pad(out, indent);
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                pad(out, indent + 2);
                object(out, value, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                array(out, value, indent);
            }
            scalar => {
                out.push(' ');
                inline(out, scalar, indent);
                out.push('\n');
            }
        }
    }
}

fn array(out: &mut String, value: &Value, indent: usize) {
    for item in value.as_array().into_iter().flatten() {
        pad(out, indent);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => object(out, item, indent + 2),
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                array(out, item, indent + 2);
            }
            scalar => {
                inline(out, scalar, indent);
                out.push('\n');
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A value on the line of its key. Ends without a line break.
fn inline(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(s) if is_block(s) => block(out, s, indent + 2),
        Value::String(s) => out.push_str(&text(s)),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Texts of several lines that a literal block can hold.
fn is_block(s: &str) -> bool {
    s.contains('\n')
        && !s.starts_with([' ', '\n', '\t'])
        && !s.contains(" \n")
        && !s.ends_with(' ')
        && s.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
}

fn block(out: &mut String, s: &str, indent: usize) {
    let body = s.trim_end_matches('\n');
    out.push_str(match s.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{85}')
}

/// A text on one line: plain where that is read back as the same text, else quoted.
fn text(s: &str) -> String {
    if is_plain(s) { s.to_owned() } else { Value::from(s).to_string() }
}

fn is_plain(s: &str) -> bool {
    const INDICATORS: &[char] = &[
        '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ',
        '=',
    ];
    let dash_word = s.starts_with('-') && s.len() > 1 && !s.starts_with("- ") && !s.starts_with("---");
    matches!(scalar::resolve(s, true, None), Ok(Value::String(_)))
        && (dash_word || !s.starts_with(INDICATORS))
        && !s.ends_with([' ', ':'])
        && !s.contains(": ")
        && !s.contains(" #")
        && !s.starts_with("<<")
        && !s.starts_with("...")
        && !looks_like_time(s)
        && s.chars().all(is_printable)
}

/// Other readers take a plain date for a timestamp.
fn looks_like_time(s: &str) -> bool {
    let bytes = s.as_bytes();
    bytes.len() >= 8 && bytes.iter().take(4).all(u8::is_ascii_digit) && bytes.get(4) == Some(&b'-')
}
