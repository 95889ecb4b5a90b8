//! What the contract cases share: a subject with its own cluster id, pods and containers on it, and `eventually`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use loadline_runtime::{
    Container, ContainerConfig, LogOptions, Output, Resources, Result, Runtime, RuntimeEvent, Sandbox,
    SandboxConfig, SharedRuntime,
};

/// One runtime under test.
pub(crate) struct Subject {
    pub(crate) runtime: SharedRuntime,
    /// An image that is there and has a shell (as far as the runtime has such a thing).
    pub(crate) image: String,
    /// Whether processes really run.
    pub(crate) real: bool,
    pub(crate) cluster: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Unique among the tests of this process and among processes.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Subject {
    pub(crate) fn pod_config(&self, name: &str) -> SandboxConfig {
        SandboxConfig {
            namespace: "default".into(),
            name: name.into(),
            uid: unique("uid"),
            hostname: name.into(),
            labels: BTreeMap::from([("app".into(), name.into())]),
            annotations: BTreeMap::from([("note".into(), "kept".into())]),
            ..SandboxConfig::default()
        }
    }

    pub(crate) async fn pod(&self, name: &str) -> Sandbox {
        self.runtime.run_sandbox(&self.pod_config(name)).await.expect("run sandbox")
    }

    /// A container that runs a shell script. `sim` are the annotations that tell the simulator to do the same.
    pub(crate) fn container(&self, script: &str, sim: &[(&str, &str)]) -> ContainerConfig {
        let annotation =
            |(key, value): &(&str, &str)| (format!("sim.loadline.io/{key}"), (*value).to_owned());
        ContainerConfig {
            name: "app".into(),
            image: self.image.clone(),
            command: Some(vec!["/bin/sh".into(), "-c".into(), script.into()]),
            labels: BTreeMap::from([("tier".into(), "test".into())]),
            annotations: sim.iter().map(annotation).collect(),
            ..ContainerConfig::default()
        }
    }

    pub(crate) async fn start(&self, pod: &Sandbox, config: &ContainerConfig) -> String {
        let id = self.runtime.create_container(pod, config).await.expect("create container");
        self.runtime.start_container(&id).await.expect("start container");
        id
    }

    /// A container that runs until it is told to end.
    pub(crate) async fn server(&self, pod: &Sandbox) -> String {
        // A shell that is process 1 and waits in `wait` takes its trap at once.
        let config = self.container("trap 'exit 7' TERM; sleep 1000 & wait", &[("term-exit-code", "7")]);
        self.start(pod, &config).await
    }

    pub(crate) async fn find(&self, id: &str) -> Option<Container> {
        let all = self.runtime.containers(None).await.expect("list containers");
        all.into_iter().find(|container| container.id == id)
    }

    pub(crate) async fn until(&self, id: &str, done: impl Fn(&Container) -> bool) -> Container {
        eventually(Duration::from_secs(20), async || {
            let seen = self.find(id).await;
            match seen {
                Some(container) if done(&container) => Ok(container),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub(crate) async fn logs(&self, id: &str, options: LogOptions) -> String {
        let stream = self.runtime.logs(id, &options).await.expect("logs");
        let all: Vec<Output> = stream.try_collect().await.expect("read logs");
        text(&all)
    }
}

pub(crate) fn text(output: &[Output]) -> String {
    let bytes = output.iter().flat_map(|piece| match piece {
        Output::Stdout(bytes) | Output::Stderr(bytes) => bytes.to_vec(),
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

pub(crate) fn limits(resources: Resources, config: ContainerConfig) -> ContainerConfig {
    ContainerConfig { resources, ..config }
}

/// Polls until it is so; when it gives up, says what it saw last.
pub(crate) async fn eventually<T>(patience: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        let seen = match look().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "gave up after {patience:?}; last seen: {seen}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Collects events from now on.
pub(crate) struct Events {
    seen: Arc<std::sync::Mutex<Vec<(Instant, RuntimeEvent)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Events {
    pub(crate) fn of(runtime: &dyn Runtime) -> Self {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (mut events, sink) = (runtime.events(), seen.clone());
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                sink.lock().unwrap().push((Instant::now(), event));
            }
        });
        Self { seen, task }
    }

    pub(crate) async fn after(&self, since: Instant, wanted: &RuntimeEvent) -> Duration {
        eventually(Duration::from_secs(20), async || {
            let seen = self.seen.lock().unwrap();
            let hit = seen.iter().find(|(at, event)| *at >= since && event == wanted);
            hit.map(|(at, _)| *at - since).ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) type Case<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs all cases even when one fails, so that a failure does not hide others, and names those that failed.
pub(crate) async fn run_all(cases: Vec<(&'static str, Case<'_>)>) {
    use futures::FutureExt;
    let mut failed = Vec::new();
    for (name, case) in cases {
        let began = Instant::now();
        let outcome = std::panic::AssertUnwindSafe(case).catch_unwind().await;
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("  {name} … {word} ({} ms)", began.elapsed().as_millis());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed cases: {failed:?}");
}
