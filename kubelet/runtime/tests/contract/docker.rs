//! The contract on a real Docker daemon, and what only real processes can show.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use loadline_runtime::docker::cgroup_directories;
use loadline_runtime::tar::Archive;
use loadline_runtime::{
    ContainerConfig, ContainerState, Docker, DockerConfig, LogOptions, Mount, Output, RegistryAuth,
    Resources, Runtime, RuntimeError, RuntimeEvent, Security, SharedRuntime,
};
use tokio::io::AsyncWriteExt;

use crate::cases::{self, MISSING_IMAGE};
use crate::registry::{PASSWORD, Registry, USER};
use crate::support::{Events, Subject, eventually, limits, run_all, text, unique};

const SOCKET: &str = "/var/run/docker.sock";
const BUSYBOX: &str = "/bin/busybox";

/// Removes everything of its cluster when dropped, also after a panic. The command line works in any state.
struct Cleanup {
    cluster: String,
    image: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
        let filter = format!("label=io.loadline.cluster={}", self.cluster);
        if let Ok(listed) = docker(&["ps", "-aq", "--filter", &filter]) {
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let ids: Vec<&str> = listed.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = docker(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
            }
        }
        let _ = docker(&["rmi", "-f", &self.image]);
    }
}

async fn connect(cluster: &str, node: &str) -> Docker {
    Docker::connect(DockerConfig::new(cluster, node)).await.expect("connect to docker")
}

