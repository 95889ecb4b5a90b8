//! The runtime on a Docker daemon, over its Unix socket.
//!
//! Owns the containers that bear this cluster's and this node's labels and touches no others. Keeps no state that
//! the daemon does not have: a new `Docker` with the same ids sees the same containers. App containers are never
//! restarted by Docker; a container that has run once is not started again.

mod cleanup;
mod errors;
mod events;
mod exec;
mod images;
mod logs;
mod names;
mod observe;
mod pause;
mod privilege;
mod spec;
mod wire;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, SystemInfoCgroupDriverEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::cgroup::{Hierarchies, Readers};
use crate::{
    Container, ContainerConfig, ContainerState, ContainerStats, ExecResult, Image, LogOptions, Output,
    RegistryAuth, Result, Runtime, RuntimeError, RuntimeEvent, Sandbox, SandboxConfig, Session,
};
pub use cleanup::remove_cluster;
use observe::{Cache, Observed};

/// Inspects at the same time, after a list; the daemon locks much of its work anyway.
const PARALLEL_INSPECTS: usize = 8;
/// Events that a slow listener may have waiting before it is told `Lost`.
const EVENT_BACKLOG: usize = 1024;
/// What Docker may take beyond the grace period until it answers a stop.
const STOP_MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// Path of the daemon's Unix socket, with or without `unix://`.
    pub socket: String,
    pub cluster_id: String,
    pub node: String,
    /// Repository name of the pause image, which is made on this machine; the tag is added.
    pub pause_image: String,
    /// Where pods go that ask for no cgroup of their own, e.g. `/loadline`; `None`: Docker's default.
    pub cgroup_parent: Option<String>,
    /// Size at which a container's log file is rotated, as Docker writes sizes.
    pub log_max_size: String,
    pub log_max_files: u32,
    /// For every call but pulls, stops and streams.
    pub timeout: Duration,
}

impl DockerConfig {
    pub fn new(cluster_id: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            cluster_id: cluster_id.into(),
            node: node.into(),
            pause_image: "loadline/pause".into(),
            cgroup_parent: None,
            // The kubelet's containerLogMaxSize and containerLogMaxFiles.
            log_max_size: "10m".into(),
            log_max_files: 5,
            timeout: Duration::from_secs(120),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// What depends on the daemon's own surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    driver: CgroupDriver,
    /// The lowest OOM score that the daemon may give.
    oom_floor: Option<i64>,
}

/// A handle on the daemon. Dropping it ends the task that follows events; containers live on.
pub struct Docker {
    core: Arc<Core>,
    _follower: DropGuard,
}

/// What the parts of this module share.
pub(crate) struct Core {
    client: bollard::Docker,
    wire: wire::Wire,
    config: DockerConfig,
    abilities: Abilities,
    architecture: String,
    cache: Cache,
    hierarchies: Hierarchies,
    readers: Mutex<Readers>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Held while the pause image is looked for and made.
    pause: tokio::sync::Mutex<()>,
    image_ids: Mutex<HashMap<String, String>>,
}

impl Docker {
    /// Connects, learns what of ours is there, and follows the daemon's events from then on.
    pub async fn connect(config: DockerConfig) -> Result<Self> {
        let away = |error| errors::classify("connect", &config.socket, error);
        let client = bollard::Docker::connect_with_unix(
            &config.socket,
            config.timeout.as_secs().max(1),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(away)?
        .negotiate_version()
        .await
        .map_err(away)?;
        let info = client.info().await.map_err(away)?;
        let driver = match info.cgroup_driver {
            Some(SystemInfoCgroupDriverEnum::SYSTEMD) => CgroupDriver::Systemd,
            _ => CgroupDriver::Cgroupfs,
        };
        let oom_floor = privilege::oom_floor(&config.socket).await.unwrap_or_else(|error| {
            debug!(%error, "the daemon's capabilities are not to be seen");
            None
        });
        if let Some(floor) = oom_floor {
            warn!(floor, "docker daemon lacks CAP_SYS_RESOURCE, lower oom scores are raised");
        }
        let hierarchies = Hierarchies::of_this_process()
            .map_err(|error| RuntimeError::Failed { step: "find the cgroups", reason: error.to_string() })?;
        let core = Arc::new(Core {
            wire: wire::Wire::new(&config.socket, client.client_version()),
            client,
            config,
            abilities: Abilities { driver, oom_floor },
            architecture: info.architecture.unwrap_or_default(),
            cache: Cache::default(),
            hierarchies,
            readers: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            pause: tokio::sync::Mutex::default(),
            image_ids: Mutex::default(),
        });
        let since = Timestamp::now();
        let objects = core.observe_all(&[]).await?.len();
        let version = info.server_version.unwrap_or_default();
        info!(version, ?driver, objects, "connected to docker");

        let cancel = CancellationToken::new();
        let follower = cancel.clone().drop_guard();
        let task = events::follow(core.clone(), since);
        tokio::spawn(async move { cancel.run_until_cancelled(task).await });
        Ok(Self { core, _follower: follower })
    }

    /// Makes an image of one layer out of a tar archive (see [`crate::tar`]), without any registry. `changes` are
    /// Dockerfile lines such as `ENTRYPOINT ["/app"]`.
    pub async fn import_image(&self, reference: &str, archive: Bytes, changes: Vec<String>) -> Result<()> {
        self.core.import(reference, archive, changes).await
    }
}

impl Core {
    fn wake(&self, event: RuntimeEvent) {
        // No listener is no error.
        let _ = self.events.send(event);
    }

