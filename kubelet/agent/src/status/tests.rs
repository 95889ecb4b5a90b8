//! Statuses as tables: phases, conditions, container states, and the patches between them.

use super::*;
use serde_json::Value;

const NOW: i64 = 1_000_000;

/// Container, attempt, state.
type Instances = &'static [(&'static str, u32, &'static str)];

fn at(offset: i64) -> Timestamp {
    Timestamp::from_second(NOW + offset).unwrap()
}

fn container(name: &str, attempt: u32, state: &str) -> Container {
    let (state, code) = match state.split_once('=') {
        Some((_, code)) => (ContainerState::Exited, code.parse().unwrap()),
        None => (ContainerState::Running, 0),
    };
    Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".to_owned(),
        name: name.to_owned(),
        attempt,
        image: "img:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        state,
        created_at: at(-20),
        started_at: Some(at(-19)),
        finished_at: (state == ContainerState::Exited).then(|| at(-1)),
        exit_code: code,
        signal: 0,
        oom_killed: false,
        error: String::new(),
        pid: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn sandbox() -> Sandbox {
    Sandbox {
        id: "s".to_owned(),
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        uid: "u".to_owned(),
        attempt: 0,
        ready: true,
        created_at: at(-30),
        netns: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

#[derive(Default)]
struct World {
    spec: Value,
    status: Value,
    containers: Vec<Container>,
    waiting: BTreeMap<String, Waiting>,
    probes: BTreeMap<String, Probes>,
    ended: bool,
    failure: Option<Failure>,
    no_sandbox: bool,
}

impl World {
    fn new(spec: Value, containers: &[(&str, u32, &str)]) -> Self {
        let containers = containers.iter().map(|(n, a, s)| container(n, *a, s)).collect();
        Self { spec, containers, ..Self::default() }
    }

    fn pod(&self) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 4},
            "spec": self.spec, "status": self.status}))
        .unwrap()
    }

    fn status(&self) -> PodStatus {
        let pod = self.pod();
        let sandboxes = if self.no_sandbox { Vec::new() } else { vec![sandbox()] };
        let mut containers = self.containers.clone();
        containers.extend(recall(&pod, &self.containers, at(0)));
        pod_status(&Seen {
            pod: &pod,
            sandboxes: &sandboxes,
            containers: &containers,
            probes: &self.probes,
            waiting: &self.waiting,
            messages: &BTreeMap::new(),
            ips: &["10.0.0.7".parse().unwrap()],
            host_ip: "192.0.2.1".parse().unwrap(),
            runtime: "docker",
            failure: self.failure.as_ref(),
            ended: self.ended,
            now: at(0),
        })
    }
}

fn spec(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "b", "image": "img"}, {"name": "a", "image": "img"}]})
}

fn is(status: &PodStatus, type_: &str) -> String {
    let c = status.conditions.iter().flatten().find(|c| c.type_ == type_).unwrap();
    match &c.reason {
        Some(reason) => format!("{} {reason}", c.status),
        None => c.status.clone(),
    }
}

#[test]
fn phases() {
    const RUN: &str = "run";
    let cases: Vec<(&str, Instances, bool, &str)> = vec![
        ("Always", &[], false, "Pending"),
        ("Always", &[("a", 0, RUN)], false, "Pending"),
        ("Always", &[("a", 0, RUN), ("b", 0, RUN)], false, "Running"),
        ("Always", &[("a", 0, "exit=1"), ("b", 0, RUN)], false, "Running"),
        ("Always", &[("a", 0, "exit=1"), ("b", 0, "exit=0")], false, "Running"),
        ("Always", &[("a", 0, "exit=0"), ("b", 0, "exit=0")], false, "Running"),
        ("Always", &[("a", 0, "exit=0"), ("b", 0, "exit=0")], true, "Succeeded"),
        ("Always", &[("a", 0, "exit=143"), ("b", 0, "exit=0")], true, "Failed"),
        ("Always", &[], true, "Failed"),
        ("OnFailure", &[("a", 0, "exit=0"), ("b", 0, "exit=0")], false, "Succeeded"),
        ("OnFailure", &[("a", 0, "exit=1"), ("b", 0, "exit=0")], false, "Running"),
        ("Never", &[("a", 0, "exit=0"), ("b", 0, "exit=0")], false, "Succeeded"),
        ("Never", &[("a", 0, "exit=1"), ("b", 0, "exit=0")], false, "Failed"),
        ("Never", &[("a", 0, "exit=1"), ("b", 0, RUN)], false, "Running"),
    ];
    for (policy, containers, ended, phase) in cases {
        let world = World { ended, ..World::new(spec(policy), containers) };
        assert_eq!(world.status().phase.as_deref(), Some(phase), "{policy} {containers:?} {ended}");
    }
}

