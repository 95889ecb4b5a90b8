//! From security contexts to what the runtime takes, and the refusals that upstream makes before it. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use loadline_runtime::Security;

/// The container's own context wins over the pod's, field by field.
pub(crate) fn security(pod: &Pod, container: &Container) -> Result<Security, String> {
    let pod_context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let run_as_user = own.and_then(|c| c.run_as_user).or_else(|| pod_context.and_then(|c| c.run_as_user));
    let run_as_group = own.and_then(|c| c.run_as_group).or_else(|| pod_context.and_then(|c| c.run_as_group));
    let non_root =
        own.and_then(|c| c.run_as_non_root).or_else(|| pod_context.and_then(|c| c.run_as_non_root));
    if non_root == Some(true) && run_as_user == Some(0) {
        return Err("container's runAsUser breaks non-root policy".to_owned());
    }
    let mut groups: Vec<i64> = pod_context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default();
    groups.extend(pod_context.and_then(|c| c.fs_group));
    let privileged = own.and_then(|c| c.privileged).unwrap_or(false);
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    Ok(Security {
        privileged,
        run_as_user,
        run_as_group,
        supplemental_groups: groups,
        read_only_root: own.and_then(|c| c.read_only_root_filesystem).unwrap_or(false),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false),
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value, own: Value) -> Result<Security, String> {
        let pod: Pod = serde_json::from_value(json!({"spec": {"securityContext": pod,
            "containers": [{"name": "c", "securityContext": own}]}}))
        .unwrap();
        security(&pod, &crate::names::containers(&pod)[0])
    }

    #[test]
    fn the_container_wins() {
        let s = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 9, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        )
        .unwrap();
        assert_eq!((s.run_as_user, s.run_as_group, s.supplemental_groups), (Some(9), Some(2), vec![4, 3]));
        assert!(s.no_new_privileges && s.drop_capabilities == ["ALL"] && !s.privileged);
        assert!(of(json!({"runAsNonRoot": true}), json!({"runAsUser": 0})).is_err());
    }
}
