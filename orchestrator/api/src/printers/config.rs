//! ConfigMap, Secret, ServiceAccount, and kinds that show nothing but their name and age.

use serde_json::Value;

use super::cell::{created, map, name, text};

pub fn name_and_age(obj: &Value, now: i64) -> Vec<Value> {
    vec![name(obj), created(obj, now)]
}

pub fn config_map(obj: &Value, now: i64) -> Vec<Value> {
    vec![name(obj), Value::from(entries(obj, "/data") + entries(obj, "/binaryData")), created(obj, now)]
}

pub fn secret(obj: &Value, now: i64) -> Vec<Value> {
    vec![name(obj), Value::from(text(obj, "/type")), Value::from(entries(obj, "/data")), created(obj, now)]
}

pub fn service_account(obj: &Value, now: i64) -> Vec<Value> {
    name_and_age(obj, now)
}

fn entries(obj: &Value, pointer: &str) -> usize {
    map(obj, pointer).map_or(0, serde_json::Map::len)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_counted() {
        let obj = json!({"metadata": {"name": "n"}, "data": {"a": "", "b": ""}, "binaryData": {"c": ""}});
        assert_eq!(config_map(&obj, 0), vec![json!("n"), json!(3), json!("<unknown>")]);
        let obj = json!({"metadata": {"name": "n"}, "type": "Opaque"});
        assert_eq!(secret(&obj, 0), vec![json!("n"), json!("Opaque"), json!(0), json!("<unknown>")]);
    }
}
