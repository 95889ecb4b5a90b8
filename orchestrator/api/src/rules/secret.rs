//! What the API does with a Secret.

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::kinds::Strategy;
use crate::printers;
use crate::rules::base64;
use crate::rules::checks::{self, Errors, immutable, invalid_each};
use crate::rules::config_map::{MAX_SIZE, frozen};
use crate::rules::path::Path;
use crate::rules::value::{at, child, entries, fill_text, get, has, object, remove, text};
use crate::rules::{meta, names};

pub static STRATEGY: SecretStrategy = SecretStrategy;

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub struct SecretStrategy;

impl Strategy for SecretStrategy {
    /// `stringData` is for writing only: it goes into `data`.
    fn default(&self, obj: &mut Value) {
        if let Some(Value::Object(plain)) = get(obj, "stringData").cloned() {
            let data = object(child(obj, "data"));
            for (key, value) in plain {
                let bytes = value.as_str().unwrap_or_default().as_bytes();
                data.insert(key, base64::encode(bytes).into());
            }
        }
        remove(obj, "stringData");
        fill_text(obj, "type", "Opaque");
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errs = Errors::new();
        content(&mut errs, obj);
        errs
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errs = meta::validate_update(at(new, "metadata"), at(old, "metadata"));
        immutable(&mut errs, get(new, "type"), get(old, "type"), "type");
        frozen(&mut errs, new, old, &["data"]);
        errs.extend(meta::validate_create(at(new, "metadata"), true, names::dns1123_subdomain));
        content(&mut errs, new);
        errs
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1123_subdomain(name)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn selectable(&self, obj: &Value, _field: &str) -> String {
        text(obj, "type").to_owned()
    }

    fn row(&self, obj: &Value, now: i64) -> Vec<Value> {
        printers::secret(obj, now)
    }
}

fn content(errs: &mut Errors, obj: &Value) {
    let path = Path::root("data");
    let mut size = 0;
    for (key, value) in entries(obj, "data") {
        invalid_each(errs, path.key(key), key, names::config_key(key));
        size += base64::decoded_len(value.as_str().unwrap_or_default());
    }
    if size > MAX_SIZE {
        errs.push(checks::too_long(path, MAX_SIZE));
    }
    by_type(errs, obj, &path);
}

/// What the well-known types must hold.
fn by_type(errs: &mut Errors, obj: &Value, path: &Path<'_>) {
    let data = at(obj, "data");
    let require = |errs: &mut Errors, key: &str| errs.push(FieldError::required(path.key(key), ""));
    match text(obj, "type") {
        "kubernetes.io/service-account-token" => account_name(errs, at(obj, "metadata")),
        "kubernetes.io/dockercfg" => docker_config(errs, data, ".dockercfg", path),
        "kubernetes.io/dockerconfigjson" => docker_config(errs, data, ".dockerconfigjson", path),
        "kubernetes.io/basic-auth" => {
            let keys = ["username", "password"];
            if !keys.iter().any(|k| data.get(k).is_some()) {
                keys.iter().for_each(|k| require(errs, k));
            }
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            require(errs, "ssh-privatekey")
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|k| data.get(k).is_none()) {
                require(errs, key);
            }
        }
        _ => {}
    }
}

/// The account of a token; the token itself may come later.
fn account_name(errs: &mut Errors, metadata: &Value) {
    let path = Path::root("metadata");
    if text(at(metadata, "annotations"), ACCOUNT_NAME).is_empty() {
        errs.push(FieldError::required(path.child("annotations").key(ACCOUNT_NAME), ""));
    }
}

fn docker_config(errs: &mut Errors, data: &Value, key: &str, path: &Path<'_>) {
    if !has(data, key) {
        errs.push(FieldError::required(path.key(key), ""));
        return;
    }
    let bytes = base64::decode(text(data, key)).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        let shown = json!("<secret contents redacted>");
        errs.push(FieldError::invalid(path.key(key), &shown, &error.to_string()));
    }
}
