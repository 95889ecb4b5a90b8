//! The workload behind a reference: which resource a kind is, and its `/scale` subresource.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::autoscaling::v1;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};

#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("no matches for kind {kind:?} in {api_version:?}")]
    NoSuchKind { api_version: String, kind: String },
    #[error("{resource} has no scale subresource")]
    NotScalable { resource: String },
    #[error("{}", words(.0))]
    Api(#[source] Box<kube::Error>),
    #[error("{resource} {name:?} was scaled to {found} by somebody else meanwhile")]
    Changed { resource: String, name: String, found: i32 },
}

/// What the server said, without the wrapping that is for programmers.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl From<kube::Error> for TargetError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// What the server said of a kind.
#[derive(Clone, Debug)]
struct Mapping {
    resource: ApiResource,
    scalable: bool,
}

/// Remembers which resource a kind is; what is not found is asked for again.
pub(crate) struct Targets {
    client: kube::Client,
    mappings: Mutex<HashMap<(String, String), Mapping>>,
}

impl Targets {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, mappings: Mutex::default() }
    }

    pub(crate) async fn scale(
        &self,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<v1::Scale, TargetError> {
        Ok(self.api(namespace, target).await?.get_scale(&target.name).await?)
    }

    /// Writes `replicas` over the scale that was read. If the object changed meanwhile but its replicas did not, the
    /// write is tried once more; a count that somebody else set meanwhile is left alone.
    pub(crate) async fn set(
        &self,
        namespace: &str,
        target: &CrossVersionObjectReference,
        seen: &v1::Scale,
        replicas: i32,
    ) -> Result<(), TargetError> {
        let api = self.api(namespace, target).await?;
        let replace = async |mut scale: v1::Scale| {
            scale.spec.get_or_insert_default().replicas = Some(replicas);
            api.replace_scale(&target.name, &PostParams::default(), &scale).await
        };
        match replace(seen.clone()).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let now = api.get_scale(&target.name).await?;
                if spec_replicas(&now) != spec_replicas(seen) {
                    return Err(TargetError::Changed {
                        resource: target.kind.clone(),
                        name: target.name.clone(),
                        found: spec_replicas(&now),
                    });
                }
                replace(now).await?;
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// The plural of a kind, for custom metrics of objects.
    pub(crate) async fn resource(&self, api_version: &str, kind: &str) -> Result<ApiResource, TargetError> {
        Ok(self.mapping(api_version, kind).await?.resource)
    }

    async fn api(
        &self,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<Api<DynamicObject>, TargetError> {
        let version = target.api_version.as_deref().filter(|v| !v.is_empty()).unwrap_or("v1");
        let mapping = self.mapping(version, &target.kind).await?;
        if !mapping.scalable {
            return Err(TargetError::NotScalable { resource: mapping.resource.plural });
        }
        Ok(Api::namespaced_with(self.client.clone(), namespace, &mapping.resource))
    }

    async fn mapping(&self, api_version: &str, kind: &str) -> Result<Mapping, TargetError> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.mappings.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(mapping) = known.filter(|m| m.scalable) {
            return Ok(mapping);
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let missing =
            || TargetError::NoSuchKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let list = if group.is_empty() {
            self.client.list_core_api_resources(version).await
        } else {
            self.client.list_api_group_resources(api_version).await
        };
        let list = match list {
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(missing()),
            other => other?,
        };
        let found =
            list.resources.iter().find(|r| r.kind == kind && !r.name.contains('/')).ok_or_else(missing)?;
        let scale = format!("{}/scale", found.name);
        let mapping = Mapping {
            resource: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                plural: found.name.clone(),
            },
            scalable: list.resources.iter().any(|r| r.name == scale),
        };
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner).insert(key, mapping.clone());
        Ok(mapping)
    }
}

pub(crate) fn spec_replicas(scale: &v1::Scale) -> i32 {
    scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
}
