//! Which slices a Service's pods make.

use serde_json::{Value, json};

use super::super::legacy;
use super::*;

fn service(patch: Value) -> Service {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"team": "x"}},
        "spec": {
            "selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    });
    merge(&mut value, patch);
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, patch: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
            {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {
            "phase": "Running", "podIP": ip(name), "podIPs": [{"ip": ip(name)}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut value, patch);
    Arc::new(serde_json::from_value(value).unwrap())
}

fn ip(name: &str) -> String {
    let n: u32 = name.bytes().map(u32::from).fold(0, |h, b| h * 31 + b) % 60000;
    format!("10.244.{}.{}", n / 250, n % 250 + 1)
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                    continue;
                }
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

fn not_ready() -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
}

fn leaving() -> Value {
    json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
}

#[derive(Default)]
struct World {
    slices: Vec<Arc<EndpointSlice>>,
    writes: usize,
}

impl World {
    fn sync(&mut self, service: Option<&Service>, pods: &[Arc<Pod>]) {
        let nodes = HashMap::new();
        let observed = Observed { service, pods, slices: &self.slices, nodes: &nodes };
        let actions = plan(&observed);
        self.writes = actions.len();
        for action in actions {
            match action {
                Action::Create(mut slice) => {
                    slice.metadata.name = Some(format!("web-{}", self.slices.len()));
                    self.slices.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    let old =
                        self.slices.iter_mut().find(|s| s.metadata.name == slice.metadata.name).unwrap();
                    *old = Arc::new(*slice);
                }
                Action::Delete(slice) => self.slices.retain(|s| s.metadata.name != slice.metadata.name),
            }
        }
        let observed = Observed { service, pods, slices: &self.slices, nodes: &nodes };
        assert_eq!(plan(&observed), [], "a second look finds nothing to do");
    }

    fn sizes(&self) -> Vec<usize> {
        self.slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect()
    }
}

fn conditions(patch: Value, of: Value) -> (bool, bool, bool) {
    let mut world = World::default();
    world.sync(Some(&service(of)), &[pod("a", patch)]);
    let c = world.slices[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
    (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
}

#[test]
fn conditions_follow_the_pod() {
    let publish = json!({"spec": {"publishNotReadyAddresses": true}});
    let both = || {
        let mut p = leaving();
        merge(&mut p, not_ready());
        p
    };
    assert_eq!(conditions(json!({}), json!({})), (true, true, false));
    assert_eq!(conditions(not_ready(), json!({})), (false, false, false));
    assert_eq!(conditions(leaving(), json!({})), (false, true, true));
    assert_eq!(conditions(both(), json!({})), (false, false, true));
    assert_eq!(conditions(not_ready(), publish.clone()), (true, false, false));
    assert_eq!(conditions(both(), publish), (true, false, true));
}

#[test]
fn a_slice_says_whose_it_is_and_where_the_pod_runs() {
    let mut world = World::default();
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {ZONE: "z1"}}})).unwrap();
    let nodes = HashMap::from([("n1".to_owned(), Arc::new(node))]);
    let pods = [pod("a", json!({"spec": {"hostname": "h", "subdomain": "web"}}))];
    let svc = service(json!({}));
    let observed = Observed { service: Some(&svc), pods: &pods, slices: &[], nodes: &nodes };
    let [Action::Create(slice)] = &plan(&observed)[..] else { panic!() };
    let labels = slice.metadata.labels.clone().unwrap();
    assert_eq!(labels[SERVICE_NAME], "web");
    assert_eq!(labels[MANAGED_BY], MANAGER);
    assert_eq!(labels["team"], "x");
    assert!(!labels.contains_key(HEADLESS));
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].kind, "Service");
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
    assert_eq!(endpoint.zone.as_deref(), Some("z1"));
    assert_eq!(endpoint.hostname.as_deref(), Some("h"));
    let target = endpoint.target_ref.as_ref().unwrap();
    assert_eq!(
        (target.kind.as_deref(), target.name.as_deref(), target.uid.as_deref()),
        (Some("Pod"), Some("a"), Some("a"))
    );
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)));
    world.sync(Some(&service(json!({"spec": {"clusterIP": "None"}}))), &pods);
    assert!(world.slices[0].metadata.labels.as_ref().unwrap().contains_key(HEADLESS));
}

#[test]
fn pods_that_cannot_answer_have_no_endpoint() {
    for patch in [
        json!({"status": {"podIP": null, "podIPs": null}}),
        json!({"status": {"phase": "Succeeded"}}),
        json!({"status": {"phase": "Failed"}}),
    ] {
        let mut world = World::default();
        world.sync(Some(&service(json!({}))), &[pod("a", patch)]);
        assert_eq!(world.sizes(), [0], "one empty slice");
        assert_eq!(world.slices[0].ports, None);
    }
}

