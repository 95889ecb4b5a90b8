//! When nodes are given up and taken back.

use serde_json::json;

use super::*;

fn wall() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn settings() -> Settings {
    crate::Profile::Fast.node_settings()
}

/// Nodes, a clock, and what the shell would do: written conditions and taints come back as state.
struct World {
    settings: Settings,
    memory: Memory,
    nodes: Vec<Arc<Node>>,
    ms: u64,
    marked: Vec<String>,
}

impl World {
    fn new(count: usize) -> Self {
        let nodes = (0..count).map(|i| Arc::new(node(&format!("n{i}"), "True"))).collect();
        Self { settings: settings(), memory: Memory::default(), nodes, ms: 0, marked: Vec::new() }
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.ms)
    }

    /// Looks every half second for `seconds`, while all but the silent nodes renew every second.
    fn run(&mut self, seconds: u64, silent: &[usize]) {
        for _ in 0..seconds * 2 {
            self.ms += 500;
            if self.ms.is_multiple_of(1000) {
                for i in 0..self.nodes.len() {
                    if !silent.contains(&i) {
                        self.renew(i);
                    }
                }
            }
            self.look();
        }
    }

    /// A renewal; the kubelet also writes its status again where that was taken from it.
    fn renew(&mut self, i: usize) {
        let now = self.now();
        let n = Arc::make_mut(&mut self.nodes[i]);
        self.memory.heard(name(&n.metadata), now);
        if ready_status(n) == Some("Unknown") {
            n.status = node("x", "True").status;
        }
    }

    fn look(&mut self) -> Vec<Action> {
        let actions =
            plan(&self.settings, &mut self.memory, &self.nodes, Duration::from_millis(self.ms), wall());
        for action in actions.clone() {
            match action {
                Action::MarkPods(node) => self.marked.push(node),
                Action::Update { node, conditions, taints, .. } => {
                    let n = self.nodes.iter_mut().find(|n| n.metadata.name == node.metadata.name).unwrap();
                    let n = Arc::make_mut(n);
                    if conditions.is_some() {
                        n.status.get_or_insert_default().conditions = conditions;
                    }
                    if let Some(taints) = taints {
                        n.spec.get_or_insert_default().taints = Some(taints);
                    }
                }
            }
        }
        actions
    }

    fn ready(&self, i: usize) -> &str {
        ready_status(&self.nodes[i]).unwrap_or("none")
    }

    fn taints(&self, i: usize) -> Vec<String> {
        let taints = self.nodes[i].spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let mut texts: Vec<String> = taints
            .iter()
            .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
            .collect();
        texts.sort();
        texts
    }

    fn evicting(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.taints(*i).iter().any(|t| t.ends_with(NO_EXECUTE))).collect()
    }
}

fn node(name: &str, ready: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name},
        "status": {"conditions": [
            {"type": "MemoryPressure", "status": "False"},
            {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T11:00:00Z"},
        ]},
    }))
    .unwrap()
}

#[test]
fn a_silent_node_is_unknown_tainted_and_marked_after_its_grace() {
    let mut world = World::new(3);
    world.run(10, &[]);
    assert_eq!(world.look(), [], "nothing to do while all renew");
    world.run(5, &[1]);
    assert_eq!(world.ready(1), "True", "five seconds are forgiven");
    world.run(1, &[1]);
    assert_eq!(world.ready(1), "Unknown");
    assert_eq!(world.taints(1), ["unreachable:NoExecute", "unreachable:NoSchedule"]);
    assert_eq!(world.marked, ["n1"]);
    let conditions = world.nodes[1].status.clone().unwrap().conditions.unwrap();
    assert!(conditions.iter().all(|c| c.status == "Unknown"));
    assert_eq!(conditions.len(), REPORTED.len());
    world.run(60, &[1]);
    assert_eq!(world.marked, ["n1"], "once");
    world.run(2, &[]);
    assert_eq!((world.ready(1), world.taints(1)), ("True", vec![]));
}

#[test]
fn a_node_that_says_it_is_not_ready_gets_the_other_taint() {
    let mut world = World::new(3);
    world.nodes[0] = Arc::new(node("n0", "False"));
    world.look();
    assert_eq!(world.taints(0), ["not-ready:NoExecute", "not-ready:NoSchedule"]);
    assert_eq!(world.marked, ["n0"]);
}

#[test]
fn foreign_taints_stay_and_ours_follow_the_conditions() {
    let mut world = World::new(2);
    world.nodes[0] = Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "n0", "uid": "n0"},
            "spec": {"unschedulable": true, "taints": [
                {"key": "gpu", "value": "x", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "True"}]},
        }))
        .unwrap(),
    );
    world.look();
    assert_eq!(world.taints(0), ["gpu:NoSchedule", "memory-pressure:NoSchedule", "unschedulable:NoSchedule"]);
    assert_eq!(world.look(), []);
}

