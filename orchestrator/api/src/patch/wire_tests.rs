//! Replays the patches that a real API server was sent, each on what that server had before it, and compares what comes
//! out with what it answered: objects after decoding and defaulting, managedFields, and the texts of errors. Skips
//! itself where the recording is not there.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{apply, json as json_patch, merge, strategic};
use crate::decode;
use crate::kinds::{Kind, Registry};

const NOW: &str = "2026-01-02T03:04:05Z";
/// What the server writes, and what is not patching's to decide.
const SERVERS_OWN: [&str; 6] =
    ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "namespace"];

/// Steps whose answers show what comes after patching: admission's tolerations, and node ports given out or back.
const BEYOND_PATCHING: [(&str, usize); 3] =
    [("immutable/pod", 7), ("immutable/deployment-and-service", 6), ("immutable/deployment-and-service", 7)];

fn recording() -> Option<(Vec<Value>, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wire");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let (Some(scenarios), Some(answers)) = (read("scenarios.yaml"), read("answers.json")) else {
        println!("skipped: no recorded answers at {}", folder.display());
        return None;
    };
    Some((serde_yaml::from_str(&scenarios).unwrap(), serde_json::from_str(&answers).unwrap()))
}

/// The recording has placeholders for what changes from run to run; values of the right type take their place.
fn filled(value: &Value) -> Value {
    match value {
        Value::String(s) if s == "<nodePort>" => json!(30001),
        Value::String(s) if s.starts_with('<') && (s.contains("ime>") || s.contains("Timestamp>")) => {
            json!(NOW)
        }
        Value::Array(items) => items.iter().map(filled).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), filled(v))).collect()),
        other => other.clone(),
    }
}

struct Step<'a> {
    path: &'a str,
    media_type: &'a str,
    body: &'a Value,
}

impl Step<'_> {
    fn object_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    fn query(&self, name: &str) -> &str {
        let query = self.path.split_once('?').map_or("", |(_, q)| q);
        query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=')).unwrap_or("")
    }

    fn bytes(&self) -> Vec<u8> {
        self.body.as_str().map_or_else(|| self.body.to_string(), str::to_owned).into_bytes()
    }

    /// What the patch makes of the live object, or the error's text.
    fn run(&self, kind: &Kind, live: Option<&Value>) -> Result<Value, String> {
        let api_version = kind.api_version();
        let request = apply::Write {
            schema: &kind.schema,
            api_version: &api_version,
            manager: self.query("fieldManager"),
            subresource: "",
            now: NOW,
            convert: None,
        };
        let bytes = self.bytes();
        let target = live.unwrap_or(&Value::Null);
        let patched = match self.media_type {
            "application/apply-patch+yaml" => {
                let force = self.query("force") == "true";
                return apply::apply(&request, live, self.body, force)
                    .map_err(|e| e.to_string())
                    .map(|v| settled(kind, v));
            }
            "application/json-patch+json" => json_patch::apply(target, &bytes),
            "application/merge-patch+json" => merge::decode(&bytes).map(|p| merge::apply(target, &p)),
            _ => merge::decode(&bytes).and_then(|p| strategic::apply(&kind.schema, target, &p)),
        };
        let mut new = settled(kind, patched.map_err(|e| e.to_string())?);
        apply::update(&request, live, &mut new);
        kind.strategy.prepare_update(&mut new, target);
        Ok(new)
    }
}

fn settled(kind: &Kind, mut object: Value) -> Value {
    // A refused object is compared as it is: the answer was an error then too.
    if decode::object(&kind.schema, &mut object).is_ok() {
        kind.strategy.default(&mut object);
    }
    object
}

fn without_servers_own(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.retain(|k, _| !SERVERS_OWN.contains(&k.as_str()));
    }
    object
}

fn timeless(object: &Value) -> Value {
    let mut list = object["metadata"]["managedFields"].clone();
    for entry in list.as_array_mut().into_iter().flatten() {
        entry["time"] = json!("<time>");
    }
    list
}

fn compare(
    step: &Step<'_>,
    got: Result<Value, String>,
    answer: &Value,
    live: bool,
    managed: bool,
) -> Result<(), String> {
    let want = &filled(&answer["body"]);
    let code = answer["code"].as_u64().unwrap_or_default();
    match got {
        Ok(got) if code < 300 => {
            let (a, b) = (timeless(&got), timeless(want));
            if managed && a != b {
                return Err(format!("managedFields: want {b}, got {a}"));
            }
            // Creating allocates addresses and the like; that is not seen here.
            let (a, b) = (without_servers_own(&got), without_servers_own(want));
            if !live || a == b { Ok(()) } else { Err(format!("want {b}, got {a}")) }
        }
        // Validation refused it later.
        Ok(_) if step.media_type != "application/apply-patch+yaml" => Ok(()),
        Err(text) if code >= 400 && want["message"] == text => Ok(()),
        other => Err(format!("want {code} {}, got {other:?}", want["message"])),
    }
}

#[test]
fn recorded_answers_to_patches() {
    let Some((scenarios, answers)) = recording() else { return };
    let registry = Registry::builtin().snapshot();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for scenario in &scenarios {
        let name = scenario["name"].as_str().unwrap();
        let mut objects: std::collections::HashMap<String, Value> = std::collections::HashMap::new();
        for (i, raw) in scenario["steps"].as_array().unwrap().iter().enumerate() {
            let answer = &answers[name][i];
            let text = |field: &str| raw[field].as_str().unwrap_or_default();
            let step = Step { path: text("path"), media_type: text("type"), body: &raw["body"] };
            let path = step.object_path();
            let live = objects.get(path);
            let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
            let kind = match parts.as_slice() {
                ["api", version, "namespaces", _, resource, _] => registry.resource("", version, resource),
                ["apis", group, version, "namespaces", _, resource, _] => {
                    registry.resource(group, version, resource)
                }
                _ => None,
            };
            let applies = step.media_type.starts_with("application/apply");
            // An apply without a field manager, a strict request and a patch of nothing fail before or after patching.
            let looked_at = (live.is_some() || applies)
                && !(applies && step.query("fieldManager").is_empty())
                && step.query("fieldValidation").is_empty()
                && !BEYOND_PATCHING.contains(&(name, i));
            if let (true, "PATCH", Some(kind)) = (looked_at, text("method"), kind) {
                count += 1;
                let managed = scenario["managedFields"] == true;
                if let Err(why) = compare(&step, step.run(kind, live), answer, live.is_some(), managed) {
                    wrong.push(format!("{name} step {i}: {why}"));
                }
            }
            let body = &answer["body"];
            if answer["code"].as_u64() < Some(300)
                && step.query("dryRun").is_empty()
                && body["kind"] != "Status"
                && text("accept").is_empty()
            {
                let body = filled(body);
                let at = match (text("method"), body["metadata"]["name"].as_str()) {
                    ("POST", Some(name)) => format!("{path}/{name}"),
                    _ => path.trim_end_matches("/status").to_owned(),
                };
                if text("method") == "DELETE" {
                    objects.remove(path);
                } else {
                    objects.insert(at, body);
                }
            }
        }
    }
    println!("{count} patches replayed");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
