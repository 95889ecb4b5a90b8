//! One object of each other kind.

use k8s_pb::api::apps::v1 as apps;
use k8s_pb::api::autoscaling::{v1 as autoscaling1, v2 as autoscaling2};
use k8s_pb::api::coordination::v1 as coordination;
use k8s_pb::api::core::v1 as core;
use k8s_pb::api::discovery::v1 as discovery;
use k8s_pb::api::events::v1 as events;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::RawExtension;
use prost::Message as _;
use serde_json::{Value, json};

use crate::build::*;

pub(crate) fn autoscaler() -> (Vec<u8>, Value) {
    let target = pb!(autoscaling2::MetricTarget { r#type: s("Utilization"), average_utilization: 60 });
    let average =
        pb!(autoscaling2::MetricTarget { r#type: s("AverageValue"), average_value: quantity("1000m") });
    let identifier = pb!(autoscaling2::MetricIdentifier { name: s("rps"), selector: labels("v", "GET") });
    let rules = pb!(autoscaling2::HpaScalingRules {
        stabilization_window_seconds: 0,
        select_policy: s("Max"),
        policies: vec![pb!(autoscaling2::HpaScalingPolicy {
            r#type: s("Pods"),
            value: 4,
            period_seconds: 15
        })],
        tolerance: quantity("0.05"),
    });
    let message = pb!(autoscaling2::HorizontalPodAutoscaler {
        metadata: named("h"),
        spec: pb!(autoscaling2::HorizontalPodAutoscalerSpec {
            scale_target_ref: pb!(autoscaling2::CrossVersionObjectReference {
                kind: s("Deployment"),
                name: s("d"),
                api_version: s("apps/v1")
            }),
            min_replicas: 0,
            max_replicas: 9,
            metrics: vec![
                pb!(autoscaling2::MetricSpec {
                    r#type: s("Resource"),
                    resource: pb!(autoscaling2::ResourceMetricSource {
                        name: s("cpu"),
                        target: target.clone()
                    })
                }),
                pb!(autoscaling2::MetricSpec {
                    r#type: s("Pods"),
                    pods: pb!(autoscaling2::PodsMetricSource { metric: identifier, target: average })
                }),
                pb!(autoscaling2::MetricSpec {
                    r#type: s("ContainerResource"),
                    container_resource: pb!(autoscaling2::ContainerResourceMetricSource {
                        name: s("cpu"),
                        container: s("c"),
                        target: target
                    }),
                }),
            ],
            behavior: pb!(autoscaling2::HorizontalPodAutoscalerBehavior { scale_up: rules }),
        }),
        status: pb!(autoscaling2::HorizontalPodAutoscalerStatus {
            desired_replicas: 2,
            last_scale_time: time(60)
        }),
    });
    let json = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "minReplicas": 0, "maxReplicas": 9,
        "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"v": "GET"}}},
                "target": {"type": "AverageValue", "averageValue": "1"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 60}}}],
        "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "50m",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}},
        "status": {"desiredReplicas": 2, "lastScaleTime": "1970-01-01T00:01:00Z"}});
    (message.encode_to_vec(), json)
}

pub(crate) fn core_event() -> (Vec<u8>, Value) {
    let message = pb!(core::Event {
        metadata: named("e"),
        involved_object: pb!(core::ObjectReference {
            kind: s("Pod"),
            namespace: s("n"),
            name: s("p"),
            uid: s("u"),
            api_version: s("v1"),
            resource_version: s("5"),
            field_path: s("spec"),
        }),
        reason: s("Started"),
        message: s("m"),
        source: pb!(core::EventSource { component: s("kubelet"), host: s("h") }),
        first_timestamp: time(60),
        last_timestamp: meta::Time::default(),
        count: 2,
        r#type: s("Normal"),
        event_time: micro(1_700_000_000, 123_456_789),
        series: pb!(core::EventSeries { count: 3, last_observed_time: micro(0, 0) }),
        action: s("a"),
        reporting_component: s("rc"),
        reporting_instance: s("ri"),
    });
    let json = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod",
        "namespace": "n", "name": "p", "uid": "u", "apiVersion": "v1", "resourceVersion": "5", "fieldPath": "spec"},
        "reason": "Started", "message": "m", "source": {"component": "kubelet", "host": "h"},
        "firstTimestamp": "1970-01-01T00:01:00Z", "lastTimestamp": null, "count": 2, "type": "Normal",
        "eventTime": "2023-11-14T22:13:20.123456Z", "series": {"count": 3, "lastObservedTime": "1970-01-01T00:00:00.000000Z"},
        "action": "a", "reportingComponent": "rc", "reportingInstance": "ri"});
    (message.encode_to_vec(), json)
}

