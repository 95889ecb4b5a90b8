//! `metadata.managedFields`: decoding, encoding, ordering and capping of its entries.
//!
//! Owns who a manager is (name, operation, version, subresource) and how many are kept; how fields move between
//! managers is `apply`'s business.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::fields::Set;

/// How many Update entries an object keeps before the oldest are merged.
const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager that old updates are merged into.
const OLD_UPDATES: &str = "ancient-changes";

/// managedFields that cannot be read; the text is apimachinery's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ManagedError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager of one object and what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339; empty where there is none.
    pub time: String,
    pub fields: Set,
}

impl Entry {
    /// Whether both are one manager. An applier stays the same whatever version it applies.
    pub(crate) fn same_manager(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// How a conflict names the manager.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn encode(&self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                map.insert(name.to_owned(), Value::from(text));
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.name());
        put("apiVersion", &self.api_version);
        put("time", &self.time);
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        map.insert("fieldsV1".to_owned(), self.fields.to_fields_v1());
        Value::Object(map)
    }

    /// Appliers first, then by time, then by name.
    fn order(&self, other: &Self) -> Ordering {
        let key = |e: &Self| (e.operation.name(), seconds(&e.time).to_owned());
        key(self)
            .cmp(&key(other))
            .then_with(|| self.manager.cmp(&other.manager))
            .then_with(|| self.api_version.cmp(&other.api_version))
            .then_with(|| self.subresource.cmp(&other.subresource))
    }
}

/// RFC 3339 in UTC sorts as text down to the second.
fn seconds(time: &str) -> &str {
    time.get(..19).unwrap_or(time)
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    /// From the value of `metadata.managedFields`; absent and `null` are empty.
    pub fn decode(value: Option<&Value>) -> Result<Self, ManagedError> {
        let list = match value {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(ManagedError(format!("managedFields must be a list, not {other}"))),
        };
        let mut managed = Self { entries: Vec::with_capacity(list.len()) };
        for (i, value) in list.iter().enumerate() {
            let entry = decode_entry(i, value)?;
            // As in a map by identifier, the last of two alike stays.
            managed.entries.retain(|e| !e.same_manager(&entry));
            managed.entries.push(entry);
        }
        Ok(managed)
    }

    /// The value for `metadata.managedFields`; `None` where nobody manages anything.
    pub fn encode(mut self) -> Option<Value> {
        self.entries.retain(|e| !e.fields.is_empty());
        self.entries.sort_by(Entry::order);
        (!self.entries.is_empty()).then(|| Value::Array(self.entries.iter().map(Entry::encode).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn take(&mut self, who: &Entry) -> Option<Entry> {
        let at = self.entries.iter().position(|e| e.same_manager(who))?;
        Some(self.entries.remove(at))
    }

    /// Merges the oldest Update entries of each version until no more than ten are left.
    pub(crate) fn cap(&mut self) {
        let mut count = self.entries.iter().filter(|e| e.operation == Operation::Update).count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let (mut updates, rest): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(&mut self.entries).into_iter().partition(|e| e.operation == Operation::Update);
        self.entries = rest;
        updates.sort_by(Entry::order);
        let mut kept: Vec<Entry> = Vec::with_capacity(updates.len());
        for entry in updates {
            let first = kept.iter_mut().find(|k| k.api_version == entry.api_version);
            match first {
                Some(bucket) if count > MAX_UPDATE_MANAGERS => {
                    bucket.manager = OLD_UPDATES.to_owned();
                    bucket.subresource = String::new();
                    bucket.time = entry.time;
                    bucket.fields.extend(entry.fields);
                    count -= 1;
                }
                _ => kept.push(entry),
            }
        }
        self.entries.append(&mut kept);
    }
}

fn decode_entry(i: usize, value: &Value) -> Result<Entry, ManagedError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagedError("operation must be `Apply` or `Update`".to_owned())),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err(ManagedError("apiVersion must not be empty".to_owned()));
    }
    match text("fieldsType").as_str() {
        "FieldsV1" => {}
        "" => return Err(ManagedError(format!("missing fieldsType in managed fields entry {i}"))),
        other => {
            return Err(ManagedError(format!("invalid fieldsType {other:?} in managed fields entry {i}")));
        }
    }
    let fields = match value.get("fieldsV1") {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => {
            Set::from_fields_v1(fields).map_err(|e| ManagedError(format!("error decoding set: {e}")))?
        }
    };
    Ok(Entry {
        manager: text("manager"),
        operation,
        api_version,
        subresource: text("subresource"),
        time: text("time"),
        fields,
    })
}

