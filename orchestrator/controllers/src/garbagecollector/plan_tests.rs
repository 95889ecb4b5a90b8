//! What is collected for which owners, in which way.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use super::super::graph::{Graph, Work};
use super::*;
use crate::monitors::Kind;

/// `owners`: `"b"` is an owner, `"!b"` one whose deletion the item blocks.
fn meta(uid: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> ObjectMeta {
    let owners: Vec<Value> = owners
        .iter()
        .map(|o| {
            json!({"apiVersion": "v1", "kind": "Pod", "name": o, "uid": o.trim_start_matches('!'),
                "blockOwnerDeletion": o.starts_with('!')})
        })
        .collect();
    serde_json::from_value(json!({
        "name": uid, "namespace": "ns", "uid": uid, "ownerReferences": owners, "finalizers": finalizers,
        "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
    }))
    .unwrap()
}

fn item(uid: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> Item {
    let kind = Arc::new(Kind::new(ApiResource::erase::<Pod>(&()), true));
    Item::new(&kind, &meta(uid, owners, finalizers, deleting))
}

fn delete(uids: &[&str]) -> Vec<Work> {
    uids.iter().map(|u| Work::Delete((*u).to_owned())).collect()
}

#[test]
fn what_becomes_of_an_item() {
    use Owner::{Absent, Solid, Waiting};
    let plain = || vec![item("d", &["a"], &[], false)];
    let in_circle = || vec![item("d", &["a"], &[FOREGROUND], true)];
    let gone = |policy| Decision::Delete { policy, unblock: false };
    type Case<'a> = (&'a str, &'a [Owner], &'a [&'a str], Vec<Item>, Decision);
    let cases: Vec<Case<'_>> = vec![
        ("nobody's", &[], &[], vec![], Decision::Keep),
        ("owned", &[Solid], &[], vec![], Decision::Keep),
        ("its owner is gone", &[Absent], &[], vec![], gone(PropagationPolicy::Background)),
        ("all owners are gone", &[Absent, Absent], &[], vec![], gone(PropagationPolicy::Background)),
        ("one of two is gone", &[Absent, Solid], &[], vec![], Decision::DropOwners(vec!["0".to_owned()])),
        ("one of two waits", &[Solid, Waiting], &[], vec![], Decision::DropOwners(vec!["1".to_owned()])),
        ("its owner waits", &[Waiting], &[], vec![], gone(PropagationPolicy::Background)),
        ("its owner waits, it has dependents", &[Waiting], &[], plain(), gone(PropagationPolicy::Foreground)),
        (
            "a circle",
            &[Waiting],
            &[],
            in_circle(),
            Decision::Delete { policy: PropagationPolicy::Foreground, unblock: true },
        ),
        ("asked to orphan", &[Absent], &[ORPHAN], vec![], gone(PropagationPolicy::Orphan)),
        ("asked for foreground", &[Absent], &[FOREGROUND], vec![], gone(PropagationPolicy::Foreground)),
        ("with dependents, owner gone", &[Absent], &[], plain(), gone(PropagationPolicy::Background)),
    ];
    for (case, owners, finalizers, dependents, expected) in cases {
        let owners: Vec<(String, Owner)> =
            owners.iter().enumerate().map(|(i, o)| (i.to_string(), *o)).collect();
        assert_eq!(decide(&meta("a", &[], finalizers, false), &owners, &dependents), expected, "{case}");
    }
}

#[test]
fn an_owner_in_the_foreground_waits_for_those_that_block_it() {
    assert_eq!(foreground("o", &[]), Foreground::Done);
    assert_eq!(foreground("o", &[item("a", &["o"], &[], false)]), Foreground::Done, "it does not block");
    let dependents = [item("a", &["!o"], &[], false), item("b", &["!o"], &[FOREGROUND], true)];
    assert_eq!(foreground("o", &dependents), Foreground::Wait(vec!["a".to_owned()]));
}

#[test]
fn the_graph_asks_to_look_where_something_may_be_garbage() {
    let mut graph = Graph::default();
    assert_eq!(graph.observe(item("o", &[], &[], false)), []);
    assert_eq!(graph.observe(item("a", &["!o"], &[], false)), [], "its owner is there");
    assert_eq!(graph.observe(item("x", &["unseen"], &[], false)), delete(&["x"]));
    assert_eq!(graph.observe(item("x", &["unseen"], &[], false)), [], "once");
    assert_eq!(graph.forget("o"), delete(&["a"]));
    assert_eq!(graph.forget("a"), []);
    assert_eq!(graph.forget("a"), []);
    assert!(graph.get("a").is_none() && graph.dependents("o").is_empty());
}

#[test]
fn foreground_deletion_looks_at_dependents_and_comes_back_when_they_go() {
    let mut graph = Graph::default();
    graph.observe(item("o", &[], &[], false));
    graph.observe(item("a", &["!o"], &[], false));
    graph.observe(item("b", &["!o"], &[], false));
    let going = || item("o", &[], &[FOREGROUND], true);
    assert_eq!(graph.observe(going()), delete(&["a", "b", "o"]));
    assert_eq!(graph.observe(going()), [], "once");
    assert_eq!(graph.observe(item("late", &["!o"], &[], false)), delete(&["late"]));
    assert_eq!(graph.forget("a"), delete(&["o"]));
    assert_eq!(graph.observe(item("b", &["o"], &[], false)), delete(&["o"]), "it blocks no longer");
    assert_eq!(graph.observe(item("late", &[], &[], false)), delete(&["o"]), "it was let go");
    assert_eq!(graph.dependents("o").len(), 1);
}

#[test]
fn orphaning_is_its_own_work() {
    let mut graph = Graph::default();
    graph.observe(item("o", &[], &[], false));
    graph.observe(item("a", &["o"], &[], false));
    assert_eq!(graph.observe(item("o", &[], &[ORPHAN], true)), [Work::Orphan("o".to_owned())]);
    assert_eq!(graph.dependents("o").len(), 1);
}
