//! Request bodies in Kubernetes' protobuf: what kubectl's typed commands and client-go's typed clients send. Read by
//! the same schemas as JSON, with a table of field numbers beside them. Answers are always JSON, which such clients
//! take as well, so nothing is ever written in this format.
//!
//! `protobuf/fields.txt` holds the numbers, one message a line: `core/v1.volume 1=name 2=volumesource:core/v1.volumesource`.
//! A field that the schema does not have but that names a message is an embedded struct, whose fields are its parent's.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loadline_api::decode::Expected;
use loadline_api::schema::{Struct, Type};
use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;

/// Number, name in lower case, message.
type FieldNumber = (u64, &'static str, Option<&'static str>);

static FIELDS: LazyLock<HashMap<&'static str, Vec<FieldNumber>>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let mut parts = line.split(' ');
        let message = parts.next()?;
        let field = |part: &'static str| {
            let (number, rest) = part.split_once('=')?;
            let (name, message) = rest.split_once(':').map_or((rest, None), |(n, m)| (n, Some(m)));
            Some((number.parse().ok()?, name, message))
        };
        Some((message, parts.filter_map(field).collect()))
    };
    include_str!("protobuf/fields.txt").lines().filter_map(line).collect()
});

/// A decoded envelope: what the object says it is, and the object.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) value: Value,
}

type Result<T> = std::result::Result<T, String>;

