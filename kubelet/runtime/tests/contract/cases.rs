//! What every runtime must do, whatever it is made of.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use loadline_runtime::{
    ContainerConfig, ContainerState, LogOptions, Output, Resources, RuntimeError, RuntimeEvent, SandboxConfig,
};

use crate::support::{Events, Subject, eventually, limits, run_all, text};

pub(crate) async fn suite(subject: &Subject) {
    run_all(vec![
        ("sandbox life", Box::pin(sandbox_life(subject))),
        ("container life", Box::pin(container_life(subject))),
        ("stop asks first", Box::pin(stop_asks_first(subject))),
        ("stop kills after grace", Box::pin(stop_kills_after_grace(subject))),
        ("exit codes", Box::pin(exit_codes(subject))),
        ("out of memory", Box::pin(out_of_memory(subject))),
        ("what is gone", Box::pin(what_is_gone(subject))),
        ("images", Box::pin(images(subject))),
        ("exec", Box::pin(exec(subject))),
        ("logs", Box::pin(logs(subject))),
        ("events", Box::pin(events(subject))),
        ("stats", Box::pin(stats(subject))),
        ("stop sandbox", Box::pin(stop_sandbox(subject))),
        ("attach", Box::pin(attach(subject))),
    ])
    .await;
}

async fn sandbox_life(subject: &Subject) {
    let runtime = &subject.runtime;
    let config = subject.pod_config("sandbox-life");
    let made = runtime.run_sandbox(&config).await.unwrap();
    assert!(made.ready);
    assert_eq!(
        (&made.uid, &made.labels, &made.annotations),
        (&config.uid, &config.labels, &config.annotations)
    );
    assert_eq!(made.netns.is_some(), subject.real);
    // Again is the same one; the next attempt is another.
    assert_eq!(runtime.run_sandbox(&config).await.unwrap(), made);
    let next = SandboxConfig { attempt: 1, ..config.clone() };
    let next = runtime.run_sandbox(&next).await.unwrap();
    assert_ne!(next.id, made.id);
    let listed = runtime.sandboxes().await.unwrap();
    assert_eq!(listed.iter().find(|one| one.id == made.id), Some(&made));

    let began = Instant::now();
    runtime.stop_sandbox(&made.id).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "the pause program ends at once: {:?}",
        began.elapsed()
    );
    runtime.stop_sandbox(&made.id).await.unwrap();
    eventually(Duration::from_secs(10), async || {
        let listed = runtime.sandboxes().await.unwrap();
        let stopped = listed.iter().any(|one| one.id == made.id && !one.ready && one.netns.is_none());
        stopped.then_some(()).ok_or_else(|| format!("{listed:?}"))
    })
    .await;
    // An ended sandbox is not brought back: its network is gone.
    assert!(!runtime.run_sandbox(&config).await.unwrap().ready);
    for id in [&made.id, &next.id, &made.id] {
        runtime.stop_sandbox(id).await.unwrap();
        runtime.remove_sandbox(id).await.unwrap();
    }
    let listed = runtime.sandboxes().await.unwrap();
    assert!(listed.iter().all(|one| one.uid != config.uid), "{listed:?}");
}

