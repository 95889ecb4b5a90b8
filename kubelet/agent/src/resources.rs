//! From requests and limits to what the kernel takes: shares, quota, memory, OOM score, and the QoS class. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use loadline_api::quantity::Quantity;
use loadline_runtime::Resources;

use crate::names;

pub(crate) type Amounts = BTreeMap<String, Quantity>;

const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;
/// µs of CPU time per 100 ms and whole CPU, and the least that the kernel takes.
const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1_000;

/// A quantity that the API server let through parses; one that does not is nothing.
pub(crate) fn parse(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or(Quantity::ZERO)
}

pub(crate) fn request(container: &Container, resource: &str) -> Option<Quantity> {
    container.resources.as_ref()?.requests.as_ref()?.get(resource).map(parse)
}

pub(crate) fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(resource).map(parse)
}

/// What the container runs with. `memory_capacity` of the node, in bytes, is what the OOM score is relative to.
pub(crate) fn container_resources(pod: &Pod, container: &Container, memory_capacity: i64) -> Resources {
    let cpu_limit = limit(container, "cpu").map(|q| q.milli_value()).filter(|m| *m > 0);
    // Without a request the limit is what the API server would have defaulted the request to.
    let cpu_request = request(container, "cpu").map(|q| q.milli_value()).or(cpu_limit).unwrap_or(0);
    Resources {
        cpu_shares: Some(shares(cpu_request)),
        cpu_quota: cpu_limit.map(|milli| (milli * PERIOD / 1000).max(MIN_QUOTA)),
        memory_limit: limit(container, "memory").map(|q| q.value()).filter(|b| *b > 0),
        oom_score_adj: oom_score(pod, container, memory_capacity),
        pids_limit: None,
    }
}

pub(crate) fn shares(milli_cpu: i64) -> u64 {
    let milli = milli_cpu.max(0).unsigned_abs();
    (milli * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// `GetContainerOOMScoreAdjust`: guaranteed pods go last, best-effort pods first, others by their memory request.
fn oom_score(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    let critical = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0) >= 2_000_000_000;
    match qos_class(pod) {
        _ if critical => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ if memory_capacity <= 0 => 999,
        _ => {
            let request = request(container, "memory").map_or(0, |q| q.value());
            let adjust = 1000 - i128::from(request) * 1000 / i128::from(memory_capacity);
            i64::try_from(adjust.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from CPU and memory of all containers.
pub(crate) fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in names::all_containers(pod) {
        for resource in ["cpu", "memory"] {
            let request = request(container, resource).filter(|q| !q.is_zero());
            let limit = limit(container, resource).filter(|q| !q.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= match (&request, &limit) {
                (Some(r), Some(l)) => r == l,
                (None, Some(_)) => true,
                _ => false,
            };
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What a pod asks of its node: the containers' sum, or an init container's peak where that is more (sidecars count
/// from their start on), and the overhead.
pub(crate) fn pod_requests(pod: &Pod) -> Amounts {
    let mut total = Amounts::new();
    for container in names::containers(pod) {
        add(&mut total, &requests(container));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in names::init_containers(pod) {
        let asked = requests(container);
        if names::is_sidecar(container) {
            add(&mut sidecars, &asked);
            add(&mut total, &asked);
            raise(&mut peak, &sidecars);
        } else {
            let mut at_once = sidecars.clone();
            add(&mut at_once, &asked);
            raise(&mut peak, &at_once);
        }
    }
    raise(&mut total, &peak);
    if let Some(overhead) = pod.spec.as_ref().and_then(|s| s.overhead.as_ref()) {
        add(&mut total, &overhead.iter().map(|(k, v)| (k.clone(), parse(v))).collect());
    }
    total
}

/// Requests, with limits standing in where there is none.
fn requests(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::new() };
    let limits = resources.limits.iter().flatten();
    let mut amounts: Amounts = limits.map(|(k, v)| (k.clone(), parse(v))).collect();
    amounts.extend(resources.requests.iter().flatten().map(|(k, v)| (k.clone(), parse(v))));
    amounts
}

pub(crate) fn add(total: &mut Amounts, more: &Amounts) {
    for (key, amount) in more {
        total.entry(key.clone()).or_insert(Quantity::ZERO).add(amount);
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (key, amount) in floor {
        let entry = total.entry(key.clone()).or_insert(Quantity::ZERO);
        if *entry < *amount {
            *entry = amount.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
            .unwrap()
    }

    #[test]
    fn shares_and_quota_follow_the_kubelet() {
        let cases = [
            (json!({}), 2, None, None),
            (json!({"requests": {"cpu": "100m"}}), 102, None, None),
            (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), 1024, Some(200_000), None),
            (json!({"limits": {"cpu": "5m", "memory": "64Mi"}}), 5, Some(1000), Some(67_108_864)),
            (json!({"requests": {"cpu": "1000"}}), 262_144, None, None),
        ];
        for (resources, shares, quota, memory) in cases {
            let pod = pod(json!([{"name": "c", "resources": resources}]));
            let r = container_resources(&pod, &names::containers(&pod)[0], 8 << 30);
            assert_eq!(
                (r.cpu_shares, r.cpu_quota, r.memory_limit),
                (Some(shares), quota, memory),
                "{resources}"
            );
        }
    }

    #[test]
    fn classes_and_oom_scores() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let cases = [
            (json!([{"name": "c"}]), "BestEffort", 1000),
            (json!([{"name": "c", "resources": {"requests": both, "limits": both}}]), "Guaranteed", -997),
            (json!([{"name": "c", "resources": {"limits": both}}]), "Guaranteed", -997),
            (json!([{"name": "c", "resources": {"requests": {"memory": "4Gi"}}}]), "Burstable", 500),
            (json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]), "Burstable", 999),
            (json!([{"name": "c", "resources": {"limits": both}}, {"name": "d"}]), "Burstable", 999),
        ];
        for (containers, class, score) in cases {
            let pod = pod(containers.clone());
            assert_eq!(qos_class(&pod), class, "{containers}");
            assert_eq!(oom_score(&pod, &names::containers(&pod)[0], 8 << 30), score, "{containers}");
        }
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "2"}}},
            ],
        }}))
        .unwrap();
        assert_eq!(pod_requests(&pod)["cpu"].milli_value(), 2500);
    }
}
