//! Starting: sandboxes with their network and volumes, and containers with image, environment, mounts and hooks.
//! Each step's failure becomes the reason that upstream gives for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, LifecycleHandler, Pod};
use loadline_network::PodRef;
use loadline_runtime::{ContainerConfig, Mount, Sandbox, SandboxConfig};

use crate::context::Node;
use crate::env;
use crate::fields::Facts;
use crate::files::{self, Resolver};
use crate::http_probe;
use crate::images;
use crate::names;
use crate::plan::{StartError, Waiting};
use crate::prober::{self, Attempt};
use crate::resources;
use crate::security;
use crate::volumes::{self, Mounted};

const RETRY: SignedDuration = SignedDuration::from_secs(10);
const MAX_LOG_MESSAGE: usize = 2048;

fn facts<'a>(node: &'a Node, ips: &'a [IpAddr]) -> Facts<'a> {
    Facts {
        node_name: &node.config.node_name,
        host_ip: node.config.node_ip,
        pod_ips: ips,
        allocatable: &node.allocatable,
    }
}

/// Puts the pod's volumes in place; a failure has been told in an event.
pub(crate) async fn volumes(node: &Node, pod: &Pod, ips: &[IpAddr]) -> Result<Mounted, String> {
    if let Err(message) = node.objects.synced(pod).await {
        node.events.warning(names::reference(pod), "FailedMount", "Mounting", message.clone());
        return Err(message);
    }
    let contents = {
        let objects = node.objects.of(pod);
        let facts = facts(node, ips);
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        let resolve = |v: &k8s_openapi::api::core::v1::Volume| {
            volumes::content(pod, v, &facts, &objects).map(|c| (v.name.clone(), c))
        };
        volumes.iter().map(resolve).collect::<Result<Vec<_>, _>>()
    };
    let mounted = match contents {
        Ok(contents) => node.volumes.set_up(pod, contents).await,
        Err(error) => Err(error),
    };
    mounted.map_err(|error| {
        node.events.warning(names::reference(pod), "FailedMount", "Mounting", error.to_string());
        error.to_string()
    })
}

/// A new sandbox with its addresses. A failure has been told in an event.
pub(crate) async fn sandbox(node: &Node, pod: &Pod, attempt: u32) -> Result<(Sandbox, Vec<IpAddr>), String> {
    volumes(node, pod, &[]).await?;
    let host_network = names::host_network(pod);
    if !host_network && let Err(error) = node.config.network.ready().await {
        let message = format!("network is not ready: {error}");
        node.events.warning(names::reference(pod), "NetworkNotReady", "Starting", message.clone());
        return Err(message);
    }
    let failed = |message: String| {
        let note = format!("Failed to create pod sandbox: {message}");
        node.events.warning(names::reference(pod), "FailedCreatePodSandBox", "Starting", note.clone());
        note
    };
    let config = sandbox_config(node, pod, attempt);
    let runtime = &node.config.runtime;
    let sandbox = runtime.run_sandbox(&config).await.map_err(|e| failed(e.to_string()))?;
    if host_network {
        return Ok((sandbox, vec![node.config.node_ip]));
    }
    match node.config.network.add(&pod_ref(pod), sandbox.netns.as_deref()).await {
        Ok(ips) => Ok((sandbox, ips)),
        Err(error) => {
            let message = failed(format!("failed to set up pod network: {error}"));
            // Without an address it is of no use; the next attempt makes another.
            let _ = runtime.stop_sandbox(&sandbox.id).await;
            let _ = runtime.remove_sandbox(&sandbox.id).await;
            Err(message)
        }
    }
}

pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    PodRef {
        namespace: names::namespace(pod).to_owned(),
        name: names::name(pod).to_owned(),
        uid: names::uid(pod).to_owned(),
    }
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.insert(names::POD_NAME.to_owned(), names::name(pod).to_owned());
    labels.insert(names::POD_NAMESPACE.to_owned(), names::namespace(pod).to_owned());
    labels.insert(names::POD_UID.to_owned(), names::uid(pod).to_owned());
    labels
}

fn sandbox_config(node: &Node, pod: &Pod, attempt: u32) -> SandboxConfig {
    let spec = pod.spec.as_ref();
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(names::GRACE.to_owned(), names::grace_seconds(pod).to_string());
    let sysctls = spec.and_then(|s| s.security_context.as_ref()).and_then(|c| c.sysctls.as_ref());
    SandboxConfig {
        namespace: names::namespace(pod).to_owned(),
        name: names::name(pod).to_owned(),
        uid: names::uid(pod).to_owned(),
        attempt,
        hostname: files::hostname(pod, &node.config.node_name),
        host_network: names::host_network(pod),
        host_pid: spec.and_then(|s| s.host_pid).unwrap_or(false),
        host_ipc: spec.and_then(|s| s.host_ipc).unwrap_or(false),
        labels: labels(pod),
        annotations,
        cgroup_parent: None,
        sysctls: sysctls.into_iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
    }
}

