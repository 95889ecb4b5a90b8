//! Objects in Kubernetes' protobuf form, which kubectl and client-go send for the kinds that they have types of. Read
//! only: every client that sends it takes JSON for an answer.
//!
//! The same schemas that describe JSON describe these messages; `data/protobuf-fields.tsv` adds the field numbers. What
//! comes out is the object's JSON as a Go client would have written it, to be decoded on like any other document: zero
//! values, quantities and times become canonical there. Field numbers that nobody knows are skipped, as Kubernetes does,
//! also under strict field validation. Work and nesting are bounded by the body's length and by the depth of the types.

mod error;
mod fields;
mod message;
mod scalar;
mod wire;

use serde_json::{Map, Value};

pub use error::{Fault, ProtobufError};

use crate::schema::Struct;
use wire::{Payload, Reader};

/// The media type of such a body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Every body begins with it.
const PREFIX: &[u8] = b"k8s\0";

type Result<T, E = ProtobufError> = std::result::Result<T, E>;

/// `runtime.Unknown`: what the object says it is, and its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Whether the type has a protobuf form. Kinds of Loadline's own have none, like custom resources.
pub fn knows(schema: &Struct) -> bool {
    fields::of(&schema.name).is_some()
}

/// Opens the envelope of a body.
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>> {
    let message = match bytes.strip_prefix(PREFIX) {
        Some([]) => return Err(Fault::Empty.into()),
        Some(message) => message,
        None => return Err(Fault::Prefix.into()),
    };
    let mut envelope = Envelope::default();
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => type_meta(payload, &mut envelope)?,
            2 => envelope.raw = payload.bytes()?,
            3 if !payload.bytes()?.is_empty() => {
                return Err(Fault::Encoding(scalar::text(payload.bytes()?)?).into());
            }
            _ => {}
        }
    }
    Ok(envelope)
}

fn type_meta(payload: Payload<'_>, envelope: &mut Envelope<'_>) -> Result<()> {
    let mut reader = Reader::new(payload.bytes()?);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => envelope.api_version = scalar::text(payload.bytes()?)?,
            2 => envelope.kind = scalar::text(payload.bytes()?)?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads the message of a type as JSON; apiVersion and kind of the object itself are not in it.
pub fn object(schema: &Struct, raw: &[u8]) -> Result<Value> {
    let numbers = fields::of(&schema.name).ok_or_else(|| Fault::NoForm(schema.go_name()))?;
    let mut object = Map::new();
    message::read(schema, numbers, raw, &mut object)?;
    Ok(Value::Object(object))
}

/// A whole body of a known type, with the apiVersion and kind of its envelope unchecked.
pub fn document(schema: &Struct, bytes: &[u8]) -> Result<Value> {
    let envelope = envelope(bytes)?;
    let mut value = object(schema, envelope.raw)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".to_owned(), Value::from(envelope.api_version));
        fields.insert("kind".to_owned(), Value::from(envelope.kind));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
