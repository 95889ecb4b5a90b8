//! Values with a message or an encoding of their own, as JSON writes them. Nothing here is made canonical yet.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::error::Fault;
use super::wire::Reader;
use crate::schema::Type;

pub(super) fn text(bytes: &[u8]) -> Result<String, Fault> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| Fault::Utf8)
}

pub(super) fn bytes(bytes: &[u8]) -> Value {
    Value::from(STANDARD.encode(bytes))
}

/// A boolean or an integer; an int32 keeps its low bits, as Go's decoder does it.
pub(super) fn number(ty: &Type, varint: u64) -> Value {
    match ty {
        Type::Bool => Value::from(varint != 0),
        Type::Int32 => Value::from(int32(varint)),
        _ => Value::from(varint.cast_signed()),
    }
}

fn int32(varint: u64) -> i32 {
    let [a, b, c, d, ..] = varint.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// `metav1.Time`: only the seconds count. An empty message is no time.
pub(super) fn time(bytes: &[u8]) -> Result<Value, Fault> {
    let written = instant(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    Ok(Value::from(written))
}

/// `metav1.MicroTime`: cut to microseconds.
pub(super) fn micro_time(bytes: &[u8]) -> Result<Value, Fault> {
    let written = instant(bytes)?.map(|t| t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
    Ok(Value::from(written))
}

fn instant(bytes: &[u8]) -> Result<Option<Timestamp>, Fault> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => seconds = payload.varint()?.cast_signed(),
            2 => nanos = int32(payload.varint()?),
            _ => {}
        }
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| Fault::Time)
}

pub(super) fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let mut written = "0".to_owned();
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            written = text(payload.bytes()?)?;
        }
    }
    Ok(Value::from(written))
}

/// `intstr.IntOrString`: which of the two it is, the number, the text.
pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
    let (mut is_text, mut int, mut string) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => is_text = payload.varint()? == 1,
            2 => int = int32(payload.varint()?),
            3 => string = text(payload.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(string) } else { Value::from(int) })
}
