//! Turns sandbox and container configs into Docker's create requests. Pure: no daemon, no clock.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as DockerMount, MountType,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::{Abilities, CgroupDriver, DockerConfig, names};
use crate::{ContainerConfig, Mount, Resources, Result, RuntimeError, Sandbox, SandboxConfig, Security};

/// Kubernetes' CFS period; quotas are given for it.
const CPU_PERIOD: i64 = 100_000;
/// What Kubernetes gives its sandboxes: the last process of a pod to be killed for memory.
const SANDBOX_OOM_SCORE: i64 = -998;
/// Where the pause program lies in its image.
pub(crate) const PAUSE_PATH: &str = "/pause";

/// What containers must repeat of their sandbox, as Docker shows it on the sandbox's own container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SandboxHost {
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) cgroup_parent: Option<String>,
}

impl SandboxHost {
    pub(crate) fn from_docker(host: &HostConfig) -> Self {
        let is_host = |mode: &Option<String>| mode.as_deref() == Some("host");
        Self {
            host_network: is_host(&host.network_mode),
            host_pid: is_host(&host.pid_mode),
            host_ipc: is_host(&host.ipc_mode),
            cgroup_parent: host.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
        }
    }
}

pub(crate) fn sandbox(
    config: &DockerConfig,
    abilities: Abilities,
    image: String,
    sandbox: &SandboxConfig,
) -> Result<ContainerCreateBody> {
    let host = |yes: bool, otherwise: &str| Some(if yes { "host".to_owned() } else { otherwise.to_owned() });
    let parent = sandbox.cgroup_parent.as_ref().or(config.cgroup_parent.as_ref());
    let host_config = HostConfig {
        network_mode: host(sandbox.host_network, "none"),
        // The containers of the pod join it, which a private namespace would not allow.
        ipc_mode: host(sandbox.host_ipc, "shareable"),
        pid_mode: sandbox.host_pid.then(|| "host".to_owned()),
        uts_mode: sandbox.host_network.then(|| "host".to_owned()),
        cgroup_parent: parent.map(|parent| cgroup_parent(abilities.driver, parent)).transpose()?,
        sysctls: (!sandbox.sysctls.is_empty())
            .then(|| sandbox.sysctls.clone().into_iter().collect::<HashMap<_, _>>()),
        oom_score_adj: Some(oom_score(abilities, SANDBOX_OOM_SCORE)),
        cpu_shares: Some(2),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        ..common(config)
    };
    Ok(ContainerCreateBody {
        // Docker refuses a hostname of one's own in the host's UTS namespace.
        hostname: (!sandbox.host_network && !sandbox.hostname.is_empty()).then(|| sandbox.hostname.clone()),
        image: Some(image),
        entrypoint: Some(vec![PAUSE_PATH.into()]),
        labels: Some(names::sandbox_labels(config, sandbox)),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

pub(crate) fn container(
    config: &DockerConfig,
    abilities: Abilities,
    sandbox: &Sandbox,
    host: &SandboxHost,
    container: &ContainerConfig,
) -> Result<ContainerCreateBody> {
    let joined = format!("container:{}", sandbox.id);
    let mut host_config = HostConfig {
        network_mode: Some(joined.clone()),
        ipc_mode: Some(if host.host_ipc { "host".into() } else { joined }),
        pid_mode: host.host_pid.then(|| "host".to_owned()),
        uts_mode: host.host_network.then(|| "host".to_owned()),
        cgroup_parent: host.cgroup_parent.clone(),
        mounts: Some(mounts(&container.mounts)?),
        ..common(config)
    };
    limit(&mut host_config, abilities, &container.resources);
    secure(&mut host_config, &container.security);
    Ok(ContainerCreateBody {
        image: Some(container.image.clone()),
        // As in Kubernetes: a command replaces the image's entrypoint and its arguments, args only the arguments.
        entrypoint: container.command.clone().filter(|command| !command.is_empty()),
        cmd: container.args.clone().filter(|args| !args.is_empty()),
        env: Some(container.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        user: user(&container.security)?,
        labels: Some(names::container_labels(config, sandbox, container)),
        // Probes are the kubelet's; an image's HEALTHCHECK would only cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        tty: Some(container.tty),
        open_stdin: Some(container.stdin),
        stdin_once: Some(container.stdin && container.stdin_once),
        stop_signal: container.stop_signal.clone(),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

fn common(config: &DockerConfig) -> HostConfig {
    let rotation =
        [("max-size", config.log_max_size.clone()), ("max-file", config.log_max_files.to_string())];
    HostConfig {
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(rotation.map(|(key, value)| (key.to_owned(), value)).into()),
        }),
        init: Some(false),
        ..HostConfig::default()
    }
}

fn oom_score(abilities: Abilities, wanted: i64) -> i64 {
    abilities.oom_floor.map_or(wanted, |floor| wanted.max(floor))
}

fn limit(host: &mut HostConfig, abilities: Abilities, resources: &Resources) {
    host.cpu_shares = resources.cpu_shares.map(|shares| i64::try_from(shares).unwrap_or(i64::MAX));
    if let Some(quota) = resources.cpu_quota {
        host.cpu_period = Some(CPU_PERIOD);
        host.cpu_quota = Some(quota);
    }
    if let Some(memory) = resources.memory_limit {
        host.memory = Some(memory);
        // The same figure for memory and swap together: no swap, as Kubernetes has it by default.
        host.memory_swap = Some(memory);
    }
    host.pids_limit = resources.pids_limit;
    host.oom_score_adj = Some(oom_score(abilities, resources.oom_score_adj));
}

fn secure(host: &mut HostConfig, security: &Security) {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    host.privileged = Some(security.privileged);
    host.readonly_rootfs = Some(security.read_only_root);
    host.cap_add = some(security.add_capabilities.clone());
    host.cap_drop = some(security.drop_capabilities.clone());
    host.group_add = some(security.supplemental_groups.iter().map(i64::to_string).collect());
    host.security_opt = security.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]);
}

fn user(security: &Security) -> Result<Option<String>> {
    match (security.run_as_user, security.run_as_group) {
        (Some(user), Some(group)) => Ok(Some(format!("{user}:{group}"))),
        (Some(user), None) => Ok(Some(user.to_string())),
        (None, None) => Ok(None),
        (None, Some(group)) => Err(RuntimeError::Invalid(format!(
            "runAsGroup {group} needs runAsUser beside it: Docker cannot change the group alone"
        ))),
    }
}

fn mounts(mounts: &[Mount]) -> Result<Vec<DockerMount>> {
    mounts
        .iter()
        .map(|mount| {
            let source = mount.host_path.to_str().ok_or_else(|| {
                RuntimeError::Invalid(format!("mount source {:?} is not UTF-8", mount.host_path))
            })?;
            Ok(DockerMount {
                typ: Some(MountType::BIND),
                source: Some(source.to_owned()),
                target: Some(mount.container_path.clone()),
                read_only: Some(mount.read_only),
                ..DockerMount::default()
            })
        })
        .collect()
}

/// The parent as the daemon's cgroup driver wants it: a path, or for systemd the name of a slice, in which `-`
/// separates levels and `_` replaces it inside a level (as the kubelet escapes it).
pub(crate) fn cgroup_parent(driver: CgroupDriver, parent: &str) -> Result<String> {
    let levels: Vec<&str> = parent.split('/').filter(|level| !level.is_empty()).collect();
    if levels.is_empty() || levels.iter().any(|level| matches!(*level, "." | "..")) {
        return Err(RuntimeError::Invalid(format!("cgroup parent {parent:?} is not a path below the root")));
    }
    Ok(match driver {
        CgroupDriver::Cgroupfs => format!("/{}", levels.join("/")),
        CgroupDriver::Systemd if parent.ends_with(".slice") && levels.len() == 1 => levels[0].to_owned(),
        CgroupDriver::Systemd => {
            let escaped: Vec<String> = levels.iter().map(|level| level.replace('-', "_")).collect();
            format!("{}.slice", escaped.join("-"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Sandbox {
        Sandbox {
            id: "abc".into(),
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u1".into(),
            attempt: 0,
            ready: true,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            netns: None,
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    fn body(config: ContainerConfig) -> Result<ContainerCreateBody> {
        let abilities = Abilities { driver: CgroupDriver::Cgroupfs, oom_floor: None };
        container(&DockerConfig::new("c", "n"), abilities, &pod(), &SandboxHost::default(), &config)
    }

    #[test]
    fn command_and_args_follow_kubernetes() {
        let words = |text: &str| Some(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        // command, args → entrypoint, cmd
        let cases = [
            (None, None, None, None),
            (words("sh -c"), None, words("sh -c"), None),
            (None, words("x y"), None, words("x y")),
            (words("sh"), words("x"), words("sh"), words("x")),
            (Some(vec![]), Some(vec![]), None, None),
        ];
        for (command, args, entrypoint, cmd) in cases {
            let made = body(ContainerConfig { command, args, ..Default::default() }).unwrap();
            assert_eq!((made.entrypoint, made.cmd), (entrypoint, cmd));
        }
    }

    #[test]
    fn limits_reach_docker_and_swap_is_off() {
        let resources = Resources {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            memory_limit: Some(1 << 24),
            oom_score_adj: 900,
            pids_limit: Some(64),
        };
        let host = body(ContainerConfig { resources, ..Default::default() }).unwrap().host_config.unwrap();
        assert_eq!(
            (host.cpu_shares, host.cpu_period, host.cpu_quota),
            (Some(512), Some(100_000), Some(50_000))
        );
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 24), Some(1 << 24)));
        assert_eq!((host.oom_score_adj, host.pids_limit), (Some(900), Some(64)));
        assert_eq!(host.network_mode.as_deref(), Some("container:abc"));
        let free = body(ContainerConfig::default()).unwrap().host_config.unwrap();
        assert_eq!(
            (free.cpu_period, free.cpu_quota, free.memory, free.memory_swap),
            (None, None, None, None)
        );
    }

    #[test]
    fn users() {
        let cases = [
            (Some(1000), Some(2000), Ok(Some("1000:2000"))),
            (Some(0), None, Ok(Some("0"))),
            (None, None, Ok(None)),
            (None, Some(5), Err(())),
        ];
        for (run_as_user, run_as_group, expected) in cases {
            let got = user(&Security { run_as_user, run_as_group, ..Default::default() });
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(|_| ()), expected);
        }
    }

    #[test]
    fn cgroup_parents() {
        use CgroupDriver::*;
        let cases = [
            (Cgroupfs, "/loadline/podu-1", Some("/loadline/podu-1")),
            (Cgroupfs, "loadline/", Some("/loadline")),
            (Systemd, "/loadline/podu-1", Some("loadline-podu_1.slice")),
            (Systemd, "machine.slice", Some("machine.slice")),
            (Cgroupfs, "/", None),
            (Cgroupfs, "/a/../b", None),
            (Systemd, "", None),
        ];
        for (driver, parent, expected) in cases {
            assert_eq!(cgroup_parent(driver, parent).ok().as_deref(), expected, "{driver:?} {parent}");
        }
    }
}
