//! Nodes, Namespaces, Leases, and volumes with their claims.

use serde_json::Value;

use super::cell::{NONE, UNKNOWN, UNSET, created, deleted, flag, list, map, name, or, present, text};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub fn node(obj: &Value, now: i64) -> Vec<Value> {
    let info = |field: &str| text(obj, &format!("/status/nodeInfo/{field}"));
    vec![
        name(obj),
        Value::from(node_status(obj)),
        Value::from(roles(obj)),
        created(obj, now),
        Value::from(info("kubeletVersion")),
        Value::from(address(obj, "InternalIP")),
        Value::from(address(obj, "ExternalIP")),
        Value::from(or(info("osImage"), UNKNOWN)),
        Value::from(or(info("kernelVersion"), UNKNOWN)),
        Value::from(or(info("containerRuntimeVersion"), UNKNOWN)),
    ]
}

fn node_status(obj: &Value) -> String {
    let ready = list(obj, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let status = match ready {
        Some(ready) if text(ready, "/status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let disabled = if flag(obj, "/spec/unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{status}{disabled}")
}

fn roles(obj: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (label, value) in map(obj, "/metadata/labels").into_iter().flatten() {
        let role = label.strip_prefix(ROLE_PREFIX);
        roles.extend(
            role.or_else(|| value.as_str().filter(|_| label == ROLE_LABEL)).filter(|r| !r.is_empty()),
        );
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), NONE).to_owned()
}

fn address<'a>(obj: &'a Value, ty: &str) -> &'a str {
    list(obj, "/status/addresses")
        .iter()
        .find(|a| text(a, "/type") == ty)
        .map_or(NONE, |a| text(a, "/address"))
}

pub fn namespace(obj: &Value, now: i64) -> Vec<Value> {
    vec![name(obj), Value::from(text(obj, "/status/phase")), created(obj, now)]
}

pub fn lease(obj: &Value, now: i64) -> Vec<Value> {
    vec![name(obj), Value::from(text(obj, "/spec/holderIdentity")), created(obj, now)]
}

pub fn persistent_volume(obj: &Value, now: i64) -> Vec<Value> {
    let claim =
        present(obj, "/spec/claimRef").map(|c| format!("{}/{}", text(c, "/namespace"), text(c, "/name")));
    vec![
        name(obj),
        Value::from(or(text(obj, "/spec/capacity/storage"), "0")),
        Value::from(access_modes(list(obj, "/spec/accessModes"))),
        Value::from(text(obj, "/spec/persistentVolumeReclaimPolicy")),
        Value::from(phase(obj)),
        Value::from(claim.unwrap_or_default()),
        Value::from(storage_class(obj)),
        Value::from(or(text(obj, "/spec/volumeAttributesClassName"), UNSET)),
        Value::from(text(obj, "/status/reason")),
        created(obj, now),
        Value::from(or(text(obj, "/spec/volumeMode"), UNSET)),
    ]
}

pub fn persistent_volume_claim(obj: &Value, now: i64) -> Vec<Value> {
    let volume = text(obj, "/spec/volumeName");
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        (or(text(obj, "/status/capacity/storage"), "0"), access_modes(list(obj, "/status/accessModes")))
    };
    vec![
        name(obj),
        Value::from(phase(obj)),
        Value::from(volume),
        Value::from(capacity),
        Value::from(modes),
        Value::from(storage_class(obj)),
        Value::from(or(text(obj, "/spec/volumeAttributesClassName"), UNSET)),
        created(obj, now),
        Value::from(or(text(obj, "/spec/volumeMode"), UNSET)),
    ]
}

fn phase(obj: &Value) -> &str {
    if deleted(obj) { "Terminating" } else { text(obj, "/status/phase") }
}

/// The annotation was there before the field and still wins.
fn storage_class(obj: &Value) -> &str {
    let annotation = text(obj, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
    or(annotation, text(obj, "/spec/storageClassName"))
}

/// The short names of access modes, each once, from the strictest to the laxest and the single pod last.
fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = SHORT.iter().filter(|(long, _)| modes.iter().any(|m| m.as_str() == Some(long)));
    given.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes() {
        let obj = json!({
            "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "", "kernelVersion": "6.1"},
            },
        });
        let want = json!([
            "n1",
            "Ready,SchedulingDisabled",
            "control-plane,edge",
            "<unknown>",
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "<unknown>",
            "6.1",
            "<unknown>"
        ]);
        assert_eq!(Value::from(node(&obj, 0)), want);
        for (conditions, want) in [
            (json!([]), "Unknown"),
            (json!([{"type": "Ready", "status": "Unknown"}]), "NotReady"),
            (json!([{"type": "Ready", "status": "False"}]), "NotReady"),
        ] {
            assert_eq!(node(&json!({"status": {"conditions": conditions}}), 0)[1], want);
        }
    }

    #[test]
    fn volumes_and_claims() {
        let volume = json!({
            "metadata": {"name": "v"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "a", "name": "c"},
                "storageClassName": "fast", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound"},
        });
        let want = json!([
            "v",
            "1Gi",
            "RWO,RWX",
            "Retain",
            "Bound",
            "a/c",
            "fast",
            "<unset>",
            "",
            "<unknown>",
            "Filesystem"
        ]);
        assert_eq!(Value::from(persistent_volume(&volume, 0)), want);
        let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}});
        let want = json!(["c", "Pending", "", "", "", "", "<unset>", "<unknown>", "Filesystem"]);
        assert_eq!(Value::from(persistent_volume_claim(&claim, 0)), want);
    }
}
