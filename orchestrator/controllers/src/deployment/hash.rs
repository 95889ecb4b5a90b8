//! The name part of a template: a stable hash in letters that spell no words. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// apimachinery's `SafeEncodeString` alphabet: no vowels, nothing that looks like something else.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 10;

/// The same for equal templates, whatever the order of their maps; another one for each `collisions`.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hasher = Sha256::new();
    // Serialising plain data into a Value cannot fail; were it to, the name would still be valid and unique enough.
    feed(&mut hasher, &serde_json::to_value(template).unwrap_or(Value::Null));
    if let Some(count) = collisions {
        hasher.update(count.to_le_bytes());
    }
    hasher
        .finalize()
        .iter()
        .take(LENGTH)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// Every value with a tag and its length, maps in the order of their keys: no two values feed the same bytes.
fn feed(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            hasher.update(format!("o{};", entries.len()));
            for (key, value) in entries {
                hasher.update(format!("k{};{key}", key.len()));
                feed(hasher, value);
            }
        }
        Value::Array(items) => {
            hasher.update(format!("a{};", items.len()));
            items.iter().for_each(|item| feed(hasher, item));
        }
        scalar => {
            let text = scalar.to_string();
            hasher.update(format!("s{};{text}", text.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(yaml: Value) -> PodTemplateSpec {
        serde_json::from_value(yaml).unwrap()
    }

    #[test]
    fn a_name_is_stable_and_depends_on_template_and_collisions() {
        let a = template(serde_json::json!({"metadata": {"labels": {"a": "1", "b": "2"}}}));
        let same = template(serde_json::json!({"metadata": {"labels": {"b": "2", "a": "1"}}}));
        let other = template(serde_json::json!({"metadata": {"labels": {"a": "12", "b": ""}}}));
        let hash = template_hash(&a, None);
        assert_eq!(hash, template_hash(&same, None));
        assert_ne!(hash, template_hash(&other, None));
        assert_ne!(hash, template_hash(&a, Some(1)));
        assert_ne!(template_hash(&a, Some(1)), template_hash(&a, Some(2)));
        assert_eq!(hash.len(), LENGTH);
        assert!(hash.bytes().all(|b| ALPHABET.contains(&b)));
    }
}
