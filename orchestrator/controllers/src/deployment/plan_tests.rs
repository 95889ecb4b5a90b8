//! What a Deployment's plan does in each situation.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use serde_json::json;

use super::super::sets::same_template;
use super::*;
use crate::deployment::annotations::{DESIRED, MAX, REVISION_HISTORY};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// A Deployment and its sets, with a server and a ReplicaSet controller that do at once what they are told.
#[derive(Clone)]
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    log: Vec<String>,
    serial: i64,
}

impl World {
    fn new(replicas: i32, surge: &str, unavailable: &str) -> Self {
        let number = |t: &str| t.parse().map_or_else(|_| IntOrString::String(t.to_owned()), IntOrString::Int);
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {
                    "maxSurge": number(surge), "maxUnavailable": number(unavailable)}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "v1"}]},
                },
            },
        }))
        .unwrap();
        Self { deployment, sets: Vec::new(), now: now(), log: Vec::new(), serial: 0 }
    }

    fn edit(&mut self, change: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        change(self.deployment.spec.as_mut().unwrap());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn image(&mut self, image: &str) {
        self.edit(|s| s.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned()));
    }

    fn observed(&self) -> Observed {
        Observed {
            deployment: Arc::new(self.deployment.clone()),
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            pods: Vec::new(),
            now: self.now,
        }
    }

    /// One step; whether anything was done.
    fn step(&mut self) -> bool {
        let plan = plan(&self.observed());
        let acted = !plan.actions.is_empty();
        for action in plan.actions {
            self.execute(action);
        }
        acted
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::CreateSet { set, replicas } => {
                self.serial += 1;
                let mut set = *set;
                set.metadata.uid = Some(format!("rs{}", self.serial));
                set.metadata.generation = Some(1);
                let at = self.now + SignedDuration::from_secs(self.serial);
                set.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
                self.log.push(format!("create {} at {replicas}", image(&set)));
                self.sets.push(set);
            }
            Action::UpdateSet { set, replicas, min_ready_seconds, annotations } => {
                let set = self.sets.iter_mut().find(|s| s.metadata.uid == set.metadata.uid).unwrap();
                let before = set.spec.as_ref().unwrap().replicas.unwrap();
                if before != replicas {
                    self.log.push(format!("{} {before} -> {replicas}", image(set)));
                }
                let spec = set.spec.as_mut().unwrap();
                spec.replicas = Some(replicas);
                spec.min_ready_seconds = Some(min_ready_seconds);
                let notes = set.metadata.annotations.get_or_insert_default();
                for (key, value) in annotations {
                    match value {
                        Some(value) => notes.insert(key, value),
                        None => notes.remove(&key),
                    };
                }
            }
            Action::DeleteSet(set) => {
                self.log.push(format!("delete {}", image(&set)));
                self.sets.retain(|s| s.metadata.uid != set.metadata.uid);
            }
            Action::SetRevision(revision) => {
                self.deployment
                    .metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(REVISION.to_owned(), revision);
            }
            Action::WriteStatus(status) => self.deployment.status = Some(*status),
        }
    }

    /// The pods of every set appear or vanish; of what is missing in availability at most `ready` become available.
    fn pods_follow(&mut self, mut ready: i32) {
        for set in &mut self.sets {
            let wanted = set.spec.as_ref().unwrap().replicas.unwrap();
            let status = set.status.get_or_insert_default();
            let available = status.available_replicas.unwrap_or_default().min(wanted);
            let more = (wanted - available).min(ready);
            ready -= more;
            status.replicas = wanted;
            status.ready_replicas = Some(available + more);
            status.available_replicas = Some(available + more);
            status.observed_generation = set.metadata.generation;
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.pods_follow(i32::MAX);
            if !self.step() {
                return;
            }
        }
        panic!("did not settle: {:#?}", self.log);
    }

    fn reason(&self, type_: &str) -> String {
        let status = self.deployment.status.clone().unwrap_or_default();
        progress::condition(&status, type_).and_then(|c| c.reason.clone()).unwrap_or_default()
    }

    fn set(&self, wanted: &str) -> &ReplicaSet {
        self.sets.iter().find(|s| image(s) == wanted).unwrap()
    }

    fn sizes(&self) -> Vec<(String, i32)> {
        self.sets.iter().map(|s| (image(s), s.spec.as_ref().unwrap().replicas.unwrap())).collect()
    }

    fn note(&self, image: &str, key: &str) -> Option<&str> {
        crate::meta::annotation(&self.set(image).metadata, key)
    }
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref()).unwrap();
    template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