    fn image_ids(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.image_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of ours by id, from the cache if nothing has happened to it. Another's container is "not found".
    pub(crate) async fn observe(&self, id: &str) -> Result<Arc<Observed>> {
        match self.cache.get(id) {
            Some(observed) => Ok(observed),
            None => self.inspect(id).await,
        }
    }

    async fn inspect(&self, id: &str) -> Result<Arc<Observed>> {
        let generation = self.cache.generation(id);
        let answer = match self.client.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(answer) => answer,
            Err(error) => {
                if errors::status(&error) == Some(404) {
                    self.cache.forget(id);
                }
                return Err(errors::classify("inspect container", id, error));
            }
        };
        let full_id = answer.id.clone().unwrap_or_default();
        let Some(mut observed) = observe::observe(&self.config, answer) else {
            self.cache.forget(id);
            return Err(RuntimeError::NotFound(id.to_owned()));
        };
        if let observe::Object::Container(container) = &mut observed.object {
            container.image_id = self.image_id(&container.image_id).await;
        }
        if full_id != id {
            // Asked by name: the cache knows only ids.
            self.cache.forget(id);
            return Ok(Arc::new(observed));
        }
        Ok(self.cache.store(id, generation, observed))
    }

    /// All of ours that bear these labels: one list, and inspects of what is new or changed.
    pub(crate) async fn observe_all(&self, labels: &[(&str, &str)]) -> Result<Vec<Arc<Observed>>> {
        let clock = self.cache.clock();
        let filters = names::filter(&self.config, labels);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let answer = self.client.list_containers(Some(options)).await;
        let list = answer.map_err(|error| errors::classify("list containers", "containers", error))?;
        let listed: Vec<(String, String)> = list
            .into_iter()
            .filter_map(|one| Some((one.id?, one.state.map(|state| state.to_string()).unwrap_or_default())))
            .collect();
        if labels.is_empty() {
            let ids: HashSet<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
            self.cache.retain(&ids, clock);
        }
        let looks = listed.into_iter().map(|(id, state)| async move {
            match self.cache.get(&id) {
                Some(observed) if observed.state == state => Ok(Some(observed)),
                _ => match self.inspect(&id).await {
                    Ok(observed) => Ok(Some(observed)),
                    // Removed since the list.
                    Err(RuntimeError::NotFound(_)) => Ok(None),
                    Err(error) => Err(error),
                },
            }
        });
        let looks = futures::stream::iter(looks).buffered(PARALLEL_INSPECTS);
        looks.try_filter_map(|observed| async move { Ok(observed) }).try_collect().await
    }

