//! What plain scalars mean in YAML 1.1, as Go's parser resolves them.

use saphyr_parser::Tag;
use serde_json::Value;

/// The value of a scalar, or why it has none in JSON.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, &'static str> {
    let tag = tag.filter(|t| t.is_yaml_core_schema() || t.handle == "!!").map(|t| t.suffix.as_str());
    match tag {
        Some("str" | "timestamp") => Ok(Value::from(text)),
        Some("binary") => Err("the tag !!binary is not supported"),
        Some("null") => Ok(Value::Null),
        Some("int" | "bool") => typed(plain_value(text)?, |v| v.is_i64() || v.is_u64() || v.is_boolean()),
        Some("float") => typed(plain_value(text)?, Value::is_number),
        _ if plain => plain_value(text),
        _ => Ok(Value::from(text)),
    }
}

fn typed(value: Value, is: fn(&Value) -> bool) -> Result<Value, &'static str> {
    if is(&value) { Ok(value) } else { Err("the value does not fit its tag") }
}

fn plain_value(text: &str) -> Result<Value, &'static str> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" => return Err("json: unsupported value: NaN"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Err("json: unsupported value: +Inf");
        }
        "-.inf" | "-.Inf" | "-.INF" => return Err("json: unsupported value: -Inf"),
        _ => number(text).unwrap_or_else(|| Value::from(text)),
    })
}

fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

/// Decimal, `0x`, `0o`, `0b`, and octal by a leading zero.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.as_str())
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude).map(Value::from)
    } else {
        Some(Value::from(magnitude))
    }
}

/// `[-+]?[0-9]*\.?[0-9]+([eE][-+][0-9]+)?`; whole ones become integers, as JSON writes them.
fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at)?, Some(unsigned.get(at + 1..)?)),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let fraction = match mantissa.split_once('.') {
        Some((whole, fraction)) if whole.bytes().all(|b| b.is_ascii_digit()) => fraction,
        Some(_) => return None,
        None => mantissa,
    };
    let exponent_fits = exponent.is_none_or(|e| e.strip_prefix(['+', '-']).is_some_and(all_digits));
    if !all_digits(fraction) || !exponent_fits {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|v: &f64| v.is_finite())?;
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Some(Value::from(value as i64))
    } else {
        Some(Value::from(value))
    }
}

/// A key as JSON has it.
pub(super) fn key(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::Null => Some("null".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
    }
}