#[test]
fn named_ports_are_resolved_pod_by_pod() {
    let svc = service(json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}}));
    let other =
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9090}]}]}});
    let none = json!({"spec": {"containers": [{"name": "c"}]}});
    let mut world = World::default();
    world.sync(Some(&svc), &[pod("a", json!({})), pod("b", other), pod("c", none)]);
    let mut ports: Vec<Option<i32>> =
        world.slices.iter().map(|s| s.ports.as_ref().and_then(|p| p.first()).and_then(|p| p.port)).collect();
    ports.sort();
    assert_eq!(ports, [None, Some(8080), Some(9090)]);
    // The protocol counts, too.
    let udp = service(json!({"spec": {"ports": [
        {"name": "a", "port": 53, "protocol": "UDP", "targetPort": "dns"},
        {"name": "b", "port": 53, "protocol": "TCP", "targetPort": "dns"}]}}));
    let found = ports::ports(&udp, &pod("a", json!({})));
    assert_eq!(found.iter().map(|p| (p.name.as_str(), p.number)).collect::<Vec<_>>(), [("a", 53)]);
    // Without a target the port itself.
    let same = service(json!({"spec": {"ports": [{"name": "", "port": 7000}]}}));
    assert_eq!(ports::ports(&same, &pod("a", json!({})))[0].number, 7000);
}

#[test]
fn a_hundred_per_slice_and_a_change_touches_one() {
    let svc = service(json!({}));
    let mut pods: Vec<Arc<Pod>> = (0..250).map(|i| pod(&format!("p{i}"), json!({}))).collect();
    let mut world = World::default();
    world.sync(Some(&svc), &pods);
    assert_eq!(world.sizes(), [100, 100, 50]);
    pods[17] = pod("p17", not_ready());
    world.sync(Some(&svc), &pods);
    assert_eq!(world.writes, 1);
    pods.push(pod("new", json!({})));
    world.sync(Some(&svc), &pods);
    assert_eq!((world.writes, world.sizes()), (1, vec![100, 100, 51]));
    pods.remove(0);
    pods.push(pod("newer", json!({})));
    world.sync(Some(&svc), &pods);
    assert_eq!(
        (world.writes, world.sizes().iter().sum::<usize>()),
        (1, 251),
        "the slice that changes takes the new one"
    );
    pods.truncate(1);
    world.sync(Some(&svc), &pods);
    assert_eq!(world.sizes().iter().sum::<usize>(), 1);
    assert_eq!(world.slices.len(), 1);
    world.sync(Some(&svc), &[]);
    assert_eq!(world.sizes(), [0]);
    world.sync(None, &[]);
    assert_eq!(world.slices.len(), 0);
}

#[test]
fn both_families_have_their_slices() {
    let svc = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    let dual = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    let mut world = World::default();
    world.sync(Some(&svc), &[pod("a", dual)]);
    let mut seen: Vec<(String, String)> = world
        .slices
        .iter()
        .map(|s| (s.address_type.clone(), s.endpoints.as_ref().unwrap()[0].addresses[0].clone()))
        .collect();
    seen.sort();
    assert_eq!(seen, [("IPv4".to_owned(), "10.0.0.1".to_owned()), ("IPv6".to_owned(), "fd00::1".to_owned())]);
}

#[test]
fn labels_of_the_service_reach_its_slices_and_leave_again() {
    let mut world = World::default();
    let pods = [pod("a", json!({}))];
    world.sync(Some(&service(json!({}))), &pods);
    world.sync(Some(&service(json!({"metadata": {"labels": {"team": null, "stage": "p"}}}))), &pods);
    let labels = world.slices[0].metadata.labels.clone().unwrap();
    assert_eq!((labels.get("team"), labels.get("stage").map(String::as_str)), (None, Some("p")));
}

#[test]
fn services_without_a_selector_are_the_users() {
    assert!(ports::selector(&service(json!({"spec": {"selector": null}}))).is_none());
    assert!(ports::selector(&service(json!({"spec": {"type": "ExternalName"}}))).is_none());
    assert!(ports::selector(&service(json!({}))).is_some());
}

#[test]
fn endpoints_show_the_same_for_old_clients() {
    let svc = service(json!({}));
    let pods = [pod("a", json!({})), pod("b", not_ready()), pod("c", leaving())];
    let Some(legacy::Action::Create(created)) = legacy::plan(Some(&svc), &pods, None) else { panic!() };
    let subset = &created.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 1);
    assert_eq!(
        subset.not_ready_addresses.as_ref().unwrap()[0].target_ref.as_ref().unwrap().name.as_deref(),
        Some("b")
    );
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
    let current = Arc::new(*created);
    assert_eq!(legacy::plan(Some(&svc), &pods, Some(&current)), None);
    let Some(legacy::Action::Update(empty)) = legacy::plan(Some(&svc), &[], Some(&current)) else { panic!() };
    assert_eq!(empty.subsets, None);
    assert!(matches!(legacy::plan(None, &[], Some(&current)), Some(legacy::Action::Delete(_))));
    let foreign = Arc::new(k8s_openapi::api::core::v1::Endpoints::default());
    assert_eq!(legacy::plan(None, &[], Some(&foreign)), None);
}
