//! The plan as a table. Containers read `name#attempt:state@sandbox`, where the state is `run`, `new` (made, not
//! started) or `exit=CODE,SECONDS-AGO`; what is expected reads like the actions, then what waits, then the wake-up.

use super::*;
use serde_json::{Value, json};

const NOW: i64 = 1_000_000;

fn at(offset: i64) -> Timestamp {
    Timestamp::from_second(NOW + offset).unwrap()
}

fn sandboxes(text: &str) -> Vec<Sandbox> {
    let parse = |word: &str| {
        let (id, state) = word.split_once(':').unwrap();
        let attempt = id.trim_start_matches('s').parse().unwrap();
        Sandbox {
            id: id.to_owned(),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            uid: "u".to_owned(),
            attempt,
            ready: state == "ready",
            created_at: at(-1000),
            netns: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    };
    text.split_whitespace().map(parse).collect()
}

fn containers(text: &str) -> Vec<Container> {
    let parse = |word: &str| {
        let (id, rest) = word.split_once(':').unwrap();
        let (state, sandbox) = rest.split_once('@').unwrap();
        let (name, attempt) = id.split_once('#').unwrap();
        let (state, code, ago, error) = match state {
            "run" => (ContainerState::Running, 0, None, ""),
            "new" => (ContainerState::Created, 0, None, ""),
            "failed" => (ContainerState::Created, 0, None, "no such file"),
            exit => {
                let (code, ago) = exit.strip_prefix("exit=").unwrap().split_once(',').unwrap();
                (ContainerState::Exited, code.parse().unwrap(), Some(ago.parse::<i64>().unwrap()), "")
            }
        };
        Container {
            id: id.to_owned(),
            sandbox_id: sandbox.to_owned(),
            name: name.to_owned(),
            attempt: attempt.parse().unwrap(),
            image: "img".to_owned(),
            image_id: "id".to_owned(),
            state,
            created_at: at(-900),
            started_at: Some(at(-900)),
            finished_at: ago.map(|s| at(-s)),
            exit_code: code,
            signal: 0,
            oom_killed: false,
            error: error.to_owned(),
            pid: None,
            labels: BTreeMap::new(),
            annotations: [(names::SPEC_IMAGE.to_owned(), "img".to_owned())].into(),
        }
    };
    text.split_whitespace().map(parse).collect()
}

fn show(plan: &Plan) -> String {
    let action = |a: &Action| match a {
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::Start { name, attempt, after: None } => format!("start {name}#{attempt}"),
        Action::Start { name, attempt, after: Some(_) } => format!("restart {name}#{attempt}"),
        Action::Kill { id, grace, .. } => format!("kill {id} {}s", grace.as_secs()),
        Action::StopSandbox { id } => format!("stop {id}"),
        Action::RemoveContainer { id } => format!("remove {id}"),
        Action::RemoveSandbox { id } => format!("remove {id}"),
    };
    let mut words: Vec<String> = plan.actions.iter().map(action).collect();
    words.extend(plan.waiting.iter().map(|(name, w)| format!("{name}: {}", w.reason)));
    words.extend(plan.wake_at.map(|at| format!("wake {}s", at.as_second() - NOW)));
    words.extend(plan.ended.then(|| "ended".to_owned()));
    words.join("; ")
}

/// What a case changes beyond containers and sandboxes.
#[derive(Default)]
struct More {
    probes: &'static [(&'static str, Probes)],
    /// Container, delay in seconds that its back-off has reached.
    crashes: &'static [(&'static str, u32)],
    errors: &'static [(&'static str, &'static str, i64)],
    sandbox_retry: Option<i64>,
    starting: bool,
    ending: &'static [&'static str],
    stop: Option<u64>,
}

struct Case {
    name: &'static str,
    spec: Value,
    sandboxes: &'static str,
    containers: &'static str,
    more: More,
    expected: &'static str,
}

fn run(case: &Case) -> Plan {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": case.spec}))
    .unwrap();
    let mut memory = Memory { sandbox_retry_at: case.more.sandbox_retry.map(at), ..Memory::default() };
    for (name, times) in case.more.crashes {
        for _ in 0..*times {
            memory.crashes.next(name, at(-5));
        }
    }
    for (name, reason, retry) in case.more.errors {
        let error = StartError { waiting: Waiting::new(reason, "why"), retry_at: at(*retry) };
        memory.errors.insert((*name).to_owned(), error);
    }
    let probes = case.more.probes.iter().map(|(id, p)| ((*id).to_owned(), *p)).collect();
    let ending = case.more.ending.iter().map(|id| (*id).to_owned()).collect();
    decide(&Inputs {
        pod: &pod,
        sandboxes: &sandboxes(case.sandboxes),
        containers: &containers(case.containers),
        probes: &probes,
        memory: &memory,
        busy: &Busy { starting: case.more.starting, ending },
        intent: case.more.stop.map_or(Intent::Run, |s| Intent::Stop { grace: Duration::from_secs(s) }),
        now: at(0),
    })
}