    /// Creates, or finds what an earlier try created. Returns the id.
    async fn create(&self, name: &str, image: &str, body: ContainerCreateBody) -> Result<String> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match self.client.create_container(Some(options), body).await {
            Ok(created) => {
                for warning in created.warnings {
                    debug!(name, warning, "docker warns about a new container");
                }
                Ok(created.id)
            }
            Err(error) if errors::status(&error) == Some(409) => {
                let reason = error.to_string();
                match self.inspect(name).await {
                    Ok(existing) => Ok(match &existing.object {
                        observe::Object::Sandbox(sandbox, _) => sandbox.id.clone(),
                        observe::Object::Container(container) => container.id.clone(),
                    }),
                    Err(_) => Err(RuntimeError::Failed { step: "create container", reason }),
                }
            }
            Err(error) => Err(errors::classify_create(image, error)),
        }
    }

    /// Starts what was never started.
    async fn start(&self, id: &str) -> Result<()> {
        if self.inspect(id).await?.started {
            return Ok(());
        }
        match self.client.start_container(id, None::<StartContainerOptions>).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // Docker keeps the reason and an exit code on the container, without an event.
                self.cache.invalidate(id, false);
                Err(errors::classify_start(id, error))
            }
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        // Seconds are Docker's unit; a begun one counts, so that nobody gets less than was asked for.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options =
            StopContainerOptionsBuilder::new().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        let client = self.client.clone().with_timeout(Duration::from_secs(seconds) + STOP_MARGIN);
        match client.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(errors::status(&error), Some(304 | 404)) => Ok(()),
            Err(error) => Err(errors::classify("stop container", id, error)),
        }
    }

    async fn kill(&self, id: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.client.kill_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            // 409: it is not running.
            Err(error) if matches!(errors::status(&error), Some(304 | 404 | 409)) => Ok(()),
            Err(error) => Err(errors::classify("kill container", id, error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await {
            Ok(()) => self.cache.forget(id),
            // 409: its removal is under way.
            Err(error) if matches!(errors::status(&error), Some(404 | 409)) => self.cache.forget(id),
            Err(error) => return Err(errors::classify("remove container", id, error)),
        }
        Ok(())
    }

    /// Everything in a sandbox but the sandbox itself.
    async fn members(&self, sandbox_id: &str) -> Result<Vec<Container>> {
        let labels = [(names::KIND, names::KIND_CONTAINER), (names::SANDBOX_ID, sandbox_id)];
        let members = self.observe_all(&labels).await?;
        Ok(members.iter().filter_map(|member| member.container().cloned()).collect())
    }
}

/// Turns "not there" into success.
fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(RuntimeError::NotFound(_)) => Ok(T::default()),
        other => other,
    }
}

#[async_trait]
impl Runtime for Docker {
    async fn version(&self) -> Result<String> {
        let answer = self.core.client.version().await;
        let version = answer.map_err(|error| errors::classify("version", "docker", error))?;
        Ok(format!("docker://{}", version.version.unwrap_or_default()))
    }