async fn container_life(subject: &Subject) {
    let runtime = &subject.runtime;
    let (pod, other) = (subject.pod("life").await, subject.pod("other").await);
    let config = subject.container("sleep 1000", &[]);
    let id = runtime.create_container(&pod, &config).await.unwrap();
    assert_eq!(runtime.create_container(&pod, &config).await.unwrap(), id, "creating again finds it");
    let created = subject.find(&id).await.unwrap();
    assert_eq!((created.state, created.started_at, created.pid), (ContainerState::Created, None, None));
    assert_eq!((&created.sandbox_id, created.name.as_str()), (&pod.id, "app"));
    assert_eq!((&created.labels, &created.annotations), (&config.labels, &config.annotations));
    assert_eq!(created.image, config.image);
    assert!(!created.image_id.is_empty());

    runtime.start_container(&id).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let running = subject.until(&id, |container| container.state == ContainerState::Running).await;
    assert!(running.started_at >= Some(created.created_at));
    assert_eq!((running.pid.is_some(), running.finished_at), (subject.real, None));
    let of_pod = runtime.containers(Some(&pod.uid)).await.unwrap();
    assert_eq!(of_pod.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    assert_eq!(runtime.containers(Some(&other.uid)).await.unwrap(), []);

    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
    assert!(ended.finished_at >= ended.started_at && ended.finished_at.is_some());
    assert_eq!(ended.exit_code, 137);
    // One life only: starting again changes nothing, the next attempt is another container.
    runtime.start_container(&id).await.unwrap();
    assert_eq!(subject.find(&id).await.unwrap().state, ContainerState::Exited);
    let second = ContainerConfig { attempt: 1, ..config };
    let second = runtime.create_container(&pod, &second).await.unwrap();
    assert_ne!(second, id);
    runtime.remove_container(&id).await.unwrap();
    runtime.remove_container(&id).await.unwrap();
    assert_eq!(subject.find(&id).await, None);
    assert_eq!(subject.find(&second).await.unwrap().attempt, 1);
}

async fn stop_asks_first(subject: &Subject) {
    let pod = subject.pod("stop").await;
    let id = subject.server(&pod).await;
    let began = Instant::now();
    subject.runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
    assert_eq!(ended.exit_code, 7);
    subject.runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
}

async fn stop_kills_after_grace(subject: &Subject) {
    let pod = subject.pod("stubborn").await;
    let config = subject.container("trap '' TERM; while :; do sleep 1000; done", &[("ignore-term", "true")]);
    let id = subject.start(&pod, &config).await;
    // tokio's clock, which a simulator may run on.
    let began = tokio::time::Instant::now();
    subject.runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
    assert_eq!(ended.exit_code, 137);
}

async fn exit_codes(subject: &Subject) {
    let pod = subject.pod("exits").await;
    for (attempt, code) in [0, 3, 255].into_iter().enumerate() {
        let sim = [("exit-after-seconds", "0.01"), ("exit-code", &code.to_string())];
        let mut config = subject.container(&format!("exit {code}"), &sim);
        config.attempt = attempt as u32;
        let id = subject.start(&pod, &config).await;
        let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
        assert_eq!((ended.exit_code, ended.oom_killed), (code, false));
        assert!(ended.finished_at.is_some());
    }
}

async fn out_of_memory(subject: &Subject) {
    let pod = subject.pod("oom").await;
    // The shell's own memory grows: a string doubled again and again.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    let config = subject.container(script, &[("memory-bytes", "33554432")]);
    let resources = Resources { memory_limit: Some(16 << 20), ..Resources::default() };
    let id = subject.start(&pod, &limits(resources, config)).await;
    let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
    assert_eq!(ended.exit_code, 137);
    subject.until(&id, |container| container.oom_killed).await;
}

async fn what_is_gone(subject: &Subject) {
    let runtime = &subject.runtime;
    let gone = "0".repeat(64);
    runtime.stop_container(&gone, Duration::from_secs(1)).await.unwrap();
    runtime.remove_container(&gone).await.unwrap();
    runtime.stop_sandbox(&gone).await.unwrap();
    runtime.remove_sandbox(&gone).await.unwrap();
    let command = ["true".to_owned()];
    let refused = [
        runtime.start_container(&gone).await.err(),
        runtime.exec_sync(&gone, &command, Duration::from_secs(1)).await.err(),
        runtime.exec(&gone, &command, false, false).await.err(),
        runtime.attach(&gone, false, false).await.err(),
        runtime.logs(&gone, &LogOptions::default()).await.err(),
    ];
    for (call, error) in refused.into_iter().enumerate() {
        assert!(matches!(error, Some(RuntimeError::NotFound(_))), "call {call}: {error:?}");
    }
}

async fn images(subject: &Subject) {
    let image = subject.runtime.image(&subject.image).await.unwrap().expect("the test image");
    assert!(!image.id.is_empty());
    let listed = subject.runtime.images().await.unwrap();
    assert!(listed.iter().any(|one| one.id == image.id), "{listed:?}");
    assert_eq!(subject.runtime.image(MISSING_IMAGE).await.unwrap(), None);
    let pod = subject.pod("no-image").await;
    let config = ContainerConfig { image: MISSING_IMAGE.into(), ..subject.container("true", &[]) };
    let error = subject.runtime.create_container(&pod, &config).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::ImageNotPresent(image) if image == MISSING_IMAGE), "{error}");
}

/// Nothing listens there, so a pull fails at once and leaves the machine alone.
pub(crate) const MISSING_IMAGE: &str = "127.0.0.1:1/loadline/missing:1";

async fn exec(subject: &Subject) {
    let pod = subject.pod("exec").await;
    let id = subject.server(&pod).await;
    let command = ["/bin/sh", "-c", "echo out; echo err >&2"].map(str::to_owned);
    let result = subject.runtime.exec_sync(&id, &command, Duration::from_secs(10)).await.unwrap();
    assert_eq!(result.exit_code, 0);
    assert!(!result.output.is_empty());
    let mut session = subject.runtime.exec(&id, &command, false, false).await.unwrap();
    let mut output = Vec::new();
    while let Some(piece) = session.output.try_next().await.unwrap() {
        output.push(piece);
    }
    assert_eq!(session.control.exit_code().await.unwrap(), 0);
    assert!(session.stdin.is_none());
    if subject.real {
        assert!(output.contains(&Output::Stdout("out\n".into())), "{output:?}");
        assert!(output.contains(&Output::Stderr("err\n".into())), "{output:?}");
    } else {
        assert!(text(&output).contains("simulated"), "{output:?}");
    }
    subject.runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    let late = subject.runtime.exec_sync(&id, &command, Duration::from_secs(1)).await;
    assert!(matches!(late, Err(RuntimeError::Failed { .. })), "not running: {late:?}");
}