fn spec(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "img"}, {"name": "b", "image": "img"}]})
}

fn one(extra: Value) -> Value {
    let mut container = json!({"name": "a", "image": "img"});
    container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"restartPolicy": "Always", "containers": [container]})
}

fn with_init(policy: &str, inits: Value) -> Value {
    json!({"restartPolicy": policy, "initContainers": inits, "containers": [{"name": "a", "image": "img"}]})
}

const FAILED: Option<Verdict> = Some(Verdict::Failure);
const OK: Option<Verdict> = Some(Verdict::Success);

fn case(
    name: &'static str,
    spec: Value,
    sandboxes: &'static str,
    containers: &'static str,
    expected: &'static str,
) -> Case {
    Case { name, spec, sandboxes, containers, more: More::default(), expected }
}

impl Case {
    fn more(mut self, more: More) -> Self {
        self.more = more;
        self
    }
}

fn check(cases: &[Case]) {
    for case in cases {
        assert_eq!(show(&run(case)), case.expected, "{}", case.name);
    }
}

#[test]
fn starting() {
    check(&[
        case("nothing there", spec("Always"), "", "", "sandbox 0"),
        case("a sandbox failed a moment ago", spec("Always"), "", "", "wake 4s")
            .more(More { sandbox_retry: Some(4), ..More::default() }),
        case("a sandbox failed long ago", spec("Always"), "", "", "sandbox 0")
            .more(More { sandbox_retry: Some(-1), ..More::default() }),
        case("the sandbox is being made", spec("Always"), "", "", "")
            .more(More { starting: true, ..More::default() }),
        case("sandbox ready", spec("Always"), "s0:ready", "", "start a#0; start b#0"),
        case("containers are being started", spec("Always"), "s0:ready", "", "")
            .more(More { starting: true, ..More::default() }),
        case("one of two runs", spec("Always"), "s0:ready", "a#0:run@s0", "start b#0"),
        case("both run", spec("Always"), "s0:ready", "a#0:run@s0 b#0:run@s0", ""),
        case("made but not started", spec("Always"), "s0:ready", "a#3:new@s0 b#0:run@s0", "start a#3"),
        case(
            "a start failed and waits",
            spec("Always"),
            "s0:ready",
            "b#0:run@s0",
            "a: CreateContainerConfigError; wake 7s",
        )
        .more(More { errors: &[("a", "CreateContainerConfigError", 7)], ..More::default() }),
        case(
            "a start failed and is due",
            spec("Always"),
            "s0:ready",
            "b#0:run@s0",
            "start a#0; a: ErrImagePull",
        )
        .more(More { errors: &[("a", "ErrImagePull", 0)], ..More::default() }),
        case(
            "an earlier error of a running container",
            spec("Always"),
            "s0:ready",
            "a#0:run@s0 b#0:run@s0",
            "",
        )
        .more(More { errors: &[("a", "ErrImagePull", 0)], ..More::default() }),
        case("two ready sandboxes", spec("Always"), "s0:ready s1:ready", "a#0:run@s1 b#0:run@s1", "stop s0"),
    ]);
}