/// `None`, with a word about it, where Docker or the test image's busybox is missing.
async fn subject() -> Option<(Subject, Cleanup)> {
    for needed in [SOCKET, BUSYBOX] {
        if !std::path::Path::new(needed).exists() {
            println!("skipped: {needed} is missing");
            return None;
        }
    }
    let cluster = unique("contract");
    let image = format!("loadline-test/{cluster}:1");
    let runtime = connect(&cluster, "node").await;
    let cleanup = Cleanup { cluster: cluster.clone(), image: image.clone() };
    let mut archive = Archive::new();
    for directory in ["bin", "tmp", "etc", "proc", "dev", "sys"] {
        archive.directory(directory, 0o755).unwrap();
    }
    archive.file("bin/busybox", 0o755, &std::fs::read(BUSYBOX).unwrap()).unwrap();
    for applet in ["sh", "cat", "sleep", "echo", "ls", "stty", "id", "hostname", "env", "true", "yes", "head"]
    {
        archive.symlink(&format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n").unwrap();
    let changes = vec!["ENV PATH=/bin".to_owned(), "CMD [\"/bin/echo\", \"from-image\"]".to_owned()];
    runtime.import_image(&image, archive.finish(), changes).await.expect("import the test image");
    let subject = Subject { runtime: Arc::new(runtime), image, real: true, cluster };
    Some((subject, cleanup))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_keeps_the_contract() {
    let Some((subject, _cleanup)) = subject().await else { return };
    cases::suite(&subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_runs_real_processes() {
    let Some((subject, _cleanup)) = subject().await else { return };
    let subject = &subject;
    run_all(vec![
        ("adoption", Box::pin(adoption(subject))),
        ("killed from outside", Box::pin(killed_from_outside(subject))),
        ("limits in the cgroup", Box::pin(limits_in_the_cgroup(subject))),
        ("namespaces", Box::pin(namespaces(subject))),
        ("command, args, environment", Box::pin(command_args_environment(subject))),
        ("security", Box::pin(security(subject))),
        ("mounts", Box::pin(mounts(subject))),
        ("bad specs", Box::pin(bad_specs(subject))),
        ("exec streams", Box::pin(exec_streams(subject))),
        ("exec timeout", Box::pin(exec_timeout(subject))),
        ("log times", Box::pin(log_times(subject))),
        ("terminal", Box::pin(terminal(subject))),
        ("terminal bytes", Box::pin(terminal_bytes(subject))),
        ("daemon comes back", Box::pin(daemon_comes_back(subject))),
        ("pull with credentials", Box::pin(pull_with_credentials(subject))),
        ("pull fails", Box::pin(pull_fails(subject))),
        ("foreign containers", Box::pin(foreign_containers(subject))),
        ("pod cgroup", Box::pin(pod_cgroup(subject))),
    ])
    .await;
}

#[tokio::test]
async fn no_daemon_is_unavailable() {
    let config = DockerConfig { socket: "/nonexistent/docker.sock".into(), ..DockerConfig::new("c", "n") };
    let error = Docker::connect(config).await.err().expect("no daemon there");
    assert!(matches!(error, RuntimeError::Unavailable(_)), "{error}");
}

async fn adoption(subject: &Subject) {
    let pod = subject.pod("adopted").await;
    let id = subject.server(&pod).await;
    let seen = subject.until(&id, |container| container.state == ContainerState::Running).await;
    let again = connect(&subject.cluster, "node").await;
    assert!(again.containers(None).await.unwrap().contains(&seen));
    assert!(again.sandboxes().await.unwrap().contains(&pod));
    // The new object reads its statistics without having seen it start.
    let stats = again.stats().await.unwrap();
    assert!(stats.iter().any(|(one, stats)| *one == id && stats.cpu_usage_nanos > Some(0)), "{stats:?}");
    for (cluster, node) in [("another-cluster", "node"), (subject.cluster.as_str(), "another-node")] {
        let stranger = connect(cluster, node).await;
        assert_eq!(stranger.containers(None).await.unwrap(), []);
        assert_eq!(stranger.sandboxes().await.unwrap(), []);
        assert_eq!(stranger.stats().await.unwrap(), []);
        stranger.stop_container(&id, Duration::ZERO).await.unwrap();
        stranger.remove_container(&id).await.unwrap();
        stranger.remove_sandbox(&pod.id).await.unwrap();
        let error = stranger.exec_sync(&id, &["true".into()], Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, RuntimeError::NotFound(_)), "{error}");
    }
    assert_eq!(subject.find(&id).await, Some(seen), "strangers changed nothing");
}

async fn killed_from_outside(subject: &Subject) {
    let pod = subject.pod("killed").await;
    let id = subject.server(&pod).await;
    let running = subject.until(&id, |container| container.pid.is_some()).await;
    let events = Events::of(&*subject.runtime);
    let changed = RuntimeEvent::Changed { sandbox_id: pod.id.clone(), pod_uid: pod.uid.clone() };
    let began = Instant::now();
    let pid = nix::unistd::Pid::from_raw(running.pid.unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let latency = events.after(began, &changed).await;
    println!("    event {} ms after kill -9", latency.as_millis());
    assert!(latency < Duration::from_millis(500), "{latency:?}");
    let ended = subject.find(&id).await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, 137));
}

async fn limits_in_the_cgroup(subject: &Subject) {
    let pod = subject.pod("limits").await;
    let resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(25_000),
        memory_limit: Some(32 << 20),
        oom_score_adj: 900,
        pids_limit: Some(50),
    };
    let id = subject.start(&pod, &limits(resources, subject.container("while :; do :; done", &[]))).await;
    let pid = subject.until(&id, |container| container.pid.is_some()).await.pid.unwrap();
    let directories = cgroup_directories(pid).unwrap();
    let read = |name: &str| {
        let texts = directories.iter().filter_map(|one| std::fs::read_to_string(one.join(name)).ok());
        texts.map(|text| text.trim().to_owned()).next()
    };
    let quota = read("cpu.cfs_quota_us").or_else(|| read("cpu.max"));
    assert!(quota.as_deref().is_some_and(|text| text.starts_with("25000")), "{quota:?} in {directories:?}");
    if let Some(shares) = read("cpu.shares") {
        assert_eq!(shares, "512");
    }
    let memory = read("memory.limit_in_bytes").or_else(|| read("memory.max"));
    assert_eq!(memory.as_deref(), Some("33554432"));
    assert_eq!(read("pids.max").as_deref(), Some("50"));
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "900");
    eventually(Duration::from_secs(5), async || {
        let all = subject.runtime.stats().await.unwrap();
        let stats = all.into_iter().find(|(one, _)| *one == id).map(|(_, stats)| stats);
        let throttled = stats.as_ref().is_some_and(|stats| stats.cfs_throttled_periods > Some(3));
        if throttled { Ok(()) } else { Err(format!("{stats:?}")) }
    })
    .await;
    subject.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
}

async fn namespaces(subject: &Subject) {
    let pod = subject.pod("names").await;
    let id = subject.server(&pod).await;
    let pid = subject.until(&id, |container| container.pid.is_some()).await.pid.unwrap();
    let pause = pod.netns.clone().unwrap();
    let own = |kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let theirs = |kind: &str| std::fs::read_link(pause.with_file_name(kind)).unwrap();
    for kind in ["net", "ipc"] {
        assert_eq!(own(kind), theirs(kind), "{kind} is shared");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(own(kind), theirs(kind), "{kind} is not");
    }
    assert_ne!(own("net"), std::fs::read_link("/proc/self/ns/net").unwrap());
    let sync = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (runtime, id) = (subject.runtime.clone(), id.clone());
        async move { runtime.exec_sync(&id, &words, Duration::from_secs(10)).await.unwrap() }
    };
    assert_eq!(sync(&["hostname"]).await.output, b"names\n");
    assert_eq!(sync(&["ls", "/sys/class/net"]).await.output, b"lo\n", "network none: only the loopback");

    let host = loadline_runtime::SandboxConfig { host_network: true, ..subject.pod_config("host") };
    let host = subject.runtime.run_sandbox(&host).await.unwrap();
    assert_eq!(host.netns, None);
    let id = subject.server(&host).await;
    let pid = subject.until(&id, |container| container.pid.is_some()).await.pid.unwrap();
    let net = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(net, std::fs::read_link("/proc/self/ns/net").unwrap());
}

