//! What must hold of the cluster for an object to come into being: its namespace is there and not ending, and a pod's
//! service account exists. Finalizers that protect storage in use are put on here.

use loadline_api::status::{ApiError, Cause};
use serde_json::Value;

use super::Write;
use crate::cache::Cache;
use crate::object::Meta as _;
use crate::respond::Result;

/// Namespaces that nobody may delete.
pub(crate) const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Write<'_> {
    /// 404 for a missing namespace, 403 in one that is being deleted.
    pub(super) async fn check_namespace(&self, name: &str) -> Result<()> {
        let namespace = &self.call.path.namespace;
        if namespace.is_empty() || !self.resource.kind.namespaced {
            return Ok(());
        }
        let table = self.app.table.load();
        let Some(namespaces) = table.find("", "v1", "namespaces") else { return Ok(()) };
        self.app.feed.reach(namespaces.cache.written()).await?;
        let mut found = namespaces.cache.get(namespace);
        if found.is_none() {
            self.app.feed.fresh().await?;
            found = namespaces.cache.get(namespace);
        }
        let Some(found) = found else { return Err(namespaces.not_found(namespace).into()) };
        // Selectable fields are at hand without parsing: `status.phase` tells the life cycle.
        let fields = namespaces.kind.strategy.selectable_fields();
        let phase = fields.iter().position(|f| *f == "status.phase").map(|i| found.field(i).to_owned());
        let ending = match phase {
            Some(phase) => phase == "Terminating",
            None => found.value().is_ok_and(|v| v.deleting()),
        };
        if !ending {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let kind = &self.resource.kind;
        Err(ApiError::forbidden(kind.group, kind.resource, name, &why)
            .with_cause(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: Some("metadata.namespace".to_owned()),
            })
            .into())
    }

    /// A pod runs as a service account; it must be there before the pod.
    pub(super) async fn check_service_account(&self, obj: &Value) -> Result<()> {
        if !self.resource.is("", "pods") || is_mirror(obj) {
            return Ok(());
        }
        let account = match obj["spec"]["serviceAccountName"].as_str() {
            None | Some("") => "default",
            Some(name) => name,
        };
        let namespace = &self.call.path.namespace;
        let table = self.app.table.load();
        let Some(accounts) = table.find("", "v1", "serviceaccounts") else { return Ok(()) };
        let key = Cache::key(namespace, account);
        self.app.feed.reach(accounts.cache.written()).await?;
        if accounts.cache.get(&key).is_some() {
            return Ok(());
        }
        self.app.feed.fresh().await?;
        if accounts.cache.get(&key).is_some() {
            return Ok(());
        }
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        Err(ApiError::forbidden("", "pods", obj.name(), &why).into())
    }
}

/// A static pod's shadow, which a kubelet makes.
fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// Kubernetes' `StorageObjectInUseProtection`.
pub(super) fn protect_storage(group: &str, resource: &str, obj: &mut Value) {
    let finalizer = match (group, resource) {
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        _ => return,
    };
    let mut finalizers: Vec<String> = obj.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
        obj.set_meta("finalizers", finalizers.into());
    }
}
