//! Who may do what, until RBAC: masters everything, kubelets what kubelets need on what is theirs, authenticated
//! users discovery, anybody health and version. Refusals read as Kubernetes'.

use loadline_api::status::{ApiError, Reason, qualified};

use crate::identity::Identity;
use crate::request::{ResourcePath, Target};

/// May `identity` do `verb` to `target`? For paths, `verb` is the lower-case HTTP method.
pub(crate) fn authorize(identity: &Identity, verb: &str, target: &Target) -> Result<(), ApiError> {
    let allowed = match target {
        _ if identity.is_master() => true,
        Target::Path(path) => path_allowed(identity, verb, path),
        Target::Resource(resource) => identity.node().is_some_and(|node| node_allowed(node, verb, resource)),
    };
    if allowed { Ok(()) } else { Err(forbidden(identity, verb, target)) }
}

fn path_allowed(identity: &Identity, verb: &str, path: &str) -> bool {
    if !matches!(verb, "get" | "head") {
        return false;
    }
    let under =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    let open = ["/healthz", "/livez", "/readyz", "/version"].into_iter().any(under);
    let discovery = ["/api", "/apis", "/openapi"].into_iter().any(under);
    open || (discovery && !identity.is_anonymous())
}

/// The node authorizer's rules that need no graph of objects. Reads of Secrets and the like are not yet narrowed
/// to a node's own pods.
fn node_allowed(node: &str, verb: &str, r: &ResourcePath) -> bool {
    let read = matches!(verb, "get" | "list" | "watch");
    let write = matches!(verb, "create" | "update" | "patch");
    let own = r.name.is_empty() || r.name == node;
    match (r.group.as_str(), r.full_resource().as_ref()) {
        ("", "nodes") => read || (write && own) || (verb == "delete" && r.name == node),
        ("", "nodes/status") => (write && own) || verb == "get",
        ("", "pods") => read || matches!(verb, "create" | "delete" | "patch"),
        ("", "pods/status") => matches!(verb, "get" | "update" | "patch"),
        ("", "pods/eviction") => verb == "create",
        ("", "services" | "endpoints" | "configmaps" | "secrets" | "serviceaccounts" | "namespaces") => read,
        ("", "persistentvolumes" | "persistentvolumeclaims") => read,
        ("" | "events.k8s.io", "events") => write,
        ("discovery.k8s.io", "endpointslices") => read,
        ("coordination.k8s.io", "leases") => {
            r.namespace == "kube-node-lease" && own && (read || write || verb == "delete")
        }
        _ => false,
    }
}

fn forbidden(identity: &Identity, verb: &str, target: &Target) -> ApiError {
    let user = identity.user();
    match target {
        Target::Path(path) => {
            ApiError::new(Reason::Forbidden, format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
        }
        Target::Resource(r) => {
            let full = r.full_resource();
            let scope = if r.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", r.namespace)
            };
            let group = &r.group;
            let why = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {scope}");
            let mut error = ApiError::forbidden(&r.group, &r.resource, &r.name, &why);
            if r.name.is_empty() {
                error.message = format!("{} is forbidden: {why}", qualified(&r.group, &r.resource));
            }
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{MASTERS, NODES};
    use crate::request::parse_path;

    fn check(identity: &Identity, verb: &str, path: &str) -> Result<(), String> {
        authorize(identity, verb, &parse_path(path).unwrap()).map_err(|e| e.message)
    }

    #[test]
    fn table() {
        let master = Identity::new("admin", &[MASTERS]);
        let node = Identity::new("system:node:a", &[NODES]);
        let user = Identity::new("bob", &[]);
        let nobody = Identity::anonymous();
        let cases = [
            (&master, "delete", "/api/v1/namespaces/x/secrets/s", true),
            (&nobody, "get", "/healthz", true),
            (&nobody, "get", "/readyz/ping", true),
            (&nobody, "get", "/healthzz", false),
            (&nobody, "post", "/version", false),
            (&nobody, "get", "/metrics", false),
            (&nobody, "get", "/api", false),
            (&user, "get", "/apis/apps/v1", true),
            (&user, "list", "/api/v1/pods", false),
            (&node, "update", "/api/v1/nodes/a/status", true),
            (&node, "update", "/api/v1/nodes/b/status", false),
            (&node, "update", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a", true),
            (&node, "update", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/b", false),
            (&node, "update", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a", false),
            (&node, "create", "/apis/apps/v1/namespaces/x/deployments", false),
            (&node, "delete", "/api/v1/namespaces/x/secrets/s", false),
        ];
        for (who, verb, path, want) in cases {
            assert_eq!(check(who, verb, path).is_ok(), want, "{} {verb} {path}", who.user());
        }
    }

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let nobody = Identity::anonymous();
        assert_eq!(
            check(&nobody, "list", "/api/v1/namespaces").unwrap_err(),
            r#"namespaces is forbidden: User "system:anonymous" cannot list resource "namespaces" in API group "" at the cluster scope"#
        );
        assert_eq!(
            check(&nobody, "get", "/apis/apps/v1/namespaces/n/deployments/d/scale").unwrap_err(),
            r#"deployments.apps "d" is forbidden: User "system:anonymous" cannot get resource "deployments/scale" in API group "apps" in the namespace "n""#
        );
        assert_eq!(
            check(&nobody, "get", "/metrics").unwrap_err(),
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
    }
}