async fn command_args_environment(subject: &Subject) {
    let pod = subject.pod("words").await;
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let cases = [
        (None, None, "from-image\n"),
        (words(&["/bin/echo"]), None, "\n"),
        (words(&["/bin/echo", "a"]), words(&["b c"]), "a b c\n"),
        (None, words(&["/bin/echo", "args"]), "args\n"),
        (words(&["/bin/sh", "-c", "echo $GREETING; pwd"]), None, "hi = there\n/tmp\n"),
    ];
    for (attempt, (command, args, expected)) in cases.into_iter().enumerate() {
        let config = ContainerConfig {
            attempt: attempt as u32,
            command,
            args,
            env: vec![("GREETING".into(), "hi = there".into())],
            working_dir: Some("/tmp".into()),
            ..subject.container("", &[])
        };
        let id = subject.start(&pod, &config).await;
        subject.until(&id, |container| container.state == ContainerState::Exited).await;
        assert_eq!(subject.logs(&id, LogOptions::default()).await, expected, "case {attempt}");
    }
}

async fn security(subject: &Subject) {
    let pod = subject.pod("secure").await;
    // Two streams have no common order.
    let script =
        "exec 2>&1; id -u; id -g; id -G; cat /proc/self/status; echo x > /etc/file || echo read-only";
    let config = ContainerConfig {
        security: Security {
            run_as_user: Some(1234),
            run_as_group: Some(2345),
            supplemental_groups: vec![3456],
            read_only_root: true,
            no_new_privileges: true,
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            privileged: false,
        },
        ..subject.container(script, &[])
    };
    let id = subject.start(&pod, &config).await;
    subject.until(&id, |container| container.state == ContainerState::Exited).await;
    let log = subject.logs(&id, LogOptions::default()).await;
    for expected in ["1234\n2345\n2345 3456\n", "NoNewPrivs:\t1", "CapBnd:\t0000000000000400", "read-only"] {
        assert!(log.contains(expected), "{expected:?} in {log}");
    }
    let group_only = Security { run_as_group: Some(1), ..Security::default() };
    let config = ContainerConfig { attempt: 1, security: group_only, ..subject.container("true", &[]) };
    let error = subject.runtime.create_container(&pod, &config).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Invalid(_)), "{error}");
}