pub(crate) fn events_event() -> (Vec<u8>, Value) {
    let message = pb!(events::Event {
        metadata: named("e"),
        event_time: micro(1, 0),
        reporting_controller: s("c"),
        reporting_instance: s("i"),
        action: s("a"),
        reason: s("r"),
        regarding: pb!(core::ObjectReference { kind: s("Pod"), name: s("p") }),
        note: s("n"),
        r#type: s("Warning"),
        deprecated_first_timestamp: time(60),
        deprecated_count: 1,
        deprecated_source: pb!(core::EventSource { component: s("k") }),
    });
    let json = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "1970-01-01T00:00:01.000000Z", "reportingController": "c", "reportingInstance": "i", "action": "a",
        "reason": "r", "regarding": {"kind": "Pod", "name": "p"}, "note": "n", "type": "Warning",
        "deprecatedFirstTimestamp": "1970-01-01T00:01:00Z", "deprecatedCount": 1, "deprecatedSource": {"component": "k"}});
    (message.encode_to_vec(), json)
}

pub(crate) fn service() -> (Vec<u8>, Value) {
    let message = pb!(core::Service {
        metadata: named("s"),
        spec: pb!(core::ServiceSpec {
            ports: vec![pb!(core::ServicePort {
                name: s("web"),
                protocol: s("TCP"),
                app_protocol: s("http"),
                port: 80,
                target_port: text("web"),
                node_port: 30080,
            })],
            selector: map("app", "x"),
            cluster_ip: s("10.0.0.1"),
            cluster_ips: list(&["10.0.0.1"]),
            r#type: s("LoadBalancer"),
            external_ips: list(&["1.2.3.4"]),
            session_affinity: s("ClientIP"),
            load_balancer_source_ranges: list(&["0.0.0.0/0"]),
            publish_not_ready_addresses: true,
            session_affinity_config: pb!(core::SessionAffinityConfig {
                client_ip: pb!(core::ClientIpConfig { timeout_seconds: 30 })
            }),
            ip_families: list(&["IPv4"]),
            allocate_load_balancer_node_ports: false,
            internal_traffic_policy: s("Local"),
        }),
        status: pb!(core::ServiceStatus {
            load_balancer: pb!(core::LoadBalancerStatus {
                ingress: vec![pb!(core::LoadBalancerIngress { ip: s("1.1.1.1") })]
            }),
        }),
    });
    let json = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {
        "ports": [{"name": "web", "protocol": "TCP", "appProtocol": "http", "port": 80, "targetPort": "web", "nodePort": 30080}],
        "selector": {"app": "x"}, "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "LoadBalancer",
        "externalIPs": ["1.2.3.4"], "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["0.0.0.0/0"],
        "publishNotReadyAddresses": true, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}},
        "ipFamilies": ["IPv4"], "allocateLoadBalancerNodePorts": false, "internalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}});
    (message.encode_to_vec(), json)
}

pub(crate) fn node() -> (Vec<u8>, Value) {
    let message = pb!(core::Node {
        metadata: named("n"),
        spec: pb!(core::NodeSpec {
            pod_cidr: s("10.1.0.0/24"),
            pod_cid_rs: list(&["10.1.0.0/24"]),
            taints: vec![pb!(core::Taint { key: s("t"), effect: s("NoSchedule"), time_added: time(60) })],
            unschedulable: true,
        }),
        status: pb!(core::NodeStatus {
            capacity: amount("pods", "110"),
            addresses: vec![pb!(core::NodeAddress { r#type: s("InternalIP"), address: s("1.1.1.1") })],
            daemon_endpoints: pb!(core::NodeDaemonEndpoints {
                kubelet_endpoint: pb!(core::DaemonEndpoint { port: 10250 })
            }),
            node_info: pb!(core::NodeSystemInfo {
                machine_id: s("m"),
                boot_id: s("b"),
                os_image: s("o"),
                kube_proxy_version: s("")
            }),
            images: vec![pb!(core::ContainerImage { names: list(&["i"]), size_bytes: 5_000_000_000i64 })],
        }),
    });
    let json = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24",
        "podCIDRs": ["10.1.0.0/24"], "taints": [{"key": "t", "effect": "NoSchedule", "timeAdded": "1970-01-01T00:01:00Z"}],
        "unschedulable": true}, "status": {"capacity": {"pods": "110"},
        "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {"machineID": "m", "bootID": "b", "osImage": "o"},
        "images": [{"names": ["i"], "sizeBytes": 5_000_000_000_i64}]}});
    (message.encode_to_vec(), json)
}

