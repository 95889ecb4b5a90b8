//! Real containers on the real pod network: probes, volumes, environment, hooks, logs, exec, restarts and adoption.
//! Needs root, a Docker daemon and a static busybox; says so and passes where one of them is missing.

#![allow(clippy::unwrap_used)]

#[path = "support/harness.rs"]
mod harness;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use harness::{Cluster, condition, container, eventually, phase};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use loadline_kubelet::{Config, Kubelet};
use loadline_network::{BridgeNetwork, PodNetwork, bridge};
use loadline_runtime::tar::Archive;
use loadline_runtime::{Docker, DockerConfig, SharedRuntime};
use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// Removes everything of its cluster when dropped, also after a panic.
struct Cleanup {
    cluster: String,
    image: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let docker = |arguments: &[&str]| Command::new("docker").args(arguments).output();
        let filter = format!("label=io.loadline.cluster={}", self.cluster);
        if let Ok(listed) = docker(&["ps", "-aq", "--filter", &filter]) {
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let ids: Vec<&str> = listed.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = docker(&[&["rm", "-f", "-v"], ids.as_slice()].concat());
            }
        }
        let _ = docker(&["rmi", "-f", &self.image]);
        let cluster = self.cluster.clone();
        // A destructor cannot wait; a thread with a runtime of its own can.
        let links = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(bridge::remove_all(&cluster)).unwrap();
        });
        let _ = links.join();
    }
}

struct Real {
    cluster: Cluster,
    id: String,
    /// Third byte of this test's networks, so that tests in one process do not share a route.
    octet: u32,
    image: String,
    runtime: SharedRuntime,
    network: Arc<BridgeNetwork>,
    // Dropped last: the kubelet's directory and the containers are gone by then.
    _cleanup: Cleanup,
}