#[test]
fn restarting() {
    check(&[
        case(
            "the first restart is immediate",
            spec("Always"),
            "s0:ready",
            "a#0:exit=1,0@s0 b#0:run@s0",
            "restart a#1",
        ),
        case("success restarts too", spec("Always"), "s0:ready", "a#0:exit=0,0@s0 b#0:run@s0", "restart a#1"),
        case(
            "in back-off",
            spec("Always"),
            "s0:ready",
            "a#1:exit=1,3@s0 b#0:run@s0",
            "a: CrashLoopBackOff; wake 7s",
        )
        .more(More { crashes: &[("a", 1)], ..More::default() }),
        case(
            "its restart is under way: no back-off yet",
            spec("Always"),
            "s0:ready",
            "a#0:exit=1,5@s0 b#0:run@s0",
            "",
        )
        .more(More { crashes: &[("a", 1)], starting: true, ..More::default() }),
        case(
            "in back-off while another one starts",
            spec("Always"),
            "s0:ready",
            "a#1:exit=1,3@s0",
            "a: CrashLoopBackOff; wake 7s",
        )
        .more(More { crashes: &[("a", 1)], starting: true, ..More::default() }),
        case("back-off over", spec("Always"), "s0:ready", "a#1:exit=1,10@s0 b#0:run@s0", "restart a#2")
            .more(More { crashes: &[("a", 1)], ..More::default() }),
        case(
            "a long back-off",
            spec("Always"),
            "s0:ready",
            "a#5:exit=1,3@s0 b#0:run@s0",
            "a: CrashLoopBackOff; wake 77s",
        )
        .more(More { crashes: &[("a", 4)], ..More::default() }),
        case("could not be started", spec("Always"), "s0:ready", "a#0:failed@s0 b#0:run@s0", "restart a#1"),
        case(
            "could not be started, said so",
            spec("Always"),
            "s0:ready",
            "a#0:failed@s0 b#0:run@s0",
            "restart a#1; a: RunContainerError",
        )
        .more(More { errors: &[("a", "RunContainerError", 0)], ..More::default() }),
        case(
            "on failure: failed",
            spec("OnFailure"),
            "s0:ready",
            "a#0:exit=1,0@s0 b#0:run@s0",
            "restart a#1",
        ),
        case("on failure: succeeded", spec("OnFailure"), "s0:ready", "a#0:exit=0,0@s0 b#0:run@s0", ""),
        case("never", spec("Never"), "s0:ready", "a#0:exit=1,0@s0 b#0:run@s0", ""),
        case("never, the other not started", spec("Never"), "s0:ready", "a#0:exit=1,0@s0", "start b#0"),
        case(
            "two die at once",
            spec("Always"),
            "s0:ready",
            "a#0:exit=1,0@s0 b#2:exit=1,0@s0",
            "restart a#1; restart b#3",
        ),
        case(
            "the container's rules overrule the pod's policy",
            json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "img", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}),
            "s0:ready",
            "a#0:exit=42,0@s0",
            "restart a#1",
        ),
        case(
            "rules that do not fit",
            json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "img", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}),
            "s0:ready",
            "a#0:exit=1,0@s0",
            "stop s0",
        ),
    ]);
}

#[test]
fn probes_and_changes() {
    let liveness = |grace: Value| one(json!({"livenessProbe": {"terminationGracePeriodSeconds": grace}}));
    let probe = |p: Probes| -> &'static [(&'static str, Probes)] { Box::leak(Box::new([("a#0", p)])) };
    check(&[
        case("liveness failed", liveness(json!(null)), "s0:ready", "a#0:run@s0", "kill a#0 30s").more(More {
            probes: probe(Probes { liveness: FAILED, ..Probes::default() }),
            ..More::default()
        }),
        case("the probe's own grace", liveness(json!(3)), "s0:ready", "a#0:run@s0", "kill a#0 3s").more(
            More { probes: probe(Probes { liveness: FAILED, ..Probes::default() }), ..More::default() },
        ),
        case("being killed already", liveness(json!(3)), "s0:ready", "a#0:run@s0", "").more(More {
            probes: probe(Probes { liveness: FAILED, ..Probes::default() }),
            ending: &["a#0"],
            ..More::default()
        }),
        case("startup failed", one(json!({"startupProbe": {}})), "s0:ready", "a#0:run@s0", "kill a#0 30s")
            .more(More { probes: probe(Probes { startup: FAILED, ..Probes::default() }), ..More::default() }),
        case(
            "unready is no reason to kill",
            one(json!({"readinessProbe": {}})),
            "s0:ready",
            "a#0:run@s0",
            "",
        )
        .more(More { probes: probe(Probes { readiness: FAILED, ..Probes::default() }), ..More::default() }),
        case("the image changed", one(json!({"image": "new"})), "s0:ready", "a#0:run@s0", "kill a#0 30s"),
    ]);
    let killed = run(&case("", one(json!({"image": "new"})), "s0:ready", "a#0:run@s0", ""));
    let Action::Kill { message, .. } = &killed.actions[0] else { panic!("{killed:?}") };
    assert_eq!(message, "Container a definition changed, will be restarted");
}

