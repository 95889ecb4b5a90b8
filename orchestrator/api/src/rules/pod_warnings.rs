//! What is allowed in a pod spec but hardly meant: the server says so in `Warning` headers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::rules::checks::quantity;
use crate::rules::path::Path;
use crate::rules::value::{at, get, has, int, list, text};

/// Volume sources that no longer work, and since when.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const OLD_NODE_LABELS: [(&str, &str); 7] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("cloud.google.com/gke-os-distribution", "deprecated since v1.16"),
    ("node.kubernetes.io/exclude-disruption", "deprecated since v1.17"),
];

/// The warnings for a Pod, or for a template where `at_path` is its path.
pub(super) fn warnings(metadata: &Value, spec: &Value, at_path: Option<&Path<'_>>) -> Vec<String> {
    let meta_path = path_of(at_path, "metadata");
    let spec_path = path_of(at_path, "spec");
    let spec_path = Path::root(&spec_path);
    let mut out = Vec::new();
    node_labels(&mut out, spec, &spec_path);
    annotations(&mut out, metadata, &meta_path);
    volumes(&mut out, spec, &spec_path);
    duplicates(&mut out, spec, &spec_path);
    if let Some(overhead) = get(spec, "overhead") {
        fractions(&mut out, overhead, &spec_path.child("overhead"));
    }
    let mut ports = BTreeMap::new();
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        let path = spec_path.child(key);
        for (i, c) in list(spec, key).iter().enumerate() {
            container(&mut out, c, &path.index(i));
        }
    }
    for key in ["initContainers", "containers"] {
        let path = spec_path.child(key);
        for (i, c) in list(spec, key).iter().enumerate() {
            container_ports(&mut out, &mut ports, c, &path.index(i));
        }
    }
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        let path = spec_path.child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    out
}

fn path_of(parent: Option<&Path<'_>>, key: &str) -> String {
    parent.map_or_else(|| key.to_owned(), |p| p.child(key).to_string())
}

fn node_labels(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let old = |key: &str| OLD_NODE_LABELS.iter().find(|(k, _)| *k == key).map(|(_, why)| *why);
    for (key, _) in spec.get("nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        if let Some(why) = old(key) {
            out.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    let constraints = path.child("topologySpreadConstraints");
    for (i, c) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = constraints.index(i);
        let key = text(c, "topologyKey");
        if let Some(why) = old(key) {
            out.push(format!("{}: {key} is {why}", path.child("topologyKey")));
        }
        if !has(c, "labelSelector") {
            let path = path.child("labelSelector");
            out.push(format!("{path}: a null labelSelector results in matching no pod"));
        }
    }
}

fn annotations(out: &mut Vec<String>, metadata: &Value, path: &str) {
    let path = Path::root(path);
    for (key, why) in OLD_ANNOTATIONS {
        if has(at(metadata, "annotations"), key) {
            out.push(format!("{}: {why}", path.child("annotations").key(key)));
        }
    }
}

fn volumes(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    let path = path.child("volumes");
    for (i, v) in list(spec, "volumes").iter().enumerate() {
        for (key, why) in OLD_VOLUMES.iter().filter(|(key, _)| has(v, key)) {
            out.push(format!("{}: {why}", path.index(i).child(key)));
        }
    }
}

fn duplicates(out: &mut Vec<String>, spec: &Value, path: &Path<'_>) {
    for (key, field, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let path = path.child(key);
        let mut seen = Vec::new();
        for (i, item) in list(spec, key).iter().enumerate() {
            let value = text(item, field);
            if seen.contains(&value) {
                out.push(format!("{}: duplicate {what} {value:?}", path.index(i).child(field)));
            }
            seen.push(value);
        }
    }
    let secrets = path.child("imagePullSecrets");
    for (i, _) in
        list(spec, "imagePullSecrets").iter().enumerate().filter(|(_, s)| text(s, "name").is_empty())
    {
        out.push(format!("{}: invalid empty name \"\"", secrets.index(i).child("name")));
    }
}

fn container(out: &mut Vec<String>, c: &Value, path: &Path<'_>) {
    for key in ["limits", "requests"] {
        fractions(out, at(at(c, "resources"), key), &path.child("resources").child(key));
    }
    let env = path.child("env");
    let mut seen = Vec::new();
    for (i, var) in list(c, "env").iter().enumerate() {
        let (name, value) = (text(var, "name"), text(var, "value"));
        let reference = format!("$({name})");
        let hides = has(var, "valueFrom") || value == reference || !value.contains(&reference);
        if seen.contains(&name) && hides {
            let path = env.index(i);
            out.push(format!(
                "{path}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
        seen.push(name);
    }
}

fn fractions(out: &mut Vec<String>, amounts: &Value, path: &Path<'_>) {
    for key in ["memory", "ephemeral-storage"] {
        let Some(amount) = get(amounts, key).map(quantity).filter(|q| q.milli_value() % 1000 != 0) else {
            continue;
        };
        let shown = amount.to_string();
        let path = path.key(key);
        out.push(format!("{path}: fractional byte value {shown:?} is invalid, must be an integer"));
    }
}

/// Ports seen so far, by port and protocol: path, host address and host port.
type Ports = BTreeMap<(i64, String), Vec<(String, String, i64)>>;

fn container_ports(out: &mut Vec<String>, seen: &mut Ports, c: &Value, path: &Path<'_>) {
    let path = path.child("ports");
    for (i, port) in list(c, "ports").iter().enumerate() {
        let here = path.index(i).to_string();
        let (host_ip, host_port) = (text(port, "hostIP").to_owned(), int(port, "hostPort"));
        let others = seen.entry((int(port, "containerPort"), text(port, "protocol").to_owned())).or_default();
        for (other, ip, host) in others.iter() {
            if *ip == host_ip && *host == host_port {
                out.push(format!("{here}: duplicate port definition with {other}"));
            } else if host_port == 0
                || *host == 0
                || (*host == host_port && (ip.is_empty() || host_ip.is_empty()))
            {
                out.push(format!("{here}: overlapping port definition with {other}"));
            }
        }
        others.push((here, host_ip, host_port));
    }
}