async fn logs(subject: &Subject) {
    let pod = subject.pod("logs").await;
    let config = subject.container("echo one; echo two >&2; echo three", &[("exit-after-seconds", "0.01")]);
    let id = subject.start(&pod, &config).await;
    let followed = subject.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await;
    subject.until(&id, |container| container.state == ContainerState::Exited).await;
    let all = subject.logs(&id, LogOptions::default()).await;
    assert_eq!(all.lines().count(), followed.lines().count(), "{all:?} {followed:?}");
    assert!(all.lines().count() >= 2, "{all:?}");
    let last = subject.logs(&id, LogOptions { tail: Some(1), ..LogOptions::default() }).await;
    assert_eq!(last.lines().count(), 1, "{last:?}");
    assert!(subject.real || all.contains("simulated"), "{all:?}");
    let timed = subject.logs(&id, LogOptions { timestamps: true, ..LogOptions::default() }).await;
    for (line, bare) in timed.lines().zip(all.lines()) {
        let (time, rest) = line.split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
        assert!(subject.real || rest == bare, "{line:?} {bare:?}");
    }
    let future = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    let since = subject.logs(&id, LogOptions { since: Some(future), ..LogOptions::default() }).await;
    assert_eq!(since, "");
}

async fn events(subject: &Subject) {
    let events = Events::of(&*subject.runtime);
    let began = Instant::now();
    let pod = subject.pod("events").await;
    let changed = RuntimeEvent::Changed { sandbox_id: pod.id.clone(), pod_uid: pod.uid.clone() };
    events.after(began, &changed).await;
    let config = subject.container("sleep 0.2; exit 1", &[("exit-after-seconds", "0.2"), ("exit-code", "1")]);
    let id = subject.start(&pod, &config).await;
    // Looks only when woken: whoever is woken sees what it was woken for.
    let mut woken = Instant::now();
    loop {
        let after = events.after(woken, &changed).await;
        woken = woken + after + Duration::from_nanos(1);
        if subject.find(&id).await.unwrap().state == ContainerState::Exited {
            break;
        }
    }
}

async fn stats(subject: &Subject) {
    let pod = subject.pod("stats").await;
    let config = subject.container("while :; do :; done", &[("cpu-millis", "1000")]);
    let resources = Resources { memory_limit: Some(64 << 20), ..Resources::default() };
    let id = subject.start(&pod, &limits(resources, config)).await;
    let read = async || {
        let all = subject.runtime.stats().await.unwrap();
        let found = all.iter().find(|(one, _)| *one == id).map(|(_, stats)| stats.clone());
        found.filter(|stats| stats.cpu_usage_nanos.is_some()).ok_or_else(|| format!("{all:?}"))
    };
    let first = eventually(Duration::from_secs(5), read).await;
    assert_eq!(first.memory_limit, Some(64 << 20));
    assert!(
        first.memory_working_set > Some(0) && first.memory_usage >= first.memory_working_set,
        "{first:?}"
    );
    assert!(first.processes >= Some(1));
    // Grows with time at about a core; the machine may be busy with other tests.
    let grown = eventually(Duration::from_secs(10), async || {
        let next = read().await?;
        let wall = next.at.duration_since(first.at).as_secs_f64();
        let used = (next.cpu_usage_nanos.unwrap() - first.cpu_usage_nanos.unwrap()) as f64 / 1e9;
        if wall > 1.0 { Ok(used / wall) } else { Err(format!("{used} s of {wall} s")) }
    })
    .await;
    assert!((0.3..1.1).contains(&grown), "{grown} cores");
    subject.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    eventually(Duration::from_secs(5), async || {
        let all = subject.runtime.stats().await.unwrap();
        if all.iter().any(|(one, _)| *one == id) { Err(format!("{all:?}")) } else { Ok(()) }
    })
    .await;
}

async fn stop_sandbox(subject: &Subject) {
    let pod = subject.pod("whole").await;
    let id = subject.server(&pod).await;
    subject.runtime.stop_sandbox(&pod.id).await.unwrap();
    let ended = subject.until(&id, |container| container.state == ContainerState::Exited).await;
    assert_eq!(ended.exit_code, 137);
    subject.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert_eq!(subject.find(&id).await, None, "its containers go with it");
}

async fn attach(subject: &Subject) {
    let pod = subject.pod("attach").await;
    let script = "while read -r line; do echo \"got $line\"; done; exit 5";
    let mut config = subject.container(script, &[("exit-after-seconds", "0.3"), ("exit-code", "5")]);
    (config.stdin, config.stdin_once) = (true, true);
    let id = subject.start(&pod, &config).await;
    let mut session = subject.runtime.attach(&id, false, true).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"hello\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut stdin).await.unwrap();
    let mut output = Vec::new();
    while let Some(piece) = session.output.try_next().await.unwrap() {
        output.push(piece);
    }
    assert_eq!(session.control.exit_code().await.unwrap(), 5);
    assert_eq!(text(&output).contains("got hello"), subject.real, "{output:?}");
}