#[test]
fn sandbox_changes() {
    check(&[
        case(
            "the sandbox died",
            spec("Always"),
            "s0:dead",
            "a#0:run@s0 b#0:run@s0",
            "kill a#0 30s; kill b#0 30s",
        ),
        case(
            "and its containers are gone",
            spec("Always"),
            "s0:dead",
            "a#0:exit=137,0@s0 b#0:exit=137,0@s0",
            "sandbox 1",
        ),
        case("one of them is being killed", spec("Always"), "s0:dead", "a#0:run@s0 b#0:exit=137,0@s0", "")
            .more(More { ending: &["a#0"], ..More::default() }),
        case(
            "a new one is ready",
            spec("Always"),
            "s0:dead s1:ready",
            "a#0:exit=137,0@s0 b#0:exit=137,0@s0",
            "restart a#1; restart b#1",
        ),
        case("never restart, all over", spec("Never"), "s0:dead", "a#0:exit=0,9@s0 b#0:exit=1,9@s0", "ended"),
        case(
            "on failure, one succeeded",
            spec("OnFailure"),
            "s0:dead s1:ready",
            "a#0:exit=0,9@s0 b#0:exit=137,0@s0",
            "restart b#1",
        ),
        case(
            "a container of an old sandbox still runs",
            spec("Always"),
            "s0:dead s1:ready",
            "a#0:run@s0 b#0:run@s1",
            "kill a#0 30s",
        ),
    ]);
}

