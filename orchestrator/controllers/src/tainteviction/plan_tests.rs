//! Which pods a taint evicts, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;

fn start() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: Some(Time(start())) }
}

fn pod(owner: &str, tolerations: Value) -> Pod {
    let owners = json!([{"apiVersion": "v1", "kind": owner, "name": "o", "uid": "o", "controller": true}]);
    serde_json::from_value(json!({
        "metadata": {"name": "p", "ownerReferences": if owner.is_empty() { json!([]) } else { owners }},
        "spec": {"containers": [], "tolerations": tolerations},
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

fn exists(key: &str, seconds: Option<i64>) -> Value {
    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
}

#[test]
fn a_pods_fate() {
    let default = || json!([exists(NOT_READY, Some(300)), exists(UNREACHABLE, Some(300))]);
    let evict = |seconds: i64, force| Fate::Evict { at: start() + SignedDuration::from_secs(seconds), force };
    let unreachable = [taint(UNREACHABLE, "NoExecute"), taint(UNREACHABLE, "NoSchedule")];
    let not_ready = [taint(NOT_READY, "NoExecute")];
    let own = [taint("maintenance", "NoExecute")];
    type Case<'a> = (&'a str, &'a str, Value, &'a [Taint], Fate, Fate);
    let cases: Vec<Case<'_>> = vec![
        // (case, owner, tolerations, taints, fate in the compatible profile, fate in the fast one)
        ("no taint", "ReplicaSet", json!([]), &[], Fate::Stay, Fate::Stay),
        ("only NoSchedule", "ReplicaSet", json!([]), &unreachable[1..], Fate::Stay, Fate::Stay),
        ("default, replicated", "ReplicaSet", default(), &unreachable, evict(300, false), evict(0, true)),
        (
            "default, controller",
            "ReplicationController",
            default(),
            &unreachable,
            evict(300, false),
            evict(0, true),
        ),
        ("default, stateful", "StatefulSet", default(), &unreachable, evict(300, false), evict(300, false)),
        ("default, bare", "", default(), &unreachable, evict(300, false), evict(300, false)),
        ("not ready but there", "ReplicaSet", default(), &not_ready, evict(300, false), evict(300, false)),
        (
            "stays for ever",
            "ReplicaSet",
            json!([exists(UNREACHABLE, None)]),
            &unreachable,
            Fate::Stay,
            Fate::Stay,
        ),
        ("tolerates all", "DaemonSet", json!([{"operator": "Exists"}]), &unreachable, Fate::Stay, Fate::Stay),
        (
            "its own time",
            "ReplicaSet",
            json!([exists(UNREACHABLE, Some(30))]),
            &unreachable,
            evict(30, false),
            evict(30, true),
        ),
        (
            "the shortest counts",
            "",
            json!([exists(UNREACHABLE, Some(60)), exists("", Some(20))]),
            &unreachable,
            evict(20, false),
            evict(20, false),
        ),
        ("a user's taint", "ReplicaSet", default(), &own, evict(0, false), evict(0, false)),
        (
            "equal value",
            "",
            json!([{"key": "maintenance", "operator": "Equal", "value": "", "effect": "NoExecute"}]),
            &own,
            Fate::Stay,
            Fate::Stay,
        ),
        (
            "other value",
            "",
            json!([{"key": "maintenance", "value": "x", "effect": "NoExecute"}]),
            &own,
            evict(0, false),
            evict(0, false),
        ),
        (
            "negative seconds",
            "",
            json!([exists(UNREACHABLE, Some(-5))]),
            &unreachable,
            evict(0, false),
            evict(0, false),
        ),
    ];
    for (case, owner, tolerations, taints, compatible, fast) in cases {
        let pod = pod(owner, tolerations);
        assert_eq!(fate(&pod, taints, false, start()), compatible, "{case}, compatible");
        assert_eq!(fate(&pod, taints, true, start()), fast, "{case}, fast");
    }
}

#[test]
fn clocks_start_no_earlier_than_the_controller() {
    let later = start() + SignedDuration::from_secs(1000);
    let pod = pod("", json!([exists(UNREACHABLE, Some(300))]));
    let at = later + SignedDuration::from_secs(300);
    assert_eq!(
        fate(&pod, &[taint(UNREACHABLE, "NoExecute")], false, later),
        Fate::Evict { at, force: false }
    );
}

#[test]
fn what_ran_to_its_end_is_left_to_others() {
    let mut pod = pod("ReplicaSet", json!([]));
    pod.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    assert_eq!(fate(&pod, &[taint(UNREACHABLE, "NoExecute")], true, start()), Fate::Stay);
}