/// What a container start needs beside its spec.
pub(crate) struct Start {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) sandbox: Sandbox,
    pub(crate) ips: Vec<IpAddr>,
}

impl Start {
    /// Starts one container; the error says what `state.waiting` should show and when to try again.
    pub(crate) async fn run(&self, spec: &Spec, attempt: u32) -> Result<(), StartError> {
        let node = &self.node;
        images::ensure(node, &self.pod, spec).await.inspect_err(|e| {
            if matches!(
                e.waiting.reason.as_str(),
                "ErrImageNeverPull" | "ImagePullBackOff" | "InvalidImageName"
            ) {
                let note = format!("Error: {}", e.waiting.reason);
                node.events.warning(self.about(spec), "Failed", "Starting", note);
            }
        })?;
        let config = match self.config(spec, attempt).await {
            Ok(config) => config,
            Err(message) => return Err(self.failed(spec, "CreateContainerConfigError", message)),
        };
        let runtime = &node.config.runtime;
        let id = match runtime.create_container(&self.sandbox, &config).await {
            Ok(id) => id,
            Err(error) => return Err(self.failed(spec, "CreateContainerError", error.to_string())),
        };
        node.events.normal(self.about(spec), "Created", "Starting", "Container created");
        if let Err(error) = runtime.start_container(&id).await {
            let mut error = self.failed(spec, "RunContainerError", error.to_string());
            // What was made counts as a run that failed: its back-off decides, not this one.
            error.retry_at = Timestamp::now();
            return Err(error);
        }
        node.events.normal(self.about(spec), "Started", "Starting", "Container started");
        self.post_start(spec, &id).await
    }

    fn about(&self, spec: &Spec) -> k8s_openapi::api::core::v1::ObjectReference {
        names::container_reference(&self.pod, &spec.name)
    }

    fn failed(&self, spec: &Spec, reason: &str, message: String) -> StartError {
        self.node.events.warning(self.about(spec), "Failed", "Starting", format!("Error: {message}"));
        StartError { waiting: Waiting::new(reason, message), retry_at: Timestamp::now() + RETRY }
    }

    async fn config(&self, spec: &Spec, attempt: u32) -> Result<ContainerConfig, String> {
        let (node, pod) = (&self.node, &self.pod);
        node.objects.synced(pod).await?;
        let env = {
            let objects = node.objects.of(pod);
            env::environment(pod, spec, &facts(node, &self.ips), &objects).map_err(|e| e.to_string())?
        };
        let mounted = volumes(node, pod, &self.ips).await?;
        let mut mounts = node.volumes.mounts(pod, spec, &mounted, &env).await?;
        self.own_files(spec, &mut mounts).await?;
        let message_file = self.message_file(spec, attempt, &mut mounts).await?;
        let lookup = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        let expand = |list: &Option<Vec<String>>| {
            list.as_ref()
                .filter(|l| !l.is_empty())
                .map(|l| l.iter().map(|t| env::expand(t, lookup)).collect())
        };
        let mut container_labels = labels(pod);
        container_labels.insert(names::CONTAINER_NAME.to_owned(), spec.name.clone());
        let image = spec.image.clone().unwrap_or_default();
        let annotations = [
            (names::SPEC_IMAGE.to_owned(), image.clone()),
            (names::GRACE.to_owned(), names::grace_seconds(pod).to_string()),
            (names::MESSAGE_FILE.to_owned(), message_file),
        ];
        Ok(ContainerConfig {
            name: spec.name.clone(),
            attempt,
            image,
            command: expand(&spec.command),
            args: expand(&spec.args),
            working_dir: spec.working_dir.clone(),
            mounts,
            labels: container_labels,
            annotations: annotations.into(),
            resources: resources::container_resources(pod, spec, node.memory_capacity),
            security: security::security(pod, spec)?,
            stdin: spec.stdin.unwrap_or(false),
            stdin_once: spec.stdin_once.unwrap_or(false),
            tty: spec.tty.unwrap_or(false),
            stop_signal: spec.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
            env,
        })
    }