#[test]
fn init_containers() {
    let two = json!([{"name": "i", "image": "img"}, {"name": "j", "image": "img"}]);
    let sidecar = json!([{"name": "s", "image": "img", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i", "image": "img"}]);
    let started: &'static [(&'static str, Probes)] =
        Box::leak(Box::new([("s#0", Probes { startup: OK, ..Probes::default() })]));
    check(&[
        case(
            "the first one",
            with_init("Always", two.clone()),
            "s0:ready",
            "",
            "start i#0; a: PodInitializing; j: PodInitializing",
        ),
        case(
            "it runs",
            with_init("Always", two.clone()),
            "s0:ready",
            "i#0:run@s0",
            "a: PodInitializing; j: PodInitializing",
        ),
        case(
            "the second one",
            with_init("Always", two.clone()),
            "s0:ready",
            "i#0:exit=0,1@s0",
            "start j#0; a: PodInitializing",
        ),
        case(
            "all done",
            with_init("Always", two.clone()),
            "s0:ready",
            "i#0:exit=0,2@s0 j#0:exit=0,1@s0",
            "start a#0",
        ),
        case("long done", with_init("Always", two.clone()), "s0:ready", "a#0:run@s0", ""),
        case(
            "failed, again",
            with_init("Always", two.clone()),
            "s0:ready",
            "i#0:exit=1,0@s0",
            "restart i#1; a: PodInitializing; j: PodInitializing",
        ),
        case(
            "failed twice",
            with_init("OnFailure", two.clone()),
            "s0:ready",
            "i#1:exit=1,3@s0",
            "a: PodInitializing; i: CrashLoopBackOff; j: PodInitializing; wake 7s",
        )
        .more(More { crashes: &[("i", 1)], ..More::default() }),
        case("failed for good", with_init("Never", two.clone()), "s0:ready", "i#0:exit=1,0@s0", "stop s0"),
        case(
            "again in a new sandbox",
            with_init("Always", two.clone()),
            "s0:dead s1:ready",
            "i#0:exit=0,9@s0 j#0:exit=0,9@s0 a#0:exit=137,0@s0",
            "restart i#1; a: PodInitializing; j: PodInitializing",
        ),
        case(
            "a sidecar first",
            with_init("Always", sidecar.clone()),
            "s0:ready",
            "",
            "start s#0; a: PodInitializing; i: PodInitializing",
        ),
        case(
            "it runs but has not started",
            with_init("Always", sidecar.clone()),
            "s0:ready",
            "s#0:run@s0",
            "a: PodInitializing; i: PodInitializing",
        ),
        case(
            "it has started",
            with_init("Always", sidecar.clone()),
            "s0:ready",
            "s#0:run@s0",
            "start i#0; a: PodInitializing",
        )
        .more(More { probes: started, ..More::default() }),
        case(
            "it died beside the pod's containers",
            with_init("Always", sidecar.clone()),
            "s0:ready",
            "s#0:exit=1,0@s0 i#0:exit=0,9@s0 a#0:run@s0",
            "restart s#1",
        ),
        case(
            "a finished pod takes its sidecar along",
            with_init("Never", sidecar.clone()),
            "s0:ready",
            "s#0:run@s0 i#0:exit=0,9@s0 a#0:exit=0,0@s0",
            "kill s#0 30s",
        ),
    ]);
}

#[test]
fn stopping() {
    let stop = |seconds| More { stop: Some(seconds), ..More::default() };
    let sidecar = json!([{"name": "s", "image": "img", "restartPolicy": "Always"}]);
    check(&[
        case("never started", spec("Always"), "", "", "ended").more(stop(30)),
        case("a start is under way", spec("Always"), "", "", "").more(More { starting: true, ..stop(30) }),
        case(
            "containers run",
            spec("Always"),
            "s0:ready",
            "a#0:run@s0 b#0:run@s0",
            "kill a#0 5s; kill b#0 5s",
        )
        .more(stop(5)),
        case("they are being killed", spec("Always"), "s0:ready", "a#0:run@s0 b#0:run@s0", "")
            .more(More { ending: &["a#0", "b#0"], ..stop(5) }),
        case("one is gone", spec("Always"), "s0:ready", "a#0:exit=143,0@s0 b#0:run@s0", "kill b#0 5s")
            .more(stop(5)),
        case("all are gone", spec("Always"), "s0:ready", "a#0:exit=143,0@s0 b#0:exit=0,0@s0", "stop s0")
            .more(stop(5)),
        case("the sandbox is being stopped", spec("Always"), "s0:ready", "a#0:exit=143,0@s0", "")
            .more(More { ending: &["s0"], ..stop(5) }),
        case("over", spec("Always"), "s0:dead", "a#0:exit=143,0@s0 b#0:exit=0,0@s0", "ended").more(stop(5)),
        case(
            "sidecars go last",
            with_init("Always", sidecar.clone()),
            "s0:ready",
            "s#0:run@s0 a#0:run@s0",
            "kill a#0 5s",
        )
        .more(stop(5)),
        case(
            "sidecars go",
            with_init("Always", sidecar),
            "s0:ready",
            "s#0:run@s0 a#0:exit=0,0@s0",
            "kill s#0 5s",
        )
        .more(stop(5)),
        case(
            "all finished by themselves",
            spec("OnFailure"),
            "s0:ready",
            "a#0:exit=0,9@s0 b#0:exit=0,0@s0",
            "stop s0",
        ),
    ]);
}

#[test]
fn pruning() {
    check(&[
        case(
            "two dead ones are kept",
            spec("Always"),
            "s0:ready",
            "a#0:exit=1,99@s0 a#1:exit=1,60@s0 a#2:exit=1,30@s0 a#3:run@s0 b#0:run@s0",
            "remove a#0",
        ),
        case(
            "sandboxes that nothing refers to go",
            spec("Always"),
            "s0:dead s1:dead s2:ready",
            "a#1:exit=1,9@s1 a#2:run@s2 b#2:run@s2",
            "remove s0",
        ),
    ]);
}

#[test]
fn what_was_asked_for_is_not_asked_again() {
    // Whatever the state, a second look while everything is under way orders nothing.
    for (sandboxes_text, containers_text) in [
        ("", ""),
        ("s0:ready", "a#0:run@s0"),
        ("s0:dead", "a#0:run@s0 b#0:run@s0"),
        ("s0:ready s1:ready", ""),
    ] {
        let first = run(&case("", spec("Always"), sandboxes_text, containers_text, ""));
        let ids = first.actions.iter().filter_map(|a| match a {
            Action::Kill { id, .. } | Action::StopSandbox { id } => Some(id.clone()),
            _ => None,
        });
        let ending: &'static [&'static str] = Box::leak(
            ids.map(|id| &*Box::leak(id.into_boxed_str())).collect::<Vec<&'static str>>().into_boxed_slice(),
        );
        let more = More { starting: true, ending, ..More::default() };
        let second = run(&case("", spec("Always"), sandboxes_text, containers_text, "").more(more));
        assert_eq!(second.actions, [], "{sandboxes_text} {containers_text}");
    }
}

#[test]
fn crash_loops_say_how_long() {
    let more = More { crashes: &[("a", 2)], ..More::default() };
    let plan = run(&case("", spec("Always"), "s0:ready", "a#1:exit=1,3@s0 b#0:run@s0", "").more(more));
    assert_eq!(plan.waiting["a"].message, "back-off 20s restarting failed container=a pod=p_n(u)");
}
