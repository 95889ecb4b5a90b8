//! The fast profile as a table, and its rules over time.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

#[path = "support/build.rs"]
mod build;

use build::{HOUR, NOW, cpu70, even, fast, hpa, pod, reasons, record, replicas, settled, with_limit};
use loadline_autoscaler::record::{Read, Record, Rival};
use loadline_autoscaler::state::{Hold, Outcome, Recommendation, ScaleEvent};
use loadline_autoscaler::{Policy, State, decide};
use serde_json::{Value, json};

struct Case {
    name: &'static str,
    policy: Policy,
    record: Record,
    state: State,
    replicas: i32,
    reasons: &'static [&'static str],
    /// A part of the summary or of a detail.
    says: &'static str,
}

const STABLE: &str = "AbleToScale=True:ScaleDownStabilized";
const RESCALED: &str = "AbleToScale=True:SucceededRescale";

fn policy(change: impl FnOnce(&mut Value)) -> Policy {
    let mut spec = json!({"minReplicas": 1, "maxReplicas": 40, "objectives": [{"resource": {"name": "cpu", "utilization": 70}}]});
    change(&mut spec);
    fast(spec)
}

fn objective(value: Value) -> Policy {
    policy(|s| s["objectives"].as_array_mut().unwrap().push(value))
}

fn change(mut record: Record, change: impl FnOnce(&mut Record)) -> Record {
    change(&mut record);
    record
}

fn needed(ago: i64, replicas: i32) -> State {
    State { recommendations: vec![Recommendation { at: NOW - ago * 1000, replicas }], ..settled() }
}

