//! What Docker says about our containers, in the runtime's types, and the cache that keeps `inspect` calls few.
//!
//! Docker's list does not tell exit codes, times or process ids, and an inspect costs a round trip each. So an
//! observation is kept as long as the list shows the same state and no event named the container. Every event
//! raises the generation of its slot; an inspect that was under way meanwhile is not stored.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::models::{ContainerInspectResponse, ContainerState as DockerState};
use jiff::Timestamp;

use super::DockerConfig;
use super::names;
use super::spec::SandboxHost;
use crate::{Container, ContainerState, Sandbox};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    Sandbox(Sandbox, SandboxHost),
    Container(Container),
}

/// One of this node's containers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) object: Object,
    /// Docker's word for the state, as its list has it.
    pub(crate) state: String,
    pub(crate) started: bool,
    pub(crate) tty: bool,
    /// The cgroup made for this pod alone.
    pub(crate) pod_cgroup: Option<String>,
}

impl Observed {
    pub(crate) fn container(&self) -> Option<&Container> {
        match &self.object {
            Object::Container(container) => Some(container),
            Object::Sandbox(..) => None,
        }
    }

    pub(crate) fn sandbox(&self) -> Option<(&Sandbox, &SandboxHost)> {
        match &self.object {
            Object::Sandbox(sandbox, host) => Some((sandbox, host)),
            Object::Container(_) => None,
        }
    }
}

/// `None` when it is not this node's.
pub(crate) fn observe(config: &DockerConfig, answer: ContainerInspectResponse) -> Option<Observed> {
    let id = answer.id?;
    let docker_config = answer.config?;
    let labels = docker_config.labels.unwrap_or_default();
    if !names::is_ours(config, &labels) {
        return None;
    }
    let state = answer.state.unwrap_or_default();
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let attempt = label(names::ATTEMPT).parse().unwrap_or_default();
    let created_at = answer.created.as_deref().and_then(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let started_at = state.started_at.as_deref().and_then(time);
    let (user_labels, annotations) = names::split(&labels);

    let object = if label(names::KIND) == names::KIND_SANDBOX {
        let host = answer.host_config.as_ref().map(SandboxHost::from_docker).unwrap_or_default();
        let sandbox = Sandbox {
            id,
            namespace: label(names::POD_NAMESPACE),
            name: label(names::POD_NAME),
            uid: label(names::POD_UID),
            attempt,
            ready: state.running == Some(true),
            created_at,
            netns: pid.filter(|_| !host.host_network).map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))),
            labels: user_labels,
            annotations,
        };
        Object::Sandbox(sandbox, host)
    } else {
        Object::Container(Container {
            id,
            sandbox_id: label(names::SANDBOX_ID),
            name: label(names::CONTAINER),
            attempt,
            image: label(names::IMAGE),
            image_id: answer.image.unwrap_or_default(),
            state: container_state(&state),
            created_at,
            started_at,
            finished_at: state.finished_at.as_deref().and_then(time).filter(|_| started_at.is_some()),
            exit_code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
            // Docker reports a death by signal n as exit code 128 + n, which a process can also choose itself.
            signal: 0,
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.clone().unwrap_or_default(),
            pid,
            labels: user_labels,
            annotations,
        })
    };
    Some(Observed {
        object,
        state: state.status.map(|status| status.to_string()).unwrap_or_default(),
        started: started_at.is_some(),
        tty: docker_config.tty.unwrap_or_default(),
        pod_cgroup: labels.get(names::CGROUP).cloned(),
    })
}

/// A container that Docker calls "created" but that has an exit code could not be started.
fn container_state(state: &DockerState) -> ContainerState {
    match state.status.map(|status| status.to_string()).unwrap_or_default().as_str() {
        "running" | "paused" | "restarting" | "stopping" => ContainerState::Running,
        "created" if state.exit_code.unwrap_or_default() == 0 => ContainerState::Created,
        _ => ContainerState::Exited,
    }
}

