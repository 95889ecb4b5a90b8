//! Pods with nearly everything, and what makes them.

use k8s_pb::api::apps::v1 as apps;
use k8s_pb::api::core::v1 as core;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use prost::Message as _;
use serde_json::{Value, json};

use crate::build::*;

fn full_meta() -> (meta::ObjectMeta, Value) {
    let message = pb!(meta::ObjectMeta {
        name: s("x"),
        generate_name: s("x-"),
        namespace: s("n"),
        uid: s("u"),
        resource_version: s("7"),
        generation: 3i64,
        creation_timestamp: time(1_700_000_000),
        deletion_timestamp: time(1_700_000_001),
        deletion_grace_period_seconds: 0i64,
        labels: map("l", "1"),
        annotations: map("a", "2"),
        owner_references: vec![pb!(meta::OwnerReference {
            kind: s("K"),
            name: s("o"),
            uid: s("ou"),
            api_version: s("v1"),
            controller: true,
            block_owner_deletion: false,
        })],
        finalizers: list(&["f/f"]),
        managed_fields: vec![pb!(meta::ManagedFieldsEntry {
            manager: s("m"),
            operation: s("Update"),
            api_version: s("v1"),
            time: time(0),
            fields_type: s("FieldsV1"),
            fields_v1: pb!(meta::FieldsV1 { raw: br#"{"f:a":{}}"#.to_vec() }),
            subresource: s("status"),
        })],
    });
    let json = json!({"name": "x", "generateName": "x-", "namespace": "n", "uid": "u", "resourceVersion": "7",
        "generation": 3, "creationTimestamp": "2023-11-14T22:13:20Z", "deletionTimestamp": "2023-11-14T22:13:21Z",
        "deletionGracePeriodSeconds": 0, "labels": {"l": "1"}, "annotations": {"a": "2"},
        "ownerReferences": [{"kind": "K", "name": "o", "uid": "ou", "apiVersion": "v1", "controller": true,
            "blockOwnerDeletion": false}],
        "finalizers": ["f/f"],
        "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}, "subresource": "status"}]});
    (message, json)
}

fn probe(handler: core::ProbeHandler) -> core::Probe {
    pb!(core::Probe { handler: handler, period_seconds: 5, termination_grace_period_seconds: 9i64 })
}

fn container() -> (core::Container, Value) {
    let http = pb!(core::HttpGetAction {
        path: s("/h"),
        port: text("web"),
        http_headers: vec![pb!(core::HttpHeader { name: s("H"), value: s("v") })],
    });
    let tcp = pb!(core::TcpSocketAction { port: int(80), host: s("h") });
    let grpc = pb!(core::GrpcAction { port: 9, service: s("g") });
    let message = pb!(core::Container {
        name: s("c"),
        image: s("i:1"),
        command: list(&["a", "b"]),
        args: list(&["d"]),
        working_dir: s("/w"),
        ports: vec![pb!(core::ContainerPort {
            name: s("web"),
            container_port: 80,
            protocol: s("UDP"),
            host_port: 8
        })],
        env_from: vec![
            pb!(core::EnvFromSource {
                prefix: s("P_"),
                config_map_ref: pb!(core::ConfigMapEnvSource {
                    local_object_reference: name("cm"),
                    optional: true
                }),
            }),
            pb!(core::EnvFromSource {
                secret_ref: pb!(core::SecretEnvSource { local_object_reference: name("se") })
            }),
        ],
        env: vec![
            pb!(core::EnvVar { name: s("A"), value: s("1") }),
            pb!(core::EnvVar {
                name: s("B"),
                value_from: pb!(core::EnvVarSource {
                    field_ref: pb!(core::ObjectFieldSelector {
                        api_version: s("v1"),
                        field_path: s("metadata.name")
                    }),
                }),
            }),
            pb!(core::EnvVar {
                name: s("C"),
                value_from: pb!(core::EnvVarSource {
                    resource_field_ref: pb!(core::ResourceFieldSelector {
                        container_name: s("c"),
                        resource: s("limits.cpu"),
                        divisor: quantity("1m"),
                    }),
                }),
            }),
            pb!(core::EnvVar {
                name: s("D"),
                value_from: pb!(core::EnvVarSource {
                    config_map_key_ref: pb!(core::ConfigMapKeySelector {
                        local_object_reference: name("cm"),
                        key: s("k"),
                        optional: false,
                    }),
                }),
            }),
            pb!(core::EnvVar {
                name: s("E"),
                value_from: pb!(core::EnvVarSource {
                    secret_key_ref: pb!(core::SecretKeySelector {
                        local_object_reference: name("se"),
                        key: s("k")
                    }),
                }),
            }),
        ],
        resources: pb!(core::ResourceRequirements {
            limits: amount("cpu", "1500m"),
            requests: amount("memory", "1024Mi"),
        }),
        volume_mounts: vec![pb!(core::VolumeMount {
            name: s("v"),
            read_only: true,
            mount_path: s("/m"),
            sub_path: s("s"),
        })],
        liveness_probe: probe(pb!(core::ProbeHandler { http_get: http.clone() })),
        readiness_probe: probe(pb!(core::ProbeHandler { tcp_socket: tcp.clone() })),
        startup_probe: probe(pb!(core::ProbeHandler { grpc: grpc })),
        lifecycle: pb!(core::Lifecycle {
            post_start: pb!(core::LifecycleHandler { exec: pb!(core::ExecAction { command: list(&["e"]) }) }),
            pre_stop: pb!(core::LifecycleHandler { sleep: pb!(core::SleepAction { seconds: 2i64 }) }),
        }),
        termination_message_path: s("/t"),
        termination_message_policy: s("File"),
        image_pull_policy: s("Always"),
        security_context: pb!(core::SecurityContext {
            capabilities: pb!(core::Capabilities { add: list(&["NET_ADMIN"]), drop: list(&["ALL"]) }),
            privileged: false,
            se_linux_options: pb!(core::SeLinuxOptions { level: s("l") }),
            run_as_user: 0i64,
            read_only_root_filesystem: true,
            seccomp_profile: pb!(core::SeccompProfile { r#type: s("RuntimeDefault") }),
        }),
        stdin: true,
        stdin_once: true,
        tty: true,
    });
    let json = json!({"name": "c", "image": "i:1", "command": ["a", "b"], "args": ["d"], "workingDir": "/w",
        "ports": [{"name": "web", "containerPort": 80, "protocol": "UDP", "hostPort": 8}],
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm", "optional": true}}, {"secretRef": {"name": "se"}}],
        "env": [{"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k", "optional": false}}},
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "se", "key": "k"}}}],
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "v", "readOnly": true, "mountPath": "/m", "subPath": "s"}],
        "livenessProbe": {"httpGet": {"path": "/h", "port": "web", "httpHeaders": [{"name": "H", "value": "v"}]},
            "periodSeconds": 5, "terminationGracePeriodSeconds": 9},
        "readinessProbe": {"tcpSocket": {"port": 80, "host": "h"}, "periodSeconds": 5, "terminationGracePeriodSeconds": 9},
        "startupProbe": {"grpc": {"port": 9, "service": "g"}, "periodSeconds": 5, "terminationGracePeriodSeconds": 9},
        "lifecycle": {"postStart": {"exec": {"command": ["e"]}}, "preStop": {"sleep": {"seconds": 2}}},
        "terminationMessagePath": "/t", "terminationMessagePolicy": "File", "imagePullPolicy": "Always",
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "privileged": false,
            "seLinuxOptions": {"level": "l"}, "runAsUser": 0, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"}},
        "stdin": true, "stdinOnce": true, "tty": true});
    (message, json)
}