fn expecting(expected: i32) -> State {
    State { expected: Some(expected), ..settled() }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let case = |name, policy, record, state, replicas, reasons, says| Case {
        name,
        policy,
        record,
        state,
        replicas,
        reasons,
        says,
    };
    let no_samples = |r: &mut Record| r.pods.iter_mut().for_each(|p| p.sample = None);
    let aged =
        |age: i64| move |r: &mut Record| r.pods.iter_mut().for_each(|p| p.sample.as_mut().unwrap().age = age);
    let fallback = |s: &mut Value| s["fallback"] = json!({"after": "30s", "replicas": 6});
    vec![
        case(
            "step ×4",
            cpu70(),
            even(2, 212),
            settled(),
            7,
            &[RESCALED, "ScalingActive=True:ValidMetricFound"],
            "cpu 212% of requests over 2 s against a target of 70%: 2 → 7",
        ),
        case(
            "on target",
            cpu70(),
            even(4, 70),
            settled(),
            4,
            &["AbleToScale=True:ReadyForNewScale"],
            "stays at 4",
        ),
        case("within the tolerance", cpu70(), even(10, 75), settled(), 10, &[], "too little above"),
        case(
            "pods on their way are capacity",
            cpu70(),
            change(even(2, 210), |r| {
                r.scale = Read::Value(loadline_autoscaler::record::Scale {
                    spec_replicas: 6,
                    status_replicas: 6,
                    selector: "a=b".to_owned(),
                });
                for i in 2..6 {
                    let mut p = pod(&format!("new{i}"), 0, 100);
                    p.phase = "Pending".to_owned();
                    p.sample = None;
                    r.pods.push(p);
                }
            }),
            settled(),
            6,
            &[],
            "stays at 6",
        ),
        case(
            "work of starting is no demand",
            cpu70(),
            change(even(2, 70), |r| {
                let mut p = pod("new", 1000, 100);
                p.started_ago = Some(3_000);
                p.ready.as_mut().unwrap().changed_ago = 1_000;
                r.pods.push(p);
            }),
            settled(),
            2,
            &[],
            "stays at 2",
        ),
        case(
            "at the limits: doubled",
            cpu70(),
            with_limit(even(2, 100), 100),
            settled(),
            6,
            &[RESCALED],
            "at its limit",
        ),
        case(
            "near the limits: doubled",
            cpu70(),
            with_limit(even(2, 90), 100),
            settled(),
            6,
            &[RESCALED],
            "at the limits",
        ),
        case(
            "below the limits: not doubled",
            cpu70(),
            with_limit(even(2, 89), 100),
            settled(),
            3,
            &[RESCALED],
            "2 → 3",
        ),
        case(
            "a target at the limits is no saturation",
            policy(|s| s["objectives"][0]["resource"]["utilization"] = json!(95)),
            with_limit(even(3, 95), 100),
            settled(),
            3,
            &[],
            "stays at 3",
        ),
        case(
            "average value",
            policy(|s| s["objectives"][0] = json!({"resource": {"name": "cpu", "averageValue": "50m"}})),
            even(2, 100),
            settled(),
            4,
            &[RESCALED],
            "100m a pod",
        ),
        case(
            "to max",
            policy(|s| s["maxReplicas"] = json!(5)),
            even(2, 300),
            settled(),
            5,
            &["ScalingLimited=True:TooManyReplicas"],
            "maxReplicas",
        ),
        case(
            "above max",
            policy(|s| s["maxReplicas"] = json!(5)),
            even(8, 70),
            settled(),
            5,
            &[RESCALED],
            "maxReplicas",
        ),
        case(
            "below min",
            policy(|s| s["minReplicas"] = json!(3)),
            even(1, 10),
            settled(),
            3,
            &[RESCALED, "ScalingLimited=True:TooFewReplicas"],
            "minReplicas",
        ),
        case(
            "minReplicas 0 keeps one",
            policy(|s| s["minReplicas"] = json!(0)),
            even(1, 0),
            settled(),
            1,
            &[],
            "stays at 1",
        ),
        // Scale-in.
        case("15 % at a time", cpu70(), even(20, 7), settled(), 17, &[RESCALED], "at most 15 %"),
        case("at least one", cpu70(), even(3, 7), settled(), 2, &[RESCALED], "3 → 2"),
        case(
            "not before the highest need has passed",
            cpu70(),
            even(20, 7),
            needed(59, 20),
            20,
            &[STABLE],
            "highest recent need",
        ),
        case(
            "after the highest need has passed",
            cpu70(),
            even(20, 7),
            needed(61, 20),
            17,
            &[RESCALED],
            "20 → 17",
        ),
        case(
            "down to the highest need only",
            cpu70(),
            even(20, 7),
            needed(30, 18),
            18,
            &[RESCALED],
            "20 → 18",
        ),
        case("a small surplus is kept", cpu70(), even(20, 65), settled(), 20, &[STABLE], "surplus"),
        case(
            "not twice in 2 s",
            cpu70(),
            even(20, 7),
            State { downs: vec![ScaleEvent { at: NOW - 1_000, change: 3 }], ..settled() },
            20,
            &[STABLE],
            "2 s ago",
        ),
        case(
            "again after 2 s",
            cpu70(),
            even(20, 7),
            State { downs: vec![ScaleEvent { at: NOW - 2_000, change: 3 }], ..settled() },
            17,
            &[RESCALED],
            "20 → 17",
        ),
        case(
            "just started: no scale-in",
            cpu70(),
            even(20, 7),
            State::new(NOW - 59_000),
            20,
            &[STABLE],
            "history",
        ),
        case(
            "a stale sample: no scale-in",
            cpu70(),
            change(even(20, 7), |r| r.pods[3].sample.as_mut().unwrap().age = 5_001),
            settled(),
            20,
            &[STABLE],
            "pod p3 is 5.0 s old",
        ),
        case(
            "a missing sample: no scale-in",
            cpu70(),
            change(even(20, 7), |r| r.pods[3].sample = None),
            settled(),
            20,
            &[STABLE],
            "pod p3 has no sample",
        ),
        case(
            "stale samples still scale out",
            cpu70(),
            change(even(2, 210), aged(20_000)),
            settled(),
            6,
            &[RESCALED],
            "2 → 6",
        ),
        case(
            "own window",
            policy(|s| s["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 120}})),
            even(20, 7),
            needed(100, 20),
            20,
            &[STABLE],
            "120 s",
        ),
        case(
            "own rate down",
            policy(
                |s| s["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}),
            ),
            even(20, 7),
            settled(),
            19,
            &["ScalingLimited=True:ScaleDownLimit"],
            "20 → 19",
        ),
        case(
            "own rate up",
            policy(|s| {
                s["behavior"] =
                    json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}})
            }),
            even(2, 300),
            settled(),
            4,
            &["ScalingLimited=True:ScaleUpLimit"],
            "2 → 4",
        ),
        case(
            "up disabled",
            policy(|s| s["behavior"] = json!({"scaleUp": {"selectPolicy": "Disabled"}})),
            even(2, 300),
            settled(),
            2,
            &[],
            "stays at 2",
        ),
        // Without metrics.
        case(
            "older than 30 s: hold",
            cpu70(),
            change(even(4, 300), aged(30_001)),
            settled(),
            4,
            &["ScalingActive=False:FailedGetResourceMetric"],
            "stays at 4",
        ),
        case(
            "no metrics: hold",
            cpu70(),
            change(even(4, 300), no_samples),
            settled(),
            4,
            &["ScalingActive=False:FailedGetResourceMetric"],
            "no usable metrics",
        ),
        case(
            "no metrics for long: fallback",
            policy(fallback),
            change(even(4, 300), no_samples),
            State { measured_at: Some(NOW - 30_000), ..settled() },
            6,
            &[RESCALED, "ScalingActive=False:FailedGetResourceMetric"],
            "fallback",
        ),
        case(
            "no metrics, not for long: no fallback",
            policy(fallback),
            change(even(4, 300), no_samples),
            State { measured_at: Some(NOW - 29_000), ..settled() },
            4,
            &[],
            "stays at 4",
        ),
        case(
            "the fallback never shrinks",
            policy(fallback),
            change(even(9, 300), no_samples),
            State { measured_at: Some(NOW - HOUR), ..settled() },
            9,
            &[],
            "stays at 9",
        ),
        case(
            "no request",
            cpu70(),
            change(even(2, 300), |r| r.pods[0].containers[0].requests.clear()),
            settled(),
            2,
            &["ScalingActive=False:FailedGetResourceMetric"],
            "missing request for cpu in container c of Pod p0",
        ),
        // What is not done.
        case(
            "recommend",
            policy(|s| s["mode"] = json!("Recommend")),
            even(2, 212),
            settled(),
            2,
            &["AbleToScale=True:RecommendOnly"],
            "would be cpu 212%",
        ),
        case(
            "paused",
            policy(|s| s["mode"] = json!("Paused")),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:Paused"],
            "mode is Paused",
        ),
        case(
            "zero is off",
            cpu70(),
            even(0, 0),
            settled(),
            0,
            &["ScalingActive=False:ScalingDisabled"],
            "replica count of the target is zero",
        ),
        case(
            "rate",
            objective(json!({"rate": {"metric": "x", "perPod": "1"}})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "objectives[1]: rate",
        ),
        case(
            "latency",
            objective(json!({"latency": {"metric": "x", "quantile": "0.9", "target": "1s"}})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "objectives[1]: latency",
        ),
        case(
            "inFlight",
            objective(json!({"inFlight": {"metric": "x", "perPod": "1"}})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "inFlight",
        ),
        case(
            "queue",
            objective(json!({"queue": {"metric": "x", "perPod": "1"}})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "queue",
        ),
        case(
            "prometheus",
            objective(json!({"prometheus": {"serverAddress": "http://p", "query": "x", "perPod": "1"}})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "prometheus",
        ),
        case(
            "forecast",
            policy(|s| s["forecast"] = json!({"mode": "Auto"})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "forecast",
        ),
        case(
            "a forecast that is off",
            policy(|s| s["forecast"] = json!({"mode": "Off"})),
            even(2, 212),
            settled(),
            7,
            &[RESCALED],
            "2 → 7",
        ),
        case(
            "scale to zero",
            policy(|s| s["scaleToZero"] = json!({"after": "5m"})),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "scaleToZero",
        ),
        case(
            "schedules",
            policy(|s| s["schedules"] = json!([{"cron": "0 8 * * *", "duration": "1h", "minReplicas": 3}])),
            even(2, 212),
            settled(),
            2,
            &["ScalingActive=False:UnsupportedObjective"],
            "schedules",
        ),
        case(
            "an older autoscaler on the target",
            cpu70(),
            change(even(2, 212), |r| {
                r.rivals.push(Rival {
                    name: "a/b".to_owned(),
                    kind: "ScalingPolicy".to_owned(),
                    same_target: true,
                    older: true,
                })
            }),
            settled(),
            2,
            &["ScalingActive=False:AmbiguousSelector"],
            "a/b",
        ),
        case(
            "no scale",
            cpu70(),
            change(even(2, 212), |r| r.scale = Read::Error("gone".to_owned())),
            settled(),
            0,
            &["AbleToScale=False:FailedGetScale"],
            "gone",
        ),
        // A human hand.
        case(
            "set by hand: held",
            cpu70(),
            even(2, 212),
            expecting(5),
            2,
            &["AbleToScale=False:ManualHold"],
            "somebody set 2 replicas",
        ),
        case(
            "still held",
            cpu70(),
            even(2, 212),
            State {
                hold: Some(Hold { since: NOW - 299_000, until: NOW + 1_000, replicas: 2 }),
                ..expecting(2)
            },
            2,
            &["AbleToScale=False:ManualHold"],
            "without that",
        ),
        case(
            "handed back",
            cpu70(),
            even(2, 212),
            State { hold: Some(Hold { since: NOW - 300_000, until: NOW, replicas: 2 }), ..expecting(2) },
            7,
            &[RESCALED],
            "2 → 7",
        ),
        case(
            "held by annotation",
            cpu70(),
            change(even(2, 212), |r| r.hold_until = Some(NOW + 1)),
            settled(),
            2,
            &["AbleToScale=False:ManualHold"],
            "respected until",
        ),
        case(
            "an annotation of the past hands back",
            cpu70(),
            change(even(2, 212), |r| r.hold_until = Some(NOW - 1)),
            State { hold: Some(Hold { since: NOW - 2, until: NOW + 1_000, replicas: 2 }), ..expecting(2) },
            7,
            &[RESCALED],
            "2 → 7",
        ),
        case(
            "an old annotation does not hinder a new hold",
            cpu70(),
            change(even(2, 212), |r| r.hold_until = Some(NOW - HOUR)),
            expecting(5),
            2,
            &["AbleToScale=False:ManualHold"],
            "somebody set",
        ),
        case(
            "held above max",
            policy(|s| s["maxReplicas"] = json!(5)),
            even(8, 70),
            expecting(3),
            8,
            &["AbleToScale=False:ManualHold"],
            "8 replicas",
        ),
    ]
}

#[test]
fn table() {
    let cases = cases();
    let mut problems = Vec::new();
    for case in &cases {
        let decision = decide(&case.policy, &case.record, &case.state);
        let got = reasons(&decision);
        let missing: Vec<_> = case.reasons.iter().filter(|r| !got.iter().any(|g| g == *r)).collect();
        let said =
            decision.summary.contains(case.says) || decision.details.iter().any(|d| d.contains(case.says));
        if replicas(&decision) != case.replicas || !missing.is_empty() || !said {
            problems.push(format!(
                "{}: got {} want {}, missing {missing:?} in {got:?}, said {said}; {}\n    {}",
                case.name,
                replicas(&decision),
                case.replicas,
                decision.summary,
                decision.details.join("\n    ")
            ));
        }
    }
    assert!(problems.is_empty(), "{} of {} cases:\n{}", problems.len(), cases.len(), problems.join("\n"));
}

#[test]
fn an_annotated_hpa_runs_fast() {
    let annotations = json!({"autoscaling.loadline.io/profile": "fast"});
    let policy = Policy::from_hpa(&hpa(json!({"maxReplicas": 10}), annotations.clone()));
    assert_eq!(replicas(&decide(&policy, &even(2, 160), &settled())), 4);
    let metrics = json!([{"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "1"}}}]);
    let refused = Policy::from_hpa(&hpa(json!({"maxReplicas": 10, "metrics": metrics}), annotations));
    let decision = decide(&refused, &even(2, 160), &settled());
    assert_eq!(decision.find("ScalingActive").unwrap().reason, "UnsupportedObjective");
}

/// Seconds of a load that is shared by the ready pods, new ones being ready after `start_s`.
struct World {
    policy: Policy,
    state: State,
    now: i64,
    spec: i32,
    /// When each pod is ready.
    pods: Vec<i64>,
    limit: i64,
}

impl World {
    fn new(policy: Policy, pods: i32, limit: i64) -> Self {
        let ready = vec![NOW - HOUR; usize::try_from(pods).unwrap()];
        Self { policy, state: settled(), now: NOW, spec: pods, pods: ready, limit }
    }

    /// One second of `load` milli-cores in all; returns the count afterwards.
    fn second(&mut self, load: i64, start_s: i64) -> i32 {
        self.now += 1000;
        let serving = self.pods.iter().filter(|r| **r <= self.now).count().max(1) as i64;
        let used = (load / serving).min(self.limit);
        let mut record = record(self.spec, &vec![used; self.pods.len()]);
        record.time = self.now;
        for (pod, ready) in record.pods.iter_mut().zip(&self.pods) {
            let since = self.now - ready;
            pod.started_ago = Some(since + start_s * 1000);
            if since < 0 {
                pod.phase = "Pending".to_owned();
                pod.sample = None;
            } else {
                pod.ready.as_mut().unwrap().changed_ago = since;
                pod.containers[0].limits = [("cpu".to_owned(), self.limit)].into();
            }
        }
        let decision = decide(&self.policy, &record, &self.state);
        self.state = self.state.after(&self.policy, &record, &decision, Outcome::Done);
        self.spec = replicas(&decision);
        let ready = self.now + start_s * 1000;
        self.pods.resize(usize::try_from(self.spec).unwrap(), ready);
        self.spec
    }
}

#[test]
fn a_step_is_met_at_once_and_given_back_slowly() {
    let mut world = World::new(cpu70(), 2, 1000);
    for _ in 0..120 {
        assert_eq!(world.second(120, 2), 2);
    }
    assert_eq!(world.second(480, 2), 7);
    for _ in 0..60 {
        assert_eq!(world.second(480, 2), 7, "neither more nor less while it lasts");
    }
    let mut counts: Vec<i32> = (0..200).map(|_| world.second(120, 2)).collect();
    assert!(counts[..58].iter().all(|c| *c == 7), "{counts:?}");
    assert!(counts.windows(2).all(|w| w[1] <= w[0] && w[0] - w[1] <= 1), "{counts:?}");
    assert_eq!(counts.pop(), Some(2));
}

#[test]
fn a_saturated_target_grows_until_the_demand_shows() {
    // Ten times the load on pods that cannot show more than their limit, the target's request.
    let mut world = World::new(cpu70(), 2, 100);
    let counts: Vec<i32> = (0..30).map(|_| world.second(1_000, 2)).collect();
    assert_eq!(counts[0], 6, "{counts:?}");
    assert!(counts.iter().all(|c| *c <= 40), "{counts:?}");
    let enough = counts.iter().position(|c| *c >= 15).unwrap();
    assert!(enough <= 8, "{counts:?}");
    assert!(*counts.last().unwrap() <= 30, "{counts:?}");
}

#[test]
fn steady_noise_does_not_churn() {
    let mut world = World::new(cpu70(), 10, 1000);
    let mut changes = 0;
    let mut before = 10;
    for i in 0..600_i64 {
        // ± 8 % around the load that ten pods carry at their target.
        let noise = (i * 7919 % 17) - 8;
        let count = world.second(700 + 7 * noise, 2);
        changes += i32::from(count != before);
        before = count;
    }
    assert!(changes <= 1, "{changes} changes");
}
