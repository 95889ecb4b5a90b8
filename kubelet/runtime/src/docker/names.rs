//! Names and labels of our Docker objects: how a container is known to be ours, and what it is.

use std::collections::HashMap;

use super::DockerConfig;
use crate::{ContainerConfig, Labels, Sandbox, SandboxConfig};

pub(crate) const CLUSTER: &str = "io.loadline.cluster";
pub(crate) const NODE: &str = "io.loadline.node";
pub(crate) const KIND: &str = "io.loadline.kind";
pub(crate) const POD_UID: &str = "io.loadline.pod.uid";
pub(crate) const POD_NAME: &str = "io.loadline.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.loadline.pod.namespace";
pub(crate) const CONTAINER: &str = "io.loadline.container";
pub(crate) const ATTEMPT: &str = "io.loadline.attempt";
pub(crate) const SANDBOX_ID: &str = "io.loadline.sandbox.id";
/// The reference that the pod asked for; Docker itself only keeps what it resolved to.
pub(crate) const IMAGE: &str = "io.loadline.image";
/// On sandboxes: the cgroup that was made for this pod alone and goes with it.
pub(crate) const CGROUP: &str = "io.loadline.cgroup";
/// The caller's own labels and annotations, kept apart so that no pod can forge one of ours.
const LABEL_PREFIX: &str = "io.loadline.label.";
const ANNOTATION_PREFIX: &str = "io.loadline.annotation.";

pub(crate) const KIND_SANDBOX: &str = "sandbox";
pub(crate) const KIND_CONTAINER: &str = "container";
/// The container name that stands for the sandbox, as in dockershim's names.
const SANDBOX_CONTAINER: &str = "POD";

/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>` as dockershim wrote it, then `_<cluster>.<node>`: several
/// nodes may share one Docker daemon.
fn name(config: &DockerConfig, container: &str, pod: [&str; 3], attempt: u32) -> String {
    let [pod, namespace, uid] = pod;
    let name =
        format!("k8s_{container}_{pod}_{namespace}_{uid}_{attempt}_{}.{}", config.cluster_id, config.node);
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).collect()
}

pub(crate) fn sandbox_name(config: &DockerConfig, sandbox: &SandboxConfig) -> String {
    let pod = [sandbox.name.as_str(), &sandbox.namespace, &sandbox.uid];
    name(config, SANDBOX_CONTAINER, pod, sandbox.attempt)
}

pub(crate) fn container_name(
    config: &DockerConfig,
    sandbox: &Sandbox,
    container: &ContainerConfig,
) -> String {
    let pod = [sandbox.name.as_str(), &sandbox.namespace, &sandbox.uid];
    // A new sandbox of the same pod may meet containers of the old one that are not removed yet.
    let tries = if sandbox.attempt == 0 { String::new() } else { format!(".{}", sandbox.attempt) };
    name(config, &format!("{}{tries}", container.name), pod, container.attempt)
}

pub(crate) fn sandbox_labels(config: &DockerConfig, sandbox: &SandboxConfig) -> HashMap<String, String> {
    let mut labels = user_labels(&sandbox.labels, &sandbox.annotations);
    let pod = [sandbox.name.as_str(), &sandbox.namespace, &sandbox.uid];
    own_labels(&mut labels, config, KIND_SANDBOX, pod, sandbox.attempt);
    if let Some(parent) = &sandbox.cgroup_parent {
        labels.insert(CGROUP.into(), parent.clone());
    }
    labels
}

pub(crate) fn container_labels(
    config: &DockerConfig,
    sandbox: &Sandbox,
    container: &ContainerConfig,
) -> HashMap<String, String> {
    let mut labels = user_labels(&container.labels, &container.annotations);
    let pod = [sandbox.name.as_str(), &sandbox.namespace, &sandbox.uid];
    own_labels(&mut labels, config, KIND_CONTAINER, pod, container.attempt);
    labels.insert(CONTAINER.into(), container.name.clone());
    labels.insert(SANDBOX_ID.into(), sandbox.id.clone());
    labels.insert(IMAGE.into(), container.image.clone());
    labels
}

fn own_labels(
    labels: &mut HashMap<String, String>,
    config: &DockerConfig,
    kind: &str,
    [pod, namespace, uid]: [&str; 3],
    attempt: u32,
) {
    let attempt = attempt.to_string();
    let own = [
        (CLUSTER, config.cluster_id.as_str()),
        (NODE, &config.node),
        (KIND, kind),
        (POD_UID, uid),
        (POD_NAME, pod),
        (POD_NAMESPACE, namespace),
        (ATTEMPT, &attempt),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

fn user_labels(labels: &Labels, annotations: &Labels) -> HashMap<String, String> {
    let labels = labels.iter().map(|(key, value)| (format!("{LABEL_PREFIX}{key}"), value.clone()));
    let annotations =
        annotations.iter().map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), value.clone()));
    labels.chain(annotations).collect()
}

/// The caller's labels and annotations back out of Docker's.
pub(crate) fn split(labels: &HashMap<String, String>) -> (Labels, Labels) {
    let take = |prefix: &str| {
        let stripped =
            |(key, value): (&String, &String)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()));
        labels.iter().filter_map(stripped).collect::<Labels>()
    };
    (take(LABEL_PREFIX), take(ANNOTATION_PREFIX))
}

pub(crate) fn is_ours(config: &DockerConfig, labels: &HashMap<String, String>) -> bool {
    labels.get(CLUSTER) == Some(&config.cluster_id)
        && labels.get(NODE) == Some(&config.node)
        && labels.get(KIND).is_some_and(|kind| kind == KIND_SANDBOX || kind == KIND_CONTAINER)
}

/// Docker's `label` filter for this node's objects, with more `key=value` terms.
pub(crate) fn filter(config: &DockerConfig, more: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let own = [(CLUSTER, config.cluster_id.as_str()), (NODE, &config.node)];
    let terms = own.iter().chain(more).map(|(key, value)| format!("{key}={value}")).collect();
    HashMap::from([("label".to_owned(), terms)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DockerConfig {
        DockerConfig::new("c1", "node-1")
    }

    fn sandbox() -> SandboxConfig {
        SandboxConfig {
            namespace: "default".into(),
            name: "web-1".into(),
            uid: "0b1c".into(),
            labels: Labels::from([("app".into(), "web".into()), (CLUSTER.into(), "forged".into())]),
            annotations: Labels::from([("note".into(), "x".into())]),
            ..SandboxConfig::default()
        }
    }

    #[test]
    fn names_are_dockershims_with_cluster_and_node() {
        assert_eq!(sandbox_name(&config(), &sandbox()), "k8s_POD_web-1_default_0b1c_0_c1.node-1");
        let odd = DockerConfig::new("c/1", "né");
        assert_eq!(sandbox_name(&odd, &sandbox()), "k8s_POD_web-1_default_0b1c_0_c-1.n-");
    }

    #[test]
    fn labels_come_back_and_cannot_be_forged() {
        let labels = sandbox_labels(&config(), &sandbox());
        assert!(is_ours(&config(), &labels));
        assert!(!is_ours(&DockerConfig::new("forged", "node-1"), &labels));
        assert!(!is_ours(&DockerConfig::new("c1", "node-2"), &labels));
        let (user, annotations) = split(&labels);
        assert_eq!((user, annotations), (sandbox().labels, sandbox().annotations));
    }
}