fn volumes() -> (Vec<core::Volume>, Value) {
    let volume =
        |name: &str, source: core::VolumeSource| pb!(core::Volume { name: s(name), volume_source: source });
    let item = pb!(core::KeyToPath { key: s("k"), path: s("p"), mode: 0o400 });
    let projected = vec![
        pb!(core::VolumeProjection {
            config_map: pb!(core::ConfigMapProjection {
                local_object_reference: name("cm"),
                items: vec![item.clone()]
            }),
        }),
        pb!(core::VolumeProjection {
            secret: pb!(core::SecretProjection { local_object_reference: name("se"), optional: true }),
        }),
        pb!(core::VolumeProjection {
            service_account_token: pb!(core::ServiceAccountTokenProjection {
                expiration_seconds: 600i64,
                path: s("t")
            }),
        }),
        pb!(core::VolumeProjection {
            downward_api: pb!(core::DownwardAPIProjection {
                items: vec![pb!(core::DownwardAPIVolumeFile {
                    path: s("l"),
                    field_ref: pb!(core::ObjectFieldSelector { field_path: s("metadata.labels") }),
                })],
            }),
        }),
    ];
    let claim = pb!(core::PersistentVolumeClaimTemplate {
        metadata: pb!(meta::ObjectMeta { labels: map("c", "1") }),
        spec: pb!(core::PersistentVolumeClaimSpec {
            access_modes: list(&["ReadWriteOnce"]),
            resources: pb!(core::VolumeResourceRequirements { requests: amount("storage", "1Gi") }),
        }),
    });
    let messages = vec![
        volume(
            "a",
            pb!(core::VolumeSource {
                empty_dir: pb!(core::EmptyDirVolumeSource {
                    medium: s("Memory"),
                    size_limit: quantity("1G")
                })
            }),
        ),
        volume(
            "b",
            pb!(core::VolumeSource {
                host_path: pb!(core::HostPathVolumeSource { path: s("/p"), r#type: s("") })
            }),
        ),
        volume(
            "c",
            pb!(core::VolumeSource {
                config_map: pb!(core::ConfigMapVolumeSource {
                    local_object_reference: name("cm"),
                    items: vec![item],
                    default_mode: 420
                }),
            }),
        ),
        volume(
            "d",
            pb!(core::VolumeSource {
                secret: pb!(core::SecretVolumeSource { secret_name: s("se"), optional: false })
            }),
        ),
        volume(
            "e",
            pb!(core::VolumeSource {
                projected: pb!(core::ProjectedVolumeSource { sources: projected, default_mode: 0 })
            }),
        ),
        volume(
            "f",
            pb!(core::VolumeSource {
                persistent_volume_claim: pb!(core::PersistentVolumeClaimVolumeSource {
                    claim_name: s("pvc"),
                    read_only: true
                }),
            }),
        ),
        volume(
            "g",
            pb!(core::VolumeSource {
                ephemeral: pb!(core::EphemeralVolumeSource { volume_claim_template: claim })
            }),
        ),
        volume(
            "h",
            pb!(core::VolumeSource { nfs: pb!(core::NfsVolumeSource { server: s("n"), path: s("/") }) }),
        ),
        volume(
            "i",
            pb!(core::VolumeSource {
                csi: pb!(core::CSIVolumeSource {
                    driver: s("d"),
                    volume_attributes: map("k", "v"),
                    node_publish_secret_ref: name("se")
                }),
            }),
        ),
    ];
    let json = json!([
        {"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "1G"}},
        {"name": "b", "hostPath": {"path": "/p", "type": ""}},
        {"name": "c", "configMap": {"name": "cm", "items": [{"key": "k", "path": "p", "mode": 256}], "defaultMode": 420}},
        {"name": "d", "secret": {"secretName": "se", "optional": false}},
        {"name": "e", "projected": {"defaultMode": 0, "sources": [
            {"configMap": {"name": "cm", "items": [{"key": "k", "path": "p", "mode": 256}]}},
            {"secret": {"name": "se", "optional": true}},
            {"serviceAccountToken": {"expirationSeconds": 600, "path": "t"}},
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
        {"name": "f", "persistentVolumeClaim": {"claimName": "pvc", "readOnly": true}},
        {"name": "g", "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": {"c": "1"}}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
        {"name": "h", "nfs": {"server": "n", "path": "/"}},
        {"name": "i", "csi": {"driver": "d", "volumeAttributes": {"k": "v"}, "nodePublishSecretRef": {"name": "se"}}},
    ]);
    (messages, json)
}

fn pod_spec() -> (core::PodSpec, Value) {
    let (container, container_json) = container();
    let (volumes, volumes_json) = volumes();
    let term = pb!(core::NodeSelectorTerm {
        match_expressions: vec![pb!(core::NodeSelectorRequirement {
            key: s("z"),
            operator: s("In"),
            values: list(&["a"])
        })],
    });
    let affinity = pb!(core::Affinity {
        node_affinity: pb!(core::NodeAffinity {
            required_during_scheduling_ignored_during_execution: pb!(core::NodeSelector {
                node_selector_terms: vec![term.clone()]
            }),
            preferred_during_scheduling_ignored_during_execution: vec![pb!(core::PreferredSchedulingTerm {
                weight: 5,
                preference: term
            })],
        }),
        pod_anti_affinity: pb!(core::PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: vec![pb!(core::PodAffinityTerm {
                label_selector: labels("app", "x"),
                topology_key: s("host"),
                namespaces: list(&["n"]),
            })],
        }),
    });
    let debug = pb!(core::EphemeralContainer {
        ephemeral_container_common: pb!(core::EphemeralContainerCommon {
            name: s("dbg"),
            image: s("b"),
            tty: true
        }),
        target_container_name: s("c"),
    });
    let message = pb!(core::PodSpec {
        volumes: volumes,
        init_containers: vec![pb!(core::Container { name: s("init"), restart_policy: s("Always") })],
        containers: vec![container],
        ephemeral_containers: vec![debug],
        restart_policy: s("Always"),
        termination_grace_period_seconds: 0i64,
        dns_policy: s("None"),
        node_selector: map("disk", "ssd"),
        service_account_name: s("sa"),
        automount_service_account_token: false,
        host_network: true,
        host_pid: true,
        security_context: pb!(core::PodSecurityContext {
            fs_group: 5i64,
            supplemental_groups: vec![1i64, -1],
            sysctls: vec![pb!(core::Sysctl { name: s("net.a"), value: s("1") })],
        }),
        image_pull_secrets: vec![name("pull")],
        affinity: affinity,
        tolerations: vec![pb!(core::Toleration {
            key: s("t"),
            operator: s("Exists"),
            effect: s("NoExecute"),
            toleration_seconds: 0i64
        })],
        host_aliases: vec![pb!(core::HostAlias { ip: s("1.2.3.4"), hostnames: list(&["h"]) })],
        priority: -5,
        dns_config: pb!(core::PodDnsConfig {
            nameservers: list(&["1.1.1.1"]),
            options: vec![pb!(core::PodDnsConfigOption { name: s("ndots"), value: s("2") })],
        }),
        readiness_gates: vec![pb!(core::PodReadinessGate { condition_type: s("g") })],
        overhead: amount("cpu", "0.25"),
        topology_spread_constraints: vec![pb!(core::TopologySpreadConstraint {
            max_skew: 1,
            topology_key: s("zone"),
            when_unsatisfiable: s("DoNotSchedule"),
            label_selector: labels("app", "x"),
            min_domains: 2,
            match_label_keys: list(&["h"]),
        })],
        os: pb!(core::PodOs { name: s("linux") }),
        scheduling_gates: vec![pb!(core::PodSchedulingGate { name: s("gate") })],
    });
    let term = json!({"matchExpressions": [{"key": "z", "operator": "In", "values": ["a"]}]});
    let json = json!({"volumes": volumes_json, "initContainers": [{"name": "init", "restartPolicy": "Always"}],
        "containers": [container_json],
        "ephemeralContainers": [{"name": "dbg", "image": "b", "tty": true, "targetContainerName": "c"}],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "dnsPolicy": "None",
        "nodeSelector": {"disk": "ssd"}, "serviceAccountName": "sa", "automountServiceAccountToken": false,
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"fsGroup": 5, "supplementalGroups": [1, -1], "sysctls": [{"name": "net.a", "value": "1"}]},
        "imagePullSecrets": [{"name": "pull"}],
        "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference": term}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "host", "namespaces": ["n"]}]}},
        "tolerations": [{"key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}],
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["h"]}], "priority": -5,
        "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]},
        "readinessGates": [{"conditionType": "g"}], "overhead": {"cpu": "250m"},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}}, "minDomains": 2, "matchLabelKeys": ["h"]}],
        "os": {"name": "linux"}, "schedulingGates": [{"name": "gate"}]});
    (message, json)
}

