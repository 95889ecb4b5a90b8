//! One cluster on the local Docker Engine, from its start to `loadline down`: traffic, names, crashes and restarts on
//! real containers. Needs root, Docker, nftables and Debian's busybox-static; says so and passes where they are missing.

#![expect(clippy::unwrap_used, reason = "tests: a panic with its place is the message")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use loadline_tests::docker::{self, http};
use loadline_tests::{Cluster, Options, eventually};
use serde_json::{Value, json};

const SHELL: &str = "loadline-test/busybox:1";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Apart from the defaults, so that this cluster and one of a developer do not meet.
const CIDRS: [&str; 4] = ["--cluster-cidr", "10.201.0.0/16", "--service-cidr", "10.202.0.0/16"];

fn shell(name: &str, labels: Value, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "c", "image": SHELL, "command": ["/bin/busybox", "sh", "-c", script]}]},
    })
}

fn service(name: &str, selector: &Value, extra: Value) -> Value {
    let mut spec = json!({"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// Answers every request with the pod's own name.
const ANSWER: &str = "mkdir /www; hostname > /www/index.html; exec /bin/busybox httpd -f -p 8080 -h /www";

async fn ready_pods(cluster: &Cluster, label: &str) -> Vec<Value> {
    let pods = cluster.list(&format!("{PODS}?labelSelector={label}")).await;
    let ready = |p: &Value| {
        p["metadata"]["deletionTimestamp"].is_null()
            && p["status"]["conditions"]
                .as_array()
                .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    pods.into_iter().filter(ready).collect()
}

async fn wait_ready(cluster: &Cluster, label: &str, count: usize) -> Vec<Value> {
    eventually("pods to be Ready", Duration::from_secs(60), async || {
        let ready = ready_pods(cluster, label).await;
        if ready.len() == count { Ok(ready) } else { Err(format!("{} of {count} are", ready.len())) }
    })
    .await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What tells one instance of a container from the next.
fn instances(pods: &[Value]) -> Vec<(String, i64)> {
    let of = |p: &Value| {
        let status = &p["status"]["containerStatuses"][0];
        (text(&status["containerID"]), status["restartCount"].as_i64().unwrap())
    };
    let mut all: Vec<_> = pods.iter().map(of).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_on_docker_from_start_to_end() {
    if !docker::available() {
        return;
    }
    docker::import_busybox(SHELL);
    let links_before = docker::links();
    let mut cluster = Cluster::start(Options::docker(2).args(&CIDRS)).await;
    let id = std::fs::read_to_string(cluster.data_dir().join("cluster-id")).unwrap().trim().to_owned();

    let web = json!({"app": "web"});
    let mut template = shell("web", web.clone(), ANSWER);
    template["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": web}, "template": {
            "metadata": {"labels": web}, "spec": template["spec"]}},
    });
    cluster.request("POST", "/apis/apps/v1/namespaces/default/deployments", Some(&deployment)).await;
    let services = "/api/v1/namespaces/default/services";
    let plain = service("web", &web, json!({"type": "NodePort"}));
    let plain = cluster.request("POST", services, Some(&plain)).await;
    let sticky = service("sticky", &web, json!({"sessionAffinity": "ClientIP"}));
    let sticky = cluster.request("POST", services, Some(&sticky)).await;
    cluster.request("POST", PODS, Some(&shell("client", json!({"app": "client"}), "exec sleep 3600"))).await;
    let pods = wait_ready(&cluster, "app%3Dweb", 2).await;
    wait_ready(&cluster, "app%3Dclient", 1).await;

    traffic(&cluster, &pods, &plain, &sticky).await;
    crash_of_a_container(&cluster).await;
    restarts(&mut cluster, &format!("{}:80", text(&plain["spec"]["clusterIP"]))).await;

    cluster.process().stop();
    let data = cluster.data_dir().to_string_lossy().into_owned();
    let down =
        cluster.loadline(&["down", "--data-dir", &data, "--service-cidr", CIDRS[3], "--keep-data"]).await;
    println!("{}", down.ok());
    assert_eq!(docker::of_cluster(&id), Vec::<String>::new(), "containers are left");
    assert_eq!(docker::links(), links_before, "links are left");
    let tables = docker::run("nft", &["list", "tables"]);
    assert!(!tables.contains(&id), "rules are left: {tables}");
    assert!(
        !docker::run("ip", &["address", "show", "lo"]).contains("10.202.0.10"),
        "the DNS address is left"
    );
}

async fn traffic(cluster: &Cluster, pods: &[Value], plain: &Value, sticky: &Value) {
    let names: Vec<String> = pods.iter().map(|p| text(&p["metadata"]["name"])).collect();
    for pod in pods {
        let answer = http(&format!("{}:8080", text(&pod["status"]["podIP"]))).unwrap();
        assert_eq!(answer.trim(), text(&pod["metadata"]["name"]), "by the pod's own address");
    }
    let cluster_ip = format!("{}:80", text(&plain["spec"]["clusterIP"]));
    let node_ip = text(&pods[0]["status"]["hostIP"]);
    let node_port = format!("{node_ip}:{}", plain["spec"]["ports"][0]["nodePort"]);
    for address in [&cluster_ip, &node_port] {
        let mut answered = BTreeSet::new();
        eventually("both pods to answer", Duration::from_secs(10), async || {
            answered.extend(http(address).map(|a| a.trim().to_owned()));
            if answered.len() == names.len() { Ok(()) } else { Err(format!("{answered:?} did at {address}")) }
        })
        .await;
        for _ in 0..20 {
            http(address).unwrap_or_else(|error| panic!("a request to {address} was lost: {error}"));
        }
    }
    let sticky_ip = format!("{}:80", text(&sticky["spec"]["clusterIP"]));
    let mut answers: Vec<String> = (0..10).map(|_| http(&sticky_ip).unwrap()).collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "session affinity changed its mind: {answers:?}");

    let resolved = exec(cluster, "client", "nslookup web.default.svc.cluster.local").await;
    let ip = text(&plain["spec"]["clusterIP"]);
    assert!(resolved.contains(&ip), "no {ip} in the answer: {resolved}");
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {ip} 80 | tail -n 1");
    let inside = exec(cluster, "client", &get).await;
    assert!(names.contains(&inside.trim().to_owned()), "pod to Service: {inside}");
    // A pod that reaches itself through its Service: every request of twenty must work.
    let hairpin = format!("for i in $(seq 20); do {get}; done");
    let hairpin = exec(cluster, &names[0], &hairpin).await;
    assert_eq!(hairpin.lines().filter(|l| names.contains(&(*l).to_owned())).count(), 20, "{hairpin}");
    let refused = http(&format!("{ip}:81"));
    assert!(refused.is_err(), "a port that the Service does not have answered: {refused:?}");
}

async fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.loadline(&["exec", pod, "--", "/bin/busybox", "sh", "-c", script]).await.ok()
}

async fn crash_of_a_container(cluster: &Cluster) {
    let pod = ready_pods(cluster, "app%3Dweb").await.remove(0);
    let name = text(&pod["metadata"]["name"]);
    let id = text(&pod["status"]["containerStatuses"][0]["containerID"]).replace("docker://", "");
    let killed = Instant::now();
    docker::run("docker", &["kill", "--signal", "KILL", &id]);
    eventually("the container to run again", Duration::from_secs(30), async || {
        let pod = cluster.get(&format!("{PODS}/{name}")).await.map_err(|e| e.to_string())?;
        let status = &pod["status"]["containerStatuses"][0];
        let again = status["restartCount"] == 1 && status["state"]["running"].is_object();
        if again { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    println!("killed container running again after {:?}", killed.elapsed());
    wait_ready(cluster, "app%3Dweb", 2).await;
}

/// The process goes and comes; containers and traffic do not notice.
async fn restarts(cluster: &mut Cluster, address: &str) {
    let before = instances(&ready_pods(cluster, "app%3Dweb").await);
    cluster.process().stop();
    assert!(http(address).is_ok(), "traffic stopped with the process");
    cluster.again().await;
    assert_eq!(instances(&wait_ready(cluster, "app%3Dweb", 2).await), before, "after SIGTERM");
    cluster.crash().await;
    assert_eq!(instances(&wait_ready(cluster, "app%3Dweb", 2).await), before, "after kill -9");
    assert!(http(address).is_ok(), "no traffic after kill -9");
}
