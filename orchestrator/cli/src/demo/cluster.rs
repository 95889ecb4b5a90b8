//! The demo's cluster: child processes of this same binary, so that killing a node kills a real process.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use loadline_runtime::Runtime;
use loadline_runtime::docker::{Docker, DockerConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::{cluster_id, down};
use crate::{THIS_BINARY, output};

const START_WITHIN: Duration = Duration::from_secs(90);
const LOG_TAIL: usize = 30;
/// Run by a process of its own, to be killed.
const DOOMED: &str = "node-3";

pub struct DemoCluster {
    data_dir: PathBuf,
    store: String,
    up: Option<Child>,
    agent: Option<Child>,
    url: String,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl DemoCluster {
    pub fn new(data_dir: Option<PathBuf>, store: &str) -> Result<Self> {
        let data_dir = data_dir
            .unwrap_or_else(|| std::env::temp_dir().join(format!("loadline-demo-{}", std::process::id())));
        // An absolute path, because Docker mounts what lies below it.
        let data_dir = std::path::absolute(&data_dir)?;
        std::fs::create_dir_all(&data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        Ok(Self {
            data_dir,
            store: store.to_owned(),
            up: None,
            agent: None,
            url: String::new(),
            log: Arc::default(),
        })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn doomed_node(&self) -> &'static str {
        DOOMED
    }

    /// Two nodes in the cluster's own process, one in another.
    pub async fn start(&mut self) -> Result<()> {
        let dir = self.data_dir.to_string_lossy().into_owned();
        let (cpu, memory) = third_of_machine();
        let up = [
            "up",
            "--data-dir",
            &dir,
            "--nodes",
            "2",
            "--listen",
            "0.0.0.0:0",
            "--store",
            &self.store,
            "--node-cpu",
            &cpu,
            "--node-memory",
            &memory,
        ];
        let (child, ready) = self.spawn(&up).await?;
        self.up = Some(child);
        self.url = ready;
        let agent = ["agent", "--cluster", &dir, "--name", DOOMED, "--cpu", &cpu, "--memory", &memory];
        let (child, _) = self.spawn(&agent).await?;
        self.agent = Some(child);
        Ok(())
    }

    /// Starts a child of this binary and waits for its `ready` line; the rest of the line is returned.
    async fn spawn(&self, arguments: &[&str]) -> Result<(Child, String)> {
        let mut child = Command::new(THIS_BINARY)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A process group of its own: Ctrl-C reaches the demo alone, which then ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting loadline {}", arguments[0]))?;
        let stdout = child.stdout.take().context("the child has no standard output")?;
        let stderr = child.stderr.take().context("the child has no standard error")?;
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_back(line);
                if log.len() > LOG_TAIL {
                    log.pop_front();
                }
            }
        });
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix("ready ") {
                    return Ok(rest.to_owned());
                }
            }
            bail!("loadline {} ended before it was ready", arguments[0])
        };
        let ready = tokio::time::timeout(START_WITHIN, ready)
            .await
            .with_context(|| format!("loadline {} is not ready after {START_WITHIN:?}", arguments[0]))??;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((child, ready))
    }

    /// Runs one command of the user's CLI against the cluster and returns what it prints.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(THIS_BINARY)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .output()
            .await?;
        if !output.status.success() {
            bail!("loadline {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Kills the app's process from outside, as the kernel's OOM killer would.
    pub async fn kill_container_of(&self, pod_uid: &str, node: &str) -> Result<i32> {
        let containers = self.runtime(node).await?.containers(Some(pod_uid)).await?;
        let pid = containers.iter().find_map(|c| c.pid).context("the pod has no running container")?;
        let pid = i32::try_from(pid)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        Ok(pid)
    }

    /// The agent first, so that it can tell nobody, then every process of the node.
    pub async fn kill_node(&mut self) -> Result<()> {
        let runtime = self.runtime(DOOMED).await?;
        let mut agent = self.agent.take().context("the node is gone already")?;
        agent.kill().await?;
        for sandbox in runtime.sandboxes().await? {
            runtime.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    async fn runtime(&self, node: &str) -> Result<Docker> {
        Ok(Docker::connect(DockerConfig::new(cluster_id(&self.data_dir)?, node)).await?)
    }

    pub fn show_log_tail(&self) {
        eprintln!("the cluster's last log lines:");
        for line in self.log.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            eprintln!("   {line}");
        }
    }

    /// Says how to go on, and lets go of the children.
    pub fn leave_running(&mut self) -> Result<()> {
        let pid = self.up.as_ref().and_then(Child::id).unwrap_or(0);
        let dir = self.data_dir.display();
        output::print(&format!(
            "\nThe cluster runs on (process {pid}):\n\
             \x20  export KUBECONFIG={}\n\
             \x20  kubectl get pods -o wide        or: target/release/loadline get pods -o wide\n\
             \x20  API at {}\n\
             End it with:\n\
             \x20  kill {pid}; target/release/loadline down --data-dir {dir}\n",
            self.kubeconfig().display(),
            self.url,
        ))?;
        // Children are not killed when their handles go.
        self.up = None;
        self.agent = None;
        Ok(())
    }

    /// Ends the processes and removes every container, link and rule of the cluster.
    pub async fn remove(&mut self) -> Result<()> {
        for mut child in [self.agent.take(), self.up.take()].into_iter().flatten() {
            if let Some(pid) = child.id() {
                // It may have ended by itself; then waiting returns at once.
                let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM);
            }
            if tokio::time::timeout(Duration::from_secs(20), child.wait()).await.is_err() {
                child.kill().await?;
            }
        }
        if !Path::new(&self.data_dir).join("cluster-id").exists() {
            return Ok(std::fs::remove_dir_all(&self.data_dir)?);
        }
        down::run(down::DownArgs::of(self.data_dir.clone())).await
    }
}

/// Three nodes share this machine.
fn third_of_machine() -> (String, String) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = crate::cluster::up::machine_memory_kib().unwrap_or(3 << 20);
    (format!("{}m", cores * 1000 / 3), format!("{}Ki", memory / 3))
}