/// Docker writes year 1 for "never".
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    /// The cache's clock when this slot appeared.
    since: u64,
    oom: bool,
    observed: Option<Arc<Observed>>,
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    slots: HashMap<String, Slot>,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    state: Mutex<State>,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the map is sound between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Observed>> {
        self.state().slots.get(id)?.observed.clone()
    }

    /// Call before an inspect; hand the result to `store`.
    pub(crate) fn generation(&self, id: &str) -> u64 {
        self.slot(&mut self.state(), id).generation
    }

    /// The cache's clock before a list, for `retain`.
    pub(crate) fn clock(&self) -> u64 {
        self.state().clock
    }

    fn slot<'a>(&self, state: &'a mut State, id: &str) -> &'a mut Slot {
        state.clock += 1;
        let since = state.clock;
        state.slots.entry(id.to_owned()).or_insert_with(|| Slot { since, ..Slot::default() })
    }

    /// Keeps an observation unless an event came in between; either way returns it, with what events told.
    pub(crate) fn store(&self, id: &str, generation: u64, mut observed: Observed) -> Arc<Observed> {
        let mut state = self.state();
        let Some(slot) = state.slots.get_mut(id) else { return Arc::new(observed) };
        if let Object::Container(container) = &mut observed.object {
            container.oom_killed |= slot.oom && container.state == ContainerState::Exited;
        }
        let observed = Arc::new(observed);
        if slot.generation == generation {
            slot.observed = Some(observed.clone());
        }
        observed
    }

    /// An event named it: look again.
    pub(crate) fn invalidate(&self, id: &str, oom: bool) {
        let mut state = self.state();
        let slot = self.slot(&mut state, id);
        slot.generation += 1;
        slot.oom |= oom;
        slot.observed = None;
    }

    pub(crate) fn forget(&self, id: &str) {
        self.state().slots.remove(id);
    }

    /// After a gap in the events nothing is known to be current, except what was gone.
    pub(crate) fn invalidate_all(&self) {
        for slot in self.state().slots.values_mut() {
            slot.generation += 1;
            slot.observed = None;
        }
    }

    /// Drops what a full list, asked for at `clock`, no longer has.
    pub(crate) fn retain(&self, listed: &HashSet<&str>, clock: u64) {
        self.state().slots.retain(|id, slot| slot.since > clock || listed.contains(id.as_str()));
    }

    /// Ids and processes of the app containers that run, as far as is known.
    pub(crate) fn running(&self) -> Vec<(String, u32)> {
        let state = self.state();
        let running = state.slots.iter().filter_map(|(id, slot)| {
            let container = slot.observed.as_ref()?.container()?;
            (container.state == ContainerState::Running).then_some(())?;
            Some((id.clone(), container.pid?))
        });
        running.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: &str, exit_code: i64) -> ContainerInspectResponse {
        let json = serde_json::json!({
            "Id": "abc",
            "Created": "2024-05-01T10:00:00.5Z",
            "Image": "sha256:1",
            "State": {
                "Status": status, "Running": status == "running", "Pid": 42, "ExitCode": exit_code,
                "StartedAt": if status == "created" { "0001-01-01T00:00:00Z" } else { "2024-05-01T10:00:01Z" },
                "FinishedAt": "0001-01-01T00:00:00Z",
            },
            "Config": {"Tty": true, "Labels": {
                "io.loadline.cluster": "c", "io.loadline.node": "n", "io.loadline.kind": "container",
                "io.loadline.pod.uid": "u", "io.loadline.container": "app", "io.loadline.attempt": "3",
                "io.loadline.sandbox.id": "s", "io.loadline.image": "img:1", "io.loadline.label.a": "b",
            }},
        });
        serde_json::from_value(json).unwrap()
    }

    fn seen(status: &str, exit_code: i64) -> Observed {
        observe(&DockerConfig::new("c", "n"), answer(status, exit_code)).unwrap()
    }

    #[test]
    fn states_and_times() {
        let cases = [
            ("created", 0, ContainerState::Created),
            ("created", 127, ContainerState::Exited),
            ("running", 0, ContainerState::Running),
            ("paused", 0, ContainerState::Running),
            ("exited", 0, ContainerState::Exited),
            ("dead", 0, ContainerState::Exited),
            ("removing", 0, ContainerState::Exited),
        ];
        for (status, code, expected) in cases {
            let observed = seen(status, code);
            let container = observed.container().unwrap();
            assert_eq!(container.state, expected, "{status} {code}");
            assert_eq!(container.started_at.is_some(), status != "created", "{status}");
            assert_eq!(container.finished_at, None);
        }
        let observed = seen("running", 0);
        let container = observed.container().unwrap();
        assert_eq!((container.name.as_str(), container.attempt, container.pid), ("app", 3, Some(42)));
        assert_eq!(container.labels.get("a").map(String::as_str), Some("b"));
        assert_eq!(observe(&DockerConfig::new("other", "n"), answer("running", 0)), None);
    }

    #[test]
    fn an_event_during_an_inspect_wins() {
        let cache = Cache::default();
        let generation = cache.generation("abc");
        cache.invalidate("abc", true);
        let returned = cache.store("abc", generation, seen("exited", 137));
        assert!(returned.container().unwrap().oom_killed, "the event told of it");
        assert_eq!(cache.get("abc"), None);
        cache.store("abc", cache.generation("abc"), seen("running", 0));
        assert_eq!(cache.running(), [("abc".to_owned(), 42)]);
    }

    #[test]
    fn a_list_does_not_drop_what_came_after_it() {
        let cache = Cache::default();
        cache.generation("old");
        let clock = cache.clock();
        cache.store("abc", cache.generation("abc"), seen("running", 0));
        cache.retain(&HashSet::new(), clock);
        assert!(cache.get("abc").is_some());
        assert_eq!(cache.state().slots.len(), 1);
    }
}
