//! Garbage collection, the end of namespaces, and what a namespace is born with.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::hollow::{Cluster, deployment, eventually, is};

async fn counts(cluster: &Cluster) -> (usize, usize, usize) {
    let params = ListParams::default();
    (
        cluster.api::<Deployment>().list(&params).await.unwrap().items.len(),
        cluster.api::<ReplicaSet>().list(&params).await.unwrap().items.len(),
        cluster.pods().await.len(),
    )
}

async fn deployed(cluster: &Cluster) {
    let _: Deployment = cluster.create(deployment("web", 2, "v1")).await;
    eventually("deployed", || async {
        let ready = cluster
            .pods()
            .await
            .iter()
            .filter(|p| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")))
            .count();
        is(ready, 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_cascades_in_every_way() {
    let cluster = Cluster::start(&["n1"]).await;
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        deployed(&cluster).await;
        cluster.api::<Deployment>().delete("web", &params).await.unwrap();
        eventually("everything gone", || async { is(counts(&cluster).await, (0, 0, 0)) }).await;
    }
    deployed(&cluster).await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    eventually("deployment gone, set kept", || async { is(counts(&cluster).await, (0, 1, 2)) }).await;
    let set = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.remove(0);
    assert_eq!(set.owner_references().len(), 0);
    // A Deployment by the same name finds its set again.
    let _: Deployment = cluster.create(deployment("web", 2, "v1")).await;
    eventually("adopted", || async {
        let set: ReplicaSet = cluster.api().get(&set.name_any()).await.map_err(|e| e.to_string())?;
        is(set.owner_references().len(), 1)
    })
    .await;
    is(counts(&cluster).await, (1, 1, 2)).unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_lives_as_long_as_one_owner_does() {
    let cluster = Cluster::start(&[]).await;
    let mut owners = Vec::new();
    for name in ["a", "b"] {
        let map: ConfigMap = cluster.create(json!({"metadata": {"name": name}})).await;
        owners.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": map.metadata.uid}));
    }
    let _: ConfigMap =
        cluster.create(json!({"metadata": {"name": "child", "ownerReferences": owners}})).await;
    let ghost = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "not-the-uid"}]);
    let _: ConfigMap = cluster.create(json!({"metadata": {"name": "stray", "ownerReferences": ghost}})).await;
    eventually("the one whose owner never was is gone", || async {
        is(cluster.api::<ConfigMap>().get_opt("stray").await.unwrap().is_none(), true)
    })
    .await;
    cluster.api::<ConfigMap>().delete("a", &DeleteParams::default()).await.unwrap();
    eventually("struck out", || async {
        let child: ConfigMap = cluster.api().get("child").await.map_err(|e| e.to_string())?;
        is(child.owner_references().len(), 1)
    })
    .await;
    cluster.api::<ConfigMap>().delete("b", &DeleteParams::default()).await.unwrap();
    eventually("gone with its last owner", || async {
        is(cluster.api::<ConfigMap>().get_opt("child").await.unwrap().is_none(), true)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_equipped_and_emptied() {
    let cluster = Cluster::start(&["n1"]).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    let equipped = || async {
        accounts.get("default").await.map_err(|e| e.to_string())?;
        let map = maps.get("kube-root-ca.crt").await.map_err(|e| e.to_string())?;
        is(map.data.unwrap_or_default().get("ca.crt").cloned(), Some("PEM".to_owned()))
    };
    eventually("equipped", equipped).await;
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    eventually("equipped again", equipped).await;

    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "team");
    let web = serde_json::from_value(deployment("web", 3, "v1")).unwrap();
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    eventually("pods", || async { is(pods.list(&ListParams::default()).await.unwrap().items.len(), 3) })
        .await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    maps.create(&PostParams::default(), &serde_json::from_value(held).unwrap()).await.unwrap();

    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    eventually("only what is held is left", || async {
        let n = namespaces.get("team").await.map_err(|e| e.to_string())?;
        let status = n.status.unwrap_or_default();
        let message = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "NamespaceFinalizersRemaining")
            .and_then(|c| c.message.clone());
        is(status.phase.as_deref(), Some("Terminating"))?;
        is(
            message.as_deref(),
            Some("Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"),
        )?;
        is(deployments.list(&ListParams::default()).await.unwrap().items.len(), 0)
    })
    .await;
    let free = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &Default::default(), &free).await.unwrap();
    eventually("gone", || async { is(namespaces.get_opt("team").await.unwrap().is_none(), true) }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_in_use_outlives_its_deletion_until_nobody_uses_it() {
    let cluster = Cluster::start(&["n1"]).await;
    let size = json!({"storage": "1Gi"});
    let claims: Api<PersistentVolumeClaim> = cluster.api();
    for name in ["used", "idle"] {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}});
        let claim: PersistentVolumeClaim =
            cluster.create(json!({"metadata": {"name": name}, "spec": spec})).await;
        assert_eq!(claim.finalizers(), ["kubernetes.io/pvc-protection"]);
    }
    let pod = json!({"metadata": {"name": "user"}, "spec": {
        "containers": [{"name": "c", "image": "v1"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "used"}}],
    }});
    let _: Pod = cluster.create(pod).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    for name in ["bound", "free"] {
        let volume = json!({"metadata": {"name": name}, "spec": {"capacity": size,
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}});
        volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    }
    let phase = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    let params = PatchParams::default();
    volumes.patch_status("bound", &params, &phase("Bound")).await.unwrap();

    // The used ones first, so that they have had their turn when the others are gone.
    for (volume, claim) in [("bound", "used"), ("free", "idle")] {
        claims.delete(claim, &DeleteParams::default()).await.unwrap();
        volumes.delete(volume, &DeleteParams::default()).await.unwrap();
    }
    eventually("what nobody uses is gone", || async {
        is(claims.get_opt("idle").await.unwrap().is_none(), true)?;
        is(volumes.get_opt("free").await.unwrap().is_none(), true)
    })
    .await;
    assert!(claims.get("used").await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(volumes.get("bound").await.unwrap().metadata.deletion_timestamp.is_some());

    cluster.api::<Pod>().delete("user", &DeleteParams::default()).await.unwrap();
    volumes.patch_status("bound", &params, &phase("Released")).await.unwrap();
    eventually("the others are gone too", || async {
        is(claims.get_opt("used").await.unwrap().is_none(), true)?;
        is(volumes.get_opt("bound").await.unwrap().is_none(), true)
    })
    .await;
    cluster.stop().await;
}
