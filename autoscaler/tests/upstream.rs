//! First decisions of the real HorizontalPodAutoscaler controller, where the folder with them is present.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::path::Path;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use loadline_autoscaler::record::{Container, Pod, Read, Reading, Ready, Record, Sample, Scale};
use loadline_autoscaler::{Policy, State, decide};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000_000;

#[test]
fn decides_as_upstream() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/hpa/cases.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!(
            "SKIPPED: no {}; the strict profile is not compared with the real controller",
            path.display()
        );
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let problems: Vec<String> = cases.iter().flat_map(check).collect();
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
    println!("{} decisions as upstream", cases.len());
    assert!(cases.len() >= 100);
}

fn check(case: &Value) -> Vec<String> {
    let policy = Policy::from_hpa(&hpa(case));
    let record = record(case);
    let decision = decide(&policy, &record, &State::new(NOW));
    let want = &case["result"];
    let mut problems = Vec::new();
    let mut compare = |what: &str, got: Value, want: Value| {
        if got != want {
            problems.push(format!("{}: {what}: got {got}, want {want} ({})", case["name"], decision.summary));
        }
    };
    let status = decision.status.clone().unwrap();
    let current = decision.current;
    compare(
        "replicas",
        json!(decision.rescale.as_ref().map_or(current, |r| r.to)),
        want["newSpecReplicas"].clone(),
    );
    compare("desired", json!(status.desired_replicas), want["desiredReplicas"].clone());
    compare("current", json!(status.current_replicas), want["currentReplicas"].clone());
    compare("metrics", json!(status.current_metrics), want["currentMetrics"].clone());
    let mut got = json!(decision.conditions);
    let mut expected = want["conditions"].clone();
    for list in [&mut got, &mut expected] {
        // Upstream walks its pods in random order; which of several it complains about says nothing.
        for condition in list.as_array_mut().unwrap() {
            let message = condition["message"].as_str().unwrap();
            condition["message"] = json!(message.split(" of Pod ").next());
        }
    }
    compare("conditions", got, expected);
    problems
}

fn hpa(case: &Value) -> HorizontalPodAutoscaler {
    let mut spec = case["hpa"].clone();
    spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
}

fn record(case: &Value) -> Record {
    let elapsed = case["result"]["elapsedSeconds"].as_i64().unwrap();
    let int = |v: &Value| i32::try_from(v.as_i64().unwrap()).unwrap();
    let hpa = hpa(case);
    let metrics = hpa.spec.metrics.unwrap_or_default();
    let readings = metrics.iter().enumerate().filter_map(|(i, m)| {
        let list = |v: &Value| v.as_array().map(|a| a.iter().filter_map(Value::as_i64).collect::<Vec<_>>());
        let value = match m.type_.as_str() {
            "Pods" => {
                let name = &m.pods.as_ref()?.metric.name;
                case["podMetrics"][name]
                    .as_object()
                    .map(|o| Reading::Pods(o.iter().map(|(k, v)| (k.clone(), v.as_i64().unwrap())).collect()))
                    .ok_or("unable to fetch metrics from custom metrics API: not found")
            }
            "Object" => case["objectMetrics"][&m.object.as_ref()?.metric.name]
                .as_i64()
                .map(Reading::Object)
                .ok_or("unable to fetch metrics from custom metrics API: not found"),
            "External" => list(&case["externalMetrics"][&m.external.as_ref()?.metric.name])
                .map(Reading::External)
                .ok_or("unable to fetch metrics from external metrics API: not found"),
            _ => return None,
        };
        Some((i, value.map_or_else(|e| Read::Error(e.to_owned()), Read::Value)))
    });
    Record {
        time: NOW,
        scale: Read::Value(Scale {
            spec_replicas: int(&case["specReplicas"]),
            status_replicas: int(&case["statusReplicas"]),
            selector: "app=web".to_owned(),
        }),
        pods: case["pods"].as_array().unwrap().iter().map(|p| pod(p, elapsed)).collect(),
        readings: readings.collect(),
        ..Record::default()
    }
}

fn pod(pod: &Value, elapsed: i64) -> Pod {
    let ago = |v: &Value| v.as_i64().map(|s| (s + elapsed) * 1000);
    let amounts = |v: &Value| {
        let amount = |name: &str, factor: i64| Some((name.to_owned(), v[name].as_i64()? * factor));
        [amount("cpu", 1), amount("memory", 1024 * 1024 * 1000)].into_iter().flatten().collect()
    };
    let pending = pod["phase"] == "Pending";
    Pod {
        name: pod["name"].as_str().unwrap().to_owned(),
        phase: pod["phase"].as_str().unwrap().to_owned(),
        deleted: pod["deleted"].as_bool().unwrap(),
        started_ago: ago(&pod["startedAgo"]).filter(|_| !pending),
        ready: ago(&pod["readyChangedAgo"]).filter(|_| !pending).map(|changed_ago| Ready {
            status: if pod["ready"] == true { "True" } else { "False" }.to_owned(),
            changed_ago,
        }),
        containers: vec![Container {
            name: "c".to_owned(),
            requests: amounts(&pod["requests"]),
            ..Container::default()
        }],
        sample: pod["usage"].is_object().then(|| Sample {
            age: (1 + elapsed) * 1000,
            window: 60_000,
            containers: [("c".to_owned(), amounts(&pod["usage"]))].into(),
        }),
        ..Pod::default()
    }
}
