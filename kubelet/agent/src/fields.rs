//! What `fieldRef` and `resourceFieldRef` may name, for the environment and for downward API volumes. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use loadline_api::quantity::Quantity;

use crate::names;
use crate::resources::{self, Amounts};

/// What a pod learns of its node and of itself beside its own object.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) node_name: &'a str,
    pub(crate) host_ip: IpAddr,
    pub(crate) pod_ips: &'a [IpAddr],
    /// Stands in for limits that are not set.
    pub(crate) allocatable: &'a Amounts,
}

pub(crate) fn field(pod: &Pod, facts: &Facts<'_>, path: &str) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let pod_ips: &[IpAddr] =
        if names::host_network(pod) { std::slice::from_ref(&facts.host_ip) } else { facts.pod_ips };
    Ok(match path {
        "metadata.name" => names::name(pod).to_owned(),
        "metadata.namespace" => names::namespace(pod).to_owned(),
        "metadata.uid" => names::uid(pod).to_owned(),
        "metadata.labels" => map_text(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map_text(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" => pod_ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => join(pod_ips),
        _ => {
            let (kind, key) = subscript(path).ok_or_else(|| format!("unsupported fieldPath: {path}"))?;
            let map = match kind {
                "metadata.labels" => pod.metadata.labels.as_ref(),
                "metadata.annotations" => pod.metadata.annotations.as_ref(),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            map.and_then(|m| m.get(key)).cloned().unwrap_or_default()
        }
    })
}

/// `metadata.labels['a']` → (`metadata.labels`, `a`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (kind, rest) = path.split_once("['")?;
    Some((kind, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, sorted, as the downward API writes maps.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// A request or limit divided by the divisor and rounded up, as a whole number.
pub(crate) fn resource(
    pod: &Pod,
    own: Option<&Container>,
    facts: &Facts<'_>,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let container = match &selector.container_name {
        Some(name) if !name.is_empty() => {
            names::container(pod, name).ok_or_else(|| format!("container {name} not found"))?
        }
        _ => own.ok_or_else(|| "resourceFieldRef needs a containerName here".to_owned())?,
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let amount = match kind {
        "limits" => resources::limit(container, name).or_else(|| facts.allocatable.get(name).cloned()),
        "requests" => resources::request(container, name),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let amount = amount.unwrap_or(Quantity::ZERO);
    let divisor = selector.divisor.as_ref().map(resources::parse).filter(|d| !d.is_zero());
    let unit = Quantity::from_units(1);
    let divisor = divisor.unwrap_or(unit);
    let (a, d) = (amount.nanos(), divisor.nanos());
    Ok((a / d + i128::from(a % d > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "resources": {
                "requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1500m"}}}]},
        }))
        .unwrap();
        let allocatable: Amounts = [("memory".to_owned(), Quantity::parse("1Gi").unwrap())].into();
        let ips = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let facts = Facts {
            node_name: "node-1",
            host_ip: "192.0.2.1".parse().unwrap(),
            pod_ips: &ips,
            allocatable: &allocatable,
        };
        let cases = [
            ("metadata.name", Ok("p")),
            ("metadata.uid", Ok("u")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\"")),
            ("spec.nodeName", Ok("node-1")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.podIP", Ok("10.0.0.5")),
            ("status.podIPs", Ok("10.0.0.5,fd00::5")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("spec.restartPolicy", Err("unsupported fieldPath: spec.restartPolicy")),
        ];
        for (path, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(field(&pod, &facts, path), expected, "{path}");
        }
        let own = names::container(&pod, "c");
        let cases = [
            ("requests.cpu", "1", "1"),
            ("requests.cpu", "1m", "250"),
            ("limits.cpu", "1", "2"),
            ("requests.memory", "1Mi", "64"),
            ("limits.memory", "1Mi", "1024"),
            ("requests.ephemeral-storage", "1", "0"),
        ];
        for (name, divisor, expected) in cases {
            let selector = serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            assert_eq!(resource(&pod, own, &facts, &selector).as_deref(), Ok(expected), "{name} / {divisor}");
        }
    }
}
