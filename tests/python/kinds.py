"""Typed create, read, list, watch, patch, replace and delete of each kind through the official Python client.

usage: kinds.py KUBECONFIG
"""
import sys
import threading

from kubernetes import client, config, watch

NAMESPACE = "python"
LABELS = {"test": "python"}
TEMPLATE = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels={"app": "x"}),
    spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="app:1")]),
)
SELECTOR = client.V1LabelSelector(match_labels={"app": "x"})
TARGET = {"api_version": "apps/v1", "kind": "Deployment", "name": "x"}


def kinds():
    """API class, name in methods, namespaced, object without metadata."""
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    yield core, "config_map", True, client.V1ConfigMap(data={"a": "1"})
    yield core, "secret", True, client.V1Secret(string_data={"a": "1"})
    yield core, "service", True, client.V1Service(spec=client.V1ServiceSpec(ports=[client.V1ServicePort(port=80)], selector={"app": "x"}))
    yield core, "endpoints", True, client.V1Endpoints(subsets=[client.V1EndpointSubset(
        addresses=[client.V1EndpointAddress(ip="192.0.2.1")], ports=[client.CoreV1EndpointPort(port=80)])])
    yield core, "service_account", True, client.V1ServiceAccount()
    yield core, "persistent_volume_claim", True, client.V1PersistentVolumeClaim(spec=client.V1PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"], resources=client.V1VolumeResourceRequirements(requests={"storage": "1Gi"})))
    yield core, "persistent_volume", False, client.V1PersistentVolume(spec=client.V1PersistentVolumeSpec(
        access_modes=["ReadWriteOnce"], capacity={"storage": "1Gi"}, host_path=client.V1HostPathVolumeSource(path="/data")))
    yield core, "pod", True, client.V1Pod(spec=TEMPLATE.spec)
    yield core, "replication_controller", True, client.V1ReplicationController(
        spec=client.V1ReplicationControllerSpec(replicas=0, selector={"app": "x"}, template=TEMPLATE))
    yield core, "event", True, client.CoreV1Event(
        metadata=client.V1ObjectMeta(), involved_object=client.V1ObjectReference(kind="Pod", name="x", namespace=NAMESPACE), reason="Testing", message="hello", type="Normal")
    yield core, "node", False, client.V1Node()
    yield core, "namespace", False, client.V1Namespace()
    yield apps, "deployment", True, client.V1Deployment(spec=client.V1DeploymentSpec(replicas=0, selector=SELECTOR, template=TEMPLATE))
    yield apps, "replica_set", True, client.V1ReplicaSet(spec=client.V1ReplicaSetSpec(replicas=0, selector=SELECTOR, template=TEMPLATE))
    yield apps, "controller_revision", True, client.V1ControllerRevision(revision=1, data={"a": 1})
    yield client.DiscoveryV1Api(), "endpoint_slice", True, client.V1EndpointSlice(
        address_type="IPv4", endpoints=[client.V1Endpoint(addresses=["192.0.2.1"])], ports=[client.DiscoveryV1EndpointPort(port=80)])
    yield client.CoordinationV1Api(), "lease", True, client.V1Lease(spec=client.V1LeaseSpec(holder_identity="x", lease_duration_seconds=5))
    yield client.AutoscalingV2Api(), "horizontal_pod_autoscaler", True, client.V2HorizontalPodAutoscaler(
        spec=client.V2HorizontalPodAutoscalerSpec(max_replicas=3, scale_target_ref=client.V2CrossVersionObjectReference(**TARGET)))
    yield client.AutoscalingV1Api(), "horizontal_pod_autoscaler", True, client.V1HorizontalPodAutoscaler(
        spec=client.V1HorizontalPodAutoscalerSpec(max_replicas=3, scale_target_ref=client.V1CrossVersionObjectReference(**TARGET)))


def finish(call, api, suffix, name):
    """Does what controllers would do: takes the finalizers of an object that waits for them."""
    try:
        left = call("read", name=name)
    except client.ApiException as error:
        assert error.status == 404, error
        return
    assert left.metadata.deletion_timestamp, left.metadata
    if suffix == "namespace":
        left.spec.finalizers = []
        api.replace_namespace_finalize(name, left)
    else:
        assert left.metadata.finalizers, left.metadata
        call("patch", name=name, body={"metadata": {"finalizers": None}})


def one(api, suffix, namespaced, body):
    middle = "namespaced_" if namespaced else ""
    where = {"namespace": NAMESPACE} if namespaced else {}

    def call(verb, *args, **more):
        return getattr(api, f"{verb}_{middle}{suffix}")(*args, **where, **more)

    name = "py-" + suffix.replace("_", "-")
    body.metadata = client.V1ObjectMeta(name=name, labels=dict(LABELS))
    start = call("list").metadata.resource_version
    created = call("create", body=body)
    assert created.metadata.uid and created.metadata.creation_timestamp, created
    assert call("read", name=name).metadata.uid == created.metadata.uid
    selected = call("list", label_selector="test=python").items
    assert [o.metadata.name for o in selected] == [name], selected
    call("patch", name=name, body={"metadata": {"annotations": {"patched": "yes"}}})
    current = call("read", name=name)
    assert current.metadata.annotations["patched"] == "yes", current.metadata
    current.metadata.labels["replaced"] = "yes"
    replaced = call("replace", name=name, body=current)
    assert replaced.metadata.labels["replaced"] == "yes", replaced.metadata
    current.metadata.resource_version = "1"
    try:
        call("replace", name=name, body=current)
        raise AssertionError(f"{suffix}: a stale replace was taken")
    except client.ApiException as error:
        assert error.status == 409, error
    call("delete", name=name, grace_period_seconds=0)
    finish(call, api, suffix, name)

    seen = []
    stream = watch.Watch().stream(getattr(api, f"list_{middle}{suffix}"), **where, resource_version=start,
                                  label_selector="test=python", timeout_seconds=15)
    for event in stream:
        assert event["object"].metadata.name == name, event
        seen.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert seen[0] == "ADDED" and seen[-1] == "DELETED" and seen.count("MODIFIED") >= 2, (suffix, seen)
    return f"{type(api).__name__}.{suffix}"


def own_kind():
    """ScalingPolicy through the client for custom objects."""
    api = client.CustomObjectsApi()
    where = {"group": "autoscaling.loadline.io", "version": "v1alpha1", "namespace": NAMESPACE, "plural": "scalingpolicies"}
    body = {"apiVersion": "autoscaling.loadline.io/v1alpha1", "kind": "ScalingPolicy", "metadata": {"name": "py"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}, "maxReplicas": 3,
                     "objectives": [{"resource": {"name": "cpu", "utilization": 60}}]}}
    created = api.create_namespaced_custom_object(body=body, **where)
    assert created["spec"]["minReplicas"] == 1, created
    patched = api.patch_namespaced_custom_object(name="py", body={"spec": {"maxReplicas": 5}}, **where)
    assert patched["spec"]["maxReplicas"] == 5, patched
    assert len(api.list_namespaced_custom_object(**where)["items"]) == 1
    api.delete_namespaced_custom_object(name="py", **where)
    return "CustomObjectsApi.scalingpolicies"


