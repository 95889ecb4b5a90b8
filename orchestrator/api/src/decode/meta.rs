//! What a document says it is: its apiVersion and kind, read without looking at the rest.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Both may be empty.
#[derive(Debug, Default)]
pub(super) struct TypeMeta {
    pub(super) api_version: String,
    pub(super) kind: String,
}

impl TypeMeta {
    pub(super) fn kind_or<'a>(&'a self, expected: &'a str) -> &'a str {
        if self.kind.is_empty() { expected } else { &self.kind }
    }
}

impl<'de> Deserialize<'de> for TypeMeta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Document)
    }
}

/// A derived implementation would read a list as well.
struct Document;

impl<'de> Visitor<'de> for Document {
    type Value = TypeMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct")
    }

    fn visit_unit<E: Error>(self) -> Result<TypeMeta, E> {
        Ok(TypeMeta::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<TypeMeta, A::Error> {
        let mut meta = TypeMeta::default();
        while let Some(key) = entries.next_key::<String>()? {
            let field = match key.as_str() {
                "apiVersion" => &mut meta.api_version,
                "kind" => &mut meta.kind,
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = entries.next_value::<Option<String>>()?.unwrap_or_default();
        }
        Ok(meta)
    }
}
