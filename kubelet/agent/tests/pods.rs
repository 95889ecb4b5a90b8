//! Pods from the API to a simulated runtime and back, with a real API server in this process.

#![allow(clippy::unwrap_used)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Cluster, condition, container, eventually, phase, waiting};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use loadline_network::SimNetwork;
use loadline_runtime::{Runtime, Sim, SimConfig};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_and_a_pod_runs_and_goes() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    let api_node = cluster.ready("node-1").await.unwrap();
    let labels = api_node.metadata.labels.clone().unwrap();
    assert_eq!(labels["kubernetes.io/hostname"], "node-1");
    let status = api_node.status.unwrap();
    assert_eq!(status.capacity.unwrap()["cpu"].0, "8");
    let port = status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port;
    assert_eq!(port, i32::from(node.kubelet.addr.port()));

    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let renewed = || async {
        let lease = leases.get("node-1").await.map_err(|e| e.to_string())?;
        lease.spec.and_then(|s| s.renew_time).ok_or("no renewTime".to_owned())
    };
    let first = eventually("the lease is there", renewed).await;
    eventually("it is renewed", || async {
        let now = renewed().await?;
        if now > first { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    cluster.create("web", "node-1", json!({})).await;
    let pod = cluster.running("web").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.2"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let app = container(&pod, "app").unwrap();
    assert!(app.container_id.as_deref().unwrap().starts_with("sim://"), "{app:?}");
    assert!(app.ready && app.started == Some(true) && app.restart_count == 0);
    for reason in ["Pulled", "Created", "Started"] {
        let event = cluster.event("web", reason).await;
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{app}"), "{reason}");
    }
    cluster.delete("web", None).await;
    cluster.gone("web").await;
    assert!(node.sim.containers(None).await.unwrap().is_empty());
    assert!(node.sim.sandboxes().await.unwrap().is_empty());
    cluster.event("web", "Killing").await;

    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.delete("node-1", &DeleteParams::default()).await.unwrap();
    cluster.assign_cidr("node-1", 1).await;
    eventually("the node comes back", || cluster.ready("node-1")).await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_restarts_at_once_then_backs_off() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    cluster.create("web", "node-1", json!({})).await;
    let pod = cluster.running("web").await;
    let uid = pod.metadata.uid.unwrap();
    let began = Instant::now();
    assert!(node.sim.crash_pod(&uid, 3));
    let pod = cluster
        .pod_until("web", "restarted", |p| {
            container(p, "app").is_some_and(|c| c.restart_count == 1 && c.ready)
        })
        .await;
    assert!(began.elapsed() < Duration::from_secs(2), "the first restart took {:?}", began.elapsed());
    let last = container(&pod, "app").unwrap().last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert!(node.sim.crash_pod(&uid, 3));
    let pod = cluster.pod_until("web", "backs off", |p| waiting(p, "app") == "CrashLoopBackOff").await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(condition(&pod, "Ready"), "False");
    let event = cluster.event("web", "BackOff").await;
    assert!(
        event.message.unwrap().starts_with("Back-off restarting failed container app in pod web_default(")
    );
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_how_pods_end() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("node-1", 1).await;
    let exits =
        |code: &str| json!({"sim.loadline.io/exit-after-seconds": "0.1", "sim.loadline.io/exit-code": code});
    let never = json!({"restartPolicy": "Never"});
    cluster.create_annotated("good", "node-1", never.clone(), exits("0")).await;
    cluster.create_annotated("bad", "node-1", never, exits("7")).await;
    let good = cluster.pod_until("good", "succeeds", |p| phase(p) == "Succeeded").await;
    assert_eq!(condition(&good, "Ready"), "False");
    let bad = cluster.pod_until("bad", "fails", |p| phase(p) == "Failed").await;
    let ended = container(&bad, "app").unwrap().state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 7);
    cluster.delete("good", None).await;
    cluster.gone("good").await;
    // The second also with more time to end than any clock can count to.
    for (name, grace) in [("late", 30), ("later", i64::MAX)] {
        let spec = json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": grace});
        cluster.create(name, "node-1", spec).await;
        let late = cluster.pod_until(name, "is over", |p| phase(p) == "Failed").await;
        assert_eq!(late.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    }
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_one_by_one() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    node.sim.set_image(
        "init:1",
        loadline_runtime::sim::Behaviour {
            exit_after: Some(Duration::from_millis(50)),
            ..Default::default()
        },
    );
    let inits = json!([{"name": "one", "image": "init:1"}, {"name": "two", "image": "init:1"}]);
    cluster.create("web", "node-1", json!({"initContainers": inits})).await;
    let pod = cluster.running("web").await;
    let statuses = pod.status.unwrap().init_container_statuses.unwrap();
    let ends: Vec<_> = statuses.iter().map(|s| s.state.clone().unwrap().terminated.unwrap()).collect();
    assert!(ends.iter().all(|t| t.reason.as_deref() == Some("Completed")), "{ends:?}");
    assert!(ends[0].finished_at <= ends[1].started_at);
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_configuration_waits_and_heals() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("node-1", 1).await;
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]);
    let containers = json!([{"name": "app", "image": "web:1", "env": env}]);
    cluster.create("env", "node-1", json!({"containers": containers})).await;
    let volumes = json!([{"name": "v", "configMap": {"name": "settings"}}]);
    cluster.create("volume", "node-1", json!({"volumes": volumes})).await;
    cluster.pod_until("env", "waits", |p| waiting(p, "app") == "CreateContainerConfigError").await;
    let event = cluster.event("env", "Failed").await;
    assert_eq!(event.message.as_deref(), Some("Error: configmap \"settings\" not found"));
    let event = cluster.event("volume", "FailedMount").await;
    let message = "MountVolume.SetUp failed for volume \"v\" : configmap \"settings\" not found";
    assert_eq!(event.message.as_deref(), Some(message));
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let map = serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"a": "1"}})).unwrap();
    let began = Instant::now();
    maps.create(&PostParams::default(), &map).await.unwrap();
    cluster.running("env").await;
    cluster.running("volume").await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "woken by the object, not by a retry: {:?}",
        began.elapsed()
    );
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_cannot_be_had() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    node.sim.declare_unpullable("gone:1", "manifest unknown");
    node.sim.declare_missing("far:1");
    let image = |name: &str, policy: &str| json!([{"name": "app", "image": name, "imagePullPolicy": policy}]);
    cluster.create("gone", "node-1", json!({"containers": image("gone:1", "IfNotPresent")})).await;
    cluster.create("never", "node-1", json!({"containers": image("far:1", "Never")})).await;
    cluster.create("far", "node-1", json!({"containers": image("far:1", "IfNotPresent")})).await;
    cluster.pod_until("gone", "cannot pull", |p| waiting(p, "app") == "ErrImagePull").await;
    cluster.pod_until("never", "may not pull", |p| waiting(p, "app") == "ErrImageNeverPull").await;
    cluster.running("far").await;
    cluster.pod_until("gone", "backs off", |p| waiting(p, "app") == "ImagePullBackOff").await;
    cluster.delete("gone", None).await;
    cluster.gone("gone").await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_probe() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1});
    let containers = json!([{"name": "app", "image": "web:1", "readinessProbe": probe}]);
    let slow = json!({"sim.loadline.io/ready-after-seconds": "0.5"});
    cluster.create_annotated("web", "node-1", json!({"containers": containers}), slow).await;
    let pod = cluster.running("web").await;
    let uid = pod.metadata.uid.unwrap();
    assert!(node.sim.set_ready(&uid, false));
    cluster
        .pod_until("web", "is unready", |p| condition(p, "Ready") == "False" && phase(p) == "Running")
        .await;
    let event = cluster.event("web", "Unhealthy").await;
    assert!(event.message.unwrap().starts_with("Readiness probe failed: "));
    assert!(node.sim.set_ready(&uid, true));
    cluster.running("web").await;
    let liveness = json!({"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1});
    let containers = json!([{"name": "app", "image": "web:1", "livenessProbe": liveness}]);
    cluster.create("live", "node-1", json!({"containers": containers})).await;
    let pod = cluster.running("live").await;
    assert!(node.sim.set_ready(&pod.metadata.uid.unwrap(), false));
    cluster.pod_until("live", "restarts", |p| container(p, "app").is_some_and(|c| c.restart_count > 0)).await;
    cluster.event("live", "Killing").await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("node-1", 1).await;
    let containers = json!([{"name": "app", "image": "web:1", "resources": {"requests": {"cpu": "9"}}}]);
    cluster.create("big", "node-1", json!({"containers": containers})).await;
    let pod = cluster.pod_until("big", "is refused", |p| phase(p) == "Failed").await;
    let status = pod.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    let message =
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 8000";
    assert_eq!(status.message.as_deref(), Some(message));
    cluster.create("elsewhere", "node-1", json!({"nodeSelector": {"zone": "b"}})).await;
    let pod = cluster.pod_until("elsewhere", "is refused", |p| phase(p) == "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("NodeAffinity"));
    cluster.delete("big", None).await;
    cluster.gone("big").await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_and_cleans_up() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    cluster.create("kept", "node-1", json!({})).await;
    cluster.create("doomed", "node-1", json!({})).await;
    cluster.create("forced", "node-1", json!({})).await;
    for name in ["kept", "doomed", "forced"] {
        cluster.running(name).await;
    }
    let before = cluster.running("kept").await;
    node.kubelet.shutdown().await;
    assert_eq!(node.sim.containers(None).await.unwrap().len(), 3, "containers outlive the agent");
    cluster.delete("doomed", None).await;
    cluster.delete("forced", Some(0)).await;
    cluster.gone("forced").await;
    let node = cluster.node_with("node-1", 1, node.sim.clone(), node.network.clone()).await;
    cluster.gone("doomed").await;
    eventually("orphans are cleaned up", || async {
        let left: Vec<String> = node.sim.containers(None).await.unwrap().into_iter().map(|c| c.id).collect();
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let after = cluster.running("kept").await;
    let facts = |p: &k8s_openapi::api::core::v1::Pod| {
        let c = container(p, "app").unwrap();
        (c.container_id.clone(), c.restart_count, p.status.as_ref().unwrap().pod_ip.clone())
    };
    assert_eq!(facts(&before), facts(&after), "undisturbed");
    // A container that somebody removed is made again, and its restarts go on counting.
    let id = node.sim.containers(None).await.unwrap()[0].id.clone();
    node.sim.stop_container(&id, Duration::ZERO).await.unwrap();
    node.sim.remove_container(&id).await.unwrap();
    cluster
        .pod_until("kept", "restarted", |p| {
            container(p, "app").is_some_and(|c| c.restart_count == 1 && c.ready)
        })
        .await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_grace_overrules_a_longer_one() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    let stubborn = json!({"sim.loadline.io/ignore-term": "true"});
    cluster.create_annotated("web", "node-1", json!({"terminationGracePeriodSeconds": 3600}), stubborn).await;
    cluster.running("web").await;
    cluster.delete("web", None).await;
    cluster.pod_until("web", "is ending", |p| p.metadata.deletion_timestamp.is_some()).await;
    cluster.delete("web", Some(1)).await;
    cluster.gone("web").await;
    eventually("nothing is left", || async {
        let left = node.sim.containers(None).await.unwrap();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_sandbox_is_made_again() {
    let cluster = Cluster::start().await;
    let node = cluster.node("node-1", 1).await;
    cluster.create("web", "node-1", json!({})).await;
    cluster.running("web").await;
    let sandbox = node.sim.sandboxes().await.unwrap()[0].id.clone();
    node.sim.stop_sandbox(&sandbox).await.unwrap();
    let pod = cluster
        .pod_until("web", "runs again", |p| {
            container(p, "app").is_some_and(|c| c.restart_count == 1 && c.ready)
        })
        .await;
    assert_eq!(condition(&pod, "Ready"), "True");
    cluster.event("web", "SandboxChanged").await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_change_restarts_only_that_container() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("node-1", 1).await;
    let containers = json!([{"name": "app", "image": "web:1"}, {"name": "side", "image": "web:1"}]);
    cluster.create("web", "node-1", json!({"containers": containers})).await;
    cluster.running("web").await;
    let patch = Patch::Strategic(json!({"spec": {"containers": [{"name": "app", "image": "web:2"}]}}));
    cluster.pods().patch("web", &PatchParams::default(), &patch).await.unwrap();
    let pod = cluster
        .pod_until("web", "runs the new image", |p| {
            container(p, "app").is_some_and(|c| c.image == "web:2" && c.ready)
        })
        .await;
    assert_eq!(container(&pod, "side").unwrap().restart_count, 0);
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_somebody_overwrote_is_put_right() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("node-1", 1).await;
    cluster.create("web", "node-1", json!({})).await;
    cluster.running("web").await;
    // What the node controller does with the pods of a node that it no longer hears of.
    let silent =
        json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]}});
    let written =
        cluster.pods().patch_status("web", &PatchParams::default(), &Patch::Strategic(silent)).await.unwrap();
    assert_eq!(condition(&written, "Ready"), "False");
    let pod = cluster.running("web").await;
    let ready = pod.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason, None);
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_on_twenty_nodes() {
    let cluster = Cluster::start().await;
    let mut nodes = Vec::new();
    for i in 0..20 {
        let name = format!("node-{i}");
        let sim = Sim::new(SimConfig { node: name.clone(), ..SimConfig::default() });
        let config = cluster.config(&name, Arc::new(sim.clone()), Arc::new(SimNetwork::default()));
        nodes.push(loadline_kubelet::start(&cluster.scope, cluster.client.clone(), config).await.unwrap());
        cluster.assign_cidr(&name, i).await;
    }
    for i in 0..20 {
        let name = format!("node-{i}");
        eventually("nodes are ready", || cluster.ready(&name)).await;
    }
    let began = Instant::now();
    for i in 0..200 {
        cluster.create(&format!("pod-{i}"), &format!("node-{}", i % 20), json!({})).await;
    }
    eventually("all pods run", || async {
        let pods = cluster.pods().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let running = pods.iter().filter(|p| phase(p) == "Running").count();
        if running == 200 { Ok(()) } else { Err(format!("{running} of {} run", pods.items.len())) }
    })
    .await;
    // Reported, not judged: tests run on busy machines.
    println!("200 pods on 20 nodes run after {:?}", began.elapsed());
    cluster.scope.shutdown().await;
}