#[test]
fn a_first_rollout_creates_one_set_and_ends_available() {
    let mut world = World::new(3, "25%", "25%");
    assert!(world.step());
    assert_eq!(world.log, ["create v1 at 3"]);
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
    let set = &world.sets[0];
    let hash = &set.metadata.labels.as_ref().unwrap()[HASH_LABEL];
    assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    assert_eq!(&set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!((world.note("v1", DESIRED), world.note("v1", MAX)), (Some("3"), Some("4")));
    world.pods_follow(1);
    world.step();
    assert_eq!(world.reason("Progressing"), "ReplicaSetUpdated");
    world.settle();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
    let status = world.deployment.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.updated_replicas, status.available_replicas),
        (Some(3), Some(3), Some(3))
    );
    assert_eq!((status.unavailable_replicas, status.observed_generation), (None, Some(1)));
    assert_eq!(crate::meta::annotation(&world.deployment.metadata, REVISION), Some("1"));
}

#[test]
fn rolling_updates_take_these_steps() {
    let cases: &[(i32, &str, &str, &[&str])] = &[
        // Surge only: one new, then one old for each that is available.
        (3, "1", "0", &["create v2 at 1", "v1 3 -> 2", "v2 1 -> 2", "v1 2 -> 1", "v2 2 -> 3", "v1 1 -> 0"]),
        // Unavailability only.
        (
            3,
            "0",
            "1",
            &["create v2 at 0", "v1 3 -> 2", "v2 0 -> 1", "v1 2 -> 1", "v2 1 -> 2", "v1 1 -> 0", "v2 2 -> 3"],
        ),
        // 25 % of four: one more and one less.
        (
            4,
            "25%",
            "25%",
            &["create v2 at 1", "v1 4 -> 3", "v2 1 -> 2", "v1 3 -> 1", "v2 2 -> 4", "v1 1 -> 0"],
        ),
        // Rounding makes both zero: one may be unavailable.
        (1, "0", "25%", &["create v2 at 0", "v1 1 -> 0", "v2 0 -> 1"]),
        // Everything at once.
        (2, "100%", "100%", &["create v2 at 2", "v1 2 -> 0"]),
    ];
    for (replicas, surge, unavailable, expected) in cases {
        let mut world = World::new(*replicas, surge, unavailable);
        world.settle();
        world.log.clear();
        world.image("v2");
        for _ in 0..50 {
            // The controller looks after every single change of availability.
            while world.step() {}
            world.pods_follow(i32::MAX);
        }
        assert_eq!(world.log, *expected, "{replicas} replicas, surge {surge}, unavailable {unavailable}");
        assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    }
}

#[test]
fn broken_old_pods_go_first_and_do_not_stop_a_rollout() {
    let mut world = World::new(4, "1", "0");
    world.settle();
    let status = world.sets[0].status.as_mut().unwrap();
    (status.available_replicas, status.ready_replicas) = (Some(1), Some(1));
    world.log.clear();
    world.image("v2");
    while world.step() {}
    assert_eq!(world.log, ["create v2 at 1"], "nothing can go: too few are available");
    let status = world.sets[1].status.get_or_insert_default();
    (status.replicas, status.available_replicas, status.ready_replicas) = (1, Some(1), Some(1));
    while world.step() {}
    assert_eq!(world.log[1..], ["v1 4 -> 3", "v2 1 -> 2"], "a broken one goes for the new one");
}

