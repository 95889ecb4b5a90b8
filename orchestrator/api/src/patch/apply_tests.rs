//! Server-side apply: owners, conflicts and removals, case by case.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema;

const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-02T03:04:06Z";

fn of(group: &str, kind: &str) -> Arc<Struct> {
    schema::of(group, "v1", kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn write<'a>(schema: &'a Struct, api_version: &'a str, manager: &'a str) -> Write<'a> {
    Write { schema, api_version, manager, subresource: "", now: NOW, convert: None }
}

fn owned(obj: &Value, manager: &str) -> Value {
    let list = managed_of(obj).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

fn configmap(meta: Value, data: Value) -> Value {
    let mut meta = meta;
    meta["name"] = json!("m");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
}

#[test]
fn a_create_owns_all_but_identity() {
    let schema = of("", "ConfigMap");
    let mut new = configmap(json!({"namespace": "ns", "uid": "u", "labels": {"l": "1"}}), json!({"a": "1"}));
    update(&write(&schema, "v1", "kubectl"), None, &mut new);
    let want = json!([{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {".": {}, "f:a": {}}, "f:metadata": {"f:labels": {".": {}, "f:l": {}}}}}]);
    assert_eq!(new["metadata"]["managedFields"], want);
}

#[test]
fn a_created_deployment_as_kubernetes_records_it() {
    let schema = of("apps", "Deployment");
    let mut new = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "i", "generation": 1},
        "spec": {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "a"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {
                "containers": [{"name": "c", "image": "img:1", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "automountServiceAccountToken": false, "securityContext": {}, "schedulerName": "default-scheduler"}}},
        "status": {}});
    update(&write(&schema, "apps/v1", ""), None, &mut new);
    let want = json!({"f:spec": {"f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
        "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
        "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:automountServiceAccountToken": {},
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
            "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
            "f:terminationGracePeriodSeconds": {}}}}});
    assert_eq!(owned(&new, "unknown"), want);
}

#[test]
fn updates_move_fields() {
    let schema = of("", "ConfigMap");
    let mut live = configmap(json!({"uid": "u"}), json!({"a": "1", "b": "1", "c": "1"}));
    update(&write(&schema, "v1", "one"), None, &mut live);
    let mut new = live.clone();
    new["data"] = json!({"a": "1", "b": "2", "d": "1"});
    let mut second = write(&schema, "v1", "two");
    second.now = LATER;
    update(&second, Some(&live), &mut new);
    assert_eq!(owned(&new, "one"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(owned(&new, "two"), json!({"f:data": {"f:b": {}, "f:d": {}}}));

    // The same manager keeps what it had; a write that changes nothing leaves the record alone.
    let mut again = new.clone();
    again["data"]["e"] = json!("1");
    update(&second, Some(&new), &mut again);
    assert_eq!(owned(&again, "two"), json!({"f:data": {"f:b": {}, "f:d": {}, "f:e": {}}}));
    let mut same = again.clone();
    update(&write(&schema, "v1", "three"), Some(&again), &mut same);
    assert_eq!(same, again);
}

#[test]
fn names_of_managers() {
    assert_eq!(manager_name("mine", "kubectl/v1.36"), "mine");
    assert_eq!(manager_name("", "kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(manager_name("", "a\u{7}b"), "ab");
    assert_eq!(manager_name("", &"é".repeat(100)).len(), 128);
    assert_eq!(manager_name("", ""), "");
}

#[test]
fn records_in_requests() {
    let schema = of("", "ConfigMap");
    let mut live = configmap(json!({"uid": "u"}), json!({"a": "1"}));
    update(&write(&schema, "v1", "one"), None, &mut live);
    // Clients that know nothing of managedFields drop them.
    let mut dropped = configmap(json!({"uid": "u"}), json!({"a": "1"}));
    update(&write(&schema, "v1", "two"), Some(&live), &mut dropped);
    assert_eq!(dropped["metadata"]["managedFields"], live["metadata"]["managedFields"]);
    let mut broken = live.clone();
    broken["metadata"]["managedFields"] = json!([{"operation": "Steal"}]);
    update(&write(&schema, "v1", "two"), Some(&live), &mut broken);
    assert_eq!(broken, live);
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(&write(&schema, "v1", "two"), Some(&live), &mut reset);
    assert_eq!(managed_of(&reset), None);
    let mut untracked = reset.clone();
    untracked["data"]["a"] = json!("2");
    update(&write(&schema, "v1", "two"), Some(&reset), &mut untracked);
    assert_eq!(managed_of(&untracked), None);
}

#[test]
fn subresources_own_only_what_they_write() {
    let schema = of("apps", "Deployment");
    let mut live = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"replicas": 1}, "status": {}});
    update(&write(&schema, "apps/v1", "one"), None, &mut live);
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let mut status = write(&schema, "apps/v1", "controller");
    (status.subresource, status.now) = ("status", LATER);
    update(&status, Some(&live), &mut new);
    let entry = &new["metadata"]["managedFields"][1];
    assert_eq!(
        (entry["manager"].as_str(), entry["subresource"].as_str()),
        (Some("controller"), Some("status"))
    );
    let want = json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}},
        "f:replicas": {}}});
    assert_eq!(entry["fieldsV1"], want);
}

