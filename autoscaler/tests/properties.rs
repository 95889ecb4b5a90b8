//! What holds for every input.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

#[path = "support/build.rs"]
mod build;

use build::{NOW, cpu70, even, fast, pod, replicas, settled, strict, with_limit};
use loadline_autoscaler::record::{Record, Sample};
use loadline_autoscaler::state::{Hold, Outcome, Recommendation, ScaleEvent};
use loadline_autoscaler::{Decision, Policy, State, decide};
use proptest::prelude::*;
use serde_json::json;

fn records() -> impl Strategy<Value = Record> {
    let one = (0..2_000_i64, prop_oneof![Just(100_i64), 1..500_i64], 0..40_000_i64, 0..5_u8, 0..400_000_i64);
    (0..60_i32, prop::collection::vec(one, 0..30), prop::option::of(50..1_000_i64)).prop_map(
        |(current, pods, limit)| {
            let mut record = even(0, 0);
            if let loadline_autoscaler::record::Read::Value(scale) = &mut record.scale {
                scale.spec_replicas = current;
                scale.status_replicas = current;
            }
            for (i, (used, request, age, kind, started)) in pods.into_iter().enumerate() {
                let mut p = pod(&format!("p{i}"), used, request);
                p.sample.as_mut().unwrap().age = age;
                match kind {
                    0 => p.sample = None,
                    1 => p.phase = "Pending".to_owned(),
                    2 => p.started_ago = Some(started),
                    3 => p.ready.as_mut().unwrap().status = "False".to_owned(),
                    _ => {}
                }
                record.pods.push(p);
            }
            match limit {
                Some(limit) => with_limit(record, limit),
                None => record,
            }
        },
    )
}

fn states() -> impl Strategy<Value = State> {
    let events = || prop::collection::vec((0..400_000_i64, 0..10_i32), 0..5);
    (
        prop::collection::vec((0..400_000_i64, 0..60_i32), 0..10),
        events(),
        events(),
        0..400_000_i64,
        any::<bool>(),
    )
        .prop_map(|(recommendations, ups, downs, since, held)| State {
            since: NOW - since,
            recommendations: recommendations
                .into_iter()
                .map(|(ago, replicas)| Recommendation { at: NOW - ago, replicas })
                .collect(),
            ups: ups.into_iter().map(|(ago, change)| ScaleEvent { at: NOW - ago, change }).collect(),
            downs: downs.into_iter().map(|(ago, change)| ScaleEvent { at: NOW - ago, change }).collect(),
            hold: held.then_some(Hold { since: NOW - 1, until: NOW + 1, replicas: 3 }),
            ..State::default()
        })
}

fn policies() -> impl Strategy<Value = Policy> {
    (1..5_i32, 5..50_i32, 1..150_i32, any::<bool>(), any::<bool>()).prop_map(|(min, max, target, rules, quick)| {
        let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}]);
        let mut spec = json!({"minReplicas": min, "maxReplicas": max});
        if rules {
            spec["behavior"] = json!({"scaleUp": {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}]},
                "scaleDown": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}});
        }
        if quick {
            spec["objectives"] = json!([{"resource": {"name": "cpu", "utilization": target}}]);
            fast(spec)
        } else {
            spec["metrics"] = metrics;
            strict(spec)
        }
    })
}

fn limits(policy: &Policy) -> (i32, i32) {
    match policy {
        Policy::Strict(p) => (p.min_replicas, p.max_replicas),
        Policy::Fast(p) => (p.min_replicas, p.max_replicas),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bounded(policy in policies(), record in records(), state in states()) {
        let decision = decide(&policy, &record, &state);
        let (min, max) = limits(&policy);
        if let Some(rescale) = &decision.rescale {
            prop_assert!((min..=max).contains(&rescale.to), "{} not in {min}..={max}: {}", rescale.to, decision.summary);
            prop_assert!(rescale.to != decision.current);
        }
    }

    #[test]
    fn replays_from_json(policy in policies(), record in records(), state in states()) {
        let decision = decide(&policy, &record, &state);
        let text = serde_json::to_string(&(&policy, &record, &state, &decision)).unwrap();
        let (p, r, s, d): (Policy, Record, State, Decision) = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&d, &decision);
        prop_assert_eq!(serde_json::to_string(&decide(&p, &r, &s)).unwrap(), serde_json::to_string(&decision).unwrap());
    }

    #[test]
    fn fast_is_monotone_in_demand(record in records(), mut state in states(), more in 0..3_000_i64) {
        state.hold = None;
        let mut higher = record.clone();
        for usage in higher.pods.iter_mut().filter_map(|p| p.sample.as_mut()).flat_map(|s| s.containers.values_mut()) {
            usage.entry("cpu".to_owned()).and_modify(|u| *u += more);
        }
        let (low, high) = (decide(&cpu70(), &record, &state), decide(&cpu70(), &higher, &state));
        prop_assert!(replicas(&low) <= replicas(&high), "{} / {}", low.summary, high.summary);
    }

    #[test]
    fn fast_never_shrinks_on_missing_or_stale_data(record in records(), mut state in states(), which in 0..30_usize, stale in any::<bool>()) {
        state.hold = None;
        let mut record = record;
        let serving: Vec<usize> = (0..record.pods.len()).filter(|i| record.pods[*i].phase == "Running").collect();
        prop_assume!(!serving.is_empty());
        let pod = &mut record.pods[serving[which % serving.len()]];
        pod.sample = stale.then(|| Sample { age: 5_001, ..pod.sample.clone().unwrap_or_default() });
        let decision = decide(&cpu70(), &record, &state);
        // Above maxReplicas is a matter of what is asked for, not of what is seen.
        prop_assert!(replicas(&decision) >= decision.current.min(40), "{}", decision.summary);
    }

    #[test]
    fn strict_never_shrinks_without_metrics(record in records(), state in states()) {
        let mut record = record;
        record.pods.iter_mut().for_each(|p| p.sample = None);
        let policy = strict(json!({"maxReplicas": 100, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}));
        let decision = decide(&policy, &record, &state);
        prop_assert!(replicas(&decision) >= decision.current, "{}", decision.summary);
    }

    /// What a restarted autoscaler decides first is either the same or leaves more pods.
    #[test]
    fn a_restart_takes_nothing_away(policy in policies(), record in records(), state in states()) {
        let mut state = state;
        state.hold = None;
        let fresh = decide(&policy, &record, &State::new(NOW));
        let (_, max) = limits(&policy);
        if let Policy::Fast(_) = policy {
            prop_assert!(replicas(&fresh) >= fresh.current.min(max), "{}", fresh.summary);
        }
        // The history never grows without end.
        let mut grown = state;
        for i in 0..20 {
            let mut later = record.clone();
            later.time = NOW + i * 1_000_000;
            let decision = decide(&policy, &later, &grown);
            grown = grown.after(&policy, &later, &decision, Outcome::Done);
        }
        prop_assert!(grown.recommendations.len() <= 2 && grown.ups.len() + grown.downs.len() <= 2, "{grown:?}");
    }
}

#[test]
fn a_settled_target_is_left_alone_after_a_restart() {
    for current in 1..20 {
        let decision = decide(&cpu70(), &even(current, 70), &State::new(NOW));
        assert_eq!(decision.rescale, None);
        let decision = decide(&cpu70(), &even(current, 70), &settled());
        assert_eq!(decision.rescale, None);
    }
}
