//! The walk over messages: the table says which field a number is, the schema says what it holds.

use serde_json::{Map, Value};

use super::error::{Fault, ProtobufError};
use super::fields::{self, Numbers, Slot};
use super::scalar;
use super::wire::{Payload, Reader};
use super::{PREFIX, Result};
use crate::schema::{List, Map as MapType, Struct, Type};

/// Adds the fields of a message to an object.
pub(super) fn read(
    schema: &Struct,
    numbers: &Numbers,
    bytes: &[u8],
    out: &mut Map<String, Value>,
) -> Result<()> {
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match fields::slot(numbers, number) {
            Some(Slot::Field(name)) => {
                let Some(field) = schema.field(name) else { continue };
                let place = out.entry(name).or_insert(Value::Null);
                fill(&field.ty, payload, place).map_err(|e| e.within(name))?;
            }
            Some(Slot::Embedded(message)) => {
                let numbers = fields::of(message).ok_or_else(|| Fault::NoForm(message.to_owned()))?;
                read(schema, numbers, payload.bytes()?, out)?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Puts one occurrence of a field in its place, where an earlier one may be: lists and maps grow, messages merge, and
/// of everything else the last one counts.
fn fill(ty: &Type, payload: Payload<'_>, place: &mut Value) -> Result<()> {
    *place = match (ty, place.take()) {
        (Type::List(list), earlier) => {
            let mut all = if let Value::Array(all) = earlier { all } else { Vec::new() };
            items(list, payload, &mut all)?;
            Value::Array(all)
        }
        (Type::Map(map), earlier) => {
            let mut all = if let Value::Object(all) = earlier { all } else { Map::new() };
            entry(map, payload, &mut all)?;
            Value::Object(all)
        }
        (Type::Struct(schema), earlier) => {
            let numbers = fields::of(&schema.name).ok_or_else(|| Fault::NoForm(schema.go_name()))?;
            let mut fields = if let Value::Object(fields) = earlier { fields } else { Map::new() };
            read(schema, numbers, payload.bytes()?, &mut fields)?;
            Value::Object(fields)
        }
        (single_type, _) => single(single_type, payload)?,
    };
    Ok(())
}

/// A value that does not grow.
fn single(ty: &Type, payload: Payload<'_>) -> Result<Value, Fault> {
    Ok(match ty {
        Type::Bool | Type::Int32 | Type::Int64 => scalar::number(ty, payload.varint()?),
        Type::Double => match payload {
            Payload::Fixed64(bytes) => Value::from(f64::from_le_bytes(bytes)),
            other => return Err(other.wrong()),
        },
        Type::String => Value::from(scalar::text(payload.bytes()?)?),
        Type::Bytes => scalar::bytes(payload.bytes()?),
        Type::Time => scalar::time(payload.bytes()?)?,
        Type::MicroTime => scalar::micro_time(payload.bytes()?)?,
        Type::Quantity => scalar::quantity(payload.bytes()?)?,
        Type::IntOrString => scalar::int_or_string(payload.bytes()?)?,
        Type::Any => embedded_json(payload.bytes()?)?,
        // No type that has a protobuf form holds one.
        Type::Duration => return Err(Fault::NoForm("v1.Duration".to_owned())),
        Type::Struct(_) | Type::List(_) | Type::Map(_) => return Err(payload.wrong()),
    })
}

/// `RawExtension` and `FieldsV1`: a message of one field, which holds JSON.
fn embedded_json(bytes: &[u8]) -> Result<Value, Fault> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            raw = payload.bytes()?;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(PREFIX) {
        return Err(Fault::Nested);
    }
    serde_json::from_slice(raw).map_err(|e| Fault::Json(e.to_string()))
}

/// One item, or the numbers of a packed list.
fn items(list: &List, payload: Payload<'_>, out: &mut Vec<Value>) -> Result<()> {
    if let (Type::Bool | Type::Int32 | Type::Int64, Payload::Bytes(packed)) = (&list.item, payload) {
        let mut reader = Reader::new(packed);
        while let Some(number) = reader.packed()? {
            out.push(scalar::number(&list.item, number));
        }
        return Ok(());
    }
    let mut item = Value::Null;
    fill(&list.item, payload, &mut item).map_err(|e| e.at(out.len()))?;
    out.push(item);
    Ok(())
}

/// One entry of a map: a message of a key and a value, either of which may be missing if it is zero.
fn entry(map: &MapType, payload: Payload<'_>, out: &mut Map<String, Value>) -> Result<()> {
    let mut key = String::new();
    let mut value = None;
    let mut reader = Reader::new(payload.bytes()?);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => key = scalar::text(payload.bytes()?)?,
            2 => value = Some(payload),
            _ => {}
        }
    }
    let mut item = Value::Null;
    let named = |e: ProtobufError| e.within(&key);
    fill(&map.value, value.unwrap_or(Payload::Bytes(&[])), &mut item).map_err(named)?;
    out.insert(key, item);
    Ok(())
}
