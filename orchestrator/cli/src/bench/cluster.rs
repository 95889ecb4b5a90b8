//! Figures of a whole cluster, and the child processes that the other parts measure.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Figure, client::Target};
use crate::THIS_BINARY;

/// A server in a process of its own, ended and wiped when the measurement is over.
pub struct Process {
    child: Child,
    dir: PathBuf,
    pub ready_after: Duration,
}

impl Process {
    pub async fn start(dir: &Path, arguments: &[&str]) -> Result<Self> {
        let dir = dir.join(arguments[0]);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let started = Instant::now();
        let mut child = Command::new(THIS_BINARY)
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&dir)
            .env("LOADLINE_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("the child has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        loop {
            match lines.next_line().await? {
                Some(line) if line.starts_with("ready ") => break,
                Some(_) => {}
                None => bail!("loadline {} ended before it was ready", arguments[0]),
            }
        }
        Ok(Self { child, dir, ready_after: started.elapsed() })
    }

    pub fn target(&self) -> Result<Target> {
        Target::from_kubeconfig(&self.dir.join("kubeconfig"))
    }

    pub async fn client(&self) -> Result<Client> {
        let file = Kubeconfig::read_from(self.dir.join("kubeconfig"))?;
        Ok(Client::try_from(
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?,
        )?)
    }

    /// Resident memory in MB (10⁶ bytes).
    pub fn memory_mb(&self) -> Result<f64> {
        let pid = self.child.id().context("the child has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib: f64 = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
            .context("no VmRSS in /proc/PID/status")?;
        Ok(kib * 1024.0 / 1e6)
    }

    pub async fn end(mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        }
        let status = self.child.wait().await?;
        std::fs::remove_dir_all(&self.dir)?;
        if !status.success() {
            bail!("the server did not end well: {status}");
        }
        Ok(())
    }
}

/// Time to ready and idle memory of a whole simulated cluster.
pub async fn start(dir: &Path) -> Result<Vec<Figure>> {
    // The first start makes certificates and warms the file cache; what counts is a start like any other.
    let process = Process::start(dir, &["up", "--runtime", "sim"]).await?;
    let ready = process.ready_after.as_secs_f64();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let memory = process.memory_mb()?;
    process.end().await?;
    Ok(vec![
        Figure::at_most("up --runtime sim: ready after", ready, "s", 1.0, Some(2.3)),
        Figure::at_most("up --runtime sim: idle memory", memory, "MB", 60.0, Some(274.0)),
    ])
}

/// From the Deployment's creation to two hundred Running pods.
pub async fn pods(dir: &Path) -> Result<Vec<Figure>> {
    const PODS: usize = 200;
    let process = Process::start(dir, &["up", "--runtime", "sim", "--nodes", "20"]).await?;
    let client = process.client().await?;
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "many"},
        "spec": {"replicas": PODS, "selector": {"matchLabels": {"app": "many"}}, "template": {
            "metadata": {"labels": {"app": "many"}}, "spec": {"containers": [{"name": "c", "image": "many:1"}]}}},
    }))?;
    let started = Instant::now();
    Api::<k8s_openapi::api::apps::v1::Deployment>::default_namespaced(client.clone())
        .create(&PostParams::default(), &deployment)
        .await?;
    let api = Api::<Pod>::default_namespaced(client);
    let running = ListParams::default().fields("status.phase=Running");
    while api.list(&running).await?.items.len() < PODS {
        if started.elapsed() > Duration::from_secs(60) {
            bail!("{PODS} pods are not Running after a minute");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = started.elapsed().as_secs_f64();
    process.end().await?;
    Ok(vec![Figure::at_most("200 sim pods on 20 nodes: Running after", took, "s", 10.0, None)])
}

/// What the demo measures on real containers: the step, the killed container, the killed node.
pub async fn demo(examples: &Path) -> Result<Vec<Figure>> {
    let output = Command::new(THIS_BINARY)
        .args(["demo", "-o", "json", "--examples"])
        .arg(examples)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    if !output.status.success() {
        bail!("the demo failed; what it says is above");
    }
    let measured: Vec<Measured> =
        serde_json::from_slice(&output.stdout).context("reading the demo's summary")?;
    Ok(measured
        .iter()
        .filter_map(|m| Some(Figure::at_most(&m.what, m.seconds, "s", m.promised_seconds?, None)))
        .collect())
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    what: String,
    seconds: f64,
    promised_seconds: Option<f64>,
}
