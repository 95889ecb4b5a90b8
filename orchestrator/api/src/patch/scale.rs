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

    #[test]
    fn a_disputed_scale() {
        let schema = crate::schema::of("autoscaling", "v1", "Scale").unwrap();
        let parent = json!([{"manager": "unknown", "operation": "Update", "apiVersion": "apps/v1", "subresource": "scale",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        let scale = |n: i32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": n}});
        let mut live = scale(2);
        live["metadata"]["managedFields"] = to_scale(Some(&parent)).unwrap().unwrap();
        let write = crate::patch::apply::Write {
            schema: &schema,
            api_version: SCALE_VERSION,
            manager: "m",
            subresource: "scale",
            now: "2026-01-01T00:00:00Z",
            convert: None,
        };
        let error =
            crate::patch::apply::apply(&write, Some(&live), &scale(3), false).unwrap_err().to_string();
        let who = "\"unknown\" with subresource \"scale\" using autoscaling/v1";
        assert_eq!(error, format!("Apply failed with 1 conflict: conflict with {who}: .spec.replicas"));
        let mut new = scale(4);
        crate::patch::apply::update(
            &crate::patch::apply::Write { manager: "two", ..write },
            Some(&live),
            &mut new,
        );
        let after =
            to_parent(Some(&parent), new["metadata"].get("managedFields"), "apps/v1").unwrap().unwrap();
        assert_eq!(after.as_array().unwrap().len(), 1);
        assert_eq!((&after[0]["manager"], &after[0]["apiVersion"]), (&json!("two"), &json!("apps/v1")));
    }
}