#[test]
fn rolling_back_renews_the_old_set_and_remembers_its_revisions() {
    let mut world = World::new(2, "1", "0");
    world.settle();
    world.image("v2");
    world.settle();
    world.image("v1");
    world.settle();
    assert_eq!(world.sets.len(), 2, "no third set");
    assert_eq!(world.note("v1", REVISION), Some("3"));
    assert_eq!(world.note("v1", REVISION_HISTORY), Some("1"));
    assert_eq!(world.note("v2", REVISION), Some("2"));
    assert_eq!(crate::meta::annotation(&world.deployment.metadata, REVISION), Some("3"));
    world.image("v2");
    world.settle();
    assert_eq!(world.note("v2", REVISION), Some("4"));
    assert_eq!(world.note("v2", REVISION_HISTORY), Some("2"));
}

#[test]
fn history_beyond_the_limit_is_forgotten_oldest_first() {
    let mut world = World::new(1, "1", "0");
    for image in ["v1", "v2", "v3", "v4"] {
        world.image(image);
        world.settle();
    }
    let left: Vec<String> = world.sizes().into_iter().map(|(image, _)| image).collect();
    assert_eq!(left, ["v2", "v3", "v4"]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    // (sizes before, new replicas, sizes after); surge 3, as in Kubernetes' documentation.
    let cases: &[([i32; 2], i32, [i32; 2])] = &[
        ([8, 5], 15, [11, 7]),
        ([8, 5], 20, [14, 9]),
        ([8, 5], 5, [5, 3]),
        ([8, 5], 0, [0, 0]),
        ([10, 3], 11, [11, 3]),
    ];
    for (before, replicas, after) in cases {
        let mut world = World::new(10, "3", "2");
        world.settle();
        world.image("v2");
        world.step();
        for (set, size) in world.sets.iter_mut().zip(before) {
            set.spec.as_mut().unwrap().replicas = Some(*size);
        }
        world.edit(|s| s.replicas = Some(*replicas));
        world.step();
        let sizes: Vec<i32> = world.sizes().into_iter().map(|(_, size)| size).collect();
        assert_eq!(sizes, after, "{before:?} to {replicas}");
        let all: Vec<_> = world.sizes();
        for (image, _) in all.iter().filter(|(_, size)| *size > 0) {
            assert_eq!(world.note(image, DESIRED), Some(replicas.to_string().as_str()));
        }
    }
}

#[test]
fn scaling_a_settled_deployment_scales_its_one_set() {
    let mut world = World::new(3, "25%", "25%");
    world.settle();
    world.log.clear();
    world.edit(|s| s.replicas = Some(7));
    world.settle();
    world.edit(|s| s.replicas = Some(0));
    world.settle();
    world.edit(|s| s.replicas = Some(2));
    world.settle();
    assert_eq!(world.log, ["v1 3 -> 7", "v1 7 -> 0", "v1 0 -> 2"]);
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(2, "1", "0");
    world.settle();
    world.log.clear();
    world.edit(|s| s.paused = Some(true));
    world.image("v2");
    world.settle();
    assert_eq!(world.log, [] as [&str; 0]);
    assert_eq!(world.reason("Progressing"), "DeploymentPaused");
    world.edit(|s| s.replicas = Some(3));
    world.settle();
    assert_eq!(world.log, ["v1 2 -> 3"]);
    world.edit(|s| s.paused = Some(false));
    assert!(world.step());
    assert!(world.log.contains(&"create v2 at 1".to_owned()));
    world.settle();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn a_rollout_that_does_not_move_exceeds_its_deadline_and_recovers() {
    let mut world = World::new(2, "1", "0");
    world.settle();
    world.image("broken");
    while world.step() {}
    let wait = plan(&world.observed()).look_again.unwrap();
    assert_eq!(wait, SignedDuration::from_secs(601));
    world.now += wait;
    world.step();
    assert_eq!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable", "the old pods still serve");
    assert_eq!(plan(&world.observed()).look_again, None);
    world.settle();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(2, "1", "0");
    world.edit(|s| s.strategy.as_mut().unwrap().type_ = Some("Recreate".to_owned()));
    world.settle();
    world.log.clear();
    world.image("v2");
    world.step();
    assert_eq!(world.log, ["v1 2 -> 0"]);
    while world.step() {}
    assert_eq!(world.log.len(), 1, "the old set still reports pods");
    world.pods_follow(0);
    let terminating: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "rs1", "controller": true}]},
        "status": {"phase": "Running"},
    }))
    .unwrap();
    let mut observed = world.observed();
    observed.pods = vec![Arc::new(terminating)];
    assert!(
        !plan(&observed).actions.iter().any(|a| matches!(a, Action::CreateSet { .. })),
        "a pod still runs"
    );
    world.settle();
    assert_eq!(world.log, ["v1 2 -> 0", "create v2 at 2"]);
}

