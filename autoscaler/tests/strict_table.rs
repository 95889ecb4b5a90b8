//! The strict profile as a table: what is asked for, what is seen, what went before, and what must come out.

#![allow(clippy::unwrap_used, reason = "helpers of a test may panic")]

#[path = "support/build.rs"]
mod build;

use build::{NOW, even, hpa, pod, reasons, replicas, settled, strict};
use loadline_autoscaler::record::{Read, Reading, Record, Rival, Scale};
use loadline_autoscaler::state::{Recommendation, ScaleEvent};
use loadline_autoscaler::{Policy, State, decide};
use serde_json::{Value, json};

struct Case {
    name: &'static str,
    spec: Value,
    record: Record,
    state: State,
    replicas: i32,
    /// Reasons that must be among the conditions.
    reasons: &'static [&'static str],
}

const READY: &str = "AbleToScale=True:ReadyForNewScale";
const RESCALED: &str = "AbleToScale=True:SucceededRescale";
const WITHIN: &str = "ScalingLimited=False:DesiredWithinRange";
const VALID: &str = "ScalingActive=True:ValidMetricFound";

fn cpu(target: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}])
}

/// Scales down at once.
fn hasty(metrics: Value) -> Value {
    json!({"minReplicas": 1, "maxReplicas": 20, "metrics": metrics, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}})
}

fn plain(metrics: Value) -> Value {
    json!({"minReplicas": 1, "maxReplicas": 20, "metrics": metrics})
}

fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

fn reading(mut record: Record, index: usize, reading: Reading) -> Record {
    record.readings.insert(index, Read::Value(reading));
    record
}

fn change(mut record: Record, change: impl FnOnce(&mut Record)) -> Record {
    change(&mut record);
    record
}

fn recommended(list: &[(i64, i32)]) -> State {
    State {
        recommendations: list
            .iter()
            .map(|(ago, replicas)| Recommendation { at: NOW - ago * 1000, replicas: *replicas })
            .collect(),
        ..settled()
    }
}

fn events(ups: &[(i64, i32)], downs: &[(i64, i32)]) -> State {
    let of = |list: &[(i64, i32)]| {
        list.iter().map(|(ago, change)| ScaleEvent { at: NOW - ago * 1000, change: *change }).collect()
    };
    State { ups: of(ups), downs: of(downs), ..recommended(&[(4000, 1)]) }
}

fn object(kind: &str, amount: &str) -> Value {
    json!([{"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "svc"}, "metric": {"name": "hits"},
        "target": if kind == "Value" { json!({"type": kind, "value": amount}) } else { json!({"type": kind, "averageValue": amount}) }}}])
}

fn external(key: &str, amount: &str) -> Value {
    let type_ = if key == "value" { "Value" } else { "AverageValue" };
    json!([{"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": type_, key: amount}}}])
}

fn rps(amount: &str) -> Value {
    json!([{"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": amount}}}])
}

fn values(list: &[(&str, i64)]) -> Reading {
    Reading::Pods(list.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect())
}