    /// `/etc/hosts` and `/etc/resolv.conf`, unless the container mounts its own.
    async fn own_files(&self, spec: &Spec, mounts: &mut Vec<Mount>) -> Result<(), String> {
        let (node, pod) = (&self.node, &self.pod);
        let uid = names::uid(pod);
        let taken = |mounts: &[Mount], path: &str| mounts.iter().any(|m| m.container_path == path);
        if !names::host_network(pod) && !taken(mounts, "/etc/hosts") {
            let hostname = files::hostname(pod, &node.config.node_name);
            let text = files::hosts(pod, &self.ips, &hostname, &node.config.cluster_domain);
            let host_path = node.volumes.write_own(uid, "etc-hosts", text, 0o644).await?;
            let read_only =
                spec.security_context.as_ref().and_then(|c| c.read_only_root_filesystem).unwrap_or(false);
            mounts.push(Mount { host_path, container_path: "/etc/hosts".to_owned(), read_only });
        }
        if !taken(mounts, "/etc/resolv.conf") {
            let resolver = Resolver {
                cluster_dns: &node.config.cluster_dns,
                cluster_domain: &node.config.cluster_domain,
                node: &node.resolv_conf,
            };
            let text = files::resolv_conf(pod, &resolver);
            let host_path = node.volumes.write_own(uid, "resolv.conf", text, 0o644).await?;
            mounts.push(Mount { host_path, container_path: "/etc/resolv.conf".to_owned(), read_only: false });
        }
        Ok(())
    }

    async fn message_file(
        &self,
        spec: &Spec,
        attempt: u32,
        mounts: &mut Vec<Mount>,
    ) -> Result<String, String> {
        let path = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if path.is_empty() {
            return Ok(String::new());
        }
        let name = format!("containers/{}/{attempt}", spec.name);
        let host_path =
            self.node.volumes.write_own(names::uid(&self.pod), &name, String::new(), 0o666).await?;
        mounts.push(Mount { host_path, container_path: path.to_owned(), read_only: false });
        Ok(name)
    }

    async fn post_start(&self, spec: &Spec, id: &str) -> Result<(), StartError> {
        let Some(handler) = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let limit = Duration::from_secs(120);
        let Err(message) = hook(&self.node, &self.pod, spec, id, &self.ips, handler, limit).await else {
            return Ok(());
        };
        self.node.events.warning(self.about(spec), "FailedPostStartHook", "Starting", "PostStartHook failed");
        let grace = Duration::from_secs(names::grace_seconds(&self.pod).unsigned_abs());
        let _ = self.node.config.runtime.stop_container(id, grace).await;
        let error =
            StartError { waiting: Waiting::new("PostStartHookError", message), retry_at: Timestamp::now() };
        Err(error)
    }
}

/// Runs a lifecycle handler to its end.
pub(crate) async fn hook(
    node: &Node,
    pod: &Pod,
    spec: &Spec,
    id: &str,
    ips: &[IpAddr],
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match node.config.runtime.exec_sync(id, &command, limit).await {
            Ok(result) if result.exit_code == 0 => Ok(()),
            Ok(result) => Err(format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                result.exit_code,
                String::from_utf8_lossy(&result.output)
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(sleep.seconds.max(0).unsigned_abs());
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    if let Some(action) = &handler.http_get {
        if node.config.simulated {
            return Ok(());
        }
        let host = if names::host_network(pod) { Some(node.config.node_ip) } else { ips.first().copied() };
        let port = prober::port(spec, &action.port).ok_or("the hook's port is unknown")?;
        let host = host.ok_or("failed to find networking container")?;
        return match http_probe::get(action, &host.to_string(), port, limit).await {
            Attempt::Success => Ok(()),
            Attempt::Failure(message) | Attempt::Error(message) => Err(message),
        };
    }
    Err("invalid handler: no action".to_owned())
}

/// The termination message of an ended container: its file, else, where the policy says so, the end of its log.
pub(crate) async fn termination_message(node: &Node, pod: &Pod, c: &loadline_runtime::Container) -> String {
    use futures::StreamExt;
    let file = c.annotations.get(names::MESSAGE_FILE).filter(|f| !f.is_empty());
    if let Some(file) = file.filter(|_| !node.config.simulated) {
        let path = node.volumes.pod_dir(names::uid(pod)).join(file);
        if let Ok(data) = tokio::fs::read(&path).await
            && !data.is_empty()
        {
            let tail = &data[data.len().saturating_sub(4096)..];
            return String::from_utf8_lossy(tail).into_owned();
        }
    }
    let spec = names::container(pod, &c.name);
    let fallback =
        spec.and_then(|s| s.termination_message_policy.as_deref()) == Some("FallbackToLogsOnError");
    if !fallback || c.exit_code == 0 {
        return String::new();
    }
    let options = loadline_runtime::LogOptions { tail: Some(80), ..Default::default() };
    let Ok(mut lines) = node.config.runtime.logs(&c.id, &options).await else { return String::new() };
    let mut text: Vec<u8> = Vec::new();
    while let Some(Ok(line)) = lines.next().await {
        match line {
            loadline_runtime::Output::Stdout(b) | loadline_runtime::Output::Stderr(b) => {
                text.extend_from_slice(&b)
            }
        }
    }
    String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_LOG_MESSAGE)..]).into_owned()
}