#[test]
fn a_deployment_that_is_going_only_reports() {
    let mut world = World::new(2, "1", "0");
    world.settle();
    world.log.clear();
    world.deployment.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    world.image("v2");
    world.settle();
    assert_eq!(world.log, [] as [&str; 0]);
}

#[test]
fn a_collision_leads_to_another_name() {
    let mut world = World::new(1, "1", "0");
    let name_of = |world: &World| {
        plan(&world.observed()).actions.into_iter().find_map(|a| match a {
            Action::CreateSet { set, .. } => set.metadata.name,
            _ => None,
        })
    };
    let first = name_of(&world);
    world.deployment.status.get_or_insert_default().collision_count = Some(1);
    assert!(first.is_some() && first != name_of(&world));
}

#[test]
fn a_template_is_the_same_whatever_the_hash_label_and_empty_maps() {
    let template = |v: serde_json::Value| serde_json::from_value::<PodTemplateSpec>(v).unwrap();
    let bare = template(json!({"metadata": {"labels": {"a": "b"}}}));
    let hashed = template(json!({"metadata": {"labels": {"a": "b", HASH_LABEL: "x"}, "annotations": {}}}));
    assert!(same_template(&bare, &hashed));
    assert!(!same_template(&bare, &template(json!({"metadata": {"labels": {"a": "c"}}}))));
    assert!(same_template(&template(json!({})), &template(json!({"metadata": {"labels": {}}}))));
}

#[test]
fn annotations_of_the_deployment_reach_the_new_set() {
    let mut world = World::new(1, "1", "0");
    world.deployment.metadata.annotations =
        Some([("kubernetes.io/change-cause".to_owned(), "why".to_owned())].into());
    world.settle();
    assert_eq!(world.note("v1", "kubernetes.io/change-cause"), Some("why"));
}

proptest! {
    /// Whatever becomes ready, breaks or is edited in whatever order: never more pods than the surge allows, never
    /// fewer available than promised unless pods broke by themselves, and in the end the new template everywhere.
    #[test]
    fn a_rolling_update_keeps_its_promises(
        replicas in 1..20i32,
        surge in 0..6i32,
        unavailable in 0..6i32,
        ready in prop::collection::vec(0..5i32, 1..40),
        edits in prop::collection::vec(0..40usize, 0..3),
    ) {
        let mut world = World::new(replicas, &surge.to_string(), &unavailable.to_string());
        world.settle();
        world.image("v2");
        let sizes = Sizes::of(&world.deployment);
        let (most, least) = (sizes.replicas + sizes.max_surge, sizes.min_available());
        for turn in 0..400usize {
            if edits.contains(&turn) {
                world.image(&format!("edit{turn}"));
            }
            world.step();
            let asked: i32 = world.sizes().iter().map(|(_, n)| n).sum();
            prop_assert!(asked <= most, "{asked} pods, at most {most}: {:?}", world.log);
            world.pods_follow(*ready.get(turn % ready.len()).unwrap_or(&1));
            let available: i32 = world
                .sets
                .iter()
                .map(|s| s.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default())
                .sum();
            prop_assert!(available >= least, "{available} available, at least {least}: {:?}", world.log);
        }
        world.settle();
        let current: Vec<i32> = world.sizes().into_iter().map(|(_, n)| n).filter(|n| *n > 0).collect();
        prop_assert_eq!(current, vec![replicas]);
        prop_assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    }
}
