//! The shell: wakes on the namespace and on the two objects themselves, so what somebody deletes comes back.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use loadline_client::queue::Next;
use loadline_client::{Cache, Scope, WorkQueue};

use super::plan::{self, ACCOUNT, Action, ROOT_CA};
use crate::error::{Error, Result, Step, is_already_exists, is_namespace_terminating, settle};
use crate::meta::{name, namespace};
use crate::shared::Shared;

const QUEUE: &str = "serviceaccount";

#[derive(Clone)]
struct Controller {
    client: Client,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
    root_cas: Cache<ConfigMap>,
    ca: Option<Arc<str>>,
}

pub(crate) fn start(scope: &Scope, shared: &Shared, ca: Option<String>) {
    let client = &shared.client;
    let named = |object: &str| watcher::Config::default().fields(&format!("metadata.name={object}"));
    let controller = Controller {
        client: client.clone(),
        namespaces: shared.namespaces.clone(),
        accounts: Cache::start(scope, Api::all(client.clone()), named(ACCOUNT)),
        root_cas: Cache::start(scope, Api::all(client.clone()), named(ROOT_CA)),
        ca: ca.map(Into::into),
    };
    let queue: WorkQueue<String> = WorkQueue::new(QUEUE);
    controller.namespaces.on_change({
        let queue = queue.clone();
        move |change| queue.add(name(&change.object().metadata).to_owned())
    });
    controller.accounts.on_change({
        let queue = queue.clone();
        move |change| queue.add(namespace(&change.object().metadata).to_owned())
    });
    controller.root_cas.on_change({
        let queue = queue.clone();
        move |change| queue.add(namespace(&change.object().metadata).to_owned())
    });
    scope.spawn(QUEUE, async move {
        controller.namespaces.synced().await;
        controller.accounts.synced().await;
        controller.root_cas.synced().await;
        queue.run(2, |namespace| settle(controller.reconcile(namespace))).await;
    });
}

impl Controller {
    async fn reconcile(&self, ns: String) -> Result<Next> {
        let Some(namespace) = self.namespaces.get("", &ns) else { return Ok(Next::Done) };
        let account = self.accounts.get(&ns, ACCOUNT).is_some();
        let root_ca = self.root_cas.get(&ns, ROOT_CA);
        for action in plan::plan(&namespace, account, root_ca.as_deref(), self.ca.as_deref()) {
            let params = PostParams::default();
            let result = match action {
                Action::CreateAccount(account) => {
                    let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &ns);
                    api.create(&params, &account).await.map(drop)
                }
                Action::CreateRootCa(map) => {
                    let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &ns);
                    api.create(&params, &map).await.map(drop)
                }
                Action::UpdateRootCa(map) => {
                    let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &ns);
                    api.replace(ROOT_CA, &params, &map).await.step_or_gone("update root CA")?;
                    Ok(())
                }
            };
            match result {
                Ok(()) => {}
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(source) => return Err(Error::Api { step: "equip namespace", source }),
            }
        }
        Ok(Next::Done)
    }
}