#[test]
fn conflicts_name_manager_and_field() {
    let schema = of("", "ConfigMap");
    let mut live = configmap(json!({"uid": "u"}), json!({"a": "1", "b": "1"}));
    update(&write(&schema, "v1", "one"), None, &mut live);
    let applied = configmap(json!({}), json!({"a": "2", "b": "2"}));
    let error = apply(&write(&schema, "v1", "two"), Some(&live), &applied, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\" using v1:\n- .data.a\n- .data.b"
    );
    let api: ApiError = error.into();
    let causes: Vec<_> = api
        .details
        .causes
        .iter()
        .map(|c| (c.reason.as_str(), c.message.as_str(), c.field.as_deref()))
        .collect();
    assert_eq!(causes[0], ("FieldManagerConflict", "conflict with \"one\" using v1", Some(".data.a")));
    let forced = apply(&write(&schema, "v1", "two"), Some(&live), &applied, true).unwrap();
    assert_eq!(owned(&forced, "one"), json!({"f:data": {}}));
    assert_eq!(owned(&forced, "two"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    // Equal values are shared, not disputed.
    let shared = apply(&write(&schema, "v1", "three"), Some(&forced), &applied, false).unwrap();
    assert_eq!(owned(&shared, "three"), owned(&shared, "two"));
    let gone =
        apply(&write(&schema, "v1", "two"), Some(&shared), &configmap(json!({}), json!({})), false).unwrap();
    assert_eq!(gone["data"], applied["data"]);
}

#[test]
fn the_first_apply_on_an_unmanaged_object() {
    let schema = of("", "ConfigMap");
    let live = configmap(json!({"uid": "u"}), json!({"a": "1"}));
    let error =
        apply(&write(&schema, "v1", "two"), Some(&live), &configmap(json!({}), json!({"a": "2"})), false);
    assert_eq!(
        error.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    let ok =
        apply(&write(&schema, "v1", "two"), Some(&live), &configmap(json!({}), json!({"b": "2"})), false)
            .unwrap();
    assert_eq!(owned(&ok, "before-first-apply"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(ok["data"], json!({"a": "1", "b": "2"}));
}

#[test]
fn from_client_side_to_server_side_apply() {
    let schema = of("", "ConfigMap");
    let config = configmap(json!({}), json!({"a": "1"}));
    let mut live =
        configmap(json!({"uid": "u", "annotations": {LAST_APPLIED: config.to_string()}}), json!({"a": "1"}));
    update(&write(&schema, "v1", "kubectl-client-side-apply"), None, &mut live);
    let next = configmap(json!({}), json!({"a": "<2>"}));
    let kubectl = write(&schema, "v1", "kubectl");
    let applied = apply(&kubectl, Some(&live), &next, false).unwrap();
    assert_eq!(applied["data"]["a"], "<2>");
    let annotation = applied["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(
        annotation.ends_with("\"metadata\":{\"name\":\"m\"}}\n") && annotation.contains("\\u003c2\\u003e"),
        "{annotation}"
    );
    // Once the live value has moved on from what was last applied, it is somebody else's.
    let mut moved = live.clone();
    moved["data"]["a"] = json!("3");
    update(&write(&schema, "v1", "other"), Some(&live), &mut moved);
    assert!(matches!(apply(&kubectl, Some(&moved), &next, false), Err(ApplyError::Conflicts(_))));
    assert!(matches!(
        apply(&write(&schema, "v1", "flux"), Some(&live), &next, false),
        Err(ApplyError::Conflicts(_))
    ));
}

#[test]
fn refused_configurations() {
    let schema = of("apps", "Deployment");
    let base = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}});
    let with = |spec: Value| {
        let mut v = base.clone();
        v["spec"] = spec;
        v
    };
    let pod = |spec: Value| with(json!({"template": {"spec": spec}}));
    let at = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): ";
    let cases = [
        (with(json!({"nope": 1})), ".spec.nope: field not declared in schema"),
        (with(json!({"replicas": "3"})), ".spec.replicas: expected numeric (int or float), got string"),
        (with(json!({"template": []})), ".spec.template: expected map, got &{[]}"),
        (pod(json!({"containers": {}})), ".spec.template.spec.containers: expected list, got &{map[]}"),
        (
            pod(json!({"containers": [{"image": "i"}]})),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            pod(json!({"containers": [{"name": "a"}, {"name": "a"}]})),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": 5}]})),
            ".spec.template.spec.containers[name=\"a\"].image: expected string, got &value.valueUnstructured{Value:5}",
        ),
    ];
    for (applied, want) in cases {
        let error = apply(&write(&schema, "apps/v1", "one"), None, &applied, false).unwrap_err();
        assert_eq!(error, ApplyError::Invalid(format!("{at}{want}")), "{applied}");
    }
    let mut managed = base.clone();
    managed["metadata"]["managedFields"] = json!([]);
    let error = apply(&write(&schema, "apps/v1", "one"), None, &managed, false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    let mut other = base.clone();
    other["apiVersion"] = json!("v1");
    let error = apply(&write(&schema, "apps/v1", "one"), None, &other, false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("invalid object type: /v1, Kind=Deployment".to_owned()));
}

#[test]
fn other_versions_are_seen_through_conversion() {
    let schema = of("", "ConfigMap");
    let mut live = configmap(json!({"uid": "u"}), json!({"a": "1"}));
    update(&write(&schema, "old/v1", "one"), None, &mut live);
    let mut gone = write(&schema, "v1", "two");
    let none = |_: &Value, _: &str| None;
    gone.convert = Some(&none);
    let mut new = live.clone();
    new["data"]["b"] = json!("1");
    update(&gone, Some(&live), &mut new);
    assert_eq!(owned(&new, "one"), Value::Null);
    // A version that calls `data` something else.
    let renamed = |v: &Value, _: &str| {
        let mut v = v.clone();
        let data = v["data"].take();
        v["binaryData"] = data;
        v.as_object_mut().unwrap().remove("data");
        Some((v, of("", "ConfigMap")))
    };
    let mut other = write(&schema, "v1", "two");
    other.convert = Some(&renamed);
    let mut live = configmap(json!({"uid": "u"}), json!({"a": "1", "b": "1"}));
    let who = json!([{"manager": "one", "operation": "Update", "apiVersion": "old/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:binaryData": {"f:a": {}, "f:b": {}}}}]);
    live["metadata"]["managedFields"] = who;
    let mut new = live.clone();
    new["data"]["a"] = json!("2");
    update(&other, Some(&live), &mut new);
    assert_eq!(owned(&new, "one"), json!({"f:binaryData": {"f:b": {}}}));
}

// ---- properties ----

/// Deployments with lists of all kinds.
fn any_config() -> impl Strategy<Value = Value> {
    let containers = prop::collection::btree_map(
        "[a-c]",
        ("[12]", prop::collection::btree_map("[A-C]", "[12]", 0..3)),
        0..3,
    );
    let labels = prop::collection::btree_map("[x-z]", "[12]", 1..3);
    (containers, labels, prop::option::of(0..3i64), any::<bool>()).prop_map(|(containers, labels, replicas, selector)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, env))| {
                let env: Vec<Value> = env.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
                json!({"name": name, "image": image, "env": env, "args": ["x", image]})
            })
            .collect();
        let mut v = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels},
            "spec": {"template": {"spec": {"containers": containers}}}});
        if let Some(n) = replicas {
            v["spec"]["replicas"] = json!(n);
        }
        if selector {
            v["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
        }
        v
    })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(a in any_config(), b in any_config()) {
        let schema = of("apps", "Deployment");
        let one = apply(&write(&schema, "apps/v1", "one"), None, &a, false).unwrap();
        let two = apply(&write(&schema, "apps/v1", "two"), Some(&one), &b, true).unwrap();
        let mut later = write(&schema, "apps/v1", "two");
        later.now = LATER;
        prop_assert_eq!(apply(&later, Some(&two), &b, false).unwrap(), two);
    }

    #[test]
    fn a_second_applier_takes_nothing_unasked(a in any_config(), b in any_config()) {
        let schema = of("apps", "Deployment");
        let one = apply(&write(&schema, "apps/v1", "one"), None, &a, false).unwrap();
        if let Ok(both) = apply(&write(&schema, "apps/v1", "two"), Some(&one), &b, false) {
            prop_assert_eq!(owned(&both, "one"), owned(&one, "one"));
            // Giving up everything again leaves what the first one applied.
            let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
            let left = apply(&write(&schema, "apps/v1", "two"), Some(&both), &empty, false).unwrap();
            prop_assert_eq!(owned(&left, "one"), owned(&one, "one"));
            prop_assert_eq!(owned(&left, "two"), Value::Null);
            let mine = typed::field_set(&schema, &a);
            let there = typed::field_set(&schema, &left);
            prop_assert!(mine.difference(&there).leaves().is_empty(), "{:?}", mine.difference(&there).paths());
        }
    }

    #[test]
    fn ownership_covers_what_an_update_changes(a in any_config(), b in any_config()) {
        let schema = of("apps", "Deployment");
        let (mut live, mut new) = (a, b);
        live["metadata"]["uid"] = json!("u");
        update(&write(&schema, "apps/v1", "one"), None, &mut live);
        new["metadata"]["uid"] = json!("u");
        update(&write(&schema, "apps/v1", "two"), Some(&live), &mut new);
        let get = |m: &str| Set::from_fields_v1(&owned(&new, m)).unwrap_or_default();
        let overlap = get("one").intersection(&get("two"));
        prop_assert!(overlap.is_empty(), "{:?}", overlap.paths());
    }
}

/// `cargo test --release -p loadline-api -- --ignored --nocapture cost_of_tracking`
#[test]
#[ignore = "a measurement"]
fn cost_of_tracking() {
    let schema = of("", "ConfigMap");
    let request = write(&schema, "v1", "bench");
    let fresh = configmap(
        json!({"namespace": "ns", "uid": "u", "resourceVersion": "1", "creationTimestamp": NOW}),
        json!({"k": "v"}),
    );
    let rounds = 20_000u32;
    let measure = |what: &str, run: &dyn Fn() -> Value| {
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(run());
        }
        println!("{what}: {:?}", start.elapsed() / rounds);
    };
    measure("clone alone", &|| fresh.clone());
    measure("create", &|| {
        let mut v = fresh.clone();
        update(&request, None, &mut v);
        v
    });
    let mut live = fresh.clone();
    update(&request, None, &mut live);
    measure("update", &|| {
        let mut v = live.clone();
        v["data"]["k"] = json!("w");
        update(&request, Some(&live), &mut v);
        v
    });
    measure("update that changes nothing", &|| {
        let mut v = live.clone();
        update(&request, Some(&live), &mut v);
        v
    });
}