async fn mounts(subject: &Subject) {
    let pod = subject.pod("mounts").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hosts"), "from the host\n").unwrap();
    let mount = |host_path: std::path::PathBuf, container_path: &str, read_only| Mount {
        host_path,
        container_path: container_path.into(),
        read_only,
    };
    let config = ContainerConfig {
        mounts: vec![
            mount(dir.path().join("hosts"), "/etc/hosts", false),
            mount(dir.path().into(), "/rw:colon", false),
            mount(dir.path().into(), "/ro", true),
        ],
        ..subject.container("cat /etc/hosts; echo y > /rw:colon/y; echo n > /ro/n || echo refused", &[])
    };
    let id = subject.start(&pod, &config).await;
    subject.until(&id, |container| container.state == ContainerState::Exited).await;
    let log = subject.logs(&id, LogOptions::default()).await;
    assert!(log.contains("from the host") && log.contains("refused"), "{log}");
    assert_eq!(std::fs::read_to_string(dir.path().join("y")).unwrap(), "y\n");
    let bad = ContainerConfig {
        attempt: 1,
        mounts: vec![mount("/nonexistent/source".into(), "/x", false)],
        ..subject.container("true", &[])
    };
    let error = subject.runtime.create_container(&pod, &bad).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Invalid(_)), "{error}");
}

async fn bad_specs(subject: &Subject) {
    let pod = subject.pod("bad").await;
    let cases = [
        ContainerConfig { command: Some(vec!["/no/such/program".into()]), ..subject.container("", &[]) },
        ContainerConfig { command: Some(vec!["no-such-program".into()]), ..subject.container("", &[]) },
        ContainerConfig { command: Some(vec!["/etc/passwd".into()]), ..subject.container("", &[]) },
        ContainerConfig { command: Some(vec!["/tmp".into()]), ..subject.container("", &[]) },
    ];
    for (attempt, config) in cases.into_iter().enumerate() {
        let config = ContainerConfig { attempt: attempt as u32, ..config };
        let id = subject.runtime.create_container(&pod, &config).await.unwrap();
        let error = subject.runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Invalid(_)), "{:?}: {error:?}", config.command);
        let seen = subject.find(&id).await.unwrap();
        assert_eq!(seen.state, ContainerState::Exited, "{seen:?}");
        assert!(!seen.error.is_empty() && [126, 127].contains(&seen.exit_code), "{seen:?}");
    }
}

async fn exec_streams(subject: &Subject) {
    let pod = subject.pod("streams").await;
    let id = subject.server(&pod).await;
    let words = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned);
    // Standard input with an end, more than fits in any buffer, and an exit code.
    let mut session = subject.runtime.exec(&id, &words("cat; exit 42"), false, true).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
        // Held until the end: dropping it must not be what ends the process.
        stdin
    });
    let output: Vec<Output> = session.output.by_ref().try_collect().await.unwrap();
    let received: Vec<u8> = output
        .iter()
        .flat_map(|piece| match piece {
            Output::Stdout(bytes) => bytes.to_vec(),
            Output::Stderr(bytes) => panic!("stderr: {bytes:?}"),
        })
        .collect();
    assert_eq!((received.len(), received == sent), (sent.len(), true));
    assert_eq!(session.control.exit_code().await.unwrap(), 42);
    writer.await.unwrap();

    // Cut, not refused.
    let long = words("yes | head -c 50000; exit 3");
    let result = subject.runtime.exec_sync(&id, &long, Duration::from_secs(10)).await.unwrap();
    assert_eq!((result.exit_code, result.output.len()), (3, 10 * 1024));
    let missing = ["/no/such/probe".to_owned()];
    let result = subject.runtime.exec_sync(&id, &missing, Duration::from_secs(10)).await.unwrap();
    assert!([126, 127].contains(&result.exit_code), "{result:?}");
}

