//! Replays the recorded writes of a Kubernetes API server through decoding, patches and the rules, without a server, and
//! compares what comes out. Skipped, with a notice, where the recording is not at hand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::decode;
use crate::field::FieldError;
use crate::kinds::{Kind, Registry, Snapshot};
use crate::patch;
use crate::rules::value::{at, child, int, list, list_mut, remove, set, text};
use crate::rules::{meta, service};

const GROUPS: [&str; 8] =
    ["life/", "defaults/", "invalid/", "immutable/", "strategic/", "sub/status", "namespace/", "events"];

/// Answers that are not to be had, and why.
const KNOWN: [(&str, usize, &str); 2] = [
    (
        "life/controllerrevisions",
        8,
        "Kubernetes compares `data` byte by byte, white space in the first request included",
    ),
    ("life/controllerrevisions", 9, "the same"),
];

/// What the server of this test answers.
enum Answer {
    Object(Value, Vec<String>),
    Refused(Vec<FieldError>),
    /// Not the rules' business.
    None,
}

struct Replay {
    kinds: Arc<Snapshot>,
    /// By resource path, as stored versions.
    objects: HashMap<String, Value>,
    next_address: u8,
}

/// The parts of a request's path.
struct Target {
    kind: Arc<Kind>,
    namespace: String,
    status: bool,
    key: String,
}

