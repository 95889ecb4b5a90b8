//! Objects as bytes. What is stored is the JSON that is served, short of its resourceVersion, with kind, apiVersion
//! and metadata first, so that the revision is spliced in and the list form cut out at known places.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use loadline_store::Revision;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The fixed beginning of every object of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) kind: &'static str,
    pub(crate) api_version: Arc<str>,
    /// `{"kind":"K","apiVersion":"V",`
    prefix: Arc<[u8]>,
}

const METADATA: &[u8] = br#""metadata":{"#;

impl Head {
    pub(crate) fn new(group: &str, version: &str, kind: &'static str) -> Self {
        let api_version: Arc<str> =
            if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        let prefix = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","#);
        Self { kind, api_version, prefix: prefix.into_bytes().into() }
    }

    /// Where the member of a list begins in an object's bytes; a `{` goes before it.
    pub(crate) fn item_offset(&self) -> usize {
        self.prefix.len()
    }

    /// The bytes to store: `obj` without `metadata.resourceVersion`.
    pub(crate) fn encode(&self, obj: &Value) -> Bytes {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(METADATA);
        let mut first = true;
        if let Some(meta) = obj.get("metadata").and_then(Value::as_object) {
            for (key, value) in meta.iter().filter(|(k, _)| *k != "resourceVersion") {
                member(&mut out, &mut first, key, value);
            }
        }
        out.push(b'}');
        if let Some(fields) = obj.as_object() {
            let mut first = false;
            for (key, value) in fields {
                if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                    member(&mut out, &mut first, key, value);
                }
            }
        }
        out.push(b'}');
        out.into()
    }

    /// The bytes to serve: what is stored, with its revision. Foreign layouts are encoded anew.
    pub(crate) fn splice(&self, stored: &[u8], revision: Revision) -> Result<Bytes, serde_json::Error> {
        let at = self.prefix.len() + METADATA.len();
        let known = stored.starts_with(&self.prefix) && stored[self.prefix.len()..].starts_with(METADATA);
        if !known {
            let value: Value = serde_json::from_slice(stored)?;
            let again = self.encode(&value);
            return Ok(self.splice_known(&again, at, revision));
        }
        Ok(self.splice_known(stored, at, revision))
    }

    fn splice_known(&self, stored: &[u8], at: usize, revision: Revision) -> Bytes {
        let mut out = BytesMut::with_capacity(stored.len() + 40);
        out.put_slice(&stored[..at]);
        out.put_slice(br#""resourceVersion":""#);
        put_number(&mut out, revision);
        out.put_slice(if stored.get(at) == Some(&b'}') { b"\"" } else { b"\"," });
        out.put_slice(&stored[at..]);
        out.freeze()
    }

    /// Served bytes with another revision in place of theirs (a deletion's).
    pub(crate) fn with_revision(&self, served: &[u8], revision: Revision) -> Bytes {
        let start = self.prefix.len() + METADATA.len() + br#""resourceVersion":""#.len();
        let digits = served.get(start..).map_or(0, |s| s.iter().take_while(|b| b.is_ascii_digit()).count());
        let mut out = BytesMut::with_capacity(served.len() + 4);
        out.put_slice(&served[..start.min(served.len())]);
        put_number(&mut out, revision);
        out.put_slice(served.get(start + digits..).unwrap_or_default());
        out.freeze()
    }
}

fn member(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    // Writing a Value into a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
}

fn put_number(out: &mut BytesMut, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// The parts of an object that lists and watches look at.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Peek {
    #[serde(default)]
    pub(crate) metadata: PeekMeta,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct PeekMeta {
    #[serde(default, deserialize_with = "labels")]
    pub(crate) labels: Pairs,
}

/// Labels, small: most objects have a few.
pub(crate) type Pairs = Vec<(Box<str>, Box<str>)>;

fn labels<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Pairs, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Pairs;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("labels")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = Vec::new();
            while let Some(pair) = map.next_entry()? {
                out.push(pair);
            }
            Ok(out)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
    }
    d.deserialize_any(Visitor)
}