async fn exec_timeout(subject: &Subject) {
    let pod = subject.pod("hung").await;
    let id = subject.server(&pod).await;
    let began = Instant::now();
    let command = ["/bin/sleep", "777"].map(str::to_owned);
    let error = subject.runtime.exec_sync(&id, &command, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Timeout(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // And the hung command is gone.
    let list = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"].map(str::to_owned);
    eventually(Duration::from_secs(5), async || {
        let seen = subject.runtime.exec_sync(&id, &list, Duration::from_secs(5)).await.unwrap();
        let seen = String::from_utf8_lossy(&seen.output).into_owned();
        if seen.contains("777") { Err(seen) } else { Ok(()) }
    })
    .await;
    assert_eq!(subject.find(&id).await.unwrap().state, ContainerState::Running);
}

async fn log_times(subject: &Subject) {
    let pod = subject.pod("times").await;
    let id =
        subject.start(&pod, &subject.container("for i in 1 2 3; do echo $i; sleep 0.2; done", &[])).await;
    // Following yields each line as it is written, and ends with the container.
    let options = LogOptions { follow: true, timestamps: true, ..LogOptions::default() };
    let mut stream = subject.runtime.logs(&id, &options).await.unwrap();
    let mut times = Vec::new();
    while let Some(line) = stream.next().await {
        let line = text(&[line.unwrap()]);
        times.push(line.split_once(' ').unwrap().0.parse::<jiff::Timestamp>().unwrap());
    }
    assert_eq!(times.len(), 3, "{times:?}");
    let since = |since| LogOptions { since: Some(since), ..LogOptions::default() };
    assert_eq!(subject.logs(&id, since(times[1])).await, "2\n3\n", "to the nanosecond");
    let tail = LogOptions { tail: Some(2), ..LogOptions::default() };
    assert_eq!(subject.logs(&id, tail).await, "2\n3\n");
    let none = LogOptions { tail: Some(0), ..LogOptions::default() };
    assert_eq!(subject.logs(&id, none).await, "");
}

async fn terminal(subject: &Subject) {
    let pod = subject.pod("terminal").await;
    let config = ContainerConfig { tty: true, stdin: true, ..subject.container("sleep 1000", &[]) };
    let id = subject.start(&pod, &config).await;
    let command = ["/bin/sh".to_owned()];
    let mut session = subject.runtime.exec(&id, &command, true, true).await.unwrap();
    session.control.resize(123, 45).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    // The first byte of a piece looks like the head of a frame; in a terminal there are none.
    let script = b"stty size; printf '\\001\\002begin\\n'; read x; echo \"<$x>\"\n";
    stdin.write_all(script).await.unwrap();
    stdin.write_all(b"line\nexit 9\n").await.unwrap();
    let output: Vec<Output> =
        tokio::time::timeout(Duration::from_secs(10), session.output.by_ref().try_collect())
            .await
            .expect("the terminal ends")
            .unwrap();
    let seen = text(&output);
    for expected in ["45 123", "\u{1}\u{2}begin", "<line>"] {
        assert!(seen.contains(expected), "{expected:?} in {seen:?}");
    }
    assert_eq!(session.control.exit_code().await.unwrap(), 9);
}

/// Nothing in a terminal's bytes may be taken for the head of a frame.
async fn terminal_bytes(subject: &Subject) {
    let pod = subject.pod("bytes").await;
    let id = subject.server(&pod).await;
    let command = ["/bin/sh", "-c", "printf '\\001\\000\\000\\000\\377\\377\\377\\377x'"].map(str::to_owned);
    let mut session = subject.runtime.exec(&id, &command, true, false).await.unwrap();
    let output: Vec<Output> = session.output.by_ref().try_collect().await.unwrap();
    let bytes: Vec<u8> = output
        .iter()
        .flat_map(|piece| match piece {
            Output::Stdout(bytes) | Output::Stderr(bytes) => bytes.to_vec(),
        })
        .collect();
    assert_eq!(bytes, b"\x01\0\0\0\xff\xff\xff\xffx");
}

/// Carries the daemon's socket under another name, so that it can be away without disturbing others.
async fn carry(path: std::path::PathBuf) {
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut far = tokio::net::UnixStream::connect(SOCKET).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

async fn daemon_comes_back(subject: &Subject) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let link = tokio::spawn(carry(socket.clone()));
    let config = DockerConfig {
        socket: socket.to_str().unwrap().to_owned(),
        ..DockerConfig::new(&subject.cluster, "node")
    };
    let runtime = eventually(Duration::from_secs(5), async || {
        Docker::connect(config.clone()).await.map_err(|error| error.to_string())
    })
    .await;
    let pod = subject.pod("away").await;
    let id = subject.server(&pod).await;
    let state = async |runtime: &Docker| {
        let all = runtime.containers(None).await.map_err(|error| error.to_string())?;
        let found = all.into_iter().find(|one| one.id == id).map(|one| one.state);
        found.ok_or_else(|| "not listed".to_owned())
    };
    assert_eq!(state(&runtime).await, Ok(ContainerState::Running));
    let events = Events::of(&runtime);
    let began = Instant::now();
    link.abort();
    assert!(link.await.unwrap_err().is_cancelled());
    let error = runtime.containers(None).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Unavailable(_)), "{error}");
    // It ends while nobody looks; the files of the cgroup still tell of the others.
    subject.runtime.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    let link = tokio::spawn(carry(socket));
    events.after(began, &RuntimeEvent::Lost).await;
    assert_eq!(state(&runtime).await, Ok(ContainerState::Exited));
    // And events flow again.
    let began = Instant::now();
    let next = subject.server(&pod_again(subject, &pod).await).await;
    let changed = RuntimeEvent::Changed {
        sandbox_id: subject.find(&next).await.unwrap().sandbox_id,
        pod_uid: pod.uid.clone(),
    };
    events.after(began, &changed).await;
    link.abort();
}

