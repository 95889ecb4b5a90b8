//! managedFields across the `/scale` subresource: a Scale shows who owns `.spec.replicas` of the object behind it, and a
//! write to the Scale changes only that.

use serde_json::Value;

use super::fields::Set;
use super::managed::{Entry, Managed, ManagedError};

const SCALE_VERSION: &str = "autoscaling/v1";
const REPLICAS: [&str; 2] = ["spec", "replicas"];

/// The managedFields that the Scale of an object shows.
pub fn to_scale(parent: Option<&Value>) -> Result<Option<Value>, ManagedError> {
    let mut managed = Managed::decode(parent)?;
    managed.entries.retain(|e| e.fields.has_path(&["f:spec", "f:replicas"]));
    for entry in &mut managed.entries {
        entry.api_version = SCALE_VERSION.to_owned();
        entry.fields = Set::of_fields(&REPLICAS);
    }
    Ok(managed.encode())
}

/// The managedFields of the object, of version `api_version`, after its Scale was written with these.
pub fn to_parent(
    parent: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
) -> Result<Option<Value>, ManagedError> {
    let (mut managed, mut scale) = (Managed::decode(parent)?, Managed::decode(scale)?);
    let replicas = Set::of_fields(&REPLICAS);
    let same = |a: &Entry, b: &Entry| {
        a.manager == b.manager && a.operation == b.operation && a.subresource == b.subresource
    };
    for entry in managed.entries.iter_mut().filter(|e| e.fields.has_path(&["f:spec", "f:replicas"])) {
        match scale.entries.iter().position(|s| same(s, entry)) {
            Some(i) => {
                let kept = scale.entries.remove(i);
                entry.time = kept.time;
            }
            None => entry.fields.subtract(&replicas),
        }
    }
    for mut entry in scale.entries {
        entry.api_version = api_version.to_owned();
        entry.fields = replicas.clone();
        if let Some(before) = managed.take(&entry) {
            entry.fields.extend(before.fields);
        }
        managed.entries.push(entry);
    }
    Ok(managed.encode())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let entry = |manager: &str, sub: &str, version: &str, fields: Value| {
            let mut e = json!({"manager": manager, "operation": "Update", "apiVersion": version, "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields});
            if !sub.is_empty() {
                e["subresource"] = json!(sub);
            }
            e
        };
        let parent = json!([
            entry("a", "", "apps/v1", json!({"f:spec": {"f:paused": {}, "f:replicas": {}}})),
            entry("b", "", "apps/v1", json!({"f:spec": {"f:template": {}}})),
        ]);
        let shown = to_scale(Some(&parent)).unwrap().unwrap();
        assert_eq!(shown, json!([entry("a", "", "autoscaling/v1", json!({"f:spec": {"f:replicas": {}}}))]));
        assert_eq!(to_parent(Some(&parent), Some(&shown), "apps/v1").unwrap().unwrap(), parent);
        let taken = json!([entry("s", "scale", "autoscaling/v1", json!({"f:spec": {"f:replicas": {}}}))]);
        let want = json!([
            entry("a", "", "apps/v1", json!({"f:spec": {"f:paused": {}}})),
            entry("b", "", "apps/v1", json!({"f:spec": {"f:template": {}}})),
            entry("s", "scale", "apps/v1", json!({"f:spec": {"f:replicas": {}}})),
        ]);
        assert_eq!(to_parent(Some(&parent), Some(&taken), "apps/v1").unwrap().unwrap(), want);
        assert_eq!(to_scale(None).unwrap(), None);
    }
}