#[test]
fn most_nodes_silent_at_once_evicts_nobody() {
    // (nodes, silent ones, evicted within 9 s)
    let cases: &[(usize, usize, usize)] = &[
        (1, 1, 0), // all silent
        (2, 2, 0),
        (3, 1, 1),
        (3, 2, 1), // two thirds, but not more than two; the second waits for its turn
        (3, 3, 0),
        (5, 3, 0),   // 60 %
        (6, 3, 1),   // 50 %
        (20, 11, 1), // 55 % exactly
        (20, 12, 0),
    ];
    for (count, silent, evicted) in cases {
        let mut world = World::new(*count);
        world.run(3, &[]);
        let silent: Vec<usize> = (0..*silent).collect();
        world.run(9, &silent);
        assert!(silent.iter().all(|i| world.ready(*i) == "Unknown"), "the status tells the truth");
        assert_eq!(world.evicting().len(), *evicted, "{count} nodes, {} silent", silent.len());
    }
}

#[test]
fn one_node_after_the_other() {
    let mut world = World::new(10);
    world.run(3, &[]);
    world.run(7, &[0, 1, 2]);
    assert_eq!(world.evicting(), [0]);
    world.run(8, &[0, 1, 2]);
    assert_eq!(world.evicting(), [0]);
    world.run(2, &[0, 1, 2]);
    assert_eq!(world.evicting(), [0, 1]);
    world.run(10, &[0, 1, 2]);
    assert_eq!(world.evicting(), [0, 1, 2]);
}

#[test]
fn when_all_were_silent_the_first_to_return_does_not_doom_the_others() {
    let mut world = World::new(3);
    world.run(3, &[]);
    world.run(60, &[0, 1, 2]);
    assert_eq!(world.memory.disruption(), Disruption::Full);
    assert_eq!(world.marked, [] as [&str; 0], "no endpoint is withdrawn while nobody answers");
    assert_eq!(world.evicting(), [] as [usize; 0]);
    world.run(4, &[1, 2]);
    assert_eq!(world.evicting(), [] as [usize; 0], "their clocks started again");
    world.run(2, &[2]);
    assert_eq!(world.evicting(), [] as [usize; 0]);
    world.run(6, &[2]);
    assert_eq!(world.evicting(), [2], "the one that stays away goes");
}

#[test]
fn evictions_stop_when_everybody_falls_silent() {
    let mut world = World::new(3);
    world.run(3, &[]);
    world.run(7, &[0]);
    assert_eq!(world.evicting(), [0]);
    world.run(7, &[0, 1, 2]);
    assert_eq!(world.evicting(), [] as [usize; 0]);
}

#[test]
fn a_look_that_comes_late_blames_nobody() {
    let mut world = World::new(3);
    world.run(3, &[]);
    world.ms += 30_000;
    assert_eq!(world.look(), [], "we were asleep");
    world.run(4, &[0]);
    assert_eq!(world.ready(0), "True");
    world.run(3, &[0]);
    assert_eq!(world.ready(0), "Unknown");
}

#[test]
fn clocks_start_with_the_controller() {
    let mut world = World::new(3);
    world.ms = 1_000_000;
    assert_eq!(world.look(), []);
    world.run(5, &[0]);
    assert_eq!(world.ready(0), "True");
}

#[test]
fn a_flapping_node_gets_more_time() {
    let mut world = World::new(3);
    world.run(3, &[]);
    for _ in 0..FLAPS {
        world.run(7, &[0]);
        assert_eq!(world.ready(0), "Unknown");
        world.run(12, &[]);
        assert_eq!(world.ready(0), "True");
    }
    world.run(40, &[0]);
    assert_eq!(world.ready(0), "True", "fifty seconds now");
    world.run(12, &[0]);
    assert_eq!(world.ready(0), "Unknown");
    world.run(400, &[]);
    world.run(7, &[0]);
    assert_eq!(world.ready(0), "Unknown", "forgotten after five minutes");
}

#[test]
fn short_silences_are_no_reason_at_all() {
    let mut world = World::new(3);
    for _ in 0..20 {
        world.run(3, &[0]);
        world.run(3, &[]);
    }
    assert_eq!((world.ready(0), world.marked.len(), world.evicting().len()), ("True", 0, 0));
}

#[test]
fn a_node_that_never_reported_has_a_minute() {
    let mut world = World::new(3);
    world.nodes[0] =
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "n0", "uid": "n0"}})).unwrap());
    world.run(59, &[0]);
    assert_eq!(world.ready(0), "none");
    world.run(3, &[0]);
    assert_eq!(world.ready(0), "Unknown");
}
