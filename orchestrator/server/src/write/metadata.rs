//! The metadata that the server owns: names it makes up, uids, times, generations.

use loadline_api::status::ApiError;
use serde_json::Value;

use crate::object::{Meta as _, timestamp};
use crate::respond::Result;

/// No vowels and nothing that looks alike, as Kubernetes has it.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const BASE_LENGTH: usize = 58;

/// Five random characters.
pub(crate) fn random_suffix() -> String {
    (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// A name from `generateName`, where the object asks for one.
pub(crate) fn generate_name(obj: &mut Value) -> bool {
    if !obj.name().is_empty() {
        return false;
    }
    let base = obj.meta_str("generateName");
    if base.is_empty() {
        return false;
    }
    let cut: String = base.chars().take(BASE_LENGTH).collect();
    let name = cut + &random_suffix();
    obj.set_meta("name", name.into());
    true
}

/// The namespace of the object must be that of the request; it is filled in where it is missing.
pub(crate) fn settle_namespace(obj: &mut Value, namespace: &str) -> Result<()> {
    let own = obj.meta_str("namespace");
    if namespace.is_empty() {
        // Kinds without namespaces: metadata validation says so if there is one.
        return Ok(());
    }
    if own.is_empty() {
        obj.set_meta("namespace", namespace.into());
    } else if own != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(message).into());
    }
    Ok(())
}

/// Replaces what clients may not choose for a new object.
pub(crate) fn fill_new(obj: &mut Value, now: i64, has_generation: bool) {
    let meta = obj.meta_mut();
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), timestamp(now));
    if has_generation {
        meta.insert("generation".to_owned(), 1.into());
    }
}

/// Carries over from `old` what an update may leave out or not change.
pub(crate) fn carry_over(new: &mut Value, old: &Value) {
    let old_meta = old.meta();
    let of_old = |field: &str| old_meta.and_then(|m| m.get(field)).filter(|v| !v.is_null()).cloned();
    let meta = new.meta_mut();
    meta.remove("selfLink");
    for field in ["creationTimestamp", "deletionTimestamp"] {
        // A deletion that has begun cannot be undone or put off.
        if let Some(value) = of_old(field) {
            meta.insert(field.to_owned(), value);
        }
    }
    match of_old("generation") {
        Some(value) => meta.insert("generation".to_owned(), value),
        None => meta.remove("generation"),
    };
    for field in ["uid", "deletionGracePeriodSeconds", "namespace"] {
        let missing = meta.get(field).is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        if missing && let Some(value) = of_old(field) {
            meta.insert(field.to_owned(), value);
        }
    }
}

/// Raises `metadata.generation`, where there is one.
pub(crate) fn next_generation(obj: &mut Value) {
    let generation = obj.generation();
    obj.set_meta("generation", (generation + 1).into());
}

/// Empty maps and lists in metadata are the same as none.
pub(crate) fn tidy(obj: &mut Value) {
    let meta = obj.meta_mut();
    for field in ["labels", "annotations"] {
        if meta
            .get(field)
            .is_some_and(|v| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty))
        {
            meta.remove(field);
        }
    }
    for field in ["finalizers", "ownerReferences", "managedFields"] {
        if meta.get(field).is_some_and(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty)) {
            meta.remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generated_names_fit() {
        let mut obj = json!({"metadata": {"generateName": "a".repeat(80)}});
        assert!(generate_name(&mut obj));
        assert_eq!(obj.name().len(), 63);
        assert!(obj.name()[58..].bytes().all(|b| ALPHABET.contains(&b)));
        let mut named = json!({"metadata": {"generateName": "a", "name": "n"}});
        assert!(!generate_name(&mut named));
    }

    #[test]
    fn the_server_owns_its_fields() {
        let mut new = json!({"metadata": {"name": "n", "uid": "mine", "generation": 9,
            "deletionTimestamp": "2001-01-01T00:00:00Z", "creationTimestamp": "2001-01-01T00:00:00Z"}});
        fill_new(&mut new, 1_700_000_000, false);
        assert_ne!(new.uid(), "mine");
        assert_eq!(new.meta_str("creationTimestamp"), "2023-11-14T22:13:20Z");
        assert!(!new.deleting() && new.generation() == 0);

        let old = json!({"metadata": {"name": "n", "uid": "u", "generation": 3, "creationTimestamp": "c",
            "deletionTimestamp": "d", "deletionGracePeriodSeconds": 30}});
        let mut update = json!({"metadata": {"name": "n", "generation": 9}});
        carry_over(&mut update, &old);
        assert_eq!(update, old);
    }
}