pub(crate) fn pod() -> (Vec<u8>, Value) {
    let (metadata, metadata_json) = full_meta();
    let (spec, spec_json) = pod_spec();
    let status = pb!(core::PodStatus {
        phase: s("Running"),
        conditions: vec![pb!(core::PodCondition {
            r#type: s("Ready"),
            status: s("True"),
            last_transition_time: time(60)
        })],
        host_ip: s("1.1.1.1"),
        pod_ip: s("2.2.2.2"),
        pod_ips: vec![pb!(core::PodIp { ip: s("2.2.2.2") })],
        start_time: time(61),
        qos_class: s("Burstable"),
        container_statuses: vec![pb!(core::ContainerStatus {
            name: s("c"),
            state: pb!(core::ContainerState {
                running: pb!(core::ContainerStateRunning { started_at: time(62) })
            }),
            last_state: pb!(core::ContainerState {
                terminated: pb!(core::ContainerStateTerminated {
                    exit_code: 137,
                    reason: s("OOMKilled"),
                    finished_at: time(63)
                }),
            }),
            ready: true,
            restart_count: 4,
            image: s("i"),
            started: true,
        })],
    });
    let json = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata_json, "spec": spec_json, "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z"}],
        "hostIP": "1.1.1.1", "podIP": "2.2.2.2", "podIPs": [{"ip": "2.2.2.2"}], "startTime": "1970-01-01T00:01:01Z",
        "qosClass": "Burstable",
        "containerStatuses": [{"name": "c", "state": {"running": {"startedAt": "1970-01-01T00:01:02Z"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "1970-01-01T00:01:03Z"}},
            "ready": true, "restartCount": 4, "image": "i", "imageID": "", "started": true}]}});
    (pb!(core::Pod { metadata: metadata, spec: spec, status: status }).encode_to_vec(), json)
}

