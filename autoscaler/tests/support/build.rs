//! Short ways to write records.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test file takes what it needs")]

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use loadline_autoscaler::record::{Container, Pod, Read, Ready, Record, Sample, Scale};
use loadline_autoscaler::{Policy, State};
use serde_json::{Value, json};

pub const NOW: i64 = 1_800_000_000_000;
pub const HOUR: i64 = 3_600_000;

/// A pod that has served for an hour, requests `request` milli-cores and uses `used`, seen half a second ago.
pub fn pod(name: &str, used: i64, request: i64) -> Pod {
    Pod {
        name: name.to_owned(),
        phase: "Running".to_owned(),
        started_ago: Some(HOUR),
        ready: Some(Ready { status: "True".to_owned(), changed_ago: HOUR - 10_000 }),
        containers: vec![Container {
            name: "c".to_owned(),
            requests: [("cpu".to_owned(), request)].into(),
            ..Container::default()
        }],
        sample: Some(Sample {
            age: 500,
            window: 2_000,
            containers: [("c".to_owned(), [("cpu".to_owned(), used)].into())].into(),
        }),
        ..Pod::default()
    }
}

/// Each pod requests 100 milli-cores.
pub fn record(current: i32, used: &[i64]) -> Record {
    Record {
        time: NOW,
        scale: Read::Value(Scale {
            spec_replicas: current,
            status_replicas: current,
            selector: "app=web".to_owned(),
        }),
        pods: used.iter().enumerate().map(|(i, u)| pod(&format!("p{i}"), *u, 100)).collect(),
        ..Record::default()
    }
}

/// A deployment whose pods all use the same.
pub fn even(current: i32, used: i64) -> Record {
    record(current, &vec![used; usize::try_from(current).unwrap()])
}

pub fn with_limit(mut record: Record, limit: i64) -> Record {
    for pod in &mut record.pods {
        pod.containers[0].limits = [("cpu".to_owned(), limit)].into();
    }
    record
}

pub fn strict(spec: Value) -> Policy {
    Policy::from_hpa(&hpa(spec, json!({})))
}

pub fn fast(spec: Value) -> Policy {
    let mut spec = spec;
    spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let policy = json!({"metadata": {"name": "web"}, "spec": spec});
    Policy::from_scaling_policy(&serde_json::from_value(policy).unwrap())
}

pub fn hpa(mut spec: Value, annotations: Value) -> HorizontalPodAutoscaler {
    spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    serde_json::from_value(json!({"metadata": {"name": "web", "annotations": annotations}, "spec": spec}))
        .unwrap()
}

/// CPU at 70 %, 1 to 40 replicas.
pub fn cpu70() -> Policy {
    fast(
        json!({"minReplicas": 1, "maxReplicas": 40, "objectives": [{"resource": {"name": "cpu", "utilization": 70}}]}),
    )
}

/// A history that is long enough for everything, without events.
pub fn settled() -> State {
    State::new(NOW - HOUR)
}

pub fn replicas(decision: &loadline_autoscaler::Decision) -> i32 {
    decision.rescale.as_ref().map_or(decision.current, |r| r.to)
}

pub fn reasons(decision: &loadline_autoscaler::Decision) -> Vec<String> {
    decision.conditions.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason)).collect()
}