pub(crate) fn volume() -> (Vec<u8>, Value) {
    let message = pb!(core::PersistentVolume {
        metadata: named("v"),
        spec: pb!(core::PersistentVolumeSpec {
            capacity: amount("storage", "10Gi"),
            persistent_volume_source: pb!(core::PersistentVolumeSource {
                local: pb!(core::LocalVolumeSource { path: s("/d"), fs_type: s("ext4") }),
            }),
            access_modes: list(&["ReadWriteOnce"]),
            claim_ref: pb!(core::ObjectReference { name: s("c") }),
            persistent_volume_reclaim_policy: s("Delete"),
            storage_class_name: s("fast"),
        }),
    });
    let json = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "10Gi"}, "local": {"path": "/d", "fsType": "ext4"}, "accessModes": ["ReadWriteOnce"],
        "claimRef": {"name": "c"}, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast"}});
    (message.encode_to_vec(), json)
}

pub(crate) fn small_ones() -> Vec<(Vec<u8>, Value)> {
    let secret = pb!(core::Secret {
        metadata: named("s"),
        data: [(s("k"), vec![0u8, 255])],
        string_data: map("t", "v"),
        r#type: s("Opaque"),
        immutable: false,
    });
    let lease = pb!(coordination::Lease {
        metadata: named("l"),
        spec: pb!(coordination::LeaseSpec {
            holder_identity: s("h"),
            lease_duration_seconds: 40,
            renew_time: micro(1, 5_000),
            lease_transitions: 0,
        }),
    });
    let slice = pb!(discovery::EndpointSlice {
        metadata: named("e"),
        address_type: s("IPv4"),
        endpoints: vec![pb!(discovery::Endpoint {
            addresses: list(&["10.1.0.2"]),
            conditions: pb!(discovery::EndpointConditions { ready: true, serving: false }),
            target_ref: pb!(core::ObjectReference { kind: s("Pod"), name: s("p") }),
            node_name: s("n"),
        })],
        ports: vec![pb!(discovery::EndpointPort { name: s(""), protocol: s("TCP"), port: 80 })],
    });
    let revision = pb!(apps::ControllerRevision {
        metadata: named("r"),
        data: pb!(RawExtension { raw: br#"{"spec":{"a":[1,null]}}"#.to_vec() }),
        revision: 4i64,
    });
    let autoscaler = pb!(autoscaling1::HorizontalPodAutoscaler {
        metadata: named("h"),
        spec: pb!(autoscaling1::HorizontalPodAutoscalerSpec {
            scale_target_ref: pb!(autoscaling1::CrossVersionObjectReference { kind: s("D"), name: s("d") }),
            max_replicas: 3,
            target_cpu_utilization_percentage: 80,
        }),
    });
    vec![
        (
            secret.encode_to_vec(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"k": "AP8="}, "stringData": {"t": "v"}, "type": "Opaque", "immutable": false}),
        ),
        (
            lease.encode_to_vec(),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "h", "leaseDurationSeconds": 40, "renewTime": "1970-01-01T00:00:01.000005Z",
            "leaseTransitions": 0}}),
        ),
        (
            slice.encode_to_vec(),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.2"],
            "conditions": {"ready": true, "serving": false}, "targetRef": {"kind": "Pod", "name": "p"}, "nodeName": "n"}],
            "ports": [{"name": "", "protocol": "TCP", "port": 80}]}),
        ),
        (
            revision.encode_to_vec(),
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
            "data": {"spec": {"a": [1, null]}}, "revision": 4}),
        ),
        (
            autoscaler.encode_to_vec(),
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "D", "name": "d"}, "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 80}}),
        ),
    ]
}
