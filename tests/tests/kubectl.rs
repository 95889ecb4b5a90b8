//! kubectl as it comes, against a cluster of simulated nodes: what users type, and what they have to see.

use std::time::Duration;

use loadline_tests::{Cluster, Kubectl, Options, Process, eventually};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {sim.loadline.io/cpu-millis: '120'}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: web:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: COLOUR, value: red}]
        resources: {requests: {cpu: 100m, memory: 32Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";

const READY: &str = "rollout status deployment/web --timeout=60s";

/// All of `parts`, in this order.
#[track_caller]
fn has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("no {part:?} (in this order: {parts:?}) in:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

/// The words of each line.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

async fn with_web(nodes: usize) -> Option<Cluster> {
    if !Kubectl::exists() {
        return None;
    }
    let cluster = Cluster::start(Options::sim(nodes)).await;
    let k = Kubectl::of(&cluster);
    let said = k.stdin("apply -f -", WEB).await.ok();
    assert_eq!(said, "deployment.apps/web created\nservice/web created\n");
    has(&k.run(READY).await.ok(), &["successfully rolled out"]);
    Some(cluster)
}

async fn empty() -> Option<Cluster> {
    if Kubectl::exists() { Some(Cluster::start(Options::sim(1)).await) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_in_every_form() {
    let Some(cluster) = with_web(2).await else { return };
    let k = Kubectl::of(&cluster);
    assert_eq!(
        k.stdin("apply -f -", WEB).await.ok(),
        "deployment.apps/web unchanged\nservice/web unchanged\n"
    );

    let wide = k.run("get deployment web -o wide").await.ok();
    let table = rows(&wide);
    assert_eq!(
        table[0],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    );
    assert_eq!(
        (&table[1][..4], &table[1][5..]),
        (&["web", "2/2", "2", "2"][..], &["main", "web:1", "app=web"][..])
    );
    let pods = k.run("get pods -l app=web -o wide --no-headers").await.ok();
    for row in rows(&pods) {
        assert_eq!(row[1..4], ["1/1", "Running", "0"], "{pods}");
        assert!(row[5].starts_with("10.244.") && row[6].starts_with("node-"), "{pods}");
    }
    let nodes = k.run("get nodes").await.ok();
    let table = rows(&nodes);
    assert_eq!(table[0], ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    assert_eq!(table[1][..3], ["node-1", "Ready", "<none>"]);
    has(
        &k.run("get all").await.ok(),
        &["pod/web-", "service/kubernetes", "service/web", "deployment.apps/web", "replicaset.apps/web-"],
    );
    has(
        &k.run("get svc,endpointslices -A").await.ok(),
        &["default", "service/web", "endpointslice.discovery.k8s.io/web-", "IPv4", "8080"],
    );
    has(
        &k.run("get ns --show-labels").await.ok(),
        &["default", "Active", "kubernetes.io/metadata.name=default"],
    );

    assert_eq!(k.run("get deploy/web svc/web -o name").await.ok(), "deployment.apps/web\nservice/web\n");
    assert_eq!(
        k.run("get deploy web -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[*].image}")
            .await
            .ok(),
        "2/web:1"
    );
    let object = k.run("get deploy web -o json").await.json();
    assert_eq!(
        (&object["kind"], &object["apiVersion"], &object["spec"]["replicas"]),
        (&"Deployment".into(), &"apps/v1".into(), &2.into())
    );
    assert!(object["metadata"]["managedFields"].is_null(), "hidden by default");
    let shown = k.run("get deploy web -o json --show-managed-fields").await.json();
    assert_eq!(shown["metadata"]["managedFields"][0]["manager"], "kubectl-client-side-apply");
    has(
        &k.run("get deploy web -o yaml").await.ok(),
        &["apiVersion: apps/v1", "kind: Deployment", "  name: web", "  replicas: 2"],
    );
    let columns = k
        .run("get pods -o custom-columns=N:.metadata.name,Q:.status.qosClass --sort-by=.metadata.name")
        .await
        .ok();
    assert_eq!(rows(&columns)[1][1], "Burstable");
    let selected =
        k.run("get pods --field-selector=status.phase=Running -l app=web,!nothing -o name").await.ok();
    assert_eq!(selected.lines().count(), 2, "{selected}");
    assert_eq!(k.run("get pods --chunk-size=1 -o name").await.ok().lines().count(), 2);
    assert_eq!(k.run("get --raw /readyz").await.ok(), "ok");
    has(
        &k.run("get pods nothing").await.fails(),
        &["Error from server (NotFound): pods \"nothing\" not found"],
    );
    has(&k.run("get gadgets").await.fails(), &["the server doesn't have a resource type \"gadgets\""]);
    has(&k.run("version").await.ok(), &["Server Version: v1.36.0+loadline"]);
    has(&k.run("cluster-info").await.ok(), &["control plane", "is running at", &cluster.url]);
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_explain_and_discovery() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    has(
        &k.run("describe deployment web").await.ok(),
        &[
            "Name:",
            "web",
            "Replicas:",
            "2 desired | 2 updated | 2 total | 2 available | 0 unavailable",
            "Image:",
            "web:1",
            "Environment:",
            "COLOUR:",
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "NewReplicaSet:",
            "(2/2 replicas created)",
            "Events:",
            "ScalingReplicaSet",
        ],
    );
    has(
        &k.run("describe pods -l app=web").await.ok(),
        &[
            "Node:",
            "node-1/127.0.0.1",
            "Status:",
            "Running",
            "IP:",
            "10.244.",
            "Controlled By:",
            "ReplicaSet/web-",
            "Image:",
            "web:1",
            "State:",
            "Running",
            "Ready:",
            "True",
            "QoS Class:",
            "Burstable",
            "Events:",
            "Scheduled",
            "Pulled",
            "Created",
            "Started",
        ],
    );
    has(
        &k.run("describe node node-1").await.ok(),
        &[
            "Name:",
            "node-1",
            "Ready",
            "True",
            "KubeletReady",
            "Capacity:",
            "PodCIDR:",
            "Non-terminated Pods:",
            "(2 in total)",
            "Allocated resources:",
            "cpu",
            "200m",
        ],
    );
    has(
        &k.run("describe service web").await.ok(),
        &[
            "Selector:",
            "app=web",
            "IP:",
            "10.",
            "Port:",
            "http  80/TCP",
            "TargetPort:",
            "http/TCP",
            "Endpoints:",
            "10.244.",
            ":8080",
        ],
    );
    k.run("autoscale deployment web --min=1 --max=4 --cpu-percent=80").await.ok();
    has(
        &k.run("describe hpa web").await.ok(),
        &[
            "Reference:",
            "Deployment/web",
            "as a percentage of request",
            "80%",
            "Min replicas:",
            "1",
            "Max replicas:",
            "4",
        ],
    );

    has(
        &k.run("explain deployment.spec.strategy.rollingUpdate").await.ok(),
        &["GROUP:", "apps", "KIND:", "Deployment", "FIELD: rollingUpdate", "maxSurge", "maxUnavailable"],
    );
    has(
        &k.run("explain pods --recursive").await.ok(),
        &["KIND:", "Pod", "containers", "livenessProbe", "terminationGracePeriodSeconds"],
    );
    has(
        &k.run("explain hpa.spec.metrics --api-version=autoscaling/v2").await.ok(),
        &["autoscaling", "v2", "containerResource"],
    );
    has(
        &k.run("explain scalingpolicy.spec").await.ok(),
        &["autoscaling.loadline.io", "ScalingPolicy", "maxReplicas", "objectives"],
    );
    // The older form of the documents, in protobuf.
    has(
        &k.run("explain deployment.spec.strategy --output=plaintext-openapiv2").await.ok(),
        &["KIND:", "Deployment", "FIELDS:", "rollingUpdate"],
    );
    has(&k.run("explain pod.nothing").await.fails(), &["field \"nothing\" does not exist"]);
    let resources = k.run("api-resources").await.ok();
    has(
        &resources,
        &[
            "NAME",
            "SHORTNAMES",
            "APIVERSION",
            "NAMESPACED",
            "KIND",
            "configmaps",
            "cm",
            "v1",
            "true",
            "ConfigMap",
            "deployments",
            "deploy",
            "apps/v1",
        ],
    );
    has(&resources, &["scalingpolicies", "autoscaling.loadline.io/v1alpha1", "true", "ScalingPolicy"]);
    has(
        &k.run("api-resources --api-group=metrics.k8s.io").await.ok(),
        &["nodes", "NodeMetrics", "pods", "PodMetrics"],
    );
    has(
        &k.run("api-versions").await.ok(),
        &[
            "apps/v1",
            "autoscaling/v1",
            "autoscaling/v2",
            "coordination.k8s.io/v1",
            "discovery.k8s.io/v1",
            "metrics.k8s.io/v1beta1",
            "v1",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_changed_in_many_ways() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    let field = async |path: &str| k.run(&format!("get deploy web -o jsonpath={{{path}}}")).await.ok();
    assert_eq!(k.run("label deploy web tier=front").await.ok(), "deployment.apps/web labeled\n");
    has(
        &k.run("label deploy web tier=back").await.fails(),
        &["already has a value (front), and --overwrite is false"],
    );
    k.run("label deploy web tier=back --overwrite").await.ok();
    assert_eq!(field(".metadata.labels.tier").await, "back");
    assert_eq!(k.run("label deploy web tier-").await.ok(), "deployment.apps/web unlabeled\n");
    assert_eq!(field(".metadata.labels.tier").await, "");
    assert_eq!(k.run("annotate deploy web note=hello").await.ok(), "deployment.apps/web annotated\n");
    assert_eq!(field(".metadata.annotations.note").await, "hello");

    k.args(&["patch", "deploy", "web", "--type=merge", "-p", r#"{"spec":{"minReadySeconds":1}}"#]).await.ok();
    assert_eq!(field(".spec.minReadySeconds").await, "1");
    k.args(&[
        "patch",
        "deploy",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/minReadySeconds","value":0}]"#,
    ])
    .await
    .ok();
    assert_eq!(field(".spec.minReadySeconds").await, "");
    // Strategic: the container is found by its name, the rest of the list stays.
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","env":[{"name":"SIZE","value":"big"}]}]}}}}"#;
    k.args(&["patch", "deploy", "web", "-p", patch]).await.ok();
    assert_eq!(field(".spec.template.spec.containers[0].env[*].name").await, "SIZE COLOUR");
    assert_eq!(field(".spec.template.spec.containers[0].image").await, "web:1");
    let said = k
        .args(&[
            "patch",
            "deploy",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"test","path":"/spec/replicas","value":9}]"#,
        ])
        .await;
    has(&said.fails(), &["error"]);
    k.args(&[
        "patch",
        "deploy",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":3}}"#,
    ])
    .await
    .ok();
    assert_eq!(field(".spec.replicas").await, "3");

    k.run("set image deploy/web main=web:2").await.ok();
    assert_eq!(field(".spec.template.spec.containers[0].image").await, "web:2");
    k.run("set env deploy/web COLOUR=blue").await.ok();
    has(&k.run("set env deploy/web --list").await.ok(), &["COLOUR=blue"]);
    k.run("set resources deploy/web --limits=cpu=500m").await.ok();
    assert_eq!(field(".spec.template.spec.containers[0].resources.limits.cpu").await, "500m");
    // An editor that changes one line.
    let said = k
        .with_env("KUBE_EDITOR", "sed -i s/minReadySeconds:.*//;s/web:2/web:3/", "edit deploy web")
        .await
        .ok();
    assert_eq!(said, "deployment.apps/web edited\n");
    assert_eq!(field(".spec.template.spec.containers[0].image").await, "web:3");
    let wrong = k.with_env("KUBE_EDITOR", "sed -i s/replicas:.*/replicas:\\ -5/", "edit deploy web").await;
    // kubectl puts the reasons into the file that it opens again.
    has(&wrong.fails(), &["deployments.apps \"web\" is invalid"]);
    // Replace, with the version that was read and with an old one.
    let object = k.run("get cm kube-root-ca.crt -o name --ignore-not-found").await.ok();
    assert!(object.is_empty() || object.contains("kube-root-ca.crt"));
    k.run("create configmap c --from-literal=a=1").await.ok();
    let old = k.run("get cm c -o yaml").await.ok();
    assert_eq!(
        k.stdin("replace -f -", &old.replace("a: \"1\"", "a: \"2\"")).await.ok(),
        "configmap/c replaced\n"
    );
    has(&k.stdin("replace -f -", &old).await.fails(), &["the object has been modified"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_in_many_ways() {
    let Some(cluster) = empty().await else { return };
    let k = Kubectl::of(&cluster);
    assert_eq!(k.run("create namespace space").await.ok(), "namespace/space created\n");
    has(
        &k.run("create namespace space").await.fails(),
        &["Error from server (AlreadyExists): namespaces \"space\" already exists"],
    );
    assert_eq!(
        k.run("create deployment d --image=app:1 --replicas=2 --port=8080 -n space").await.ok(),
        "deployment.apps/d created\n"
    );
    assert_eq!(
        k.run("expose deployment d --port=80 --target-port=8080 -n space").await.ok(),
        "service/d exposed\n"
    );
    assert_eq!(k.run("get svc d -n space -o jsonpath={.spec.selector.app}:{.spec.ports[0].port}>{.spec.ports[0].targetPort}").await.ok(), "d:80>8080");
    k.run("create configmap c --from-literal=a=one -n space").await.ok();
    has(&k.run("describe cm c -n space").await.ok(), &["Data", "a:", "one"]);
    k.run("create secret generic s --from-literal=password=hidden -n space").await.ok();
    assert_eq!(
        k.run("get secret s -n space -o jsonpath={.type}:{.data.password}").await.ok(),
        "Opaque:aGlkZGVu"
    );
    k.run("create serviceaccount sa -n space").await.ok();
    k.run("create service nodeport np --tcp=80:8080 -n space").await.ok();
    let port: u32 =
        k.run("get svc np -n space -o jsonpath={.spec.ports[0].nodePort}").await.ok().parse().unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
    assert_eq!(
        k.run("run one --image=app:1 --restart=Never --labels=a=b -n space").await.ok(),
        "pod/one created\n"
    );
    k.run("wait --for=condition=Ready pod/one -n space --timeout=60s").await.ok();
    k.run("wait --for=jsonpath={.status.availableReplicas}=2 deployment/d -n space --timeout=60s").await.ok();
    let late = k.run("wait --for=condition=Ready pod/none -n space --timeout=1s").await;
    has(&late.fails(), &["not found"]);

    // Dry runs leave nothing behind, and tell what would be.
    let said = k.run("create deployment dry --image=app:1 --dry-run=server -n space -o json").await.json();
    assert!(said["metadata"]["uid"].is_string() && said["spec"]["progressDeadlineSeconds"] == 600, "{said}");
    has(&k.run("get deploy dry -n space").await.fails(), &["NotFound"]);
    let client = k.run("create deployment dry --image=app:1 --dry-run=client -o yaml").await.ok();
    assert_eq!(
        k.stdin("apply --dry-run=server -n space -f -", &client).await.ok(),
        "deployment.apps/dry created (server dry run)\n"
    );
    has(
        &k.stdin("apply -n space -f -", &client.replace("replicas:", "replcas:")).await.fails(),
        &["unknown field \"spec.replcas\""],
    );
    let wrong = client.replace("name: dry\n", "name: Dry\n");
    has(&k.stdin("apply -n space -f -", &wrong).await.fails(), &["is invalid", "metadata.name"]);
    has(
        &k.stdin("apply -f -", "apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n").await.fails(),
        &["no matches for kind \"Nothing\""],
    );
    has(&k.stdin("create -f -", &format!("{client}\n---\n{client}")).await.fails(), &["AlreadyExists"]);
    k.stdin("create -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: gen-}\n").await.ok();
    has(&k.run("get cm -o name").await.ok(), &["configmap/gen-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_and_autoscale() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    assert_eq!(k.run("scale deployment web --replicas=4").await.ok(), "deployment.apps/web scaled\n");
    k.run(READY).await.ok();
    assert_eq!(k.run("get pods -o name").await.ok().lines().count(), 4);
    has(
        &k.run("scale deployment web --replicas=5 --current-replicas=2").await.fails(),
        &["Expected replicas to be 2, was 4"],
    );
    k.run("scale deployment web --replicas=0").await.ok();
    k.run("wait --for=delete pod -l app=web --timeout=60s").await.ok();
    assert_eq!(k.run("get deploy web -o jsonpath={.status.replicas}").await.ok(), "");
    let set = k.run("get rs -o name").await.ok();
    k.run(&format!("scale {} --replicas=1", set.trim())).await.ok();
    // Its Deployment owns it and puts it right.
    eventually("the ReplicaSet is back at 0", SOON, async || {
        let seen = k.run("get rs -o jsonpath={.items[0].spec.replicas}").await.ok();
        if seen == "0" { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(
        k.run("autoscale deployment web --min=2 --max=6 --cpu-percent=70").await.ok(),
        "horizontalpodautoscaler.autoscaling/web autoscaled\n"
    );
    let hpa = k.run("get hpa web -o json").await.json();
    assert_eq!((&hpa["spec"]["minReplicas"], &hpa["spec"]["maxReplicas"]), (&2.into(), &6.into()));
    assert_eq!(hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let old =
        k.run("get --raw /apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/web").await.json();
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 70);
    let table = k.run("get hpa").await.ok();
    assert_eq!(rows(&table)[0], ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]);
    has(&table, &["web", "Deployment/web", "2", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts() {
    let Some(cluster) = with_web(2).await else { return };
    let k = Kubectl::of(&cluster);
    let image =
        async || k.run("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}").await.ok();
    for version in ["web:2", "web:3"] {
        k.run(&format!("set image deploy/web main={version}")).await.ok();
        k.run(&format!("annotate deploy/web kubernetes.io/change-cause=to-{version} --overwrite")).await.ok();
        has(&k.run(READY).await.ok(), &["successfully rolled out"]);
    }
    let history = k.run("rollout history deploy/web").await.ok();
    has(&history, &["REVISION", "CHANGE-CAUSE", "1", "<none>", "2", "to-web:2", "3", "to-web:3"]);
    has(&k.run("rollout history deploy/web --revision=2").await.ok(), &["revision #2", "web:2"]);
    assert_eq!(k.run("rollout undo deploy/web").await.ok(), "deployment.apps/web rolled back\n");
    k.run(READY).await.ok();
    assert_eq!(image().await, "web:2");
    k.run("rollout undo deploy/web --to-revision=1").await.ok();
    k.run(READY).await.ok();
    assert_eq!(image().await, "web:1");
    has(&k.run("rollout history deploy/web").await.ok(), &["3", "to-web:3", "4", "to-web:2", "5"]);
    has(
        &k.run("rollout undo deploy/web --to-revision=99").await.fails(),
        &["unable to find specified revision 99"],
    );

    // A paused Deployment takes changes and does not act on them.
    let before = k.run("get rs -o name").await.ok().lines().count();
    assert_eq!(k.run("rollout pause deploy/web").await.ok(), "deployment.apps/web paused\n");
    k.run("set image deploy/web main=web:4").await.ok();
    has(&k.run("rollout undo deploy/web").await.fails(), &["paused"]);
    eventually("the change is seen", SOON, async || {
        let deploy = k.run("get deploy web -o json").await.json();
        let seen = &deploy["status"]["observedGeneration"];
        if *seen == deploy["metadata"]["generation"] { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    assert_eq!(k.run("get rs -o name").await.ok().lines().count(), before);
    assert_eq!(k.run("rollout resume deploy/web").await.ok(), "deployment.apps/web resumed\n");
    has(&k.run(READY).await.ok(), &["successfully rolled out"]);
    assert_eq!(
        k.run("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}").await.ok(),
        "web:4 web:4"
    );
    let pods = k.run("get pods -l app=web -o name").await.ok();
    assert_eq!(k.run("rollout restart deploy/web").await.ok(), "deployment.apps/web restarted\n");
    k.run(READY).await.ok();
    eventually("all pods are others", SOON, async || {
        let after = k.run("get pods -l app=web -o name").await.ok();
        let good = after.lines().count() == 2 && after.lines().all(|pod| !pods.contains(pod));
        if good { Ok(()) } else { Err(format!("{pods} then {after}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_exec_and_top() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    let all = k.run("logs deploy/web").await.ok();
    assert!(!all.is_empty());
    assert_eq!(k.run("logs deploy/web --tail=1").await.ok().lines().count(), 1);
    let stamped = k.run("logs deploy/web -c main --timestamps --tail=1").await.ok();
    assert!(stamped.starts_with("20") && stamped.contains('T'), "{stamped}");
    assert!(k.run("logs -l app=web --prefix --tail=1").await.ok().contains("[pod/web-"));
    has(&k.run("logs deploy/web -c nothing").await.fails(), &["container nothing is not valid for pod"]);
    has(
        &k.run("logs deploy/web --previous").await.fails(),
        &["previous terminated container \"main\"", "not found"],
    );
    let pod = k.run("get pods -o jsonpath={.items[0].metadata.name}").await.ok();

    // Followed until its pod goes.
    let args =
        ["logs", "-f", &pod, "--kubeconfig", &cluster.kubeconfig().to_string_lossy()].map(str::to_owned);
    let follow = Process::start("follow", k.program(), &args, cluster.dir());
    eventually("it follows", SOON, async || {
        if follow.stdout().is_empty() { Err("nothing".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(follow.has_ended().is_none());

    let said = k.run(&format!("exec {pod} -- echo hello")).await.ok();
    has(&said, &["echo", "hello"]);
    has(&k.run(&format!("exec {pod} -c nothing -- echo hello")).await.fails(), &["container", "nothing"]);
    has(&k.run("exec nothing -- echo hello").await.fails(), &["pods \"nothing\" not found"]);
    let copied = k.stdin(&format!("exec -i {pod} -- cat"), "some input\n").await.ok();
    has(&copied, &["cat"]);

    eventually("there are metrics", SOON, async || {
        let output = k.run("top pods --no-headers").await;
        let table = rows(&output.stdout);
        let good = table.len() == 2 && table.iter().all(|row| matches!(row[1], "119m" | "120m" | "121m"));
        if good { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    has(&k.run("top pods --containers").await.ok(), &["POD", "NAME", "CPU(cores)", "MEMORY(bytes)", "main"]);
    has(
        &k.run("top nodes").await.ok(),
        &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)", "node-1", "%"],
    );

    k.run(&format!("delete pod {pod}")).await.ok();
    let status = follow.wait(SOON).expect("logs -f ends with its pod");
    assert!(status.success(), "{status} {}", follow.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_in_three_ways() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    let count =
        async |kind: &str| k.run(&format!("get {kind} -l app=web -o name")).await.ok().lines().count();
    let gone = async |kind: &str| {
        eventually(&format!("no {kind} is left"), SOON, async || {
            let left = count(kind).await;
            if left == 0 { Ok(()) } else { Err(format!("{left} {kind}")) }
        })
        .await;
    };
    // Orphans stay, and a new Deployment with the same selector takes them over.
    assert_eq!(k.run("delete deploy web --cascade=orphan").await.ok(), "deployment.apps \"web\" deleted\n");
    assert_eq!((count("rs").await, count("pods").await), (1, 2));
    assert_eq!(k.run("get rs -o jsonpath={.items[0].metadata.ownerReferences}").await.ok(), "");
    k.stdin("apply -f -", WEB).await.ok();
    k.run(READY).await.ok();
    assert_eq!((count("rs").await, count("pods").await), (1, 2));
    // Foreground: the Deployment goes last.
    k.run("delete deploy web --cascade=foreground --wait=true --timeout=60s").await.ok();
    assert_eq!((count("rs").await, count("pods").await), (0, 0));
    // Background: it goes at once, the rest follows.
    k.stdin("apply -f -", WEB).await.ok();
    k.run(READY).await.ok();
    k.run("delete deploy web --cascade=background").await.ok();
    gone("rs").await;
    gone("pods").await;

    k.run("run one --image=app:1 --labels=app=web").await.ok();
    k.run("delete pod one --now").await.ok();
    k.run("run two --image=app:1 --labels=app=web").await.ok();
    k.run("delete pod two --grace-period=0 --force").await.ok();
    gone("pods").await;
    has(&k.run("delete pod nothing").await.fails(), &["NotFound"]);
    assert_eq!(k.run("delete pod nothing --ignore-not-found").await.ok(), "");
    k.stdin("apply -f -", WEB).await.ok();
    assert_eq!(
        k.stdin("delete -f -", WEB).await.ok(),
        "deployment.apps \"web\" deleted\nservice \"web\" deleted\n"
    );
    k.run("create cm a").await.ok();
    k.run("create cm b").await.ok();
    has(&k.run("delete cm --all").await.ok(), &["configmap \"a\" deleted", "configmap \"b\" deleted"]);
    k.run("create ns space").await.ok();
    k.run("create deployment d --image=app:1 -n space").await.ok();
    k.run("delete ns space --timeout=60s").await.ok();
    has(&k.run("get ns space").await.fails(), &["NotFound"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_and_server_side_apply() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    assert_eq!(k.stdin("diff -f -", WEB).await.ok(), "");
    let changed = k.stdin("diff -f -", &WEB.replace("web:1", "web:9")).await;
    assert_eq!(changed.status.code(), Some(1), "{changed}");
    has(&changed.stdout, &["-        image: web:1", "+        image: web:9"]);
    assert_eq!(
        k.run("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}").await.ok(),
        "web:1"
    );

    let map = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{a: '{value}'}}\n")
    };
    assert_eq!(
        k.stdin("apply --server-side --field-manager=one -f -", &map("1")).await.ok(),
        "configmap/c serverside-applied\n"
    );
    k.stdin("apply --server-side --field-manager=one -f -", &map("2")).await.ok();
    let conflict = k.stdin("apply --server-side --field-manager=two -f -", &map("3")).await;
    has(&conflict.fails(), &["Apply failed with 1 conflict", "conflict with \"one\"", ".data.a"]);
    // The same value is no conflict: it is owned by both.
    k.stdin("apply --server-side --field-manager=two -f -", &map("2")).await.ok();
    k.stdin("apply --server-side --field-manager=two --force-conflicts -f -", &map("3")).await.ok();
    let owners = k.run("get cm c -o json --show-managed-fields").await.json();
    let owners: Vec<&Value> =
        owners["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| &m["manager"]).collect();
    assert_eq!(owners, ["two"]);
    // What its last owner leaves out goes away.
    k.stdin(
        "apply --server-side --field-manager=two -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
    )
    .await
    .ok();
    assert_eq!(k.run("get cm c -o jsonpath={.data}").await.ok(), "");
    // From client-side to server-side without a conflict with oneself.
    k.stdin("apply --server-side -f -", WEB).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_and_events() {
    let Some(cluster) = with_web(1).await else { return };
    let k = Kubectl::of(&cluster);
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    let watch = |name: &str, args: &[&str]| {
        let mut all: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        all.extend(["--kubeconfig".to_owned(), kubeconfig.clone()]);
        Process::start(name, k.program(), &all, cluster.dir())
    };
    let table = watch("table", &["get", "pods", "-w"]);
    let events = watch(
        "events",
        &[
            "get",
            "deploy",
            "web",
            "-w",
            "--output-watch-events",
            "-o",
            "jsonpath={.type}={.object.spec.replicas} ",
        ],
    );
    eventually("both show what is there", SOON, async || {
        let (t, e) = (table.stdout(), events.stdout());
        if t.lines().count() >= 3 && e.contains("ADDED=2") { Ok(()) } else { Err(format!("{t}\n{e}")) }
    })
    .await;
    k.run("scale deploy web --replicas=3").await.ok();
    eventually("both show what changes", SOON, async || {
        let (t, e) = (table.stdout(), events.stdout());
        let states = ["Pending", "ContainerCreating", "Running"].iter().all(|state| t.contains(state));
        if states && e.contains("MODIFIED=3") { Ok(()) } else { Err(format!("{t}\n{e}")) }
    })
    .await;
    table.kill();
    events.kill();
    has(
        &k.run("get events --field-selector=reason=ScalingReplicaSet").await.ok(),
        &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE", "deployment/web"],
    );
    has(
        &k.run("events --for deployment/web").await.ok(),
        &["Normal", "ScalingReplicaSet", "Deployment/web", "Scaled up replica set"],
    );
    has(&k.run("events --types=Normal").await.ok(), &["Scheduled", "Successfully assigned default/web-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_cordoned_tainted_and_drained() {
    let Some(cluster) = with_web(2).await else { return };
    let k = Kubectl::of(&cluster);
    let on = async |node: &str| {
        let pods =
            k.run(&format!("get pods -l app=web --field-selector=spec.nodeName={node} -o name")).await.ok();
        pods.lines().count()
    };
    assert_eq!(k.run("cordon node-1").await.ok(), "node/node-1 cordoned\n");
    has(&k.run("get node node-1").await.ok(), &["Ready,SchedulingDisabled"]);
    k.run("scale deploy web --replicas=4").await.ok();
    k.run(READY).await.ok();
    assert_eq!((on("node-1").await, on("node-2").await), (1, 3));
    has(
        &k.run("drain node-1 --ignore-daemonsets --timeout=60s").await.ok(),
        &["evicting pod default/web-", "node/node-1 drained"],
    );
    k.run(READY).await.ok();
    assert_eq!((on("node-1").await, on("node-2").await), (0, 4));
    assert_eq!(k.run("uncordon node-1").await.ok(), "node/node-1 uncordoned\n");
    assert_eq!(k.run("taint nodes node-2 quiet=yes:NoExecute").await.ok(), "node/node-2 tainted\n");
    eventually("all pods have moved", SOON, async || {
        let counts = (on("node-1").await, on("node-2").await);
        if counts == (4, 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert_eq!(k.run("taint nodes node-2 quiet-").await.ok(), "node/node-2 untainted\n");
    k.run("label node node-2 disk=fast").await.ok();
    let patch = r#"{"spec":{"template":{"spec":{"nodeSelector":{"disk":"fast"}}}}}"#;
    k.args(&["patch", "deploy", "web", "-p", patch]).await.ok();
    k.run(READY).await.ok();
    assert_eq!((on("node-1").await, on("node-2").await), (0, 4));
    // What fits nowhere waits and says why.
    k.args(&["patch", "deploy", "web", "-p", &patch.replace("fast", "none")]).await.ok();
    eventually("an event says FailedScheduling", SOON, async || {
        let said = k.run("get events --field-selector=reason=FailedScheduling").await.ok();
        if said.contains("0/2 nodes are available") { Ok(()) } else { Err(said) }
    })
    .await;
}
