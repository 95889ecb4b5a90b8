//! The binary's own commands for users, against a cluster of simulated nodes.

use std::time::Duration;

use loadline_tests::{Cluster, Options, eventually, repository};

const SOON: Duration = Duration::from_secs(30);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: 'web:1', resources: {requests: {cpu: 100m, memory: 32Mi}}}
";

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command() {
    let cluster = Cluster::start(Options::sim(2)).await;
    let l = async |line: &str| cluster.loadline(&line.split_whitespace().collect::<Vec<_>>()).await;
    has(&cluster.loadline_with(&["apply", "-f", "-"], WEB).await.ok(), &["web", "created"]);
    has(&l("rollout status deployment/web").await.ok(), &["web", "rolled out"]);
    has(
        &cluster.loadline_with(&["apply", "-f", "-"], &WEB.replace("web:1", "web:2")).await.ok(),
        &["web", "configured"],
    );
    l("rollout status deployment/web").await.ok();
    has(&l("rollout history deployment/web").await.ok(), &["REVISION", "1", "2"]);
    has(&l("get deployments -o wide").await.ok(), &["NAME", "READY", "web", "2/2", "web:2"]);
    has(&l("get nodes").await.ok(), &["node-1", "node-2", "Ready"]);
    let object = l("get deployment web -o json").await.json();
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    has(&l("get deployment web -o yaml").await.ok(), &["kind: Deployment", "image: web:2"]);
    has(&l("describe deployment web").await.ok(), &["web", "web:2", "ScalingReplicaSet"]);
    has(&l("describe node node-1").await.ok(), &["node-1", "Ready"]);
    l("rollout undo deployment/web").await.ok();
    l("rollout status deployment/web").await.ok();
    let object = l("get deployment web -o json").await.json();
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "web:1");
    l("scale deployment/web --replicas 1").await.ok();
    eventually("one pod is left", SOON, async || {
        let pods = l("get pods -l app=web -o name").await.ok();
        if pods.lines().count() == 1 { Ok(()) } else { Err(pods) }
    })
    .await;
    let pod = l("get pods -l app=web -o name").await.ok();
    let pod = pod.trim().rsplit('/').next().unwrap_or_default().to_owned();
    assert!(!l(&format!("logs {pod}")).await.ok().is_empty());
    has(&l(&format!("exec {pod} -- echo hello")).await.ok(), &["echo", "hello"]);
    eventually("top knows the pod and the nodes", SOON, async || {
        let (pods, nodes) = (l("top pods").await, l("top nodes").await);
        let good = pods.status.success() && pods.stdout.contains(&pod) && nodes.stdout.contains("node-2");
        if good { Ok(()) } else { Err(format!("{pods}\n{nodes}")) }
    })
    .await;
    has(&l("events").await.ok(), &["Scheduled", "ScalingReplicaSet"]);
    has(&l("delete deployment web").await.ok(), &["web", "deleted"]);
    has(&l("get deployment web").await.fails(), &["NotFound", "web"]);
    has(&l("get gadgets").await.fails(), &["gadgets"]);
    has(&cluster.loadline_with(&["apply", "-f", "-"], "kind: [").await.fails(), &["error"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_apply() {
    let cluster = Cluster::start(Options::sim(1)).await;
    for file in ["deployment.yaml", "service.yaml", "scalingpolicy.yaml"] {
        let path = repository().join("examples").join(file).to_string_lossy().into_owned();
        has(&cluster.loadline(&["apply", "-f", &path]).await.ok(), &["web", "created"]);
    }
    eventually("the demo service is available", SOON, async || {
        let object = cluster.loadline(&["get", "deployment", "web", "-o", "json"]).await.json();
        if object["status"]["availableReplicas"] == 1 { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
    let said = cluster.loadline(&["explain", "scalingpolicy/web"]).await.ok();
    assert!(!said.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_command_lines_say_how_to_mend_them() {
    let cluster = Cluster::start(Options::api()).await;
    for (args, says) in [
        (&["scale", "deployment/web"][..], "--replicas"),
        (&["fly"][..], "fly"),
        (&["get", "pods", "-o", "poem"][..], "poem"),
        (&["explain", "pods/web"][..], "hpa/NAME"),
        (&["up", "--store", "redb"][..], "etcd="),
        (&["agent", "--cluster", "/nonexistent", "--name", "x", "--runtime", "sim"][..], "loadline up"),
        (&["down", "--data-dir", "/nonexistent"][..], "no cluster"),
        (&["load", "not-a-url"][..], "not-a-url"),
    ] {
        let error = cluster.loadline(args).await.fails();
        assert!(error.contains(says), "{args:?} should say {says:?}: {error}");
    }
}