#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// `metadata` of a served object, as it stands in its bytes.
pub(crate) fn raw_metadata(served: &[u8]) -> &str {
    serde_json::from_slice::<OnlyMetadata<'_>>(served).map_or("{}", |o| o.metadata.get())
}

/// The `PartialObjectMetadata` of a served object.
pub(crate) fn partial(served: &[u8]) -> Bytes {
    let meta = raw_metadata(served);
    let mut out = Vec::with_capacity(meta.len() + 80);
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(meta.as_bytes());
    out.push(b'}');
    out.into()
}

/// Short access to an object's metadata.
pub(crate) trait Meta {
    fn meta(&self) -> Option<&Map<String, Value>>;
    /// Makes `metadata` an object if it is not one.
    fn meta_mut(&mut self) -> &mut Map<String, Value>;

    fn meta_str(&self, field: &str) -> &str {
        self.meta().and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.meta_str("name")
    }

    fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    fn deleting(&self) -> bool {
        self.meta().and_then(|m| m.get("deletionTimestamp")).is_some_and(|v| !v.is_null())
    }

    fn finalizers(&self) -> Vec<&str> {
        let list = self.meta().and_then(|m| m.get("finalizers")).and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    fn grace(&self) -> Option<i64> {
        self.meta().and_then(|m| m.get("deletionGracePeriodSeconds")).and_then(Value::as_i64)
    }

    fn generation(&self) -> i64 {
        self.meta().and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or_default()
    }

    fn set_meta(&mut self, field: &str, value: Value) {
        self.meta_mut().insert(field.to_owned(), value);
    }

    fn set_finalizers(&mut self, finalizers: &[&str]) {
        if finalizers.is_empty() {
            self.meta_mut().remove("finalizers");
        } else {
            self.set_meta("finalizers", finalizers.iter().map(|f| Value::from(*f)).collect());
        }
    }
}

impl Meta for Value {
    fn meta(&self) -> Option<&Map<String, Value>> {
        self.get("metadata").and_then(Value::as_object)
    }

    fn meta_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        // Indexing an object inserts what is missing.
        let meta = &mut self["metadata"];
        if !meta.is_object() {
            *meta = Value::Object(Map::new());
        }
        match meta {
            Value::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }
}

/// Whole seconds in UTC, as `metav1.Time`.
pub(crate) fn timestamp(seconds: i64) -> Value {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    Value::String(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

pub(crate) fn now_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Seconds of a `metav1.Time`.
pub(crate) fn seconds(time: &str) -> Option<i64> {
    time.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_round_trip_with_the_revision_in_its_place() {
        let head = Head::new("apps", "v1", "Deployment");
        let obj = json!({"metadata": {"name": "d", "labels": {"a": "b"}, "resourceVersion": "1"},
            "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}});
        let stored = head.encode(&obj);
        assert!(!std::str::from_utf8(&stored).unwrap().contains("resourceVersion"));
        let served = head.splice(&stored, 42).unwrap();
        let mut want = obj.clone();
        want.set_meta("resourceVersion", "42".into());
        assert_eq!(serde_json::from_slice::<Value>(&served).unwrap(), want);
        let deleted: Value = serde_json::from_slice(&head.with_revision(&served, 1234)).unwrap();
        assert_eq!(deleted.meta_str("resourceVersion"), "1234");
        let item = [b"{", &served[head.item_offset()..]].concat();
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert!(item.get("kind").is_none() && item["spec"]["replicas"] == 1);
        let peek: Peek = serde_json::from_slice(&served).unwrap();
        assert_eq!(peek.metadata.labels, vec![("a".into(), "b".into())]);
        assert_eq!(serde_json::from_slice::<Value>(&partial(&served)).unwrap()["metadata"], want["metadata"]);
    }

    #[test]
    fn foreign_layouts_and_empty_metadata_are_served_too() {
        let head = Head::new("", "v1", "ConfigMap");
        for stored in [
            r#"{"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{"name":"x"}}"#,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}"#,
        ] {
            let served: Value = serde_json::from_slice(&head.splice(stored.as_bytes(), 7).unwrap()).unwrap();
            assert_eq!(served.meta_str("resourceVersion"), "7", "{stored}");
        }
        assert!(head.splice(b"{broken", 7).is_err());
    }
}
