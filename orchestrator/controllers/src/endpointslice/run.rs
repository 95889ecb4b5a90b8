//! The shell: a pod or Service that changes wakes the Services that select it, at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Change, Scope, WorkQueue};

use super::plan::{self, Action, MANAGED_BY, MANAGER, Observed, SERVICE_NAME};
use super::{legacy, ports};
use crate::error::{Error, Result, Step, is_already_exists, is_namespace_terminating, is_not_found, settle};
use crate::index::{Index, Overlay};
use crate::meta::{Key, is_deleting, labels, name, namespace};
use crate::pods;
use crate::shared::Shared;

const WORKERS: usize = 5;
const SLICES: &str = "endpoint_slice";
const ENDPOINTS: &str = "endpoint";

#[derive(Clone)]
struct Controller {
    client: Client,
    services: Cache<Service>,
    services_by_namespace: Index<Service>,
    pods: Index<Pod>,
    nodes: Cache<Node>,
    slices: Index<EndpointSlice>,
    own_slices: Overlay<EndpointSlice>,
    endpoints: Cache<Endpoints>,
    slice_queue: WorkQueue<Key>,
    endpoints_queue: WorkQueue<Key>,
}

pub(crate) fn start(scope: &Scope, shared: &Shared) {
    let controller = Controller {
        client: shared.client.clone(),
        services: shared.services.clone(),
        services_by_namespace: shared.services_by_namespace.clone(),
        pods: shared.pods_by_namespace.clone(),
        nodes: shared.nodes.clone(),
        slices: shared.slices_by_service.clone(),
        own_slices: Overlay::new(&shared.slices),
        endpoints: shared.endpoints.clone(),
        slice_queue: WorkQueue::new(SLICES),
        endpoints_queue: WorkQueue::new(ENDPOINTS),
    };
    wire(&controller, shared);
    let (pods, slices) = (shared.pods.clone(), shared.slices.clone());
    scope.spawn(SLICES, {
        let (controller, pods) = (controller.clone(), pods.clone());
        async move {
            controller.services.synced().await;
            controller.nodes.synced().await;
            pods.synced().await;
            slices.synced().await;
            controller.slice_queue.clone().run(WORKERS, |key| settle(controller.sync_slices(key))).await;
        }
    });
    scope.spawn(ENDPOINTS, async move {
        controller.services.synced().await;
        controller.endpoints.synced().await;
        pods.synced().await;
        controller.endpoints_queue.clone().run(WORKERS, |key| settle(controller.sync_endpoints(key))).await;
    });
}

fn wire(controller: &Controller, shared: &Shared) {
    shared.services.on_change({
        let controller = controller.clone();
        move |change| controller.wake(Key::of(&change.object().metadata))
    });
    shared.pods.on_change({
        let controller = controller.clone();
        move |change| controller.pod_changed(change)
    });
    shared.slices.on_change({
        let controller = controller.clone();
        move |change| {
            let meta = &change.object().metadata;
            if let Some(service) = labels(meta).get(SERVICE_NAME) {
                controller.slice_queue.add(Key::new(namespace(meta), service));
            }
        }
    });
    shared.endpoints.on_change({
        let controller = controller.clone();
        move |change| controller.endpoints_queue.add(Key::of(&change.object().metadata))
    });
}

/// What of a pod its endpoints show. Most changes of pods change none of it.
fn shown(pod: &Pod) -> impl PartialEq + '_ {
    let deleting = is_deleting(&pod.metadata);
    (
        labels(&pod.metadata),
        pods::addresses(pod),
        pods::is_ready(pod),
        pods::is_terminal(pod),
        deleting,
        pods::node_name(pod),
    )
}

impl Controller {
    fn wake(&self, service: Key) {
        self.slice_queue.add(service.clone());
        self.endpoints_queue.add(service);
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let old = match change {
            Change::Applied { old: Some(old), new } if shown(old) == shown(new) => return,
            Change::Applied { old, .. } => old.as_ref(),
            Change::Deleted { .. } => None,
        };
        for service in self.services_by_namespace.group(namespace(&pod.metadata)) {
            let Some(selector) = ports::selector(&service) else { continue };
            if ports::selects(selector, pod) || old.is_some_and(|o| ports::selects(selector, o)) {
                self.wake(Key::of(&service.metadata));
            }
        }
    }