#[test]
fn phases_with_init_containers() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "containers": [{"name": "a"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]})
    };
    let cases: Vec<(&str, Instances, &str, &str)> = vec![
        ("Always", &[("i", 0, "run")], "Pending", "False ContainersNotInitialized"),
        ("Always", &[("i", 0, "exit=0")], "Pending", "False ContainersNotInitialized"),
        ("Always", &[("i", 0, "exit=0"), ("s", 0, "run")], "Pending", "True"),
        ("Always", &[("i", 0, "exit=0"), ("s", 0, "run"), ("a", 0, "run")], "Running", "True"),
        ("Always", &[("i", 1, "exit=1")], "Pending", "False ContainersNotInitialized"),
        ("Never", &[("i", 0, "exit=1")], "Failed", "False ContainersNotInitialized"),
        (
            "Never",
            &[("i", 0, "exit=0"), ("s", 0, "run"), ("a", 0, "exit=0")],
            "Succeeded",
            "True PodCompleted",
        ),
    ];
    for (policy, containers, phase, initialized) in cases {
        let status = World::new(spec(policy), containers).status();
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {containers:?}");
        assert_eq!(is(&status, "Initialized"), initialized, "{policy} {containers:?}");
    }
}

#[test]
fn a_running_pod_in_full() {
    let world = World::new(spec("Always"), &[("a", 0, "exit=1"), ("a", 1, "run"), ("b", 0, "run")]);
    let status = world.status();
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(is(&status, type_), "True", "{type_}");
    }
    assert!(status.conditions.iter().flatten().all(|c| c.observed_generation == Some(4)));
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.0.0.7"), Some("192.0.2.1")));
    assert_eq!((status.qos_class.as_deref(), status.observed_generation), (Some("BestEffort"), Some(4)));
    assert_eq!(status.start_time, Some(Time(at(0))));
    let containers = status.container_statuses.unwrap();
    assert_eq!(containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"], "sorted by name");
    let a = &containers[0];
    assert_eq!((a.restart_count, a.ready, a.started), (1, true, Some(true)));
    assert_eq!(a.container_id.as_deref(), Some("docker://a1"));
    let last = a.last_state.as_ref().and_then(|s| s.terminated.as_ref()).unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
}

#[test]
fn readiness_takes_probes_and_gates() {
    let probed = json!({"containers": [{"name": "a", "readinessProbe": {}, "startupProbe": {}}]});
    let mut world = World::new(probed, &[("a", 0, "run")]);
    assert_eq!(is(&world.status(), "Ready"), "False ContainersNotReady");
    let ok = Some(Verdict::Success);
    world.probes.insert("a0".to_owned(), Probes { readiness: ok, ..Probes::default() });
    assert_eq!(is(&world.status(), "Ready"), "False ContainersNotReady", "not started yet");
    world.probes.insert("a0".to_owned(), Probes { startup: ok, readiness: ok, liveness: None });
    assert_eq!(is(&world.status(), "Ready"), "True");
    world.spec["readinessGates"] = json!([{"conditionType": "example.com/gate"}]);
    let status = world.status();
    assert_eq!(is(&status, "Ready"), "False ReadinessGatesNotReady");
    assert_eq!(is(&status, "ContainersReady"), "True");
    world.status = json!({"conditions": [{"type": "example.com/gate", "status": "True"}]});
    let status = world.status();
    assert_eq!(is(&status, "Ready"), "True");
    assert!(
        status.conditions.iter().flatten().any(|c| c.type_ == "example.com/gate"),
        "others' conditions stay"
    );
}

#[test]
fn waiting_reasons() {
    let mut world = World::new(spec("Always"), &[("a", 2, "exit=1")]);
    let message = "back-off 20s restarting failed container=a pod=p_n(u)";
    world.waiting.insert("a".to_owned(), Waiting::new("CrashLoopBackOff", message));
    world.waiting.insert("b".to_owned(), Waiting::new("ErrImagePull", "no such image"));
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"), "b never ran");
    let containers = status.container_statuses.unwrap();
    let a = containers[0].state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!((a.reason.as_deref(), a.message.as_deref()), (Some("CrashLoopBackOff"), Some(message)));
    assert_eq!(containers[0].restart_count, 2);
    assert!(containers[0].last_state.as_ref().unwrap().terminated.is_some());
    let b = containers[1].state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(b.reason.as_deref(), Some("ErrImagePull"));
    let fresh = World { no_sandbox: true, ..World::new(spec("Always"), &[]) }.status();
    let state = fresh.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("ContainerCreating"));
    assert_eq!(is(&fresh, "PodReadyToStartContainers"), "False");
}

