//! What is special to the simulator; what it shares with Docker is in the contract suite.

use super::*;
use crate::{ContainerState, Labels, Resources};

const SECOND: Duration = Duration::from_secs(1);

fn pod(name: &str) -> SandboxConfig {
    SandboxConfig {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        ..Default::default()
    }
}

fn container(annotations: &[(&str, &str)]) -> ContainerConfig {
    let annotation = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), (*value).to_owned());
    ContainerConfig {
        name: "app".into(),
        image: "img:1".into(),
        annotations: annotations.iter().map(annotation).collect(),
        ..ContainerConfig::default()
    }
}

async fn start(sim: &Sim, name: &str, config: &ContainerConfig) -> Result<String> {
    let sandbox = sim.run_sandbox(&pod(name)).await?;
    let id = sim.create_container(&sandbox, config).await?;
    sim.start_container(&id).await?;
    Ok(id)
}

async fn one(sim: &Sim, id: &str) -> Container {
    let all = sim.containers(None).await.unwrap();
    all.into_iter().find(|container| container.id == id).unwrap()
}

async fn cpu_millis(sim: &Sim, id: &str) -> u64 {
    let all = sim.stats().await.unwrap();
    let stats = all.into_iter().find(|(one, _)| one == id).unwrap().1;
    stats.cpu_usage_nanos.unwrap() / 1_000_000
}

#[tokio::test(start_paused = true)]
async fn cpu_follows_the_curve_and_the_handle() {
    let sim = Sim::new(SimConfig::default());
    let id = start(&sim, "web", &container(&[("cpu-millis", "0s=100,10s=500")])).await.unwrap();
    tokio::time::advance(20 * SECOND).await;
    assert_eq!(cpu_millis(&sim, &id).await, 1000 + 5000);
    assert!(sim.set_cpu("ns/web", 2000));
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(cpu_millis(&sim, &id).await, 6000 + 10_000);
    assert!(sim.set_cpu("uid-web", 0));
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(cpu_millis(&sim, &id).await, 16_000);
    assert!(!sim.set_cpu("ns/other", 1));
}

#[tokio::test(start_paused = true)]
async fn a_quota_throttles() {
    let sim = Sim::new(SimConfig::default());
    let mut config = container(&[("cpu-millis", "1000")]);
    config.resources = Resources { cpu_quota: Some(25_000), ..Resources::default() };
    let id = start(&sim, "web", &config).await.unwrap();
    tokio::time::advance(8 * SECOND).await;
    let stats = sim.stats().await.unwrap().remove(0).1;
    assert_eq!(cpu_millis(&sim, &id).await, 2000);
    assert_eq!((stats.cfs_periods, stats.cfs_throttled_periods), (Some(80), Some(80)));
    assert_eq!(stats.cfs_throttled_nanos, Some(6_000_000_000));
}

#[tokio::test(start_paused = true)]
async fn starting_takes_its_time_and_probes_wait() {
    let sim = Sim::new(SimConfig { start_delay: 2 * SECOND, ..SimConfig::default() });
    let began = Instant::now();
    start(&sim, "a", &container(&[])).await.unwrap();
    assert_eq!(began.elapsed(), 2 * SECOND);
    let id = start(&sim, "b", &container(&[("start-seconds", "0.5"), ("ready-after-seconds", "3")]))
        .await
        .unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(2500));
    let probe = async || sim.exec_sync(&id, &["check".into()], SECOND).await.unwrap().exit_code;
    assert_eq!(probe().await, 1);
    tokio::time::advance(3 * SECOND).await;
    assert_eq!(probe().await, 0);
    sim.set_ready("ns/b", false);
    assert_eq!(probe().await, 1);
}

