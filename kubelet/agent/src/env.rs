//! A container's environment: service links, then `envFrom`, then `env`, later ones winning. Pure: what it refers to
//! is looked up through [`Objects`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};

use crate::fields::{self, Facts};
use crate::names;

/// The objects of a pod's namespace that its spec refers to.
pub(crate) trait Objects: Send + Sync {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    fn secret(&self, name: &str) -> Option<Arc<Secret>>;
    /// Services of the pod's namespace, and `default/kubernetes`.
    fn services(&self) -> Vec<Arc<Service>>;
}

/// The message of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvError(String);

type Env = BTreeMap<String, String>;

pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    objects: &dyn Objects,
) -> Result<Vec<(String, String)>, EnvError> {
    let links = service_variables(pod, &objects.services());
    let mut order: Vec<String> = Vec::new();
    let mut env = Env::new();
    let mut set = |env: &mut Env, name: &str, value: String| {
        if env.insert(name.to_owned(), value).is_none() {
            order.push(name.to_owned());
        }
    };
    for source in container.env_from.iter().flatten() {
        for (name, value) in env_from(pod, source, objects)? {
            set(&mut env, &name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match value_from(pod, container, facts, objects, source)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => {
                let lookup = |name: &str| env.get(name).or_else(|| links.get(name)).cloned();
                expand(value.as_deref().unwrap_or_default(), lookup)
            }
        };
        set(&mut env, &variable.name, value);
    }
    let mut result: Vec<(String, String)> = links.into_iter().filter(|(k, _)| !env.contains_key(k)).collect();
    result.extend(order.into_iter().filter_map(|name| env.remove(&name).map(|value| (name, value))));
    Ok(result)
}

fn env_from(
    pod: &Pod,
    source: &k8s_openapi::api::core::v1::EnvFromSource,
    objects: &dyn Objects,
) -> Result<Vec<(String, String)>, EnvError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let namespace = names::namespace(pod);
    let mut found: Vec<(String, String)> = Vec::new();
    if let Some(reference) = &source.config_map_ref {
        match objects.config_map(&reference.name) {
            Some(map) => found.extend(map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone()))),
            None if reference.optional == Some(true) => {}
            None => return Err(missing("configmap", namespace, &reference.name)),
        }
    }
    if let Some(reference) = &source.secret_ref {
        match objects.secret(&reference.name) {
            Some(secret) => {
                let text = |v: &k8s_openapi::ByteString| String::from_utf8_lossy(&v.0).into_owned();
                found.extend(secret.data.iter().flatten().map(|(k, v)| (k.clone(), text(v))));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(missing("secret", namespace, &reference.name)),
        }
    }
    Ok(found.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)).filter(|(k, _)| is_name(k)).collect())
}

/// Keys that cannot be variables are left out, as upstream does: no `=`, printable ASCII.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn missing(kind: &str, _namespace: &str, name: &str) -> EnvError {
    EnvError(format!("{kind} {name:?} not found"))
}

