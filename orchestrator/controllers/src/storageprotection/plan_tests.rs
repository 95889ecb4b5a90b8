//! Which claims and volumes may go.

use serde_json::{Value, json};

use super::*;

const DELETED: &str = "2026-01-01T11:59:00Z";

fn claim(deleted: bool, finalizers: &[&str], owner: Option<&str>) -> PersistentVolumeClaim {
    let owners = owner
        .map(|uid| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]));
    serde_json::from_value(json!({"metadata": {
        "name": "p-scratch", "namespace": "ns", "finalizers": finalizers, "ownerReferences": owners,
        "deletionTimestamp": deleted.then_some(DELETED),
    }}))
    .unwrap()
}

fn pod(namespace: &str, phase: &str, volume: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": namespace, "uid": "u"},
        "spec": {"containers": [], "volumes": [{"name": "config", "configMap": {"name": "p-scratch"}}, volume]},
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn named(claim: &str) -> Value {
    json!({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
}

fn ephemeral() -> Value {
    json!({"name": "scratch", "ephemeral": {}})
}

/// Being deleted, its grace period over.
fn shut_down(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = claim(true, &[], None).metadata.deletion_timestamp;
    pod.metadata.deletion_grace_period_seconds = Some(0);
    pod
}

#[test]
fn a_claim_goes_when_no_pod_uses_it() {
    let gone = || claim(true, &[CLAIM], None);
    let owned = |owner| claim(true, &[CLAIM], Some(owner));
    let cases: &[(&str, PersistentVolumeClaim, Vec<Pod>, bool)] = &[
        ("no pods", gone(), vec![], true),
        ("not deleted", claim(false, &[CLAIM], None), vec![], false),
        ("not ours to release", claim(true, &["example.com/hold"], None), vec![], false),
        ("running", gone(), vec![pod("ns", "Running", named("p-scratch"))], false),
        ("not scheduled", gone(), vec![pod("ns", "Pending", named("p-scratch"))], false),
        ("succeeded", gone(), vec![pod("ns", "Succeeded", named("p-scratch"))], true),
        ("failed", gone(), vec![pod("ns", "Failed", named("p-scratch"))], true),
        (
            "one of two still runs",
            gone(),
            vec![pod("ns", "Failed", named("p-scratch")), pod("ns", "Running", named("p-scratch"))],
            false,
        ),
        ("being deleted", gone(), vec![shut_down(pod("ns", "Running", named("p-scratch")))], false),
        ("another claim", gone(), vec![pod("ns", "Running", named("other"))], true),
        ("another namespace", gone(), vec![pod("other", "Running", named("p-scratch"))], true),
        ("ephemeral", owned("u"), vec![pod("ns", "Running", ephemeral())], false),
        ("ephemeral, finished", owned("u"), vec![pod("ns", "Succeeded", ephemeral())], true),
        (
            "ephemeral, waits for its claim",
            owned("u"),
            vec![shut_down(pod("ns", "Running", ephemeral()))],
            true,
        ),
        ("ephemeral of an earlier pod", owned("v"), vec![pod("ns", "Running", ephemeral())], true),
        ("not the ephemeral volume's", gone(), vec![pod("ns", "Running", ephemeral())], true),
    ];
    for (what, claim, pods, expected) in cases {
        assert_eq!(frees_claim(claim, pods), *expected, "{what}");
    }
}

#[test]
fn a_volume_goes_when_it_is_not_bound() {
    let cases = [
        (true, VOLUME, "Bound", false),
        (true, VOLUME, "Available", true),
        (true, VOLUME, "Released", true),
        (true, VOLUME, "", true),
        (true, "example.com/hold", "Available", false),
        (false, VOLUME, "Available", false),
    ];
    for (deleted, finalizer, phase, expected) in cases {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "v", "finalizers": [finalizer], "deletionTimestamp": deleted.then_some(DELETED)},
            "status": {"phase": phase},
        }))
        .unwrap();
        assert_eq!(frees_volume(&volume), expected, "deleted: {deleted}, {finalizer}, {phase}");
    }
}

#[test]
fn only_the_own_finalizer_is_taken_off() {
    let claim = claim(true, &["example.com/a", CLAIM, "example.com/b"], None);
    assert_eq!(others(&claim.metadata, CLAIM), ["example.com/a", "example.com/b"]);
    assert_eq!(claim_names(&pod("ns", "Running", named("x"))), ["x"]);
    assert_eq!(claim_names(&pod("ns", "Running", ephemeral())), ["p-scratch"]);
}