/// The same pod's next sandbox.
async fn pod_again(subject: &Subject, pod: &loadline_runtime::Sandbox) -> loadline_runtime::Sandbox {
    let config = loadline_runtime::SandboxConfig {
        uid: pod.uid.clone(),
        attempt: pod.attempt + 1,
        ..subject.pod_config(&pod.name)
    };
    subject.runtime.run_sandbox(&config).await.unwrap()
}

async fn pull_fails(subject: &Subject) {
    let error = subject.runtime.pull(MISSING_IMAGE, None).await.unwrap_err();
    let RuntimeError::Pull { image, reason } = &error else { panic!("{error:?}") };
    assert_eq!(image, MISSING_IMAGE);
    assert!(reason.contains("refused"), "the words of whoever refused: {reason}");
}

async fn pull_with_credentials(subject: &Subject) {
    let registry = Registry::start().await;
    let reference = format!("{}:1", registry.repository);
    let auth = RegistryAuth { username: USER.into(), password: PASSWORD.into() };
    let pulled = subject.runtime.pull(&reference, Some(&auth)).await;
    let by_digest = format!("{}@{}", registry.repository, registry.digest);
    let again = subject.runtime.pull(&by_digest, Some(&auth)).await;
    let unknown = subject.runtime.pull(&format!("{}:2", registry.repository), Some(&auth)).await;
    let refused = subject.runtime.pull(&format!("{}:3", registry.repository), None).await;
    let _ = Command::new("docker").args(["rmi", &reference, &by_digest]).output();
    let pulled = pulled.unwrap();
    assert_eq!((pulled.tags, pulled.digests), (vec![reference], vec![by_digest]));
    assert_eq!(again.unwrap().id, pulled.id);
    for (error, words) in [(unknown, "manifest unknown"), (refused, "no basic auth credentials")] {
        let error = error.unwrap_err();
        let fits = matches!(&error, RuntimeError::Pull { reason, .. } if reason.contains(words));
        assert!(fits, "{words:?} in {error}");
    }
}