#[test]
fn reasons_of_ends() {
    let mut world =
        World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}), &[("a", 0, "exit=137")]);
    world.containers[0].oom_killed = true;
    let reason = |w: &World| {
        let status = w.status().container_statuses.unwrap().remove(0);
        let t = status.state.unwrap().terminated.unwrap();
        (t.reason.unwrap(), t.exit_code)
    };
    assert_eq!(reason(&world), ("OOMKilled".to_owned(), 137));
    world.containers[0].oom_killed = false;
    assert_eq!(reason(&world), ("Error".to_owned(), 137));
    world.containers[0].exit_code = 0;
    assert_eq!(reason(&world), ("Completed".to_owned(), 0));
    world.containers[0].error = "exec: no such file".to_owned();
    assert_eq!(reason(&world), ("StartError".to_owned(), 128));
}

#[test]
fn what_the_runtime_forgot_the_status_remembers() {
    let mut world = World::new(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}), &[]);
    world.status = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "x", "ready": true,
        "restartCount": 3, "containerID": "docker://gone", "state": {"running": {}}}]});
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let a = &status.container_statuses.unwrap()[0];
    let t = a.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((t.exit_code, t.reason.as_deref(), a.restart_count), (137, Some("ContainerStatusUnknown"), 3));
    assert_eq!(a.container_id.as_deref(), Some("docker://gone"));
}

#[test]
fn terminal_phases_stay_and_failures_win() {
    let mut world = World::new(spec("Always"), &[("a", 0, "run"), ("b", 0, "run")]);
    world.status = json!({"phase": "Failed", "reason": "Evicted", "message": "why"});
    let status = world.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(is(&status, "Ready"), "False PodFailed");
    world.status = json!(null);
    world.failure = Some(Failure { reason: "DeadlineExceeded".to_owned(), message: "late".to_owned() });
    let status = world.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    let refused = rejected(&world.pod(), world.failure.as_ref().unwrap(), at(0));
    assert_eq!(refused.message.as_deref(), Some("Pod was rejected: late"));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut world = World::new(spec("Always"), &[("a", 0, "run"), ("b", 0, "run")]);
    world.status = json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2001-01-01T00:00:00Z"},
        {"type": "Initialized", "status": "False", "lastTransitionTime": "2001-01-01T00:00:00Z"}]});
    let status = world.status();
    let time = |type_: &str| {
        let c = status.conditions.iter().flatten().find(|c| c.type_ == type_).unwrap();
        c.last_transition_time.clone().unwrap().0
    };
    assert_eq!(time("Ready").to_string(), "2001-01-01T00:00:00Z");
    assert_eq!(time("Initialized"), at(0));
}

#[test]
fn patches_hold_only_what_changed() {
    let world = World::new(spec("Always"), &[("a", 0, "run"), ("b", 0, "run")]);
    let new = world.status();
    assert_eq!(patch("u", &new, &new), None);
    let first = patch("u", &PodStatus::default(), &new).unwrap();
    assert_eq!(first["metadata"]["uid"], "u");
    assert_eq!(first["status"]["podIPs"], json!([{"ip": "10.0.0.7"}]));
    let mut moved = new.clone();
    moved.pod_ip = Some("10.0.0.8".to_owned());
    moved.pod_ips = Some(vec![PodIP { ip: "10.0.0.8".to_owned() }]);
    moved.reason = None;
    let mut old = new.clone();
    old.reason = Some("x".to_owned());
    let conditions = moved.conditions.as_mut().unwrap();
    conditions[2].status = "False".to_owned();
    let change = patch("u", &old, &moved).unwrap();
    let status = change["status"].as_object().unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["conditions", "podIP", "podIPs", "reason"]);
    assert_eq!(status["podIPs"], json!([{"ip": "10.0.0.8"}, {"$patch": "replace"}]));
    assert_eq!(status["reason"], Value::Null);
    assert_eq!(status["conditions"].as_array().unwrap().len(), 1, "the one that changed");
}