def subresources():
    """Scale and status of a Deployment, binding of a pod."""
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    apps.create_namespaced_deployment(NAMESPACE, client.V1Deployment(
        metadata=client.V1ObjectMeta(name="sub"), spec=client.V1DeploymentSpec(replicas=1, selector=SELECTOR, template=TEMPLATE)))
    scale = apps.read_namespaced_deployment_scale("sub", NAMESPACE)
    assert scale.spec.replicas == 1 and scale.kind == "Scale", scale
    scale.spec.replicas = 4
    assert apps.replace_namespaced_deployment_scale("sub", NAMESPACE, scale).spec.replicas == 4
    apps.patch_namespaced_deployment_status("sub", NAMESPACE, {"status": {"replicas": 2}, "spec": {"replicas": 9}})
    found = apps.read_namespaced_deployment("sub", NAMESPACE)
    assert (found.status.replicas, found.spec.replicas) == (2, 4), found
    core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=client.V1ObjectMeta(name="bound"), spec=TEMPLATE.spec))
    core.create_namespaced_pod_binding("bound", NAMESPACE, client.V1Binding(
        metadata=client.V1ObjectMeta(name="bound"), target=client.V1ObjectReference(kind="Node", name="somewhere")), _preload_content=False)
    assert core.read_namespaced_pod("bound", NAMESPACE).spec.node_name == "somewhere"
    version = client.VersionApi().get_code()
    assert version.major == "1" and version.minor == "36", version
    return "subresources"


def main():
    config.load_kube_config(sys.argv[1])
    core = client.CoreV1Api()
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    # No controllers run here: what they would make is made by hand.
    core.create_namespaced_service_account(NAMESPACE, client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="default")))
    done, failed, lock = [], [], threading.Lock()
    for api, suffix, namespaced, body in kinds():
        try:
            result = one(api, suffix, namespaced, body)
            with lock:
                done.append(result)
        except Exception as error:  # every kind is tried; all failures are reported
            failed.append(f"{type(api).__name__}.{suffix}: {type(error).__name__}: {error}")
    for extra in (own_kind, subresources):
        try:
            done.append(extra())
        except Exception as error:
            failed.append(f"{extra.__name__}: {type(error).__name__}: {error}")
    print(f"{len(done)} kinds: {', '.join(done)}")
    for failure in failed:
        print("FAILED", failure)
    sys.exit(1 if failed else 0)


main()
