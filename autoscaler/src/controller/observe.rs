//! Gathers the record of one decision.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use loadline_api::selector::Selector;

use super::Shared;
use super::objects::{Object, PodView};
use super::target::spec_replicas;
use crate::fast::WINDOW_S;
use crate::policy::Policy;
use crate::record::{Previous, Read, Record, Rival, Scale};
use crate::ring::{Key, Kind};

/// The record, and the scale that it came from, for writing. `eager` does not make do with the last second's metrics.
pub(super) async fn observe(
    shared: &Shared,
    key: &Key,
    object: &Object,
    policy: &Policy,
    eager: bool,
) -> (Record, Option<v1::Scale>) {
    let target = object.target();
    let scale = shared.targets.scale(&key.namespace, &target).await;
    let mut record =
        Record { previous: previous(object), hold_until: object.hold_until(), ..Record::default() };
    let scale = match scale {
        Ok(scale) => scale,
        Err(error) => {
            record.time = Timestamp::now().as_millisecond();
            record.scale = Read::Error(error.to_string());
            return (record, None);
        }
    };
    let status = scale.status.as_ref();
    let text = status.and_then(|s| s.selector.clone()).unwrap_or_default();
    let selector = Selector::parse(&text).ok().filter(|_| !text.is_empty());
    let window = matches!(policy, Policy::Fast(_)).then_some(WINDOW_S);
    let metrics = shared.sources.resources(&key.namespace, window, eager).await;
    if let Policy::Strict(policy) = policy {
        for (i, metric) in policy.metrics.iter().enumerate() {
            let reading = shared.sources.reading(&key.namespace, &text, metric, &shared.targets).await;
            record.readings.extend(reading.map(|r| (i, r)));
        }
    }
    // From here on nothing waits: all ages are taken at the same moment.
    let now = Timestamp::now();
    record.time = now.as_millisecond();
    record.scale = Read::Value(Scale {
        spec_replicas: spec_replicas(&scale),
        status_replicas: status.map_or(0, |s| s.replicas),
        selector: text,
    });
    if let Some(selector) = selector {
        let selected = pods(shared, &key.namespace, &selector);
        record.pods = selected.iter().map(|p| p.seen(now)).collect();
        record.rivals = rivals(shared, key, object, &target, &selector, &selected);
    }
    match metrics {
        Ok(snapshot) => {
            for pod in &mut record.pods {
                pod.sample = snapshot.sample(&pod.name, now);
            }
        }
        Err(error) => record.metrics_error = Some(error),
    }
    (record, Some(scale))
}

/// By name, so that a record does not depend on the order of the cache.
fn pods(shared: &Shared, namespace: &str, selector: &Selector) -> Vec<Arc<PodView>> {
    let mut pods = shared.pods.all();
    pods.retain(|p| p.metadata.namespace.as_deref() == Some(namespace) && p.selected(selector));
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    pods
}

/// Other autoscalers of the namespace that act on the same target, or whose target selects some of the same pods.
fn rivals(
    shared: &Shared,
    key: &Key,
    object: &Object,
    target: &CrossVersionObjectReference,
    selector: &Selector,
    pods: &[Arc<PodView>],
) -> Vec<Rival> {
    let mut selectors = shared.selectors.lock().unwrap_or_else(PoisonError::into_inner);
    selectors.insert(key.clone(), selector.clone());
    if !object.acts() {
        return Vec::new();
    }
    let overlap = |other: &Selector| pods.iter().any(|p| p.selected(other));
    let mut rivals = Vec::new();
    for (kind, other) in others(shared, &key.namespace) {
        let name = other.meta().name.clone().unwrap_or_default();
        let other_key = Key { kind, namespace: key.namespace.clone(), name };
        if other_key == *key || !other.acts() {
            continue;
        }
        let same_target = same(target, &other.target());
        if same_target || selectors.get(&other_key).is_some_and(overlap) {
            rivals.push(Rival {
                name: format!("{}/{}", other_key.namespace, other_key.name),
                kind: kind.as_str().to_owned(),
                same_target,
                older: other.rank() < object.rank(),
            });
        }
    }
    rivals.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    rivals
}

fn others(shared: &Shared, namespace: &str) -> Vec<(Kind, Object)> {
    let hpas = shared.hpas.all().into_iter().map(|o| (Kind::Hpa, Object::Hpa(o)));
    let policies = shared.policies.all().into_iter().map(|o| (Kind::ScalingPolicy, Object::Policy(o)));
    hpas.chain(policies).filter(|(_, o)| o.meta().namespace.as_deref() == Some(namespace)).collect()
}

fn same(a: &CrossVersionObjectReference, b: &CrossVersionObjectReference) -> bool {
    let group = |r: &CrossVersionObjectReference| {
        let version = r.api_version.as_deref().unwrap_or_default();
        version.split_once('/').map_or("", |(group, _)| group).to_owned()
    };
    a.kind == b.kind && a.name == b.name && group(a) == group(b)
}

fn previous(object: &Object) -> Previous {
    match object {
        Object::Hpa(hpa) => {
            let status = hpa.status.as_ref();
            let conditions = status.and_then(|s| s.conditions.as_ref());
            let zero = conditions.into_iter().flatten().find(|c| c.type_ == crate::decision::ZERO);
            Previous {
                desired_replicas: status.map_or(0, |s| s.desired_replicas),
                scaled_to_zero: zero.map(|c| c.status == "True"),
            }
        }
        Object::Policy(policy) => Previous {
            desired_replicas: policy.status.as_ref().map_or(0, |s| s.desired_replicas),
            scaled_to_zero: None,
        },
    }
}
