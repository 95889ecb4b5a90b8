//! What the API makes of sparse manifests: defaults, what it derives, and what updates keep.

use serde_json::{Value, json};

use crate::decode;
use crate::kinds::{Kind, Registry};
use crate::rules::value::{child, set};
use crate::rules::{pod, pod_defaults, resources};

fn row(obj: &Value) -> std::sync::Arc<Kind> {
    let kinds = Registry::builtin().snapshot();
    let [version, kind] = ["apiVersion", "kind"].map(|k| obj[k].as_str().expect(k));
    kinds.api_kind(version, kind).expect("a known kind").clone()
}

/// A new object, ready to be validated.
fn created(mut obj: Value) -> Value {
    let row = row(&obj);
    set(child(&mut obj, "metadata"), "name", "x");
    decode::object(&row.schema, &mut obj).expect("good types");
    row.strategy.default(&mut obj);
    row.strategy.prepare_create(&mut obj);
    obj
}

fn updated(old: &Value, patch: Value) -> Value {
    let row = row(old);
    let mut new = crate::patch::merge::apply(old, &patch);
    decode::object(&row.schema, &mut new).expect("good types");
    row.strategy.default(&mut new);
    row.strategy.prepare_update(&mut new, old);
    new
}

#[test]
fn a_pod_is_completed() {
    let got = created(json!({ "apiVersion": "v1", "kind": "Pod", "spec": {
        "serviceAccount": "builder", "hostNetwork": true,
        "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }],
        "containers": [{
            "name": "c", "image": "img", "ports": [{ "containerPort": 80 }],
            "livenessProbe": { "grpc": { "port": 9 } },
            "resources": { "limits": { "memory": "1Gi", "cpu": "0.0001" } },
        }],
        "volumes": [{ "name": "p", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }],
    } }));
    assert_eq!(
        got["spec"],
        json!({
            "serviceAccount": "builder", "serviceAccountName": "builder", "hostNetwork": true,
            "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }],
            "containers": [{
                "name": "c", "image": "img", "imagePullPolicy": "Always",
                "ports": [{ "containerPort": 80, "hostPort": 80, "protocol": "TCP" }],
                "livenessProbe": {
                    "grpc": { "port": 9, "service": "" },
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                },
                "resources": {
                    "limits": { "memory": "1Gi", "cpu": "1m" }, "requests": { "memory": "1Gi", "cpu": "1m" },
                },
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "volumes": [{ "name": "p", "projected": {
                "defaultMode": 420, "sources": [{ "serviceAccountToken": { "path": "t", "expirationSeconds": 3600 } }],
            } }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0, "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        })
    );
    assert_eq!(got["status"], json!({ "phase": "Pending", "qosClass": "Guaranteed" }));
}

#[test]
fn a_gated_pod_says_so() {
    let got = created(json!({ "apiVersion": "v1", "kind": "Pod", "spec": {
        "schedulingGates": [{ "name": "g" }], "containers": [{ "name": "c", "image": "i" }],
    } }));
    assert_eq!(got["status"]["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn the_service_account_token_is_mounted_once() {
    let mut got = created(json!({ "apiVersion": "v1", "kind": "Pod", "spec": {
        "containers": [{ "name": "c", "image": "i" }],
    } }));
    let before = got.clone();
    pod::mount_service_account_token(&mut got, "abcde", true);
    assert_eq!(got, before, "the account refuses");
    pod::mount_service_account_token(&mut got, "abcde", false);
    pod::mount_service_account_token(&mut got, "fghij", false);
    assert_eq!(got["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(got["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-abcde");
}

#[test]
fn pull_policies() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("a/b:latest@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Always"),
        ("a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "IfNotPresent"),
        ("Bad Name", "IfNotPresent"),
        ("", "IfNotPresent"),
    ] {
        assert_eq!(pod_defaults::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn quality_of_service() {
    let limits = |cpu: &str| json!({ "limits": { "cpu": cpu, "memory": "1Gi" }, "requests": { "cpu": "1", "memory": "1Gi" } });
    for (containers, class) in [
        (json!([{}]), "BestEffort"),
        (json!([{ "resources": { "requests": { "cpu": "0" } } }]), "BestEffort"),
        (json!([{ "resources": limits("1") }]), "Guaranteed"),
        (json!([{ "resources": limits("2") }]), "Burstable"),
        (json!([{ "resources": limits("1") }, {}]), "Burstable"),
        (json!([{ "resources": { "requests": { "x.example/gpu": "1" } } }]), "BestEffort"),
    ] {
        assert_eq!(resources::qos_class(&json!({ "containers": containers })), class, "{containers}");
    }
}

#[test]
fn a_service_keeps_and_drops_what_was_handed_out() {
    let mut old = created(json!({ "apiVersion": "v1", "kind": "Service", "spec": {
        "type": "NodePort", "ports": [{ "name": "a", "port": 80 }],
    } }));
    let allocated = json!({ "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"] });
    old["spec"] = crate::patch::merge::apply(&old["spec"], &allocated);
    old["spec"]["ports"][0]["nodePort"] = json!(30_001);

    let forgetful = updated(
        &old,
        json!({ "spec": {
        "clusterIP": null, "clusterIPs": null, "ports": [{ "name": "a", "port": 81 }],
    } }),
    );
    assert_eq!(forgetful["spec"]["clusterIPs"], json!(["10.96.0.5"]));
    assert_eq!(forgetful["spec"]["ports"][0]["nodePort"], 30_001);
    assert_eq!(forgetful["spec"]["ports"][0]["targetPort"], 81);

    let inner = updated(&old, json!({ "spec": { "type": "ClusterIP" } }));
    assert_eq!(inner["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(inner["spec"].get("externalTrafficPolicy"), None);

    let alias = updated(&old, json!({ "spec": { "type": "ExternalName", "externalName": "a.b" } }));
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        assert_eq!(alias["spec"].get(key), None, "{key}");
    }
}

#[test]
fn status_is_the_servers() {
    for obj in [
        json!({ "apiVersion": "apps/v1", "kind": "Deployment" }),
        json!({ "apiVersion": "v1", "kind": "Namespace" }),
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler" }),
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim" }),
    ] {
        let plain = created(obj.clone());
        let mut forged = obj;
        forged["status"] = json!({ "phase": "Lost", "replicas": 7, "currentReplicas": 7 });
        let forged = created(forged);
        assert_eq!(forged["status"], plain["status"], "{forged}");
        let kept = updated(&plain, json!({ "status": { "phase": "Lost", "replicas": 7 } }));
        assert_eq!(kept["status"], plain["status"]);
    }
}

#[test]
fn generations_follow_what_counts() {
    let old = created(json!({ "apiVersion": "apps/v1", "kind": "Deployment" }));
    let strategy = row(&old).strategy;
    for (patch, grows) in [
        (json!({ "metadata": { "labels": { "a": "b" } } }), false),
        (json!({ "metadata": { "annotations": { "a": "b" } } }), true),
        (json!({ "spec": { "replicas": 2 } }), true),
        (json!({ "status": { "replicas": 2 } }), false),
    ] {
        assert_eq!(strategy.spec_changed(&updated(&old, patch.clone()), &old), grows, "{patch}");
    }
}

#[test]
fn autoscalers_of_both_versions() {
    let v1 = created(json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": {
        "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "d", "apiVersion": "apps/v1" },
    } }));
    let stored = row(&v1).strategy.to_stored(v1);
    assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);

    let down = json!({ "spec": { "behavior": { "scaleUp": { "stabilizationWindowSeconds": 5 } } } });
    let v2 = created(crate::patch::merge::apply(
        &json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler" }),
        &down,
    ));
    let behavior = &v2["spec"]["behavior"];
    assert_eq!(behavior["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
    assert_eq!(behavior["scaleDown"].get("stabilizationWindowSeconds"), None);
}
