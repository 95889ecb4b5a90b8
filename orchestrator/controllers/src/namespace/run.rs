//! The shell: deletes by discovery, pods first, and is woken by whatever disappears from a namespace that ends.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Scope, WorkQueue};
use serde_json::json;
use tracing::info;

use super::plan::{self, FINALIZER, Round};
use crate::error::{Result, Step, is_conflict, is_not_found, settle, words};
use crate::meta::{is_deleting, name, namespace};
use crate::monitors::{self, Kind, Seen};
use crate::shared::Shared;

const QUEUE: &str = "namespace";
/// Changes wake this controller; this covers kinds that cannot be watched.
const FALLBACK: Duration = Duration::from_secs(10);

/// What the monitors tell this controller through.
#[derive(Clone)]
pub(crate) struct Waker {
    queue: WorkQueue<String>,
    namespaces: Cache<Namespace>,
}

impl Waker {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { queue: WorkQueue::new(QUEUE), namespaces: shared.namespaces.clone() }
    }

    pub(crate) fn seen(&self, meta: &ObjectMeta, seen: Seen) {
        let ends = |n: &str| self.namespaces.get("", n).is_some_and(|n| is_deleting(&n.metadata));
        if seen == Seen::Deleted && !namespace(meta).is_empty() && ends(namespace(meta)) {
            self.queue.add(namespace(meta).to_owned());
        }
    }
}

#[derive(Clone)]
struct Controller {
    client: Client,
    namespaces: Cache<Namespace>,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, waker: Waker) {
    let controller = Controller { client: shared.client.clone(), namespaces: shared.namespaces.clone() };
    controller.namespaces.on_change({
        let queue = waker.queue.clone();
        move |change| {
            if plan::is_ours(change.object()) {
                queue.add(name(&change.object().metadata).to_owned());
            }
        }
    });
    scope.spawn(QUEUE, async move {
        controller.namespaces.synced().await;
        waker.queue.run(4, |namespace| settle(controller.reconcile(namespace))).await;
    });
}

impl Controller {
    async fn reconcile(&self, ns: String) -> Result<Next> {
        let cached = self.namespaces.get("", &ns).filter(|n| plan::is_ours(n));
        if cached.is_none() {
            return Ok(Next::Done);
        }
        // From the server: this round deletes everything, so it had better be the same namespace.
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Some(live) = api.get_opt(&ns).await.step("read namespace")?.filter(plan::is_ours) else {
            return Ok(Next::Done);
        };
        let round = self.empty(&ns).await;
        let status = plan::status(live.status.as_ref(), &round, Timestamp::now());
        if Some(&status) != live.status.as_ref() && !round.is_empty() {
            let patch = json!({"metadata": {"uid": live.metadata.uid}, "status": status});
            api.patch_status(&ns, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .step_or_gone("write status")?;
        }
        if round.is_empty() {
            self.finalize(&api, live).await?;
            return Ok(Next::Done);
        }
        Ok(Next::After(FALLBACK))
    }

    async fn finalize(&self, api: &Api<Namespace>, mut live: Namespace) -> Result<()> {
        let ns = name(&live.metadata).to_owned();
        if let Some(spec) = &mut live.spec {
            spec.finalizers =
                spec.finalizers.take().map(|f| f.into_iter().filter(|f| f != FINALIZER).collect());
        }
        let done = api
            .replace_subresource("finalize", &ns, &PostParams::default(), &live)
            .await
            .step_or_gone("finalize namespace")?;
        if done.is_some() {
            info!(namespace = ns, "namespace emptied");
        }
        Ok(())
    }

    /// One round: pods first, because what protects them (policies, secrets) must outlive them.
    async fn empty(&self, ns: &str) -> Round {
        let mut round = Round::default();
        let kinds = match monitors::discover(&self.client).await {
            Ok(kinds) => kinds,
            Err(error) => {
                round.discovery_errors.push(error.to_string());
                return round;
            }
        };
        let wanted =
            |k: &Arc<Kind>| k.namespaced && k.can("list") && (k.can("delete") || k.can("deletecollection"));
        let (pods, others): (Vec<_>, Vec<_>) =
            kinds.into_iter().filter(wanted).partition(|k| k.api.group.is_empty() && k.api.kind == "Pod");
        for kinds in [pods, others] {
            for (kind, result) in join_all(kinds.into_iter().map(|k| self.delete_all(ns, k))).await {
                note(&mut round, &kind, result);
            }
            if !round.is_empty() {
                break;
            }
        }
        round
    }

    /// What is left of one kind after everything was asked to go.
    async fn delete_all(
        &self,
        ns: &str,
        kind: Arc<Kind>,
    ) -> (Arc<Kind>, Result<Vec<ObjectMeta>, kube::Error>) {
        let result = self.try_delete_all(ns, &kind).await;
        (kind, result)
    }

    async fn try_delete_all(&self, ns: &str, kind: &Kind) -> Result<Vec<ObjectMeta>, kube::Error> {
        let api = kind.api(&self.client, ns);
        let list = || async {
            let left = api.list_metadata(&ListParams::default()).await?;
            Ok::<_, kube::Error>(left.items.into_iter().map(|o| o.metadata).collect::<Vec<ObjectMeta>>())
        };
        let before = match list().await {
            Err(error) if is_not_found(&error) => return Ok(Vec::new()),
            other => other?,
        };
        if before.is_empty() {
            return Ok(before);
        }
        let background = DeleteParams::background();
        if kind.can("deletecollection") {
            api.delete_collection(&background, &ListParams::default()).await?;
        } else {
            for meta in before.iter().filter(|m| !is_deleting(m)) {
                let same = Preconditions { uid: meta.uid.clone(), resource_version: None };
                match api.delete(name(meta), &background.clone().preconditions(same)).await {
                    Err(error) if is_not_found(&error) || is_conflict(&error) => {}
                    other => drop(other?),
                }
            }
        }
        list().await
    }
}

fn note(round: &mut Round, kind: &Kind, result: Result<Vec<ObjectMeta>, kube::Error>) {
    let resource = format!("{}.{}", kind.api.plural, kind.api.group);
    match result {
        Err(error) => round.content_errors.push(format!("{resource}: {}", words(&error))),
        Ok(left) => {
            for finalizer in left.iter().flat_map(|m| m.finalizers.iter().flatten()) {
                *round.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            if !left.is_empty() {
                round.remaining.insert(resource, left.len());
            }
        }
    }
}