    /// A sandbox of the same attempt that has ended is returned as it is, not ready: make the next attempt.
    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox> {
        let core = &self.core;
        let name = names::sandbox_name(&core.config, config);
        let image = core.pause_image().await?;
        let body = spec::sandbox(&core.config, core.abilities, image.clone(), config)?;
        let id = core.create(&name, &image, body).await?;
        if let Err(error) = core.start(&id).await {
            // It would be in the way of the next try.
            if let Err(error) = core.remove(&id).await {
                debug!(%error, id, "sandbox that did not start could not be removed");
            }
            return Err(error);
        }
        let observed = core.inspect(&id).await?;
        let (sandbox, _) = observed.sandbox().ok_or_else(|| RuntimeError::NotFound(id.clone()))?;
        Ok(sandbox.clone())
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        if let Err(error) = self.core.observe(id).await {
            return gone_is_fine(Err(error));
        }
        let members = self.core.members(id).await?;
        let running = members.iter().filter(|member| member.state == ContainerState::Running);
        let kills = running.map(|member| self.core.kill(&member.id));
        futures::future::try_join_all(kills).await?;
        self.core.stop(id, Duration::from_secs(1)).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let observed = match self.core.observe(id).await {
            Ok(observed) => observed,
            Err(error) => return gone_is_fine(Err(error)),
        };
        let members = self.core.members(id).await?;
        futures::future::try_join_all(members.iter().map(|member| self.core.remove(&member.id))).await?;
        self.core.remove(id).await?;
        if let (Some(parent), CgroupDriver::Cgroupfs) = (&observed.pod_cgroup, self.core.abilities.driver) {
            self.core.hierarchies.remove(parent);
        }
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        let all = self.core.observe_all(&[(names::KIND, names::KIND_SANDBOX)]).await?;
        Ok(all.iter().filter_map(|one| Some(one.sandbox()?.0.clone())).collect())
    }

    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String> {
        let core = &self.core;
        let observed = core.observe(&sandbox.id).await?;
        let (sandbox, host) = observed.sandbox().ok_or_else(|| RuntimeError::NotFound(sandbox.id.clone()))?;
        let body = spec::container(&core.config, core.abilities, sandbox, host, config)?;
        let name = names::container_name(&core.config, sandbox, config);
        core.create(&name, &config.image, body).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.core.start(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        match self.core.observe(id).await {
            Ok(_) => self.core.stop(id, grace).await,
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        match self.core.observe(id).await {
            Ok(_) => self.core.remove(id).await,
            Err(error) => gone_is_fine(Err(error)),
        }
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        let mut labels = vec![(names::KIND, names::KIND_CONTAINER)];
        labels.extend(pod_uid.map(|uid| (names::POD_UID, uid)));
        let all = self.core.observe_all(&labels).await?;
        Ok(all.iter().filter_map(|one| one.container().cloned()).collect())
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.core.image(reference).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.core.images().await
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image> {
        self.core.pull(reference, auth).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult> {
        self.core.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, id: &str, command: &[String], tty: bool, stdin: bool) -> Result<Session> {
        self.core.exec(id, command, tty, stdin).await
    }

    async fn attach(&self, id: &str, tty: bool, stdin: bool) -> Result<Session> {
        self.core.attach(id, tty, stdin).await
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Output>>> {
        self.core.logs(id, options).await
    }

    /// Reads files only; Docker is not asked.
    async fn stats(&self) -> Result<Vec<(String, ContainerStats)>> {
        let core = self.core.clone();
        let read = tokio::task::spawn_blocking(move || {
            let running = core.cache.running();
            let mut readers = core.readers.lock().unwrap_or_else(PoisonError::into_inner);
            readers.read(&core.hierarchies, &running)
        });
        read.await
            .map_err(|error| RuntimeError::Failed { step: "read the cgroups", reason: error.to_string() })
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let events = BroadcastStream::new(self.core.events.subscribe());
        let lagged =
            |event: Result<RuntimeEvent, BroadcastStreamRecvError>| event.unwrap_or(RuntimeEvent::Lost);
        events.map(lagged).boxed()
    }
}

/// Used by the contract tests, which look at the kernel's side of a limit.
#[doc(hidden)]
pub fn cgroup_directories(pid: u32) -> std::io::Result<Vec<PathBuf>> {
    let hierarchies = Hierarchies::of_this_process()?;
    hierarchies.directories(pid)
}
