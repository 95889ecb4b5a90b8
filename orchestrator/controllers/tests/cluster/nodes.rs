//! A node dies: its pods are replaced elsewhere; and what nodes are given.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::hollow::{Cluster, deployment, eventually, is};

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_pods_are_replaced_within_seconds_and_others_keep_their_rule() {
    let cluster = Cluster::start(&["n1", "n2", "n3"]).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("every node has its own range", || async {
        let all = nodes.list(&ListParams::default()).await.unwrap().items;
        let ranges: BTreeSet<String> = all.iter().filter_map(|n| n.spec.as_ref()?.pod_cidr.clone()).collect();
        is(ranges.len(), 3)
    })
    .await;
    let _: Service = cluster
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}))
        .await;
    let _: Deployment = cluster.create(deployment("web", 6, "v1")).await;
    eventually("six ready pods", || async {
        is(cluster.pods().await.iter().filter(|p| is_ready(p)).count(), 6)
    })
    .await;
    // One that no ReplicaSet owns, on the node that will die: at most one of it may ever run.
    let lone = json!({"metadata": {"name": "lone"}, "spec": {"nodeName": "n1",
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300}],
        "containers": [{"name": "c", "image": "v1"}]}});
    let _: Pod = cluster.create(lone).await;
    eventually("the lone pod runs", || async {
        is(cluster.api::<Pod>().get("lone").await.map(|p| is_ready(&p)).unwrap_or(false), true)
    })
    .await;

    let died = Instant::now();
    cluster.alive.lock().unwrap().remove("n1");
    let params = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("endpoints of the dead node are withdrawn", || async {
        let slices = cluster.api::<EndpointSlice>().list(&params).await.unwrap().items;
        let on_dead: Vec<_> = slices
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.node_name.as_deref() == Some("n1"))
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .map(|e| e.addresses.clone())
            .collect();
        is(on_dead, vec![])
    })
    .await;
    let withdrawn = died.elapsed();
    eventually("six ready pods on the living nodes", || async {
        let pods = cluster.pods().await;
        let web = pods.iter().filter(|p| p.labels().contains_key("app"));
        let (living, dead): (Vec<&Pod>, Vec<&Pod>) = web.partition(|p| node_of(p) != "n1");
        is((living.iter().filter(|p| is_ready(p)).count(), dead.len()), (6, 0))
    })
    .await;
    let replaced = died.elapsed();
    println!("withdrawn after {withdrawn:?}, replaced after {replaced:?}");
    assert!(withdrawn >= Duration::from_secs(4), "not before the grace was over: {withdrawn:?}");
    let lone = cluster.api::<Pod>().get("lone").await.unwrap();
    assert_eq!(
        (lone.metadata.deletion_timestamp.clone(), is_ready(&lone)),
        (None, false),
        "kept, but not ready"
    );
    let dead = nodes.get("n1").await.unwrap();
    let taints: Vec<String> =
        dead.spec.unwrap().taints.unwrap().into_iter().map(|t| t.key + ":" + &t.effect).collect();
    assert!(taints.contains(&"node.kubernetes.io/unreachable:NoExecute".to_owned()), "{taints:?}");

    cluster.alive.lock().unwrap().insert("n1".to_owned());
    eventually("untainted", || async {
        let node = nodes.get("n1").await.map_err(|e| e.to_string())?;
        is(node.spec.and_then(|s| s.taints).unwrap_or_default().len(), 0)
    })
    .await;

    cluster.alive.lock().unwrap().remove("n1");
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    eventually("pods of a node that is gone go", || async {
        is(cluster.api::<Pod>().get_opt("lone").await.unwrap().is_none(), true)
    })
    .await;
    cluster.stop().await;
}
