//! The container-runtime trait, shaped like the CRI, and its two implementations: `docker` and `sim`.
//!
//! Nothing outside this crate knows Docker. The runtime owns no policy: restarts, probes, back-off and volumes are
//! the kubelet's. Everything is idempotent: creating what exists returns it, removing what is gone succeeds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

mod cgroup;
pub mod docker;
pub mod sim;
pub mod tar;

pub use docker::{Docker, DockerConfig};
pub use sim::{Sim, SimConfig};

pub type Labels = BTreeMap<String, String>;
pub type SharedRuntime = Arc<dyn Runtime>;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{0} not found")]
    NotFound(String),
    /// The image is not there; for `create_container` and `image`.
    #[error("image {0:?} is not present on this node")]
    ImageNotPresent(String),
    /// The registry's own words.
    #[error("pull of {image:?} failed: {reason}")]
    Pull { image: String, reason: String },
    /// The spec cannot work: the command is missing, a mount is bad ….
    #[error("{0}")]
    Invalid(String),
    #[error("container runtime unavailable: {0}")]
    Unavailable(String),
    #[error("{step}: {reason}")]
    Failed { step: &'static str, reason: String },
    #[error("timed out after {0:?}")]
    Timeout(std::time::Duration),
}

pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// A pod's shared namespaces, held by a pause container with network `none`.
#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Goes up when the sandbox has to be made anew for the same pod.
    pub attempt: u32,
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub labels: Labels,
    pub annotations: Labels,
    /// cgroup path below which the pod's containers live, e.g. `/loadline/pod<uid>`; `None`: the runtime's default.
    pub cgroup_parent: Option<String>,
    pub sysctls: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: Timestamp,
    /// The network namespace to put a veth in: `/proc/<pid>/ns/net`; `None` when not running or simulated.
    pub netns: Option<PathBuf>,
    pub labels: Labels,
    pub annotations: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
}

/// Limits as the kernel takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// cgroup v1 shares (2 … 262144); v2 weights are derived from it.
    pub cpu_shares: Option<u64>,
    /// CFS quota per 100 ms period, in µs; `None` is unlimited.
    pub cpu_quota: Option<i64>,
    pub memory_limit: Option<i64>,
    pub oom_score_adj: i64,
    pub pids_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub privileged: bool,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerConfig {
    pub name: String,
    /// Restart count of this instance.
    pub attempt: u32,
    pub image: String,
    /// `None`: the image's entrypoint. Replaces it and its arguments when given, as a pod's `command` does.
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub labels: Labels,
    pub annotations: Labels,
    pub resources: Resources,
    pub security: Security,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// The signal that asks the process to end, e.g. `SIGTERM`; `None`: the image's.
    pub stop_signal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    /// Digest or image id, as a pod's `imageID`.
    pub image_id: String,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub signal: i32,
    pub oom_killed: bool,
    /// Why it could not start, in the runtime's words.
    pub error: String,
    /// Process id on the host while running.
    pub pid: Option<u32>,
    pub labels: Labels,
    pub annotations: Labels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
}

/// Something happened to a container or sandbox: look again. `lost` after a gap (reconnect): relist everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    Changed { sandbox_id: String, pod_uid: String },
    Lost,
}

/// One reading of a container's cgroup. Absent is absent: no value is ever invented.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStats {
    /// When the files were read.
    pub at: Timestamp,
    pub cpu_usage_nanos: Option<u64>,
    pub cpu_user_nanos: Option<u64>,
    pub cpu_system_nanos: Option<u64>,
    pub cfs_periods: Option<u64>,
    pub cfs_throttled_periods: Option<u64>,
    pub cfs_throttled_nanos: Option<u64>,
    pub memory_usage: Option<u64>,
    /// usage − inactive file pages
    pub memory_working_set: Option<u64>,
    pub memory_rss: Option<u64>,
    pub memory_cache: Option<u64>,
    pub memory_limit: Option<u64>,
    pub memory_page_faults: Option<u64>,
    pub memory_major_page_faults: Option<u64>,
    pub processes: Option<u64>,
    pub oom_events: Option<u64>,
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A running exec or attach: its output ends when the process does.
pub struct Session {
    pub output: BoxStream<'static, Result<Output>>,
    /// Shut it down (`AsyncWriteExt::shutdown`) to give the process end-of-file; dropping it does not.
    pub stdin: Option<std::pin::Pin<Box<dyn AsyncWrite + Send>>>,
    pub control: Box<dyn SessionControl>,
}

#[async_trait]
pub trait SessionControl: Send + Sync {
    async fn resize(&self, width: u16, height: u16) -> Result<()>;
    /// The exit code once the output has ended.
    async fn exit_code(&self) -> Result<i32>;
}

#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
}

#[derive(Clone, Debug, Default)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

#[derive(Clone, Debug)]
pub struct ExecResult {
    pub exit_code: i32,
    /// stdout and stderr together, cut to 10 KiB.
    pub output: Vec<u8>,
}

#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version for `Node.status.nodeInfo.containerRuntimeVersion`, e.g. `docker://20.10.24`.
    async fn version(&self) -> Result<String>;

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox>;
    /// Kills whatever runs in it, then the sandbox itself.
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    /// All of this node's, running or not.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>>;

    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Asks with the stop signal, kills after `grace`. Returns once it has ended.
    async fn stop_container(&self, id: &str, grace: std::time::Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// All of this node's; with `pod_uid` only that pod's.
    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>>;

    async fn image(&self, reference: &str) -> Result<Option<Image>>;
    async fn images(&self) -> Result<Vec<Image>>;
    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image>;

    /// Runs to its end within `timeout`, for probes.
    async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: std::time::Duration,
    ) -> Result<ExecResult>;
    async fn exec(&self, id: &str, command: &[String], tty: bool, stdin: bool) -> Result<Session>;
    async fn attach(&self, id: &str, tty: bool, stdin: bool) -> Result<Session>;
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Output>>>;

    /// Readings of all running containers of this node, by container id. Cheap enough for every second.
    async fn stats(&self) -> Result<Vec<(String, ContainerStats)>>;

    /// Wakes for every change; never ends while the runtime object lives (reconnects, then `Lost`).
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
}