fn rival(older: bool, same_target: bool) -> Rival {
    Rival { name: "default/other".to_owned(), kind: "HorizontalPodAutoscaler".to_owned(), same_target, older }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let case =
        |name, spec, record, state, replicas, reasons| Case { name, spec, record, state, replicas, reasons };
    let pods_rate = |value: i32| json!({"policies": [{"type": "Pods", "value": value, "periodSeconds": 60}]});
    let both = |a: Value, b: Value| json!([a[0], b[0]]);
    vec![
        // Ratio and tolerance.
        case("on target", hasty(cpu(50)), even(3, 50), settled(), 3, &[READY, VALID, WITHIN]),
        case("up", hasty(cpu(50)), even(3, 80), settled(), 5, &[RESCALED, VALID, WITHIN]),
        case("down", hasty(cpu(50)), even(4, 20), settled(), 2, &[RESCALED, VALID, WITHIN]),
        case("upper edge of the tolerance", hasty(cpu(50)), even(10, 55), settled(), 10, &[READY]),
        case("just above the tolerance", hasty(cpu(50)), even(10, 56), settled(), 12, &[RESCALED]),
        case("lower edge of the tolerance", hasty(cpu(50)), even(10, 45), settled(), 10, &[READY]),
        case("just below the tolerance", hasty(cpu(50)), even(10, 44), settled(), 9, &[RESCALED]),
        case(
            "utilization is cut to whole per cent",
            hasty(cpu(50)),
            change(even(10, 55), |r| r.pods[0] = pod("p0", 64, 100)),
            settled(),
            10,
            &[READY],
        ),
        case(
            "own tolerance up",
            with(
                hasty(cpu(50)),
                "behavior",
                json!({"scaleUp": {"tolerance": "0.01"}, "scaleDown": {"stabilizationWindowSeconds": 0}}),
            ),
            even(10, 52),
            settled(),
            11,
            &[RESCALED],
        ),
        case(
            "own tolerance down",
            with(
                hasty(cpu(50)),
                "behavior",
                json!({"scaleDown": {"tolerance": "0.5", "stabilizationWindowSeconds": 0}}),
            ),
            even(10, 26),
            settled(),
            10,
            &[READY],
        ),
        case("no metrics: cpu 80 %", plain(json!([])), even(2, 120), settled(), 3, &[RESCALED]),
        // Pods that do not count.
        case(
            "deleted pods are ignored",
            hasty(cpu(50)),
            change(even(2, 50), |r| {
                r.pods.push(pod("gone", 900, 100));
                r.pods[2].deleted = true;
            }),
            settled(),
            2,
            &[READY],
        ),
        case(
            "failed pods are ignored",
            hasty(cpu(50)),
            change(even(2, 50), |r| {
                r.pods.push(pod("gone", 900, 100));
                r.pods[2].phase = "Failed".to_owned();
            }),
            settled(),
            2,
            &[READY],
        ),
        case(
            "missing pods use nothing on the way up",
            hasty(cpu(50)),
            change(even(4, 100), |r| r.pods[3].sample = None),
            settled(),
            6,
            &[RESCALED],
        ),
        case(
            "missing pods use all they asked for on the way down",
            hasty(cpu(50)),
            change(even(4, 10), |r| r.pods[3].sample = None),
            settled(),
            3,
            &[RESCALED],
        ),
        case(
            "missing pods use the target where it is above the request",
            hasty(cpu(200)),
            change(even(4, 100), |r| r.pods[3].sample = None),
            settled(),
            3,
            &[RESCALED],
        ),
        case(
            "missing pods turn a small excess round: nothing",
            hasty(cpu(50)),
            change(even(2, 70), |r| r.pods[1].sample = None),
            settled(),
            2,
            &[READY],
        ),
        case(
            "pending pods use nothing on the way up",
            hasty(cpu(50)),
            change(even(4, 100), |r| {
                r.pods[3].phase = "Pending".to_owned();
                r.pods[3].sample = None;
            }),
            settled(),
            6,
            &[RESCALED],
        ),
        case(
            "pending pods are left out on the way down",
            hasty(cpu(50)),
            change(even(4, 20), |r| {
                r.pods[3].phase = "Pending".to_owned();
                r.pods[3].sample = None;
            }),
            settled(),
            2,
            &[RESCALED],
        ),
        case(
            "a starting pod's cpu does not count",
            hasty(cpu(50)),
            change(even(2, 50), |r| {
                r.pods[1] = pod("p1", 900, 100);
                r.pods[1].started_ago = Some(60_000);
                r.pods[1].ready.as_mut().unwrap().changed_ago = 1_000;
            }),
            settled(),
            2,
            &[READY],
        ),
        case(
            "unready long after the start, was ready before: counts",
            hasty(cpu(50)),
            change(even(2, 50), |r| {
                r.pods[1] = pod("p1", 150, 100);
                let ready = r.pods[1].ready.as_mut().unwrap();
                ready.status = "False".to_owned();
                ready.changed_ago = 600_000;
            }),
            settled(),
            4,
            &[RESCALED],
        ),
        case(
            "never ready: does not count",
            hasty(cpu(50)),
            change(even(2, 50), |r| {
                r.pods[1] = pod("p1", 150, 100);
                let ready = r.pods[1].ready.as_mut().unwrap();
                ready.status = "False".to_owned();
                ready.changed_ago = build::HOUR;
            }),
            settled(),
            2,
            &[READY],
        ),
        case(
            "no samples at all",
            hasty(cpu(50)),
            change(even(2, 50), |r| r.pods.iter_mut().for_each(|p| p.sample = None)),
            settled(),
            2,
            &["AbleToScale=True:SucceededGetScale", "ScalingActive=False:FailedGetResourceMetric"],
        ),
        case(
            "metrics away",
            hasty(cpu(50)),
            change(even(2, 50), |r| r.metrics_error = Some("503".to_owned())),
            settled(),
            2,
            &["ScalingActive=False:FailedGetResourceMetric"],
        ),
        case(
            "no pods",
            hasty(cpu(50)),
            change(even(2, 50), |r| r.pods.clear()),
            settled(),
            2,
            &["ScalingActive=False:FailedGetResourceMetric"],
        ),
        case(
            "a pod without a request",
            hasty(cpu(50)),
            change(even(2, 50), |r| r.pods[0].containers[0].requests.clear()),
            settled(),
            2,
            &["ScalingActive=False:FailedGetResourceMetric"],
        ),
        case(
            "a container that is nowhere",
            hasty(
                json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "zz",
            "target": {"type": "Utilization", "averageUtilization": 50}}}]),
            ),
            even(2, 50),
            settled(),
            2,
            &["ScalingActive=False:FailedGetContainerResourceMetric"],
        ),
        case(
            "one container of two",
            hasty(
                json!([{"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 50}}}]),
            ),
            change(even(2, 100), |r| {
                for p in &mut r.pods {
                    let mut side = p.containers[0].clone();
                    side.name = "side".to_owned();
                    p.containers.push(side);
                    p.sample
                        .as_mut()
                        .unwrap()
                        .containers
                        .insert("side".to_owned(), [("cpu".to_owned(), 0)].into());
                }
            }),
            settled(),
            4,
            &[RESCALED],
        ),
        case(
            "a request of the whole pod",
            hasty(cpu(50)),
            change(even(2, 100), |r| {
                r.pods.iter_mut().for_each(|p| p.requests = [("cpu".to_owned(), 200)].into());
            }),
            settled(),
            2,
            &[READY],
        ),
        case(
            "average value",
            hasty(
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "25m"}}}]),
            ),
            even(3, 50),
            settled(),
            6,
            &[RESCALED],
        ),
        // Other metrics.
        case(
            "pods metric",
            hasty(rps("10")),
            reading(even(2, 1), 0, values(&[("p0", 30_000), ("p1", 10_000)])),
            settled(),
            4,
            &[RESCALED],
        ),
        case(
            "pods metric, one missing on the way down",
            hasty(rps("10")),
            reading(even(4, 1), 0, values(&[("p0", 1_000), ("p1", 1_000), ("p2", 1_000)])),
            settled(),
            2,
            &[RESCALED],
        ),
        case(
            "pods metric not there",
            hasty(rps("10")),
            even(2, 1),
            settled(),
            2,
            &["ScalingActive=False:FailedGetPodsMetric"],
        ),
        case(
            "object value",
            hasty(object("Value", "10")),
            reading(even(2, 1), 0, Reading::Object(30_000)),
            settled(),
            6,
            &[RESCALED],
        ),
        case(
            "object average",
            hasty(object("AverageValue", "10")),
            reading(even(2, 1), 0, Reading::Object(45_000)),
            settled(),
            5,
            &[RESCALED],
        ),
        case(
            "object not there",
            hasty(object("Value", "10")),
            even(2, 1),
            settled(),
            2,
            &["ScalingActive=False:FailedGetObjectMetric"],
        ),
        case(
            "external value",
            hasty(external("value", "10")),
            reading(even(3, 1), 0, Reading::External(vec![15_000, 5_000])),
            settled(),
            6,
            &[RESCALED],
        ),
        case(
            "external average",
            hasty(external("averageValue", "10")),
            reading(even(2, 1), 0, Reading::External(vec![45_000])),
            settled(),
            5,
            &[RESCALED],
        ),
        case(
            "external counts ready pods only",
            hasty(external("value", "10")),
            reading(
                change(even(3, 1), |r| {
                    r.pods[0].ready.as_mut().unwrap().status = "False".to_owned();
                }),
                0,
                Reading::External(vec![20_000]),
            ),
            settled(),
            4,
            &[RESCALED],
        ),
        case(
            "unknown type",
            hasty(json!([{"type": "Weather"}])),
            even(2, 1),
            settled(),
            2,
            &["ScalingActive=False:InvalidMetricSourceType"],
        ),
        // Several metrics.
        case(
            "the largest wins",
            hasty(both(cpu(50), rps("10"))),
            reading(even(2, 75), 1, values(&[("p0", 30_000), ("p1", 30_000)])),
            settled(),
            6,
            &[RESCALED],
        ),
        case(
            "one fails, the other wants more: more",
            hasty(both(cpu(50), rps("10"))),
            even(2, 100),
            settled(),
            4,
            &[RESCALED, VALID],
        ),
        case(
            "one fails, the other wants less: nothing",
            hasty(both(cpu(50), rps("10"))),
            even(4, 10),
            settled(),
            4,
            &["ScalingActive=False:FailedGetPodsMetric"],
        ),
        case(
            "one fails, the other wants the same: goes on",
            hasty(both(cpu(50), rps("10"))),
            even(4, 50),
            settled(),
            4,
            &[READY, VALID],
        ),
        // Limits.
        case("above max first", plain(cpu(50)), even(25, 1), settled(), 20, &[RESCALED]),
        case(
            "below min first",
            with(plain(cpu(50)), "minReplicas", json!(3)),
            even(1, 1),
            settled(),
            3,
            &[RESCALED],
        ),
        case(
            "to max",
            with(hasty(cpu(50)), "maxReplicas", json!(5)),
            even(4, 100),
            settled(),
            5,
            &["ScalingLimited=True:TooManyReplicas"],
        ),
        case(
            "to min",
            with(hasty(cpu(50)), "minReplicas", json!(3)),
            even(4, 10),
            settled(),
            3,
            &["ScalingLimited=True:TooFewReplicas"],
        ),
        case(
            "at most double without behaviour",
            plain(cpu(10)),
            even(4, 100),
            settled(),
            8,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "from one to four without behaviour",
            plain(cpu(10)),
            even(1, 100),
            settled(),
            4,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "just started: no way down",
            plain(cpu(50)),
            even(4, 10),
            settled(),
            4,
            &["AbleToScale=True:ScaleDownStabilized"],
        ),
        case(
            "highest of five minutes",
            plain(cpu(50)),
            even(6, 10),
            recommended(&[(299, 4), (10, 2)]),
            4,
            &[RESCALED],
        ),
        case(
            "older than five minutes",
            plain(cpu(50)),
            even(6, 10),
            recommended(&[(301, 6), (10, 2)]),
            2,
            &[RESCALED],
        ),
        case(
            "lowest of the up window",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": {"stabilizationWindowSeconds": 60}})),
            even(2, 200),
            recommended(&[(50, 3)]),
            3,
            &[RESCALED],
        ),
        case(
            "nothing outside the up window",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": {"stabilizationWindowSeconds": 60}})),
            even(2, 100),
            recommended(&[(61, 3)]),
            4,
            &[RESCALED],
        ),
        case(
            "pods per period up",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": pods_rate(2)})),
            even(4, 100),
            recommended(&[(4000, 1)]),
            6,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "what was added counts",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": pods_rate(2)})),
            even(4, 100),
            events(&[(30, 1)], &[]),
            5,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "what was added before the period does not",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": pods_rate(2)})),
            even(4, 100),
            events(&[(61, 1)], &[]),
            6,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "used up: stays",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": pods_rate(2)})),
            even(8, 100),
            events(&[(30, 4)], &[]),
            8,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "what was removed may come back",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": pods_rate(2)})),
            even(4, 100),
            events(&[], &[(30, 2)]),
            8,
            &[WITHIN],
        ),
        case(
            "up disabled",
            with(plain(cpu(50)), "behavior", json!({"scaleUp": {"selectPolicy": "Disabled"}})),
            even(4, 100),
            settled(),
            4,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "down disabled",
            with(
                plain(cpu(50)),
                "behavior",
                json!({"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}}),
            ),
            even(4, 10),
            settled(),
            4,
            &["ScalingLimited=True:ScaleDownLimit"],
        ),
        case(
            "per cent up is rounded up",
            with(
                plain(cpu(10)),
                "behavior",
                json!({"scaleUp": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}),
            ),
            even(5, 100),
            recommended(&[(4000, 1)]),
            6,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        case(
            "per cent down is cut",
            with(
                plain(cpu(50)),
                "behavior",
                json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}}),
            ),
            even(5, 1),
            recommended(&[(4000, 1)]),
            4,
            &["ScalingLimited=True:ScaleDownLimit"],
        ),
        case(
            "the smaller of two",
            with(
                plain(cpu(10)),
                "behavior",
                json!({"scaleUp": {"selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 60}]}}),
            ),
            even(5, 100),
            recommended(&[(4000, 1)]),
            6,
            &["ScalingLimited=True:ScaleUpLimit"],
        ),
        // Zero, and what stands in the way.
        case(
            "zero is off",
            plain(cpu(50)),
            even(0, 0),
            settled(),
            0,
            &["ScalingActive=False:ScalingDisabled"],
        ),
        case(
            "zero by hand is off",
            with(plain(external("value", "10")), "minReplicas", json!(0)),
            reading(even(0, 0), 0, Reading::External(vec![30_000])),
            settled(),
            0,
            &["ScalingActive=False:ScalingDisabled"],
        ),
        case(
            "zero by itself wakes",
            with(plain(external("value", "10")), "minReplicas", json!(0)),
            change(reading(even(0, 0), 0, Reading::External(vec![30_000])), |r| {
                r.previous.scaled_to_zero = Some(true)
            }),
            settled(),
            3,
            &[RESCALED, "ScaledToZero=False:NotScaledToZero"],
        ),
        case(
            "to zero",
            with(hasty(external("averageValue", "10")), "minReplicas", json!(0)),
            reading(even(1, 0), 0, Reading::External(vec![0])),
            settled(),
            0,
            &[RESCALED, "ScaledToZero=True:ScaledToZero"],
        ),
        case(
            "no selector",
            plain(cpu(50)),
            change(even(2, 90), |r| {
                r.scale = Read::Value(Scale { spec_replicas: 2, status_replicas: 2, selector: String::new() })
            }),
            settled(),
            2,
            &["ScalingActive=False:InvalidSelector"],
        ),
        case(
            "a selector that is none",
            plain(cpu(50)),
            change(even(2, 90), |r| {
                r.scale =
                    Read::Value(Scale { spec_replicas: 2, status_replicas: 2, selector: "a in (".to_owned() })
            }),
            settled(),
            2,
            &["ScalingActive=False:InvalidSelector"],
        ),
        case(
            "pods of another target's autoscaler",
            plain(cpu(50)),
            change(even(2, 90), |r| r.rivals.push(rival(false, false))),
            settled(),
            2,
            &["ScalingActive=False:AmbiguousSelector"],
        ),
        case(
            "an older one on the target",
            plain(cpu(50)),
            change(even(2, 90), |r| r.rivals.push(rival(true, true))),
            settled(),
            2,
            &["ScalingActive=False:AmbiguousSelector"],
        ),
        case(
            "a younger one on the target",
            plain(cpu(50)),
            change(even(2, 90), |r| r.rivals.push(rival(false, true))),
            settled(),
            4,
            &[RESCALED],
        ),
        case(
            "the scale cannot be read",
            plain(cpu(50)),
            change(even(2, 90), |r| r.scale = Read::Error("not found".to_owned())),
            settled(),
            0,
            &["AbleToScale=False:FailedGetScale"],
        ),
    ]
}

#[test]
fn table() {
    let cases = cases();
    assert!(cases.len() >= 40);
    let mut problems = Vec::new();
    for case in &cases {
        let decision = decide(&strict(case.spec.clone()), &case.record, &case.state);
        let got = reasons(&decision);
        let missing: Vec<_> = case.reasons.iter().filter(|r| !got.iter().any(|g| g == *r)).collect();
        if replicas(&decision) != case.replicas || !missing.is_empty() {
            problems.push(format!(
                "{}: got {} want {}, missing {missing:?} in {got:?}; {}\n    {}",
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
fn failing_metrics_warn_and_keep_the_status() {
    let mut record = even(2, 90);
    record.metrics_error = Some("unable to fetch metrics from resource metrics API: 503".to_owned());
    record.previous.desired_replicas = 7;
    let decision = decide(&strict(plain(cpu(50))), &record, &settled());
    let status = decision.status.unwrap();
    assert_eq!((status.current_replicas, status.desired_replicas), (2, 7));
    assert_eq!(json!(status.current_metrics), json!([{"type": ""}]));
    let events: Vec<_> = decision.events.iter().map(|e| (e.warning, e.reason.as_str())).collect();
    assert_eq!(events, [(true, "FailedGetResourceMetric"), (true, "FailedComputeMetricsReplicas")]);
}

#[test]
fn a_change_is_told_and_a_refusal_too() {
    let decision = decide(&strict(hasty(cpu(50))), &even(2, 100), &settled());
    assert_eq!(
        decision.events[0].message,
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    );
    let refused = decision.refused("conflict", 2);
    assert_eq!(refused.rescale, None);
    assert_eq!(refused.find("AbleToScale").unwrap().reason, "FailedUpdateScale");
    assert_eq!(refused.events.iter().map(|e| e.reason.as_str()).collect::<Vec<_>>(), ["FailedRescale"]);
    assert_eq!(
        decision.find("AbleToScale").unwrap().message,
        "the HPA controller was able to update the target scale to 4"
    );
}

#[test]
fn the_annotation_chooses_the_profile() {
    let spec = json!({"maxReplicas": 10});
    let of = |annotations| Policy::from_hpa(&hpa(spec.clone(), annotations)).profile();
    assert_eq!(of(json!({})), "strict");
    assert_eq!(of(json!({"autoscaling.loadline.io/profile": "fast"})), "fast");
    assert_eq!(of(json!({"autoscaling.loadline.io/profile": "strict"})), "strict");
}