    /// The Service, if it is one whose endpoints are ours to write, and the pods that it selects.
    fn observe(&self, service: Option<&Service>) -> Vec<Arc<Pod>> {
        let Some((service, selector)) = service.and_then(|s| Some((s, ports::selector(s)?))) else {
            return Vec::new();
        };
        let mut pods = self.pods.group(namespace(&service.metadata));
        pods.retain(|p| ports::selects(selector, p));
        pods
    }

    async fn sync_slices(&self, key: Key) -> Result<Next> {
        let service = self.services.get(&key.namespace, &key.name).filter(|s| !is_deleting(&s.metadata));
        let exists = service.is_some();
        let served = service.as_deref().filter(|s| ports::selector(s).is_some());
        if exists && served.is_none() {
            return Ok(Next::Done);
        }
        let pods = self.observe(served);
        let ours = |s: &EndpointSlice| {
            s.metadata.namespace.as_deref() == Some(&key.namespace)
                && labels(&s.metadata).get(SERVICE_NAME) == Some(&key.name)
        };
        let mut slices = self.own_slices.view(self.slices.group(&key.to_string()), ours);
        slices.retain(|s| {
            labels(&s.metadata).get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
                && !is_deleting(&s.metadata)
        });
        let on: HashSet<&str> = pods.iter().map(|p| pods::node_name(p)).collect();
        let nodes: HashMap<String, Arc<Node>> =
            on.into_iter().filter_map(|n| Some((n.to_owned(), self.nodes.get("", n)?))).collect();
        let observed = Observed { service: served, pods: &pods, slices: &slices, nodes: &nodes };
        for action in plan::plan(&observed) {
            self.execute(&key, action).await?;
        }
        Ok(Next::Done)
    }

    async fn execute(&self, key: &Key, action: Action) -> Result<()> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        match action {
            Action::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.own_slices.applied(created),
                Err(error) if is_namespace_terminating(&error) => {}
                Err(source) => return Err(Error::Api { step: "create slice", source }),
            },
            Action::Update(slice) => {
                match api.replace(name(&slice.metadata), &PostParams::default(), &slice).await {
                    Ok(updated) => self.own_slices.applied(updated),
                    Err(error) if is_not_found(&error) => {
                        self.own_slices.deleted(&slice);
                        return Err(Error::Stale("the slice is gone"));
                    }
                    Err(source) => return Err(Error::Api { step: "update slice", source }),
                }
            }
            Action::Delete(slice) => {
                let same = Preconditions {
                    uid: slice.metadata.uid.clone(),
                    resource_version: slice.metadata.resource_version.clone(),
                };
                api.delete(name(&slice.metadata), &DeleteParams::default().preconditions(same))
                    .await
                    .step_or_gone("delete slice")?;
                self.own_slices.deleted(&slice);
            }
        }
        Ok(())
    }

    async fn sync_endpoints(&self, key: Key) -> Result<Next> {
        let service = self.services.get(&key.namespace, &key.name).filter(|s| !is_deleting(&s.metadata));
        if service.as_ref().is_some_and(|s| ports::selector(s).is_none()) {
            return Ok(Next::Done);
        }
        let pods = self.observe(service.as_deref());
        let current = self.endpoints.get(&key.namespace, &key.name);
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(action) = legacy::plan(service.as_deref(), &pods, current.as_ref()) else {
            return Ok(Next::Done);
        };
        match action {
            legacy::Action::Create(endpoints) => match api.create(&PostParams::default(), &endpoints).await {
                Ok(_) => {}
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) if is_already_exists(&error) => {
                    return Err(Error::Stale("the endpoints existed already"));
                }
                Err(source) => return Err(Error::Api { step: "create endpoints", source }),
            },
            legacy::Action::Update(endpoints) => {
                api.replace(&key.name, &PostParams::default(), &endpoints).await.step("update endpoints")?;
            }
            legacy::Action::Delete(endpoints) => {
                let same = Preconditions { uid: endpoints.metadata.uid.clone(), resource_version: None };
                api.delete(&key.name, &DeleteParams::default().preconditions(same))
                    .await
                    .step_or_gone("delete endpoints")?;
            }
        }
        Ok(Next::Done)
    }
}