/// Where all but the times of managedFields is as before, the times are put back, so that a write that changes nothing
/// stays one. Call it on every update, last.
pub fn keep_times(new: &mut Value, old: &Value) {
    let (Some(was), Some(is)) = (entries(old), entries(new)) else { return };
    if was == is || was.len() != is.len() {
        return;
    }
    let same = was.iter().zip(is).all(|(a, b)| without_time(a).eq(without_time(b)));
    if !same || !same_but_managed(new, old) {
        return;
    }
    let was = Value::Array(was.clone());
    if let Some(meta) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.insert("managedFields".to_owned(), was);
    }
}

fn entries(obj: &Value) -> Option<&Vec<Value>> {
    obj.get("metadata")?.get("managedFields")?.as_array()
}

fn without_time(entry: &Value) -> impl Iterator<Item = (&String, &Value)> {
    entry.as_object().into_iter().flatten().filter(|(k, _)| *k != "time")
}

fn same_but_managed(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    let meta = |m: &Map<String, Value>| {
        let mut meta = m.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        meta.remove("managedFields");
        meta
    };
    let rest = |m| Map::iter(m).filter(|(k, _)| *k != "metadata");
    rest(a).eq(rest(b)) && meta(a) == meta(b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, op: &str, time: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": op, "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn round_trip_and_order() {
        let list = json!([
            entry("u1", "Update", "2026-01-01T00:00:01Z", json!({"f:a": {}})),
            entry("b", "Apply", "2026-01-01T00:00:05Z", json!({"f:b": {}})),
            entry("u0", "Update", "2026-01-01T00:00:00Z", json!({"f:c": {}})),
            entry("a", "Apply", "2026-01-01T00:00:05Z", json!({"f:d": {}})),
            entry("empty", "Update", "2026-01-01T00:00:00Z", json!({})),
        ]);
        let encoded = Managed::decode(Some(&list)).unwrap().encode().unwrap();
        let names: Vec<&str> =
            encoded.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "u0", "u1"]);
        assert_eq!(Managed::decode(Some(&encoded)).unwrap().encode().unwrap(), encoded);
        assert_eq!(Managed::default().encode(), None);
    }

    #[test]
    fn refused() {
        let cases = [
            (json!([{}]), "operation must be `Apply` or `Update`"),
            (json!([{"operation": "Apply"}]), "apiVersion must not be empty"),
            (
                json!([{"operation": "Apply", "apiVersion": "v1"}]),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "V2"}]),
                "invalid fieldsType \"V2\" in managed fields entry 0",
            ),
        ];
        for (value, want) in cases {
            assert_eq!(Managed::decode(Some(&value)).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn the_oldest_updates_are_merged() {
        let list: Vec<Value> = (0..13)
            .map(|i| {
                entry(
                    &format!("m{i:02}"),
                    "Update",
                    &format!("2026-01-01T00:00:{i:02}Z"),
                    json!({format!("f:x{i:02}"): {}}),
                )
            })
            .collect();
        let mut managed = Managed::decode(Some(&Value::Array(list))).unwrap();
        managed.cap();
        let encoded = managed.encode().unwrap();
        let all = encoded.as_array().unwrap();
        assert_eq!(all.len(), 10);
        assert_eq!(all[0]["manager"], "ancient-changes");
        assert_eq!(all[0]["time"], "2026-01-01T00:00:03Z");
        assert_eq!(all[0]["fieldsV1"], json!({"f:x00": {}, "f:x01": {}, "f:x02": {}, "f:x03": {}}));
    }

    #[test]
    fn times_stay_where_nothing_changed() {
        let at = |time: &str, x: &str| json!({"metadata": {"name": "n", "managedFields": [entry("m", "Apply", time, json!({"f:x": {}}))]}, "x": x});
        let old = at("2026-01-01T00:00:00Z", "1");
        let mut same = at("2026-01-01T00:00:09Z", "1");
        keep_times(&mut same, &old);
        assert_eq!(same, old);
        let mut changed = at("2026-01-01T00:00:09Z", "2");
        let before = changed.clone();
        keep_times(&mut changed, &old);
        assert_eq!(changed, before);
    }
}