/// Somebody else's container with the name that we would use, and one that is simply there.
async fn foreign_containers(subject: &Subject) {
    let config = subject.pod_config("foreign");
    let name = format!("k8s_POD_foreign_default_{}_0_{}.node", config.uid, subject.cluster);
    let made =
        Command::new("docker").args(["create", "--name", &name, &subject.image, "true"]).output().unwrap();
    let foreign = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let outcome = subject.runtime.run_sandbox(&config).await;
    let runtime: &SharedRuntime = &subject.runtime;
    runtime.remove_container(&foreign).await.unwrap();
    runtime.remove_container(&name).await.unwrap();
    let listed = runtime.containers(None).await.unwrap();
    let removed = Command::new("docker").args(["rm", &foreign]).output().unwrap();
    assert!(removed.status.success(), "it was still there");
    assert!(matches!(outcome, Err(RuntimeError::Failed { .. })), "{outcome:?}");
    assert!(listed.iter().all(|one| one.id != foreign));
}

async fn pod_cgroup(subject: &Subject) {
    let config = subject.pod_config("cgroup");
    let parent = format!("/loadline-test-{}/pod{}", subject.cluster, config.uid);
    let config = loadline_runtime::SandboxConfig { cgroup_parent: Some(parent.clone()), ..config };
    let pod = subject.runtime.run_sandbox(&config).await.unwrap();
    let id = subject.server(&pod).await;
    let pid = subject.until(&id, |container| container.pid.is_some()).await.pid.unwrap();
    let directories = cgroup_directories(pid).unwrap();
    let within = directories.iter().all(|one| one.to_string_lossy().contains(&parent[1..]));
    subject.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(within, "{directories:?}");
    for directory in &directories {
        let pod_level = directory.parent().unwrap();
        let left = pod_level.exists();
        // The level above is the test's own.
        let _ = std::fs::remove_dir(pod_level.parent().unwrap());
        assert!(!left, "{pod_level:?} is left");
    }
}

/// CPU time of this process so far, in seconds (utime and stime of proc(5), in hundredths).
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test: cargo test --release -p loadline-runtime -- --ignored --nocapture cost"]
async fn cost_of_fifty_pods() {
    let Some((subject, _cleanup)) = subject().await else { return };
    const PODS: usize = 50;
    let began = Instant::now();
    for n in 0..PODS {
        let pod = subject.pod(&format!("cost-{n}")).await;
        subject.start(&pod, &subject.container("sleep 1000", &[])).await;
    }
    println!("{} ms per pod to start, one after another", began.elapsed().as_millis() / PODS as u128);
    eventually(Duration::from_secs(20), async || {
        let read = subject.runtime.stats().await.unwrap().len();
        if read == PODS { Ok(()) } else { Err(read.to_string()) }
    })
    .await;
    const ROUNDS: usize = 200;
    let (began, cpu) = (Instant::now(), own_cpu());
    for _ in 0..ROUNDS {
        subject.runtime.stats().await.unwrap();
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), own_cpu() - cpu);
    let per = |seconds: f64| seconds * 1000.0 / ROUNDS as f64;
    println!("stats of {PODS} pods: {:.2} ms, {:.2} ms of CPU", per(wall), per(cpu));
    let began = Instant::now();
    for _ in 0..20 {
        subject.runtime.containers(None).await.unwrap();
    }
    println!("list of {PODS} pods' containers: {:.1} ms", began.elapsed().as_secs_f64() * 50.0);
    let began = Instant::now();
    let id = &subject.runtime.containers(None).await.unwrap()[0].id;
    let command = ["/bin/true".to_owned()];
    for _ in 0..20 {
        subject.runtime.exec_sync(id, &command, Duration::from_secs(10)).await.unwrap();
    }
    println!("exec probe: {:.1} ms", began.elapsed().as_secs_f64() * 50.0);
}