#[tokio::test(start_paused = true)]
async fn exits_happen_when_due_and_wake_listeners() {
    let sim = Sim::new(SimConfig::default());
    let id =
        start(&sim, "job", &container(&[("exit-after-seconds", "30"), ("exit-code", "4")])).await.unwrap();
    let mut events = sim.events();
    let began = Instant::now();
    let event = events.next().await.unwrap();
    // Timers are kept to the millisecond.
    assert!(began.elapsed() >= 30 * SECOND && began.elapsed() < 31 * SECOND, "{:?}", began.elapsed());
    let seen = one(&sim, &id).await;
    assert_eq!(event, RuntimeEvent::Changed { sandbox_id: seen.sandbox_id, pod_uid: "uid-job".into() });
    assert_eq!((seen.state, seen.exit_code), (ContainerState::Exited, 4));
    let life = seen.finished_at.unwrap().duration_since(seen.started_at.unwrap());
    assert_eq!(life.as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_overtakes_a_longer_one() {
    let sim = Sim::new(SimConfig::default());
    let id = start(&sim, "slow", &container(&[("stop-seconds", "20")])).await.unwrap();
    let began = Instant::now();
    let (patient, hasty) = tokio::join!(sim.stop_container(&id, 60 * SECOND), async {
        tokio::time::sleep(SECOND).await;
        sim.stop_container(&id, SECOND).await
    });
    patient.unwrap();
    hasty.unwrap();
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    assert_eq!(one(&sim, &id).await.exit_code, 137);
}

#[tokio::test(start_paused = true)]
async fn failures_on_demand() {
    let sim = Sim::new(SimConfig::default());
    sim.fail_next_start("no such program");
    let error = start(&sim, "a", &container(&[])).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Invalid(reason) if reason == "no such program"), "{error}");
    let id = start(&sim, "b", &container(&[])).await.unwrap();
    sim.crash(&id, 139);
    assert_eq!(one(&sim, &id).await.exit_code, 139);

    let grown = ContainerConfig {
        resources: Resources { memory_limit: Some(32 << 20), ..Resources::default() },
        ..container(&[])
    };
    let id = start(&sim, "c", &grown).await.unwrap();
    sim.set_memory("ns/c", 64 << 20);
    assert!(one(&sim, &id).await.oom_killed);

    let id = start(&sim, "d", &container(&[])).await.unwrap();
    sim.kill_all();
    assert_eq!(one(&sim, &id).await.state, ContainerState::Exited);
    assert!(sim.sandboxes().await.unwrap().iter().all(|sandbox| !sandbox.ready));

    let mut events = sim.events();
    sim.set_available(false);
    assert!(matches!(sim.version().await, Err(RuntimeError::Unavailable(_))));
    sim.set_available(true);
    assert_eq!(events.next().await, Some(RuntimeEvent::Lost));
    assert!(sim.version().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn images_and_their_behaviour() {
    let sim = Sim::new(SimConfig { pull_delay: 5 * SECOND, ..SimConfig::default() });
    sim.declare_missing("img:1");
    let error = start(&sim, "a", &container(&[])).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageNotPresent(_)), "{error}");
    let began = Instant::now();
    sim.pull("img:1", None).await.unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);
    sim.set_image("img:1", Behaviour { cpu: CpuCurve::constant(300), ..Behaviour::default() });
    let id = start(&sim, "a", &container(&[])).await.unwrap();
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(cpu_millis(&sim, &id).await, 3000);
    sim.declare_unpullable("gone:1", "manifest unknown");
    let error = sim.pull("gone:1", None).await.unwrap_err();
    assert_eq!(error.to_string(), "pull of \"gone:1\" failed: manifest unknown");
    let error = start(&sim, "b", &container(&[("cpu-millis", "lots")])).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Invalid(reason) if reason.contains("cpu-millis")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pods_annotations_reach_its_containers() {
    let sim = Sim::new(SimConfig::default());
    let annotations = Labels::from([(format!("{PREFIX}cpu-millis"), "700".to_owned())]);
    let sandbox = sim.run_sandbox(&SandboxConfig { annotations, ..pod("web") }).await.unwrap();
    let id = sim.create_container(&sandbox, &container(&[])).await.unwrap();
    sim.start_container(&id).await.unwrap();
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(cpu_millis(&sim, &id).await, 7000);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_containers_need_one_task() {
    let sim = Sim::new(SimConfig::default());
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for n in 0..1000 {
        let seconds = format!("{}", 10 + n % 7);
        start(&sim, &format!("pod-{n}"), &container(&[("exit-after-seconds", &seconds)])).await.unwrap();
    }
    let after = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(after <= before + 1, "{before} → {after}");
    tokio::time::sleep(20 * SECOND).await;
    assert!(sim.stats().await.unwrap().is_empty());
    let alarm = Arc::downgrade(&sim.shared);
    drop(sim);
    tokio::task::yield_now().await;
    assert!(alarm.upgrade().is_none());
}