/// `None` where an optional source is not there.
fn value_from(
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
    objects: &dyn Objects,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    let namespace = names::namespace(pod);
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, facts, &reference.field_path).map(Some).map_err(EnvError);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource(pod, Some(container), facts, reference).map(Some).map_err(EnvError);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = objects.config_map(&reference.name) else {
            return if optional { Ok(None) } else { Err(missing("configmap", namespace, &reference.name)) };
        };
        return match map.data.as_ref().and_then(|d| d.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(EnvError(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                reference.key, reference.name
            ))),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = objects.secret(&reference.name) else {
            return if optional { Ok(None) } else { Err(missing("secret", namespace, &reference.name)) };
        };
        return match secret.data.as_ref().and_then(|d| d.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(EnvError(format!(
                "couldn't find key {} in Secret {namespace}/{}",
                reference.key, reference.name
            ))),
        };
    }
    Err(EnvError("this source of an environment variable is not supported".to_owned()))
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar sign; what is not known stays as it is written.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Docker-link style variables of the namespace's Services that have a cluster IP.
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> Env {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut env = Env::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = namespace == "default" && name == "kubernetes";
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None")) else { continue };
        let linked = links && namespace == names::namespace(pod);
        if !master && !linked {
            continue;
        }
        let key = name.to_uppercase().replace('-', "_");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        env.insert(format!("{key}_SERVICE_HOST"), ip.to_owned());
        env.insert(format!("{key}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let suffix = name.to_uppercase().replace('-', "_");
                env.insert(format!("{key}_SERVICE_PORT_{suffix}"), port.port.to_string());
            }
        }
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                env.insert(format!("{key}_PORT"), url.clone());
            }
            let head = format!("{key}_PORT_{}_{}", port.port, protocol.to_uppercase());
            env.insert(head.clone(), url);
            env.insert(format!("{head}_PROTO"), lower);
            env.insert(format!("{head}_PORT"), port.port.to_string());
            env.insert(format!("{head}_ADDR"), ip.to_owned());
        }
    }
    env
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::resources::Amounts;
    use serde_json::{Value, json};

    #[derive(Default)]
    pub(crate) struct Fixed {
        pub(crate) config_maps: BTreeMap<String, Value>,
        pub(crate) secrets: BTreeMap<String, Value>,
        pub(crate) services: Vec<Value>,
    }

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
            self.config_maps.get(name).map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap()))
        }
        fn secret(&self, name: &str) -> Option<Arc<Secret>> {
            self.secrets.get(name).map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap()))
        }
        fn services(&self) -> Vec<Arc<Service>> {
            self.services.iter().map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap())).collect()
        }
    }

    fn objects() -> Fixed {
        Fixed {
            config_maps: [("cm".to_owned(), json!({"data": {"a": "1", "b=c": "no", "d": "4"}}))].into(),
            secrets: [("s".to_owned(), json!({"data": {"k": "c2VjcmV0"}}))].into(),
            services: vec![
                json!({"metadata": {"name": "web-app", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.9",
                    "ports": [{"port": 80, "name": "http"}, {"port": 53, "name": "dns", "protocol": "UDP"}]}}),
                json!({"metadata": {"name": "headless", "namespace": "n"}, "spec": {"clusterIP": "None",
                    "ports": [{"port": 80}]}}),
                json!({"metadata": {"name": "other", "namespace": "x"}, "spec": {"clusterIP": "10.96.0.8",
                    "ports": [{"port": 80}]}}),
                json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1",
                    "ports": [{"port": 443, "name": "https"}]}}),
            ],
        }
    }

    fn env(container: Value, links: bool) -> Result<BTreeMap<String, String>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"enableServiceLinks": links, "containers": [container]},
        }))
        .unwrap();
        let allocatable = Amounts::new();
        let facts = Facts {
            node_name: "node",
            host_ip: "192.0.2.1".parse().unwrap(),
            pod_ips: &[],
            allocatable: &allocatable,
        };
        environment(&pod, &names::containers(&pod)[0], &facts, &objects()).map(|e| e.into_iter().collect())
    }

    #[test]
    fn sources_override_in_order() {
        let container = json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}},
                    {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "P_a", "value": "own"},
            {"name": "X", "value": "$(P_a)-$(k)-$(nope)-$$(k)-$"},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "d"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z", "optional": true}}},
        ]});
        let env = env(container, false).unwrap();
        let expected = [
            ("C", "4"),
            ("N", "p"),
            ("P_a", "own"),
            ("P_d", "4"),
            ("S", "secret"),
            ("X", "own-secret-$(nope)-$(k)-$"),
            ("k", "secret"),
        ];
        for (name, value) in expected {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("O") && !env.contains_key("P_b=c"));
        assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1", "the API is always linked");
        assert!(!env.contains_key("WEB_APP_SERVICE_HOST"));
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let cases = [
            (json!({"configMapKeyRef": {"name": "none", "key": "a"}}), "configmap \"none\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "z"}}), "couldn't find key z in ConfigMap n/cm"),
            (json!({"secretKeyRef": {"name": "none", "key": "a"}}), "secret \"none\" not found"),
            (json!({"secretKeyRef": {"name": "s", "key": "z"}}), "couldn't find key z in Secret n/s"),
            (json!({"fieldRef": {"fieldPath": "spec.x"}}), "unsupported fieldPath: spec.x"),
        ];
        for (source, message) in cases {
            let got = env(json!({"name": "c", "env": [{"name": "V", "valueFrom": source}]}), true);
            assert_eq!(got, Err(EnvError(message.to_owned())));
        }
        let got = env(json!({"name": "c", "envFrom": [{"secretRef": {"name": "none"}}]}), true);
        assert_eq!(got, Err(EnvError("secret \"none\" not found".to_owned())));
    }

    #[test]
    fn service_links_name_every_port() {
        let env =
            env(json!({"name": "c", "env": [{"name": "U", "value": "$(WEB_APP_PORT)"}]}), true).unwrap();
        let expected = [
            ("WEB_APP_SERVICE_HOST", "10.96.0.9"),
            ("WEB_APP_SERVICE_PORT", "80"),
            ("WEB_APP_SERVICE_PORT_DNS", "53"),
            ("WEB_APP_PORT", "tcp://10.96.0.9:80"),
            ("WEB_APP_PORT_53_UDP", "udp://10.96.0.9:53"),
            ("WEB_APP_PORT_53_UDP_PROTO", "udp"),
            ("WEB_APP_PORT_80_TCP_ADDR", "10.96.0.9"),
            ("U", "tcp://10.96.0.9:80"),
        ];
        for (name, value) in expected {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.keys().any(|k| k.starts_with("HEADLESS") || k.starts_with("OTHER")));
    }
}