pub(crate) fn deployment() -> (Vec<u8>, Value) {
    let (spec, spec_json) = pod_spec();
    let template = pb!(core::PodTemplateSpec {
        metadata: pb!(meta::ObjectMeta { labels: map("app", "x") }),
        spec: spec
    });
    let selector = pb!(meta::LabelSelector {
        match_expressions: vec![pb!(meta::LabelSelectorRequirement {
            key: s("app"),
            operator: s("In"),
            values: list(&["x"])
        })],
    });
    let message = pb!(apps::Deployment {
        metadata: named("d"),
        spec: pb!(apps::DeploymentSpec {
            replicas: 0,
            selector: selector,
            template: template,
            strategy: pb!(apps::DeploymentStrategy {
                r#type: s("RollingUpdate"),
                rolling_update: pb!(apps::RollingUpdateDeployment {
                    max_unavailable: int(0),
                    max_surge: text("25%")
                }),
            }),
            min_ready_seconds: 3,
            revision_history_limit: 0,
            paused: true,
            progress_deadline_seconds: 60,
        }),
        status: pb!(apps::DeploymentStatus {
            observed_generation: 5i64,
            replicas: 1,
            unavailable_replicas: 1,
            collision_count: 0,
            conditions: vec![pb!(apps::DeploymentCondition {
                r#type: s("Available"),
                status: s("False"),
                last_update_time: time(60)
            })],
        }),
    });
    let json = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 0, "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["x"]}]},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": spec_json},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "minReadySeconds": 3, "revisionHistoryLimit": 0, "paused": true, "progressDeadlineSeconds": 60},
        "status": {"observedGeneration": 5, "replicas": 1, "unavailableReplicas": 1, "collisionCount": 0,
            "conditions": [{"type": "Available", "status": "False", "lastUpdateTime": "1970-01-01T00:01:00Z"}]}});
    (message.encode_to_vec(), json)
}
