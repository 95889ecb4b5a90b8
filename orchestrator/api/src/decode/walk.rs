//! The walk: serde drives it with the tokens of a document (or of a parsed value), the schema says what each may be.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::scalar;
use crate::schema::{self, Struct, Type};

/// Go's decoder stops collecting here.
const MAX_STRICT: usize = 100;

enum Step<'s> {
    Field(&'s str),
    Key(String),
    Index(usize),
}

/// Where the walk is and what it found.
#[derive(Default)]
pub(super) struct Context<'s> {
    steps: Vec<Step<'s>>,
    /// The struct whose field is being read, and the fields that led there, as Go's errors name them.
    owner: Option<&'s Struct>,
    fields: Vec<&'s str>,
    /// `unknown field "a.b"`, `duplicate field "a.b"`.
    strict: Vec<String>,
    /// Paths of duplicate keys, where the whole document is untyped.
    duplicates: Option<Vec<String>>,
    /// The error in Go's words; serde only carries that there is one.
    error: Option<String>,
}

impl<'s> Context<'s> {
    pub(super) fn untyped() -> Self {
        Self { duplicates: Some(Vec::new()), ..Self::default() }
    }

    pub(super) fn strict(self) -> Vec<String> {
        self.strict
    }

    pub(super) fn duplicates(self) -> Vec<String> {
        self.duplicates.unwrap_or_default()
    }

    pub(super) fn error(self) -> Option<String> {
        self.error
    }

    fn note(&mut self, what: &str, name: &str) {
        let message = format!("{what} field {:?}", self.path(name));
        if self.strict.len() < MAX_STRICT && !self.strict.contains(&message) {
            self.strict.push(message);
        }
    }