impl Replay {
    fn target(&self, path: &str) -> Option<Target> {
        let path = path.split('?').next()?.replace("{ns}", "ns");
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest[0] != "finalize" => {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let kind = self.kinds.resource(group, version, rest.first()?)?.clone();
        let name = rest.get(1).copied().unwrap_or_default();
        let status = rest.get(2).copied() == Some("status");
        if rest.len() > 2 && !status {
            return None;
        }
        let storage = kind.stored_as.map_or(group, |(g, _)| g);
        let key = format!("{storage}/{}/{namespace}/{name}", kind.resource);
        Some(Target { kind, namespace: namespace.to_owned(), status, key })
    }

    fn run(&mut self, step: &Value) -> Answer {
        let Some(target) = self.target(text(step, "path")) else { return Answer::None };
        let body = match &step["body"] {
            Value::String(s) => s.replace("{ns}", "ns"),
            Value::Null => return Answer::None,
            body => body.to_string().replace("{ns}", "ns").replace("{repeat:262145}", &"x".repeat(262_145)),
        };
        let kept = !text(step, "path").contains("dryRun");
        let (key, answer) = match (text(step, "method"), text(step, "type")) {
            ("POST", "") => self.create(target, &body),
            ("PUT", "") => {
                let Ok(new) = decode::body(&self.kinds, (&*target.kind).into(), body.as_bytes()) else {
                    return Answer::None;
                };
                (target.key.clone(), self.update(&target, new.value))
            }
            ("PATCH", "application/apply-patch+yaml") => return Answer::None,
            ("PATCH", kind) => {
                let Some(new) = self.patched(&target, kind, &body) else { return Answer::None };
                (target.key.clone(), self.update(&target, new))
            }
            _ => return Answer::None,
        };
        if let (Answer::Object(obj, _), true) = (&answer, kept) {
            let stored = self.stored(obj);
            self.objects.insert(key, stored);
        }
        answer
    }

    fn stored(&self, obj: &Value) -> Value {
        let kind = self.kinds.api_kind(text(obj, "apiVersion"), text(obj, "kind")).expect("a known kind");
        let mut stored = kind.strategy.to_stored(obj.clone());
        let storage = self.kinds.storage(kind);
        set(&mut stored, "apiVersion", storage.api_version());
        stored
    }

    fn served(&self, target: &Target) -> Option<Value> {
        let mut served = target.kind.strategy.from_stored(self.objects.get(&target.key)?.clone());
        set(&mut served, "apiVersion", target.kind.api_version());
        Some(served)
    }

    fn patched(&self, target: &Target, kind: &str, body: &str) -> Option<Value> {
        let old = self.served(target)?;
        let mut new = match kind {
            "application/merge-patch+json" => {
                patch::merge::apply(&old, &patch::merge::decode(body.as_bytes()).ok()?)
            }
            "application/json-patch+json" => patch::json::apply(&old, body.as_bytes()).ok()?,
            "application/strategic-merge-patch+json" => {
                let patch: Value = serde_json::from_str(body).ok()?;
                patch::strategic::apply(&target.kind.schema, &old, &patch).ok()?
            }
            _ => return None,
        };
        decode::object(&target.kind.schema, &mut new).ok()?;
        Some(new)
    }

    fn create(&mut self, target: Target, body: &str) -> (String, Answer) {
        let Ok(decoded) = decode::body(&self.kinds, (&*target.kind).into(), body.as_bytes()) else {
            return (String::new(), Answer::None);
        };
        let strategy = target.kind.strategy;
        let mut obj = decoded.value;
        if target.kind.namespaced {
            set(child(&mut obj, "metadata"), "namespace", target.namespace.as_str());
        }
        strategy.default(&mut obj);
        strategy.prepare_create(&mut obj);
        if strategy.has_generation() {
            set(child(&mut obj, "metadata"), "generation", 1);
        }
        self.allocate(&target, &mut obj);
        decode::complete(&target.kind.schema, &mut obj);
        let name_check = |name: &str| strategy.validate_name(name);
        let mut errs = meta::validate_create(at(&obj, "metadata"), target.kind.namespaced, name_check);
        errs.extend(strategy.validate_create(&obj));
        let key = format!("{}{}", target.key, text(at(&obj, "metadata"), "name"));
        if !errs.is_empty() {
            return (key, Answer::Refused(errs));
        }
        let warnings = strategy.warnings(&obj);
        (key, Answer::Object(obj, warnings))
    }

    fn update(&mut self, target: &Target, mut new: Value) -> Answer {
        let strategy = target.kind.strategy;
        let Some(old) = self.served(target) else { return Answer::None };
        strategy.default(&mut new);
        for key in ["generation", "namespace"] {
            crate::rules::value::copy(child(&mut new, "metadata"), at(&old, "metadata"), key);
        }
        if target.status {
            strategy.prepare_status_update(&mut new, &old);
        } else {
            strategy.prepare_update(&mut new, &old);
            if strategy.has_generation() && strategy.spec_changed(&new, &old) {
                let generation = int(at(&old, "metadata"), "generation") + 1;
                set(child(&mut new, "metadata"), "generation", generation);
            }
        }
        self.allocate(target, &mut new);
        decode::complete(&target.kind.schema, &mut new);
        let mut errs = meta::validate_update(at(&new, "metadata"), at(&old, "metadata"));
        errs.extend(if target.status {
            strategy.validate_status_update(&new, &old)
        } else {
            strategy.validate_update(&new, &old)
        });
        if !errs.is_empty() {
            return Answer::Refused(errs);
        }
        let warnings = strategy.warnings(&new);
        Answer::Object(new, warnings)
    }

    /// Stands in for the server's allocators.
    fn allocate(&mut self, target: &Target, obj: &mut Value) {
        if target.kind.kind != "Service" {
            return;
        }
        let spec = child(obj, "spec");
        if service::needs_cluster_ip(spec) && list(spec, "clusterIPs").is_empty() {
            self.next_address += 1;
            let ip = format!("10.96.0.{}", self.next_address);
            set(spec, "clusterIP", ip.as_str());
            set(spec, "clusterIPs", vec![ip]);
        }
        if service::needs_node_port(spec) {
            for port in list_mut(spec, "ports").iter_mut().filter(|p| int(p, "nodePort") == 0) {
                self.next_address += 1;
                set(port, "nodePort", 30_000 + i64::from(self.next_address));
            }
        }
    }
}

/// Takes out what differs from run to run, as the recording does.
fn scrub(v: &mut Value) {
    match v {
        Value::Object(o) => {
            for key in ["uid", "creationTimestamp", "resourceVersion", "managedFields", "lastTransitionTime"]
            {
                o.remove(key);
            }
            let placeholders: Map<String, Value> = [
                ("clusterIP", json!("<clusterIP>")),
                ("clusterIPs", json!(["<ip>"])),
                ("nodePort", json!("<nodePort>")),
            ]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect();
            for (key, shown) in placeholders {
                if o.get(&key).is_some_and(|v| v != "None" && v != &json!(["None"])) {
                    o.insert(key, shown);
                }
            }
            o.values_mut().for_each(scrub);
        }
        Value::Array(a) => a.iter_mut().for_each(scrub),
        Value::String(s) if s.starts_with("20") && s.ends_with('Z') => *s = "<time>".to_owned(),
        _ => {}
    }
}

/// Causes that only an allocator can find.
fn is_allocation(cause: &Value) -> bool {
    let message = cause[2].as_str().unwrap_or_default();
    message.contains("failed to allocate") || message.contains("provided port is not in the valid range")
}

fn compare(answer: Answer, want: &Value) -> Result<(), String> {
    let want = serde_json::from_str::<Value>(&want.to_string().replace("<ns>", "ns")).expect("JSON");
    match (answer, want["code"].as_u64()) {
        (Answer::None, _) => Ok(()),
        (Answer::Object(mut got, warnings), Some(200 | 201)) => {
            let mut body = want["body"].clone();
            scrub(&mut got);
            scrub(&mut body);
            remove(&mut got, "stringData");
            if got != body {
                return Err(format!("want {body}\n     got  {got}"));
            }
            let unknown = |w: &&str| w.contains("unknown field") || w.contains("Endpoints is deprecated");
            let recorded: Vec<&str> = list(&want, "warnings").iter().filter_map(Value::as_str).collect();
            let recorded: Vec<&str> = recorded.into_iter().filter(|w| !unknown(w)).collect();
            let warnings: Vec<String> = warnings.iter().map(|w| format!("299 - {w:?}")).collect();
            (warnings == recorded).then_some(()).ok_or(format!("want {recorded:?}, got {warnings:?}"))
        }
        (Answer::Refused(errs), Some(422)) => {
            let shown = |e: &FieldError| json!([e.kind.reason(), e.field, e.message]);
            let mut got: Vec<Value> = errs.iter().map(shown).collect();
            let mut causes = list(&want["body"], "causes").to_vec();
            if causes.iter().any(is_allocation) {
                return Ok(());
            }
            for list in [&mut got, &mut causes] {
                for cause in list.iter_mut() {
                    // The rest is a diff of Go structs.
                    if cause[1] == "spec" && cause[0] == "FieldValueForbidden" {
                        cause[2] = cause[2].as_str().and_then(|m| m.split('\n').next()).into();
                    }
                }
                list.sort_by_key(ToString::to_string);
            }
            let diff = format!("want {causes:#?}\n     got  {got:#?}");
            (got == causes).then_some(()).ok_or(diff)
        }
        (Answer::Refused(errs), Some(200 | 201)) => Err(format!("want an object, got {errs:?}")),
        (Answer::Object(got, _), Some(422)) => {
            let causes = list(&want["body"], "causes");
            if causes.iter().any(is_allocation) || text(&want["body"]["details"], "kind").contains("Options")
            {
                return Ok(());
            }
            Err(format!("want {causes:?}\n     got  {got}"))
        }
        _ => Ok(()),
    }
}

#[test]
fn recorded_writes_come_out_the_same() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wire");
    let (Ok(scenarios), Ok(answers)) = (
        std::fs::read_to_string(folder.join("scenarios.yaml")),
        std::fs::read_to_string(folder.join("answers.json")),
    ) else {
        eprintln!("skipped: no recording in {}", folder.display());
        return;
    };
    // The recording program took this for text, as YAML 1.1 does; later YAML sees a number.
    let scenarios = scenarios.replace("cpu: 1e-1\n", "cpu: '1e-1'\n");
    let scenarios: Value = serde_yaml::from_str(&scenarios).expect("scenarios.yaml");
    let answers: Value = serde_json::from_str(&answers).expect("answers.json");
    let kinds = Registry::builtin().snapshot();
    let (mut compared, mut failures) = (0, Vec::new());
    for scenario in scenarios.as_array().expect("a list") {
        let name = text(scenario, "name");
        if !GROUPS.iter().any(|g| name.starts_with(g)) {
            continue;
        }
        let mut replay = Replay { kinds: kinds.clone(), objects: HashMap::new(), next_address: 1 };
        for (i, (step, want)) in list(scenario, "steps").iter().zip(list(&answers, name)).enumerate() {
            let answer = replay.run(step);
            compared += usize::from(!matches!(answer, Answer::None));
            let known = KNOWN.iter().any(|(n, step, _)| *n == name && *step == i);
            if let (Err(diff), false) = (compare(answer, want), known) {
                failures.push(format!("{name} step {i}: {diff}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {compared} answers differ:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 150, "only {compared} answers compared");
}
