//! Which pods a ReplicaSet creates and deletes.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> String {
    (now() - SignedDuration::from_secs(seconds)).to_string()
}

fn spec(replicas: i32) -> Spec {
    Spec {
        replicas,
        min_ready_seconds: 0,
        selector: [("app", "a")].into_iter().collect(),
        template_labels: [("app".to_owned(), "a".to_owned())].into(),
        deleting: false,
        generation: Some(3),
    }
}

/// A running, ready pod of an hour on node n1; `patch` changes what a case is about.
fn pod(name: &str, patch: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "labels": {"app": "a"},
            "creationTimestamp": ago(3600),
        },
        "spec": {"nodeName": "n1", "containers": []},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago(3590)}],
        },
    });
    merge(&mut value, patch);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

fn ready(status: &str, since: i64) -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": ago(since)}]}})
}

fn restarted(count: i32) -> Value {
    json!({"status": {"containerStatuses": [
        {"name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": count}
    ]}})
}

#[test]
fn the_pod_that_hurts_least_goes_first() {
    let cost = |n: &str| json!({"metadata": {"annotations": {POD_DELETION_COST: n}}});
    let cases: &[(&str, Value, Value)] = &[
        ("without a node", json!({"spec": {"nodeName": null}}), json!({})),
        (
            "without a node, though the other one is pending",
            json!({"spec": {"nodeName": null}}),
            json!({"status": {"phase": "Pending"}}),
        ),
        (
            "pending before unknown",
            json!({"status": {"phase": "Pending"}}),
            json!({"status": {"phase": "Unknown"}}),
        ),
        ("unknown before running", json!({"status": {"phase": "Unknown"}}), json!({})),
        ("not ready", ready("False", 10), json!({})),
        ("not ready, though the other one is cheaper", ready("False", 10), cost("-10")),
        ("the cheaper", cost("-1"), json!({})),
        ("the cheaper, though it is ready for longer", cost("1"), {
            let mut other = cost("2");
            merge(&mut other, ready("True", 1));
            other
        }),
        ("ready for a shorter time", ready("True", 5), json!({})),
        ("restarted more often", restarted(3), restarted(1)),
        ("younger", json!({"metadata": {"creationTimestamp": ago(3)}}), json!({})),
        ("an unreadable cost counts as none", cost("-1"), cost("cheap")),
    ];
    for (case, goes, stays) in cases {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let pods = [pod(first, goes.clone()), pod(second, stays.clone())];
            let [Action::Delete(victims)] = &plan(&spec(1), &pods, &pods, now())[..] else {
                panic!("{case}")
            };
            assert_eq!(victims[0].metadata.name.as_deref(), Some(first), "{case}");
        }
    }
}

#[test]
fn a_crowded_node_gives_first_and_pods_of_sister_sets_crowd_too() {
    let on = |name: &str, node: &str| pod(name, json!({"spec": {"nodeName": node}}));
    let own = [on("a", "n1"), on("b", "n2")];
    let mut related = own.to_vec();
    related.push(on("other", "n2"));
    let [Action::Delete(victims)] = &plan(&spec(1), &own, &related, now())[..] else { panic!() };
    assert_eq!(victims[0].metadata.name.as_deref(), Some("b"));
}

#[test]
fn ages_of_one_power_of_two_are_equal() {
    let since = |seconds| Some(now() - SignedDuration::from_secs(seconds));
    assert_eq!(age_rank(since(3600), now()), age_rank(since(3900), now()));
    assert!(age_rank(since(10), now()) < age_rank(since(3600), now()));
    assert_eq!(age_rank(since(-5), now()), -1);
    assert_eq!(age_rank(None, now()), -1);
}

#[test]
fn creates_and_deletes_the_difference() {
    let pods: Vec<_> = ["a", "b", "c"].map(|n| pod(n, json!({}))).into();
    assert_eq!(plan(&spec(3), &pods, &pods, now()), []);
    assert_eq!(plan(&spec(5), &pods, &pods, now()), [Action::Create(2)]);
    assert_eq!(plan(&spec(5000), &pods, &pods, now()), [Action::Create(BURST)]);
    assert_eq!(plan(&Spec { deleting: true, ..spec(5) }, &pods, &pods, now()), []);
    let gone = [
        pod("a", json!({"metadata": {"deletionTimestamp": ago(1)}})),
        pod("b", json!({"status": {"phase": "Failed"}})),
        pod("c", json!({"status": {"phase": "Succeeded"}})),
    ];
    assert_eq!(plan(&spec(1), &gone, &gone, now()), [Action::Create(1)], "none of them counts");
    let [Action::Delete(all)] = &plan(&spec(0), &pods, &pods, now())[..] else { panic!() };
    assert_eq!(all.len(), 3);
}

#[test]
fn the_status_counts_what_is_there() {
    let pods = [
        pod("a", json!({})),
        pod("b", ready("True", 5)),
        pod("c", ready("False", 5)),
        pod("d", json!({"metadata": {"labels": {"app": "other"}}})),
        pod("e", json!({"metadata": {"deletionTimestamp": ago(1)}})),
        pod("f", json!({"status": {"phase": "Failed"}})),
    ];
    let spec = Spec { min_ready_seconds: 30, ..spec(4) };
    let status = status(&spec, &Status::default(), &pods, None, now());
    assert_eq!(
        status,
        Status {
            replicas: 4,
            fully_labeled: 3,
            ready: 3,
            available: 2,
            terminating: Some(1),
            observed_generation: Some(3),
            conditions: Vec::new()
        }
    );
    assert_eq!(next_availability(&spec, &pods, now()), Some(SignedDuration::from_secs(25)));
}

#[test]
fn a_failure_is_a_condition_until_it_is_over() {
    let failed = status(&spec(2), &Status::default(), &[], Some("quota"), now());
    assert_eq!(failed.conditions[0].reason.as_deref(), Some("FailedCreate"));
    assert_eq!(failed.conditions[0].message.as_deref(), Some("quota"));
    let again = status(&spec(2), &failed, &[], Some("other words"), now() + SignedDuration::from_secs(9));
    assert_eq!(again.conditions, failed.conditions, "not renewed by each attempt");
    assert_eq!(status(&spec(2), &failed, &[], None, now()).conditions, []);
    let pods: Vec<_> = ["a", "b", "c"].map(|n| pod(n, json!({}))).into();
    let failed = status(&spec(2), &Status::default(), &pods, Some("no"), now());
    assert_eq!(failed.conditions[0].reason.as_deref(), Some("FailedDelete"));
}