impl Real {
    async fn start(name: &str) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        if !root || !Path::new("/var/run/docker.sock").exists() || !Path::new(BUSYBOX).exists() {
            println!("skipped: needs root, Docker and {BUSYBOX}");
            return None;
        }
        let id = format!("kubelet-{name}-{}", std::process::id());
        let octet = (2 * std::process::id() + u32::from(name == "config")) % 250;
        let image = format!("loadline-test/{id}:1");
        let docker = Docker::connect(DockerConfig::new(&id, "node-1")).await.unwrap();
        let cleanup = Cleanup { cluster: id.clone(), image: image.clone() };
        docker.import_image(&image, busybox(), vec!["ENV PATH=/bin".to_owned()]).await.unwrap();
        let cluster = Cluster::start().await;
        let config = bridge::Config {
            cluster_id: id.clone(),
            node: "node-1".to_owned(),
            data_dir: cluster.path("network"),
            service_cidr: format!("10.98.{octet}.0/24").parse().unwrap(),
        };
        let network = Arc::new(BridgeNetwork::new(config).unwrap());
        Some(Self { cluster, id, octet, image, runtime: Arc::new(docker), network, _cleanup: cleanup })
    }

    async fn kubelet(&self) -> Kubelet {
        let sim = Arc::new(loadline_network::SimNetwork::default());
        let mut config: Config = self.cluster.config("node-1", self.runtime.clone(), sim);
        config.network = self.network.clone() as Arc<dyn PodNetwork>;
        config.simulated = false;
        let kubelet =
            loadline_kubelet::start(&self.cluster.scope, self.cluster.client.clone(), config).await.unwrap();
        let cidr = format!("10.199.{}.0/24", self.octet);
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        let patch = Patch::Merge(json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}));
        let params = PatchParams::default();
        eventually("the node is registered", || nodes.patch("node-1", &params, &patch)).await;
        eventually("the node is ready", || self.cluster.ready("node-1")).await;
        kubelet
    }

    fn app(&self, script: &str, more: Value) -> Value {
        let mut app = json!({"name": "app", "image": self.image, "command": ["/bin/sh", "-c", script]});
        for (key, value) in more.as_object().unwrap() {
            app[key] = value.clone();
        }
        app
    }

    async fn logs(&self, pod: &str) -> String {
        let pod = self.cluster.pods().get(pod).await.unwrap();
        let id = container(&pod, "app").and_then(|c| c.container_id.clone()).unwrap_or_default();
        let output =
            Command::new("docker").args(["logs", id.trim_start_matches("docker://")]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn busybox() -> bytes::Bytes {
    let mut archive = Archive::new();
    for directory in ["bin", "tmp", "etc", "proc", "dev", "sys", "www"] {
        archive.directory(directory, 0o755).unwrap();
    }
    archive.file("bin/busybox", 0o755, &std::fs::read(BUSYBOX).unwrap()).unwrap();
    for applet in
        ["sh", "cat", "sleep", "echo", "ls", "httpd", "hostname", "env", "touch", "true", "grep", "kill"]
    {
        archive.symlink(&format!("bin/{applet}"), "busybox").unwrap();
    }
    archive.file("www/index.html", 0o644, b"hello").unwrap();
    archive.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_pod_is_probed_restarted_adopted_and_removed() {
    let Some(real) = Real::start("life").await else { return };
    let kubelet = real.kubelet().await;
    let cluster = &real.cluster;
    let probe = json!({"httpGet": {"port": "http", "path": "/index.html"}, "periodSeconds": 10});
    let more = json!({
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
    });
    let script = "trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait";
    let began = Instant::now();
    cluster.create("web", "node-1", json!({"containers": [real.app(script, more)]})).await;
    let pod = cluster.running("web").await;
    println!("created to ready: {:?}", began.elapsed());
    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert!(ip.starts_with("10.199."), "{ip}");
    let first = container(&pod, "app").unwrap().container_id.clone().unwrap();
    assert!(first.starts_with("docker://"), "{first}");

    let killed = Instant::now();
    let status =
        Command::new("docker").args(["kill", first.trim_start_matches("docker://")]).status().unwrap();
    assert!(status.success());
    let pod = cluster
        .pod_until("web", "is ready again", |p| {
            container(p, "app").is_some_and(|c| c.restart_count == 1) && condition(p, "Ready") == "True"
        })
        .await;
    println!("killed to ready again: {:?}", killed.elapsed());
    assert_eq!(
        pod.status.as_ref().unwrap().pod_ip.as_deref(),
        Some(ip.as_str()),
        "the sandbox keeps its address"
    );
    let second = container(&pod, "app").unwrap().container_id.clone();

    kubelet.shutdown().await;
    let kubelet = real.kubelet().await;
    cluster.create("other", "node-1", json!({"containers": [real.app("exec sleep 1000", json!({}))]})).await;
    let other = cluster.running("other").await;
    assert_ne!(other.status.unwrap().pod_ip.as_deref(), Some(ip.as_str()), "addresses are not given twice");
    let pod = cluster.running("web").await;
    assert_eq!(container(&pod, "app").unwrap().container_id, second, "adopted, not restarted");

    cluster.delete("web", None).await;
    cluster.delete("other", Some(1)).await;
    cluster.gone("web").await;
    cluster.gone("other").await;
    assert!(real.runtime.containers(None).await.unwrap().is_empty());
    assert!(real.runtime.sandboxes().await.unwrap().is_empty());
    let pods_dir = cluster.path("node-1").join("pods");
    let left: Vec<_> = std::fs::read_dir(&pods_dir).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    kubelet.shutdown().await;
    cluster.scope.shutdown().await;
    assert!(real.id.starts_with("kubelet-life"));
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_see_their_configuration() {
    let Some(real) = Real::start("config").await else { return };
    let kubelet = real.kubelet().await;
    let cluster = &real.cluster;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client.clone());
    let map = json!({"metadata": {"name": "cm"}, "data": {"key": "one"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hush"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let more = json!({
        "env": [
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LINE", "value": "$(SECRET) at $(IP)"},
        ],
        "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"},
            {"name": "empty", "mountPath": "/data"},
            {"name": "empty", "mountPath": "/sub", "subPath": "deep/er"},
            {"name": "memory", "mountPath": "/ram"},
        ],
    });
    let script = "echo $LINE; cat /cm/key; touch /sub/file; ls /data/deep/er; grep ram /proc/mounts; cat /etc/hosts; \
                  cat /etc/resolv.conf; hostname; echo bye > /dev/termination-log; touch /cm/x || echo read-only; exit 4";
    let volumes = json!([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]);
    let spec = json!({"restartPolicy": "Never", "containers": [real.app(script, more)], "volumes": volumes});
    cluster.create("once", "node-1", spec).await;
    let pod = cluster.pod_until("once", "is over", |p| phase(p) == "Failed").await;
    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    let ended = container(&pod, "app").unwrap().state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.message.as_deref()), (4, Some("bye\n")));
    let log = real.logs("once").await;
    for wanted in [
        format!("hush at {ip}"),
        "one".to_owned(),
        "file".to_owned(),
        "tmpfs /ram".to_owned(),
        format!("{ip}\tonce"),
        "search default.svc.cluster.local svc.cluster.local cluster.local".to_owned(),
        "options ndots:5".to_owned(),
        "read-only".to_owned(),
    ] {
        assert!(log.contains(&wanted), "{wanted:?} in\n{log}");
    }
    let uid = pod.metadata.uid.unwrap();
    cluster.delete("once", None).await;
    cluster.gone("once").await;
    // A finished pod leaves the API before the node has tidied up.
    let dir = cluster.path("node-1").join("pods").join(&uid);
    eventually("mounts and files are gone", || async { if dir.exists() { Err(&dir) } else { Ok(()) } }).await;

    // A mounted ConfigMap follows its object.
    let more = json!({"volumeMounts": [{"name": "cm", "mountPath": "/cm"}]});
    let script = "until grep -q two /cm/key; do sleep 0.1; done; echo seen; exec sleep 1000";
    let volumes = json!([{"name": "cm", "configMap": {"name": "cm"}}]);
    let spec = json!({"containers": [real.app(script, more)], "volumes": volumes, "terminationGracePeriodSeconds": 1});
    cluster.create("watcher", "node-1", spec).await;
    cluster.running("watcher").await;
    maps.patch("cm", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "two"}}))).await.unwrap();
    eventually("the container sees the change", || async {
        let log = real.logs("watcher").await;
        if log.contains("seen") { Ok(()) } else { Err(log) }
    })
    .await;

    // A command that is not there is a failed start, told as such.
    let bad = json!([{"name": "app", "image": real.image, "command": ["/no/such"]}]);
    cluster.create("bad", "node-1", json!({"containers": bad})).await;
    let pod = cluster
        .pod_until("bad", "cannot start", |p| {
            container(p, "app").is_some_and(|c| c.last_state.as_ref().is_some_and(|s| s.terminated.is_some()))
        })
        .await;
    let last = container(&pod, "app").unwrap().last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("StartError"), "{last:?}");
    for name in ["watcher", "bad"] {
        cluster.delete(name, None).await;
        cluster.gone(name).await;
    }
    kubelet.shutdown().await;
    cluster.scope.shutdown().await;
}
