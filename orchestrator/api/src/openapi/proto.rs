//! The definitions of the v2 document in protobuf (package `openapi.v2` of gnostic), which is the only form of it that
//! kubectl reads: to look up a kind that `/openapi/v3` does not know.
//!
//! Operations are left out: what reads this form looks up definitions. The field numbers are those of OpenAPIv2.proto.

use serde_json::Value;

/// A message under construction. Absent things are not written.
#[derive(Default)]
struct Message(Vec<u8>);

const LENGTH_DELIMITED: u64 = 2;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(mut self, field: u64, value: Option<&Value>) -> Self {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
        self
    }

    fn flag(mut self, field: u64, value: bool) -> Self {
        if value {
            self.varint(field << 3);
            self.varint(1);
        }
        self
    }

    fn message(mut self, field: u64, value: Option<Message>) -> Self {
        if let Some(message) = value {
            self.bytes(field, &message.0);
        }
        self
    }

    fn messages(self, field: u64, values: impl IntoIterator<Item = Message>) -> Self {
        values.into_iter().fold(self, |all, value| all.message(field, Some(value)))
    }
}

/// Encodes the document that `v2_document` writes as JSON.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let info = Message::default()
        .text(1, document.pointer("/info/title"))
        .text(2, document.pointer("/info/version"));
    let whole = Message::default().text(1, document.get("swagger")).message(2, Some(info));
    whole.message(9, Some(named_schemas(document.get("definitions")))).0
}

/// `Definitions` and `Properties` are the same message.
fn named_schemas(map: Option<&Value>) -> Message {
    let named = map.and_then(Value::as_object).into_iter().flatten();
    let one = |(name, value): (&String, &Value)| named_one(name, schema(value));
    Message::default().messages(1, named.map(one))
}

fn named_one(name: &str, value: Message) -> Message {
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    message.message(2, Some(value))
}

fn schema(of: &Value) -> Message {
    let list = |field: &str| of.get(field).and_then(Value::as_array).into_iter().flatten();
    let mut message = Message::default()
        .text(1, of.get("$ref"))
        .text(2, of.get("format"))
        .text(4, of.get("description"))
        .message(5, of.get("default").map(any));
    for required in list("required").filter_map(Value::as_str) {
        message.bytes(19, required.as_bytes());
    }
    let additional = of.get("additionalProperties").map(|value| match value.as_bool() {
        Some(allowed) => Message::default().flag(2, allowed),
        None => Message::default().message(1, Some(schema(value))),
    });
    let extensions = of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
    message
        .messages(20, list("enum").map(any))
        .message(21, additional)
        .message(22, of.get("type").map(|ty| Message::default().text(1, Some(ty))))
        .message(23, of.get("items").map(|items| Message::default().message(1, Some(schema(items)))))
        .messages(24, list("allOf").map(schema))
        .message(25, of.get("properties").map(|properties| named_schemas(Some(properties))))
        .messages(31, extensions.map(|(name, value)| named_one(name, any(value))))
}

/// A value travels as YAML text; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}
