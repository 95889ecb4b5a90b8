//! What a namespace lacks. Pure.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{Labels, is_deleting, name};

pub(crate) const ACCOUNT: &str = "default";
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    CreateAccount(Box<ServiceAccount>),
    CreateRootCa(Box<ConfigMap>),
    UpdateRootCa(Box<ConfigMap>),
}

/// `ca` is the certificate in PEM; without one there is no ConfigMap to write.
pub(crate) fn plan(
    namespace: &Namespace,
    account: bool,
    root_ca: Option<&ConfigMap>,
    ca: Option<&str>,
) -> Vec<Action> {
    let terminating = namespace.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Terminating");
    if is_deleting(&namespace.metadata) || terminating {
        return Vec::new();
    }
    let metadata = |object: &str| ObjectMeta {
        name: Some(object.to_owned()),
        namespace: Some(name(&namespace.metadata).to_owned()),
        ..ObjectMeta::default()
    };
    let mut actions = Vec::new();
    if !account {
        let account = ServiceAccount { metadata: metadata(ACCOUNT), ..ServiceAccount::default() };
        actions.push(Action::CreateAccount(Box::new(account)));
    }
    let Some(ca) = ca else { return actions };
    let data = Some(Labels::from([(CA_KEY.to_owned(), ca.to_owned())]));
    match root_ca {
        None => {
            let mut metadata = metadata(ROOT_CA);
            let text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                        endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                        guaranteed across distributions of Kubernetes clusters.";
            metadata.annotations = Some([("kubernetes.io/description".to_owned(), text.to_owned())].into());
            actions.push(Action::CreateRootCa(Box::new(ConfigMap {
                metadata,
                data,
                ..ConfigMap::default()
            })));
        }
        Some(current) if current.data != data => {
            actions.push(Action::UpdateRootCa(Box::new(ConfigMap { data, ..current.clone() })));
        }
        Some(_) => {}
    }
    actions
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(phase: &str) -> Namespace {
        serde_json::from_value(json!({"metadata": {"name": "ns"}, "status": {"phase": phase}})).unwrap()
    }

    #[test]
    fn a_namespace_gets_what_it_lacks_and_nothing_while_it_ends() {
        let both = plan(&namespace("Active"), false, None, Some("PEM"));
        let [Action::CreateAccount(account), Action::CreateRootCa(map)] = &both[..] else {
            panic!("{both:?}")
        };
        assert_eq!(account.metadata.name.as_deref(), Some("default"));
        assert_eq!(map.data.as_ref().unwrap()["ca.crt"], "PEM");
        assert_eq!(plan(&namespace("Active"), true, Some(map), Some("PEM")), []);
        let Action::UpdateRootCa(next) = &plan(&namespace("Active"), true, Some(map), Some("NEW"))[0] else {
            panic!()
        };
        assert_eq!(next.data.as_ref().unwrap()["ca.crt"], "NEW");
        assert_eq!(plan(&namespace("Active"), true, None, None), []);
        assert_eq!(plan(&namespace("Terminating"), false, None, Some("PEM")), []);
    }
}