    fn path(&self, last: &str) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Index(i) => {
                    let _ = write!(path, "[{i}]");
                }
                Step::Field(name) => push_name(&mut path, name),
                Step::Key(name) => push_name(&mut path, name),
            }
        }
        push_name(&mut path, last);
        path
    }

    fn fail<E: Error>(&mut self, message: String) -> E {
        self.error.get_or_insert(message);
        E::custom("refused")
    }

    fn mismatch<E: Error>(&mut self, found: &str, wanted: &str) -> E {
        let place = match self.owner {
            Some(owner) => format!("Go struct field {}.{}", owner.short_name(), self.fields.join(".")),
            None => "Go value".to_owned(),
        };
        self.fail(format!("json: cannot unmarshal {found} into {place} of type {wanted}"))
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// What to read next.
enum Target<'s> {
    Type(&'s Type),
    /// The root, which is no field of anything.
    Struct(&'s Struct),
}

pub(super) struct Seed<'a, 's> {
    target: Target<'s>,
    /// The named Go type of the field.
    go_type: Option<&'static str>,
    context: &'a mut Context<'s>,
}

impl<'a, 's> Seed<'a, 's> {
    pub(super) fn new(ty: &'s Type, context: &'a mut Context<'s>) -> Self {
        Self { target: Target::Type(ty), go_type: None, context }
    }

    pub(super) fn root(schema: &'s Struct, context: &'a mut Context<'s>) -> Self {
        Self { target: Target::Struct(schema), go_type: None, context }
    }

    fn go_type(&self) -> String {
        match (self.go_type, &self.target) {
            (Some(name), _) => name.to_owned(),
            (None, Target::Type(ty)) => go_type(ty),
            (None, Target::Struct(s)) => s.go_name(),
        }
    }

    fn mismatch<E: Error>(self, found: &str) -> E {
        let wanted = self.go_type();
        self.context.mismatch(found, &wanted)
    }

    fn checked<E: Error>(self, text: Result<String, String>) -> Result<Value, E> {
        text.map(Value::String).map_err(|message| self.context.fail(message))
    }

    /// A number that is no whole one that fits.
    fn bad_number<E: Error>(self, shown: String) -> E {
        match self.target {
            Target::Type(Type::Int32 | Type::Int64) => self.mismatch(&format!("number {shown}")),
            Target::Type(Type::IntOrString) => self
                .context
                .fail(format!("json: cannot unmarshal number {shown} into Go value of type int32")),
            _ => self.number_misplaced(),
        }
    }

    fn number_misplaced<E: Error>(self) -> E {
        match self.target {
            Target::Type(Type::Time | Type::MicroTime | Type::Duration) => {
                self.context.fail("json: cannot unmarshal number into Go value of type string".to_owned())
            }
            _ => self.mismatch("number"),
        }
    }

    fn integer<E: Error>(self, number: i128) -> Result<Value, E> {
        let (low, high) = match self.target {
            Target::Type(Type::Int32 | Type::IntOrString) => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Target::Type(Type::Int64) => (i128::from(i64::MIN), i128::from(i64::MAX)),
            Target::Type(Type::Double) => return Ok(whole(number)),
            Target::Type(Type::Any) => return Ok(whole(number)),
            Target::Type(Type::Quantity) => return self.checked(scalar::quantity(&number.to_string())),
            _ => return Err(self.number_misplaced()),
        };
        if (low..=high).contains(&number) {
            Ok(whole(number))
        } else {
            Err(self.bad_number(number.to_string()))
        }
    }

    fn text<E: Error>(self, text: &str, owned: impl FnOnce() -> String) -> Result<Value, E> {
        let Target::Type(ty) = self.target else { return Err(self.mismatch("string")) };
        match ty {
            Type::String | Type::IntOrString | Type::Any => Ok(Value::String(owned())),
            Type::Quantity => self.checked(scalar::quantity(text)),
            Type::Time => self.checked(scalar::time(text)),
            Type::MicroTime => self.checked(scalar::micro_time(text)),
            Type::Duration => self.checked(scalar::duration(text)),
            Type::Bytes => self.checked(scalar::bytes(owned())),
            Type::Bool
            | Type::Int32
            | Type::Int64
            | Type::Double
            | Type::Struct(_)
            | Type::List(_)
            | Type::Map(_) => Err(self.mismatch("string")),
        }
    }

    /// A token of a shape that the scalar types with decoders of their own refuse in other words.
    fn shape<E: Error>(self, found: &str) -> E {
        match self.target {
            Target::Type(Type::Time | Type::MicroTime | Type::Duration) => {
                self.context.fail(format!("json: cannot unmarshal {found} into Go value of type string"))
            }
            Target::Type(Type::IntOrString) => {
                self.context.fail(format!("json: cannot unmarshal {found} into Go value of type int32"))
            }
            Target::Type(Type::Quantity) => {
                self.context.fail(crate::quantity::QuantityError::Format.to_string())
            }
            _ => self.mismatch(found),
        }
    }
}

/// The number as JSON has it.
fn whole(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number as u64), Value::from)
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_type())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.target {
            Target::Type(Type::Bool | Type::Any) => Ok(Value::Bool(value)),
            _ => Err(self.shape("bool")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.integer(i128::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match self.target {
            Target::Type(Type::Double | Type::Any) => Ok(Value::from(value)),
            Target::Type(Type::Quantity) => self.checked(scalar::quantity(&value.to_string())),
            _ => Err(self.bad_number(format!("{value:?}"))),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.text(value, || value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        match self.target {
            Target::Type(Type::String | Type::IntOrString | Type::Any) => Ok(Value::String(value)),
            _ => self.text(&value, || value.clone()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = match self.target {
            Target::Type(Type::List(list)) => &list.item,
            Target::Type(any @ Type::Any) => any,
            _ => return Err(self.shape("array")),
        };
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or_default().min(1024));
        loop {
            self.context.steps.push(Step::Index(list.len()));
            let next = items.next_element_seed(Seed::new(item, self.context))?;
            self.context.steps.pop();
            match next {
                Some(Value::Null) => list.push(item.zero()),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.target {
            Target::Struct(s) => structure(s, self.context, entries),
            Target::Type(Type::Struct(s)) => structure(s, self.context, entries),
            Target::Type(Type::Map(map)) => dictionary(&map.value, self.context, entries, true),
            Target::Type(any @ Type::Any) => {
                let noted = self.context.duplicates.is_some();
                dictionary(any, self.context, entries, noted)
            }
            _ => Err(self.shape("object")),
        }
    }
}

/// Keys of any name, values of one type.
fn dictionary<'de, 's, A: MapAccess<'de>>(
    value: &'s Type,
    context: &mut Context<'s>,
    mut entries: A,
    noted: bool,
) -> Result<Value, A::Error> {
    let mut map = Map::new();
    while let Some(key) = entries.next_key::<String>()? {
        if noted && map.contains_key(&key) {
            match &context.duplicates {
                None => context.note("duplicate", &key),
                Some(_) => {
                    let path = context.path(&key);
                    context.duplicates.get_or_insert_default().push(path);
                }
            }
        }
        context.steps.push(Step::Key(key));
        let next = entries.next_value_seed(Seed::new(value, context))?;
        let Some(Step::Key(key)) = context.steps.pop() else { continue };
        let next = if next.is_null() { value.zero() } else { next };
        map.insert(key, next);
    }
    Ok(Value::Object(map))
}

fn structure<'de, 's, A: MapAccess<'de>>(
    schema: &'s Struct,
    context: &mut Context<'s>,
    mut entries: A,
) -> Result<Value, A::Error> {
    let mut map = Map::new();
    let mut seen = [0_u64; 4];
    let owner = context.owner;
    while let Some(key) = entries.next_key_seed(Key(schema))? {
        let at = match key {
            Name::Known(at) => at,
            Name::Unknown(name) => {
                context.note("unknown", &name);
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        let Some(field) = schema.fields.get(at) else { continue };
        if let Some(word) = seen.get_mut(at / 64) {
            if *word & (1 << (at % 64)) != 0 {
                context.note("duplicate", &field.name);
            }
            *word |= 1 << (at % 64);
        }
        context.owner = Some(schema);
        context.fields.push(&field.name);
        context.steps.push(Step::Field(&field.name));
        let seed = Seed { target: Target::Type(&field.ty), go_type: field.go_type, context };
        let value = entries.next_value_seed(seed)?;
        context.steps.pop();
        context.fields.pop();
        context.owner = owner;
        if value.is_null() || (field.omit_zero && is_zero(&value)) {
            map.remove(&field.name);
        } else {
            map.insert(field.name.clone(), value);
        }
    }
    for field in schema.fields.iter().filter(|f| f.always) {
        if !map.contains_key(&field.name) {
            map.insert(field.name.clone(), field.zero());
        }
    }
    Ok(Value::Object(map))
}

/// Whether Go's `omitempty` leaves it out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

enum Name {
    Known(usize),
    Unknown(String),
}

/// Reads a key without copying it if it is one of the struct's.
struct Key<'s>(&'s Struct);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(self.0.position(name).map_or_else(|| Name::Unknown(name.to_owned()), Name::Known))
    }
}

/// The type as Go prints it.
fn go_type(ty: &Type) -> String {
    match ty {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Any => "runtime.RawExtension".to_owned(),
        Type::Struct(s) => s.go_name(),
        Type::List(list) => format!("[]{}", go_type(&list.item)),
        Type::Map(map) => match map.value {
            schema::Type::Quantity => "v1.ResourceList".to_owned(),
            _ => format!("map[string]{}", go_type(&map.value)),
        },
    }
}
