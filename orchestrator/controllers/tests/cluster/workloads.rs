//! Deployments, ReplicaSets, ReplicationControllers and the endpoints of their pods.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::hollow::{Cluster, deployment, eventually, is};

async fn settled(cluster: &Cluster, name: &str, replicas: i32, image: &str) -> Deployment {
    eventually("rollout", || async {
        let d: Deployment = cluster.api().get(name).await.map_err(|e| e.to_string())?;
        let s = d.status.clone().unwrap_or_default();
        let seen = (
            s.observed_generation == d.metadata.generation,
            s.updated_replicas.unwrap_or(0),
            s.replicas.unwrap_or(0),
            s.available_replicas.unwrap_or(0),
        );
        is(seen, (true, replicas, replicas, replicas))?;
        let images: Vec<String> = cluster
            .pods()
            .await
            .iter()
            .filter(|p| {
                p.labels().get("app").map(String::as_str) == Some(name)
                    && p.metadata.deletion_timestamp.is_none()
            })
            .map(|p| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
            .collect();
        is(images, vec![image.to_owned(); replicas as usize])?;
        let progressing = s.conditions.iter().flatten().find(|c| c.type_ == "Progressing").cloned();
        is(progressing.and_then(|c| c.reason), Some("NewReplicaSetAvailable".to_owned()))?;
        Ok(d)
    })
    .await
}

async fn endpoints(cluster: &Cluster, service: &str, ready: usize) {
    eventually("slices", || async {
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = cluster.api::<EndpointSlice>().list(&params).await.map_err(|e| e.to_string())?;
        let count = slices
            .items
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .count();
        is(count, ready)?;
        is(slices.items.len(), 1)
    })
    .await;
    eventually("endpoints", || async {
        let e: Endpoints = cluster.api().get(service).await.map_err(|e| e.to_string())?;
        let count: usize = e.subsets.iter().flatten().map(|s| s.addresses.as_ref().map_or(0, Vec::len)).sum();
        is(count, ready)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_scales_and_rolls_back_behind_its_service() {
    let cluster = Cluster::start(&["n1", "n2", "n3"]).await;
    let _: Service = cluster
        .create(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}}))
        .await;
    let _: Deployment = cluster.create(deployment("web", 3, "v1")).await;
    let first = settled(&cluster, "web", 3, "v1").await;
    assert_eq!(first.annotations()["deployment.kubernetes.io/revision"], "1");
    endpoints(&cluster, "web", 3).await;

    let template = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let _: Deployment = cluster.patch("web", template("v2")).await;
    settled(&cluster, "web", 3, "v2").await;
    let _: Deployment = cluster.patch("web", deployment("web", 5, "v1")).await;
    let back = settled(&cluster, "web", 5, "v1").await;
    assert_eq!(back.annotations()["deployment.kubernetes.io/revision"], "3");
    endpoints(&cluster, "web", 5).await;

    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
    let mut sizes: Vec<i32> = sets.items.iter().map(|s| s.spec.as_ref().unwrap().replicas.unwrap()).collect();
    sizes.sort();
    assert_eq!(sizes, [0, 5]);
    let pods = cluster.pods().await;
    assert_eq!(pods.len(), 5, "neither too many nor too few were made");

    let _: Deployment = cluster.patch("web", json!({"spec": {"replicas": 1}})).await;
    settled(&cluster, "web", 1, "v1").await;
    endpoints(&cluster, "web", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_image_stops_a_rollout_and_leaves_the_old_pods() {
    let cluster = Cluster::start(&["n1"]).await;
    let _: Deployment = cluster.create(deployment("web", 4, "v1")).await;
    settled(&cluster, "web", 4, "v1").await;
    let _: Deployment = cluster.patch("web", deployment("web", 4, "broken")).await;
    eventually("half way", || async {
        let d: Deployment = cluster.api().get("web").await.map_err(|e| e.to_string())?;
        let s = d.status.unwrap_or_default();
        // One more and one less than four: two new ones that never come up, three old ones.
        is((s.replicas, s.updated_replicas, s.available_replicas), (Some(5), Some(2), Some(3)))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_adopt_release_and_replace_pods() {
    let cluster = Cluster::start(&["n1", "n2"]).await;
    let orphan = json!({"metadata": {"name": "orphan", "labels": {"app": "rc"}},
        "spec": {"containers": [{"name": "c", "image": "v1"}]}});
    let _: Pod = cluster.create(orphan).await;
    let controller: ReplicationController = cluster
        .create(json!({"metadata": {"name": "rc"}, "spec": {"replicas": 3, "selector": {"app": "rc"},
            "template": {"metadata": {"labels": {"app": "rc"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}))
        .await;
    let owned = || async {
        let uid = controller.metadata.uid.clone().unwrap();
        let mut names: Vec<String> = cluster
            .pods()
            .await
            .iter()
            .filter(|p| {
                p.metadata.deletion_timestamp.is_none() && p.owner_references().iter().any(|o| o.uid == uid)
            })
            .map(ResourceExt::name_any)
            .collect();
        names.sort();
        names
    };
    eventually("adoption", || async {
        let names = owned().await;
        is((names.len(), names.contains(&"orphan".to_owned())), (3, true))
    })
    .await;
    let _: Pod = cluster.patch("orphan", json!({"metadata": {"labels": {"app": "mine"}}})).await;
    eventually("release and replacement", || async {
        let names = owned().await;
        is((names.len(), names.contains(&"orphan".to_owned())), (3, false))
    })
    .await;
    let victim = owned().await[0].clone();
    cluster.api::<Pod>().delete(&victim, &Default::default()).await.unwrap();
    eventually("replacement", || async {
        let names = owned().await;
        is((names.len(), names.contains(&victim)), (3, false))
    })
    .await;
    eventually("status", || async {
        let rc: ReplicationController = cluster.api().get("rc").await.map_err(|e| e.to_string())?;
        let s = rc.status.unwrap_or_default();
        is((s.replicas, s.ready_replicas, s.available_replicas), (3, Some(3), Some(3)))
    })
    .await;
    cluster.stop().await;
}