/// Reads a body as the expected type.
pub(crate) fn decode(expected: Expected<'_>, bytes: &[u8]) -> Result<Envelope> {
    let body = bytes.strip_prefix(MAGIC).ok_or("provided data does not appear to be a protobuf message")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &body[..0]);
    for field in Wire(body) {
        match field? {
            (1, Payload::Bytes(meta)) => {
                for field in Wire(meta) {
                    match field? {
                        (1, Payload::Bytes(b)) => api_version = text(b)?,
                        (2, Payload::Bytes(b)) => kind = text(b)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(b)) => raw = b,
            (3, Payload::Bytes(b)) if !b.is_empty() => return Err("encoded bodies are not supported".to_owned()),
            _ => {}
        }
    }
    let group = expected.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let message = format!("{group}/{}.{}", expected.version, expected.kind.to_ascii_lowercase());
    let mut object = Map::new();
    read_message(&message, expected.schema, raw, &mut object, 0)?;
    Ok(Envelope { api_version, kind, value: Value::Object(object) })
}

fn read_message(message: &str, schema: &Struct, bytes: &[u8], out: &mut Map<String, Value>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply".to_owned());
    }
    let fields = FIELDS.get(message).ok_or_else(|| format!("{message} is not known in this format"))?;
    for item in Wire(bytes) {
        let (number, payload) = item?;
        // A newer client's fields are left out, as a server of its own age would.
        let Some((_, name, inner)) = fields.iter().find(|(n, ..)| *n == number) else { continue };
        match schema.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name)) {
            Some(field) => add(&field.ty, &field.name, inner.unwrap_or_default(), payload, out, depth)?,
            None => {
                if let (Some(embedded), Payload::Bytes(b)) = (inner, payload) {
                    read_message(embedded, schema, b, out, depth + 1)?;
                }
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field.
fn add(ty: &Type, name: &str, message: &str, payload: Payload<'_>, out: &mut Map<String, Value>, depth: usize) -> Result<()> {
    match ty {
        Type::List(list) => {
            let items = match (payload, &list.item) {
                // Numbers may be packed.
                (Payload::Bytes(b), Type::Int32 | Type::Int64 | Type::Bool) => packed(&list.item, b)?,
                (payload, item) => vec![scalar(item, message, payload, depth)?],
            };
            if let Value::Array(all) = out.entry(name).or_insert_with(|| json!([])) {
                all.extend(items);
            }
        }
        Type::Map(map) => {
            let Payload::Bytes(entry) = payload else { return Err(mismatch(name)) };
            let (mut key, mut value) = (String::new(), None);
            for item in Wire(entry) {
                match item? {
                    (1, Payload::Bytes(b)) => key = text(b)?,
                    (2, payload) => value = Some(scalar(&map.value, message, payload, depth)?),
                    _ => {}
                }
            }
            let value = match value {
                Some(value) => value,
                None => map.value.zero(),
            };
            if let Value::Object(all) = out.entry(name).or_insert_with(|| json!({})) {
                all.insert(key, value);
            }
        }
        other => {
            let value = scalar(other, message, payload, depth)?;
            out.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

fn scalar(ty: &Type, message: &str, payload: Payload<'_>, depth: usize) -> Result<Value> {
    Ok(match (ty, payload) {
        (Type::String, Payload::Bytes(b)) => Value::from(text(b)?),
        (Type::Bool, Payload::Number(n)) => Value::from(n != 0),
        (Type::Int32 | Type::Int64, Payload::Number(n)) => Value::from(n.cast_signed()),
        (Type::Double, Payload::Fixed64(n)) => json!(f64::from_bits(n)),
        (Type::Bytes, Payload::Bytes(b)) => Value::from(STANDARD.encode(b)),
        (Type::Time, Payload::Bytes(b)) => time(b, false)?,
        (Type::MicroTime, Payload::Bytes(b)) => time(b, true)?,
        (Type::Quantity, Payload::Bytes(b)) => {
            let mut value = Value::from("0");
            for item in Wire(b) {
                if let (1, Payload::Bytes(b)) = item?
                    && !b.is_empty()
                {
                    value = Value::from(text(b)?);
                }
            }
            value
        }
        (Type::IntOrString, Payload::Bytes(b)) => int_or_string(b)?,
        (Type::Duration, Payload::Bytes(b)) => {
            let nanos = numbers(b)?.get(&1).copied().unwrap_or(0).cast_signed();
            Value::from(go_duration(nanos))
        }
        (Type::Any, Payload::Bytes(b)) => {
            let mut value = Value::Null;
            for item in Wire(b) {
                if let (1, Payload::Bytes(raw)) = item? {
                    value = serde_json::from_slice(raw).map_err(|e| e.to_string())?;
                }
            }
            value
        }
        (Type::Struct(schema), Payload::Bytes(b)) => {
            let mut object = Map::new();
            read_message(message, schema, b, &mut object, depth + 1)?;
            Value::Object(object)
        }
        _ => return Err(mismatch(message)),
    })
}

fn mismatch(what: &str) -> String {
    format!("a field has the wrong wire type {what}")
}

fn packed(ty: &Type, bytes: &[u8]) -> Result<Vec<Value>> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while !rest.is_empty() {
        let n = varint(&mut rest)?;
        all.push(if matches!(ty, Type::Bool) { Value::from(n != 0) } else { Value::from(n.cast_signed()) });
    }
    Ok(all)
}

/// The numeric fields of a small message.
fn numbers(bytes: &[u8]) -> Result<HashMap<u64, u64>> {
    let mut all = HashMap::new();
    for item in Wire(bytes) {
        if let (number, Payload::Number(n)) = item? {
            all.insert(number, n);
        }
    }
    Ok(all)
}

/// An empty message is Go's zero time: no time.
fn time(bytes: &[u8], micros: bool) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let fields = numbers(bytes)?;
    let part = |number: u64| fields.get(&number).copied().unwrap_or(0).cast_signed();
    let nanos = i32::try_from(part(2)).unwrap_or(0);
    let time = jiff::Timestamp::new(part(1), nanos).map_err(|e| e.to_string())?;
    let format = if micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Value::from(time.strftime(format).to_string()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_text, mut int, mut string) = (false, 0, String::new());
    for item in Wire(bytes) {
        match item? {
            (1, Payload::Number(n)) => is_text = n == 1,
            (2, Payload::Number(n)) => int = n.cast_signed(),
            (3, Payload::Bytes(b)) => string = text(b)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(string) } else { Value::from(int) })
}

/// Nanoseconds as Go prints a duration, in the units that its parser takes.
fn go_duration(nanos: i64) -> String {
    if nanos % 1_000_000_000 == 0 { format!("{}s", nanos / 1_000_000_000) } else { format!("{nanos}ns") }
}

fn text(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a string is not UTF-8".to_owned())
}

#[derive(Debug)]
enum Payload<'a> {
    Number(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message as they are on the wire.
struct Wire<'a>(&'a [u8]);

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u64, Payload<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = field(&mut self.0);
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Payload<'a>)> {
    let tag = varint(rest)?;
    let payload = match tag & 7 {
        0 => Payload::Number(varint(rest)?),
        1 => {
            let bytes = take(rest, 8)?;
            Payload::Fixed64(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        }
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| truncated())?;
            Payload::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Payload::Fixed32
        }
        other => return Err(format!("illegal wireType {other}")),
    };
    Ok((tag >> 3, payload))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(truncated)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or_else(truncated)?;
        *rest = tail;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("integer overflow".to_owned())
}

fn truncated() -> String {
    "unexpected EOF".to_owned()
}

#[cfg(test)]
mod tests {
    use loadline_api::kinds::Registry;

    use super::*;

    fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        let mut out = vec![u8::try_from(number << 3 | 2).unwrap(), u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    }

    fn number(field: u64, n: u8) -> Vec<u8> {
        vec![u8::try_from(field << 3).unwrap(), n]
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    fn read(resource: &str, body: &[u8]) -> Result<Value> {
        let kinds = Registry::builtin().snapshot();
        let kind = kinds.resource("", "v1", resource).unwrap();
        decode(Expected::from(&**kind), body).map(|e| e.value)
    }

    #[test]
    fn objects_are_read_by_their_schema() {
        let meta = [bytes(1, b"x"), bytes(8, b""), bytes(11, &[bytes(1, b"a"), bytes(2, b"b")].concat())].concat();
        let map = [bytes(1, &meta), bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat())].concat();
        assert_eq!(
            read("configmaps", &envelope("v1", "ConfigMap", &map)).unwrap(),
            json!({"metadata": {"name": "x", "creationTimestamp": null, "labels": {"a": "b"}}, "data": {"k": "v"}})
        );
        let port = [bytes(1, b"http"), number(3, 80), bytes(4, &[number(1, 1), bytes(3, b"web")].concat())].concat();
        let service = bytes(2, &bytes(1, &port));
        assert_eq!(
            read("services", &envelope("v1", "Service", &service)).unwrap(),
            json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}})
        );
    }

    #[test]
    fn embedded_structs_are_flat() {
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
        let pod = bytes(2, &bytes(1, &volume));
        let got = read("pods", &envelope("v1", "Pod", &pod)).unwrap();
        assert_eq!(got, json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
    }

    #[test]
    fn every_field_of_the_table_has_a_place() {
        for (message, fields) in FIELDS.iter() {
            for (number, _, inner) in fields {
                assert!(*number > 0, "{message}");
                let known = |m: &str| FIELDS.contains_key(m) || ["meta/v1.", "resource.", "intstr.", "runtime."].iter().any(|p| m.starts_with(p));
                assert!(inner.is_none_or(known), "{message} {inner:?}");
            }
        }
    }

    #[test]
    fn broken_bodies_are_refused() {
        let good = envelope("v1", "ConfigMap", &bytes(1, &bytes(1, b"x")));
        for cut in 1..good.len() {
            let _ = read("configmaps", &good[..cut]);
        }
        assert!(read("configmaps", b"{}").is_err());
        assert!(read("configmaps", &[MAGIC, &[0x12, 0xff, 0xff, 0xff]].concat()).is_err());
        let mut deep = Vec::new();
        for _ in 0..40 {
            deep = bytes(1, &deep[..deep.len().min(100)]);
        }
        let _ = read("configmaps", &envelope("v1", "ConfigMap", &deep));
    }
}
