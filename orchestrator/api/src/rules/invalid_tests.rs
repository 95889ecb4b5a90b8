//! Wrong manifests, as data: a good one of each kind, what is changed about it, and which fields are refused for which
//! reason.

use serde_json::{Value, json};

use crate::decode;
use crate::field::FieldErrorKind::{self, *};
use crate::kinds::{Kind, Registry};
use crate::rules::meta;
use crate::rules::value::{at, child, set};

/// What is refused: reason and field.
type Refused = &'static [(FieldErrorKind, &'static str)];

fn base(kind: &str) -> Value {
    let template = json!({
        "metadata": { "labels": { "app": "a" } },
        "spec": { "containers": [{ "name": "c", "image": "img:1" }] },
    });
    let selector = json!({ "matchLabels": { "app": "a" } });
    match kind {
        "Pod" => json!({ "apiVersion": "v1", "spec": {
            "containers": [{ "name": "c", "image": "img:1" }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
        } }),
        "Service" => json!({ "apiVersion": "v1", "spec": { "ports": [{ "port": 80 }] } }),
        "Deployment" | "ReplicaSet" => {
            json!({ "apiVersion": "apps/v1", "spec": { "selector": selector, "template": template } })
        }
        "ReplicationController" => json!({ "apiVersion": "v1", "spec": { "template": template } }),
        "HorizontalPodAutoscaler" => json!({ "apiVersion": "autoscaling/v2", "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" },
            "maxReplicas": 5,
        } }),
        "ScalingPolicy" => json!({ "apiVersion": "autoscaling.loadline.io/v1alpha1", "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" },
            "maxReplicas": 5,
            "objectives": [{ "resource": { "name": "cpu", "utilization": 70 } }],
        } }),
        "EndpointSlice" => json!({
            "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.1.2.3"] }], "ports": [{ "name": "http", "port": 80 }],
        }),
        "Endpoints" => json!({ "apiVersion": "v1", "subsets": [
            { "addresses": [{ "ip": "10.1.2.3" }], "ports": [{ "port": 80 }] },
        ] }),
        "PersistentVolume" => json!({ "apiVersion": "v1", "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/x" },
        } }),
        "PersistentVolumeClaim" => json!({ "apiVersion": "v1", "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        } }),
        "Lease" => json!({ "apiVersion": "coordination.k8s.io/v1", "spec": { "leaseDurationSeconds": 15 } }),
        "ControllerRevision" => json!({ "apiVersion": "apps/v1", "revision": 1, "data": { "a": 1 } }),
        "Event" => {
            json!({ "apiVersion": "v1", "involvedObject": { "kind": "Pod", "name": "p", "namespace": "ns" } })
        }
        _ => json!({ "apiVersion": "v1" }),
    }
}

fn merge(target: &mut Value, patch: &Value) {
    *target = crate::patch::merge::apply(target, patch);
}

/// The object as the pipeline has it before it is validated.
fn prepared(kind: &str, patch: &Value) -> (std::sync::Arc<Kind>, Value) {
    let mut obj = base(kind);
    merge(&mut obj, &json!({ "kind": kind, "metadata": { "name": "x" } }));
    merge(&mut obj, patch);
    let kinds = Registry::builtin().snapshot();
    let version = obj["apiVersion"].as_str().expect("apiVersion").to_owned();
    let row = kinds.api_kind(&version, kind).expect("a known kind").clone();
    decode::object(&row.schema, &mut obj).expect("good types");
    if row.namespaced {
        set(child(&mut obj, "metadata"), "namespace", "ns");
    }
    row.strategy.default(&mut obj);
    row.strategy.prepare_create(&mut obj);
    (row, obj)
}

fn create_errors(kind: &str, patch: &Value) -> Vec<(FieldErrorKind, String)> {
    let (row, obj) = prepared(kind, patch);
    let mut errs =
        meta::validate_create(at(&obj, "metadata"), row.namespaced, |n| row.strategy.validate_name(n));
    errs.extend(row.strategy.validate_create(&obj));
    errs.into_iter().map(|e| (e.kind, e.field)).collect()
}

fn check(kind: &str, patch: Value, refused: Refused) {
    let got = create_errors(kind, &patch);
    let want: Vec<_> = refused.iter().map(|(k, f)| (*k, (*f).to_owned())).collect();
    assert_eq!(got, want, "{kind} with {patch}");
}

/// A pod whose first container has these fields too.
fn container(fields: Value) -> Value {
    let mut c = json!({ "name": "c", "image": "img:1" });
    merge(&mut c, &fields);
    json!({ "spec": { "containers": [c] } })
}

fn template(fields: Value) -> Value {
    json!({ "spec": { "template": { "spec": fields } } })
}

#[test]
fn good_manifests_are_not_refused() {
    for kind in [
        "Namespace",
        "Node",
        "Pod",
        "Service",
        "Endpoints",
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Event",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ReplicationController",
        "Deployment",
        "ReplicaSet",
        "ControllerRevision",
        "EndpointSlice",
        "Lease",
        "HorizontalPodAutoscaler",
        "ScalingPolicy",
    ] {
        let patch =
            if kind == "Service" { json!({ "spec": { "clusterIP": "10.96.0.9" } }) } else { json!({}) };
        assert_eq!(create_errors(kind, &patch), [], "{kind}");
    }
}

#[test]
fn metadata() {
    let too_long = "a".repeat(254);
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "name": "Bad" }), &[(Invalid, "metadata.name")]),
        (json!({ "name": "../etc" }), &[(Invalid, "metadata.name")]),
        (json!({ "name": too_long }), &[(Invalid, "metadata.name")]),
        (json!({ "name": null }), &[(Required, "metadata.name")]),
        (json!({ "generateName": "Bad-" }), &[(Invalid, "metadata.generateName")]),
        (json!({ "labels": { "a b": "c" } }), &[(Invalid, "metadata.labels")]),
        (json!({ "labels": { "a": "b c" } }), &[(Invalid, "metadata.labels")]),
        (json!({ "labels": { "/a": "b" } }), &[(Invalid, "metadata.labels")]),
        (json!({ "annotations": { "a//b": "c" } }), &[(Invalid, "metadata.annotations")]),
        (json!({ "annotations": { "k": "x".repeat(262_145) } }), &[(TooLong, "metadata.annotations")]),
        (json!({ "finalizers": ["short"] }), &[(Invalid, "metadata.finalizers[0]")]),
        (json!({ "finalizers": ["orphan", "foregroundDeletion"] }), &[(Invalid, "metadata.finalizers")]),
        (
            json!({ "ownerReferences": [{ "apiVersion": "", "kind": "", "name": "", "uid": "" }] }),
            &[
                (Invalid, "metadata.ownerReferences.apiVersion"),
                (Invalid, "metadata.ownerReferences.kind"),
                (Invalid, "metadata.ownerReferences.name"),
                (Invalid, "metadata.ownerReferences.uid"),
            ],
        ),
        (
            json!({ "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1", "controller": true },
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b", "uid": "2", "controller": true },
            ] }),
            &[(Invalid, "metadata.ownerReferences")],
        ),
        (
            json!({ "managedFields": [{ "manager": "m", "operation": "Bogus" }] }),
            &[(Invalid, "metadata.managedFields[0].operation")],
        ),
    ];
    for (meta, refused) in rows {
        check("ConfigMap", json!({ "metadata": meta }), refused);
    }
    check("Namespace", json!({ "metadata": { "name": "a.b" } }), &[(Invalid, "metadata.name")]);
    check(
        "Service",
        json!({ "metadata": { "name": "a.b" }, "spec": { "clusterIP": "None" } }),
        &[(Invalid, "metadata.name")],
    );
}

#[test]
fn containers() {
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "name": "a.b" }), &[(Invalid, "spec.containers[0].name")]),
        (json!({ "image": " img" }), &[(Invalid, "spec.containers[0].image")]),
        (
            json!({ "terminationMessagePolicy": "X" }),
            &[(NotSupported, "spec.containers[0].terminationMessagePolicy")],
        ),
        (
            json!({ "ports": [{ "containerPort": 80, "name": "UP" }] }),
            &[(Invalid, "spec.containers[0].ports[0].name"), (Invalid, "spec.containers[0].ports[0].name")],
        ),
        (
            json!({ "ports": [{ "containerPort": 80, "hostPort": 70_000 }] }),
            &[(Invalid, "spec.containers[0].ports[0].hostPort")],
        ),
        (
            json!({ "ports": [{ "containerPort": 80, "hostPort": 80 }, { "containerPort": 81, "hostPort": 80 }] }),
            &[(Duplicate, "spec.containers[0].ports[1].hostPort")],
        ),
        (json!({ "env": [{ "name": "A=B" }] }), &[(Invalid, "spec.containers[0].env[0].name")]),
        (
            json!({ "env": [{ "name": "A", "valueFrom": {} }] }),
            &[(Invalid, "spec.containers[0].env[0].valueFrom")],
        ),
        (
            json!({ "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "a/b" } } }] }),
            &[(Invalid, "spec.containers[0].env[0].valueFrom.configMapKeyRef.key")],
        ),
        (
            json!({ "env": [{ "name": "A", "valueFrom": { "resourceFieldRef": { "resource": "limits.pods" } } }] }),
            &[(NotSupported, "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource")],
        ),
        (json!({ "envFrom": [{}] }), &[(Invalid, "spec.containers[0].envFrom")]),
        (
            json!({ "envFrom": [{ "secretRef": {} }] }),
            &[(Required, "spec.containers[0].envFrom[0].secretRef.name")],
        ),
        (
            json!({ "volumeMounts": [{ "name": "v" }] }),
            &[(Required, "spec.containers[0].volumeMounts[0].mountPath")],
        ),
        (
            json!({ "volumeMounts": [{ "name": "v", "mountPath": "/x", "subPath": "/abs" }] }),
            &[(Invalid, "spec.containers[0].volumeMounts.subPath")],
        ),
        (
            json!({ "volumeMounts": [{ "name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional" }] }),
            &[(Forbidden, "spec.containers[0].volumeMounts.mountPropagation")],
        ),
        (json!({ "livenessProbe": {} }), &[(Required, "spec.containers[0].livenessProbe")]),
        (
            json!({ "livenessProbe": { "exec": {}, "tcpSocket": { "port": 1 } } }),
            &[
                (Required, "spec.containers[0].livenessProbe.exec.command"),
                (Forbidden, "spec.containers[0].livenessProbe.tcpSocket"),
            ],
        ),
        (
            json!({ "livenessProbe": { "tcpSocket": { "port": 1 }, "successThreshold": 2 } }),
            &[(Invalid, "spec.containers[0].livenessProbe.successThreshold")],
        ),
        (
            json!({ "readinessProbe": { "httpGet": { "port": 0, "scheme": "FTP" } } }),
            &[
                (Invalid, "spec.containers[0].readinessProbe.httpGet.port"),
                (NotSupported, "spec.containers[0].readinessProbe.httpGet.scheme"),
            ],
        ),
        (
            json!({ "startupProbe": { "tcpSocket": { "port": 1 }, "periodSeconds": -1 } }),
            &[(Invalid, "spec.containers[0].startupProbe.periodSeconds")],
        ),
        (json!({ "lifecycle": { "preStop": {} } }), &[(Required, "spec.containers[0].lifecycle.preStop")]),
        (
            json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 31 } } } }),
            &[(Invalid, "spec.containers[0].lifecycle.preStop.sleep")],
        ),
        (
            json!({ "resources": { "requests": { "cpu": "2" }, "limits": { "cpu": "1" } } }),
            &[(Invalid, "spec.containers[0].resources.requests")],
        ),
        (
            json!({ "resources": { "requests": { "cpu": "-1" } } }),
            &[(Invalid, "spec.containers[0].resources.requests[cpu]")],
        ),
        (
            json!({ "resources": { "requests": { "bogus": "1" } } }),
            &[
                (Invalid, "spec.containers[0].resources.requests[bogus]"),
                (Invalid, "spec.containers[0].resources.requests[bogus]"),
            ],
        ),
        (
            json!({ "resources": { "requests": { "x.example/gpu": "1" } } }),
            &[(Required, "spec.containers[0].resources.limits")],
        ),
        (
            json!({ "securityContext": { "runAsUser": -1 } }),
            &[(Invalid, "spec.containers[0].securityContext.runAsUser")],
        ),
        (
            json!({ "securityContext": { "privileged": true, "allowPrivilegeEscalation": false } }),
            &[(Invalid, "spec.containers[0].securityContext")],
        ),
        (
            json!({ "securityContext": { "seccompProfile": { "type": "Localhost" } } }),
            &[(Required, "spec.containers[0].securityContext.seccompProfile.localhostProfile")],
        ),
    ];
    for (fields, refused) in rows {
        check("Pod", container(fields), refused);
    }
}

#[test]
fn pod_specs() {
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "dnsPolicy": "Bogus" }), &[(NotSupported, "spec.dnsPolicy")]),
        (json!({ "dnsPolicy": "None" }), &[(Required, "spec.dnsConfig")]),
        (json!({ "hostname": "A" }), &[(Invalid, "spec.hostname")]),
        (json!({ "nodeName": "N" }), &[(Invalid, "spec.nodeName")]),
        (json!({ "nodeSelector": { "a b": "c" } }), &[(Invalid, "spec.nodeSelector")]),
        (json!({ "activeDeadlineSeconds": 0 }), &[(Invalid, "spec.activeDeadlineSeconds")]),
        (json!({ "hostAliases": [{ "ip": "1.2.3" }] }), &[(Invalid, "spec.hostAliases[0].ip")]),
        (json!({ "tolerations": [{ "operator": "Equal" }] }), &[(Invalid, "spec.tolerations[0].operator")]),
        (
            json!({ "tolerations": [{ "key": "a", "operator": "Exists", "value": "b" }] }),
            &[(Invalid, "spec.tolerations[0].operator")],
        ),
        (
            json!({ "tolerations": [{ "key": "a", "effect": "Bogus" }] }),
            &[(NotSupported, "spec.tolerations[0].effect")],
        ),
        (
            json!({ "tolerations": [{ "key": "a", "tolerationSeconds": 5 }] }),
            &[(Invalid, "spec.tolerations[0].effect")],
        ),
        (
            json!({ "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [] },
            } } }),
            &[(
                Required,
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            )],
        ),
        (
            json!({ "affinity": { "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    { "weight": 101, "podAffinityTerm": { "topologyKey": "zone" } },
                ],
            } } }),
            &[(
                Invalid,
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight",
            )],
        ),
        (
            json!({ "topologySpreadConstraints": [{ "maxSkew": 0, "whenUnsatisfiable": "X" }] }),
            &[
                (Invalid, "spec.topologySpreadConstraints[0].maxSkew"),
                (Required, "spec.topologySpreadConstraints[0].topologyKey"),
                (NotSupported, "spec.topologySpreadConstraints[0].whenUnsatisfiable"),
            ],
        ),
        (json!({ "volumes": [{ "name": "V", "emptyDir": {} }] }), &[(Invalid, "spec.volumes[0].name")]),
        (
            json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/a/../b" } }] }),
            &[(Invalid, "spec.volumes[0].hostPath.path")],
        ),
        (
            json!({ "volumes": [{ "name": "v", "secret": {} }] }),
            &[(Required, "spec.volumes[0].secret.secretName")],
        ),
        (
            json!({ "volumes": [{ "name": "v", "configMap": { "name": "c", "defaultMode": 512 } }] }),
            &[(Invalid, "spec.volumes[0].configMap.defaultMode")],
        ),
        (
            json!({ "volumes": [{ "name": "v", "configMap": { "name": "c", "items": [{ "key": "k", "path": "../x" }] } }] }),
            &[(Invalid, "spec.volumes[0].configMap.items[0].path")],
        ),
        (
            json!({ "initContainers": [{ "name": "c", "image": "i" }] }),
            &[(Duplicate, "spec.initContainers[0].name")],
        ),
        (
            json!({ "initContainers": [{ "name": "i", "image": "i", "livenessProbe": { "exec": { "command": ["a"] } } }] }),
            &[(Forbidden, "spec.initContainers[0].livenessProbe")],
        ),
        (
            json!({ "ephemeralContainers": [{ "name": "e", "image": "i" }] }),
            &[(Forbidden, "spec.ephemeralContainers")],
        ),
        (json!({ "schedulingGates": [{ "name": "g" }], "nodeName": "n" }), &[(Forbidden, "spec.nodeName")]),
        (json!({ "hostUsers": false, "hostNetwork": true }), &[(Forbidden, "spec.hostNetwork")]),
        (
            json!({ "securityContext": { "sysctls": [{ "name": "A" }] } }),
            &[(Invalid, "spec.securityContext.sysctls[0].name")],
        ),
    ];
    for (spec, refused) in rows {
        check("Pod", json!({ "spec": spec }), refused);
    }
}

#[test]
fn workloads() {
    check(
        "Deployment",
        template(json!({ "activeDeadlineSeconds": 5 })),
        &[(Forbidden, "spec.template.spec.activeDeadlineSeconds")],
    );
    check(
        "ReplicaSet",
        template(json!({ "restartPolicy": "OnFailure" })),
        &[(NotSupported, "spec.template.spec.restartPolicy")],
    );
    check(
        "ReplicaSet",
        json!({ "spec": { "selector": null } }),
        &[(Required, "spec.selector"), (Invalid, "spec.template.metadata.labels")],
    );
    check(
        "Deployment",
        json!({ "spec": { "selector": { "matchExpressions": [{ "key": "app", "operator": "Near", "values": ["a"] }] } } }),
        &[(Invalid, "spec.selector.matchExpressions[0].operator"), (Invalid, "spec.selector")],
    );
    let rolling = |v: Value| json!({ "spec": { "strategy": { "rollingUpdate": v } } });
    check(
        "Deployment",
        rolling(json!({ "maxSurge": "5" })),
        &[(Invalid, "spec.strategy.rollingUpdate.maxSurge")],
    );
    check(
        "Deployment",
        rolling(json!({ "maxUnavailable": -1 })),
        &[(Invalid, "spec.strategy.rollingUpdate.maxUnavailable")],
    );
    check(
        "Deployment",
        json!({ "spec": { "strategy": { "type": "Bogus" } } }),
        &[(NotSupported, "spec.strategy")],
    );
    check(
        "Deployment",
        json!({ "spec": { "revisionHistoryLimit": -1 } }),
        &[(Invalid, "spec.revisionHistoryLimit")],
    );
    check(
        "ReplicationController",
        json!({ "spec": { "selector": { "app": "b" } } }),
        &[(Invalid, "spec.template.metadata.labels")],
    );
    check(
        "ReplicationController",
        json!({ "spec": { "template": null } }),
        &[(Required, "spec.selector"), (Required, "spec.template")],
    );
    check("ControllerRevision", json!({ "data": null }), &[(Required, "data")]);
    check("ControllerRevision", json!({ "revision": -1 }), &[(Invalid, "revision")]);
}

#[test]
fn services_and_endpoints() {
    let ip = |v: Value| {
        let mut spec = json!({ "spec": { "clusterIP": "10.96.0.9" } });
        merge(&mut spec, &json!({ "spec": v }));
        spec
    };
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "clusterIP": "10.96.0" }), &[(Invalid, "spec.clusterIPs[0]")]),
        (json!({ "ports": [{ "port": 80, "nodePort": 30_000 }] }), &[(Forbidden, "spec.ports[0].nodePort")]),
        (
            json!({ "ports": [{ "port": 80, "protocol": "ICMP" }] }),
            &[(NotSupported, "spec.ports[0].protocol")],
        ),
        (
            json!({ "ports": [{ "port": 80, "appProtocol": "a b" }] }),
            &[(Invalid, "spec.ports[0].appProtocol")],
        ),
        (json!({ "ports": [{ "port": 80, "name": "A" }] }), &[(Invalid, "spec.ports[0].name")]),
        (json!({ "selector": { "a b": "c" } }), &[(Invalid, "spec.selector")]),
        (json!({ "sessionAffinity": "Cookie" }), &[(NotSupported, "spec.sessionAffinity")]),
        (json!({ "externalIPs": ["127.0.0.1"] }), &[(Invalid, "spec.externalIPs[0]")]),
        (json!({ "externalTrafficPolicy": "Local" }), &[(Invalid, "spec.externalTrafficPolicy")]),
        (json!({ "internalTrafficPolicy": "Near" }), &[(NotSupported, "spec.internalTrafficPolicy")]),
        (json!({ "loadBalancerClass": "a/b" }), &[(Forbidden, "spec.loadBalancerClass")]),
        (
            json!({ "loadBalancerSourceRanges": ["10.0.0.0"] }),
            &[(Forbidden, "spec.LoadBalancerSourceRanges"), (Invalid, "spec.LoadBalancerSourceRanges[0]")],
        ),
        (json!({ "type": "NodePort", "clusterIP": "None" }), &[(Invalid, "spec.clusterIPs[0]")]),
        (
            json!({ "type": "ExternalName", "clusterIP": null, "externalName": "A_b" }),
            &[(Invalid, "spec.externalName")],
        ),
        (
            json!({ "ipFamilies": ["IPv5"] }),
            &[(NotSupported, "spec.ipFamilies[0]"), (Invalid, "spec.clusterIPs[0]")],
        ),
        (json!({ "ipFamilyPolicy": "RequireDualStack" }), &[(Invalid, "spec.ipFamilyPolicy")]),
    ];
    for (spec, refused) in rows {
        check("Service", ip(spec), refused);
    }
    check("Endpoints", json!({ "subsets": [{}] }), &[(Required, "subsets[0]")]);
    check(
        "Endpoints",
        json!({ "subsets": [{ "addresses": [{ "ip": "169.254.1.1" }] }] }),
        &[(Invalid, "subsets[0].addresses[0].ip")],
    );
    check("EndpointSlice", json!({ "addressType": "IP" }), &[(NotSupported, "addressType")]);
    check(
        "EndpointSlice",
        json!({ "endpoints": [{ "addresses": [] }] }),
        &[(Required, "endpoints[0].addresses")],
    );
    check(
        "EndpointSlice",
        json!({ "endpoints": [{ "addresses": ["::1"] }] }),
        &[(Invalid, "endpoints[0].addresses[0]"), (Invalid, "endpoints[0].addresses[0]")],
    );
    check(
        "EndpointSlice",
        json!({ "ports": [{ "port": 1 }, { "port": 2 }] }),
        &[(Duplicate, "ports[1].name")],
    );
}

#[test]
fn configuration_and_storage() {
    check("ConfigMap", json!({ "data": { "..": "x" } }), &[(Invalid, "data[..]")]);
    check(
        "ConfigMap",
        json!({ "data": { "a": "x" }, "binaryData": { "a": "eA==" } }),
        &[(Invalid, "data[a]")],
    );
    check("ConfigMap", json!({ "data": { "a": "x".repeat(1_048_577) } }), &[(TooLong, "")]);
    let secret = |kind: &str, data: Value| json!({ "type": format!("kubernetes.io/{kind}"), "data": data });
    check("Secret", secret("tls", json!({ "tls.crt": "eA==" })), &[(Required, "data[tls.key]")]);
    check(
        "Secret",
        secret("basic-auth", json!({})),
        &[(Required, "data[username]"), (Required, "data[password]")],
    );
    check("Secret", secret("ssh-auth", json!({})), &[(Required, "data[ssh-privatekey]")]);
    check(
        "Secret",
        secret("dockerconfigjson", json!({ ".dockerconfigjson": "eA==" })),
        &[(Invalid, "data[.dockerconfigjson]")],
    );
    check(
        "Secret",
        secret("service-account-token", json!({})),
        &[(Required, "metadata.annotations[kubernetes.io/service-account.name]")],
    );
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "accessModes": [] }), &[(Required, "spec.accessModes")]),
        (json!({ "capacity": { "storage": "0" } }), &[(Invalid, "spec.capacity[storage]")]),
        (json!({ "hostPath": null }), &[(Required, "spec")]),
        (json!({ "nfs": { "server": "s", "path": "/p" } }), &[(Forbidden, "spec.nfs")]),
        (
            json!({ "persistentVolumeReclaimPolicy": "X" }),
            &[(NotSupported, "spec.persistentVolumeReclaimPolicy")],
        ),
        (json!({ "hostPath": null, "local": { "path": "/x" } }), &[(Required, "spec.nodeAffinity")]),
    ];
    for (spec, refused) in rows {
        check("PersistentVolume", json!({ "spec": spec }), refused);
    }
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "accessModes": ["X"] }), &[(NotSupported, "spec.accessModes")]),
        (json!({ "resources": null }), &[(Required, "spec.resources[storage]")]),
        (json!({ "volumeMode": "X" }), &[(NotSupported, "spec.volumeMode")]),
        (json!({ "storageClassName": "A" }), &[(Invalid, "spec.storageClassName")]),
        (
            json!({ "dataSource": { "kind": "Pod", "name": "x" } }),
            &[(Invalid, "spec.dataSource"), (Invalid, "spec.dataSourceRef")],
        ),
    ];
    for (spec, refused) in rows {
        check("PersistentVolumeClaim", json!({ "spec": spec }), refused);
    }
}

#[test]
fn scaling() {
    let metric = |v: Value| json!({ "spec": { "metrics": [v] } });
    let target = |t: Value| metric(json!({ "type": "Resource", "resource": { "name": "cpu", "target": t } }));
    let rows: Vec<(Value, Refused)> = vec![
        (
            json!({ "spec": { "maxReplicas": -1 } }),
            &[(Invalid, "spec.maxReplicas"), (Invalid, "spec.maxReplicas")],
        ),
        (
            metric(json!({ "type": "Bogus" })),
            &[(NotSupported, "spec.metrics[0].type"), (NotSupported, "spec.metrics[0].type")],
        ),
        (
            metric(json!({ "type": "Pods", "pods": {} })),
            &[
                (Required, "spec.metrics[0].pods.metric.name"),
                (Required, "spec.metrics[0].pods.target.type"),
                (Invalid, "spec.metrics[0].pods.target.type"),
                (Required, "spec.metrics[0].pods.target.averageValue"),
            ],
        ),
        (
            target(json!({ "type": "AverageValue", "averageValue": "0" })),
            &[(Invalid, "spec.metrics[0].resource.target.averageValue")],
        ),
        (
            target(json!({ "type": "Utilization", "averageUtilization": 5, "averageValue": "1" })),
            &[(Forbidden, "spec.metrics[0].resource.target.averageValue")],
        ),
        (
            json!({ "spec": { "behavior": { "scaleDown": { "selectPolicy": "Mean" } } } }),
            &[(NotSupported, "spec.behavior.scaleDown.selectPolicy")],
        ),
        (
            json!({ "spec": { "scaleTargetRef": { "apiVersion": "v1" } } }),
            &[(Invalid, "spec.scaleTargetRef.apiVersion")],
        ),
    ];
    for (patch, refused) in rows {
        check("HorizontalPodAutoscaler", patch, refused);
    }
    let rows: Vec<(Value, Refused)> = vec![
        (json!({ "minReplicas": 6 }), &[(Invalid, "spec.maxReplicas")]),
        (json!({ "mode": "Fast" }), &[(NotSupported, "spec.mode")]),
        (json!({ "objectives": [] }), &[(Required, "spec.objectives")]),
        (json!({ "objectives": [{}] }), &[(Required, "spec.objectives[0]")]),
        (
            json!({ "objectives": [{
                "resource": { "name": "cpu", "utilization": 70 },
                "rate": { "metric": "m", "perPod": "1" },
            }] }),
            &[(Forbidden, "spec.objectives[0].rate")],
        ),
        (
            json!({ "objectives": [{ "resource": { "name": "disk", "utilization": 0 } }] }),
            &[
                (NotSupported, "spec.objectives[0].resource.name"),
                (Invalid, "spec.objectives[0].resource.utilization"),
            ],
        ),
        (
            json!({ "objectives": [{ "latency": { "metric": "m", "quantile": "1.5", "target": "fast" } }] }),
            &[
                (Invalid, "spec.objectives[0].latency.target"),
                (Invalid, "spec.objectives[0].latency.quantile"),
            ],
        ),
        (
            json!({ "objectives": [{ "prometheus": { "serverAddress": "x", "query": "q", "perPod": "1" } }] }),
            &[(Invalid, "spec.objectives[0].prometheus.serverAddress")],
        ),
        (
            json!({ "schedules": [{ "cron": "0 25 * * *", "duration": "1h", "minReplicas": 1 }] }),
            &[(Invalid, "spec.schedules[0].cron")],
        ),
        (
            json!({ "schedules": [{ "cron": "0 8 * * *", "duration": "soon", "minReplicas": 1 }] }),
            &[(Invalid, "spec.schedules[0].duration")],
        ),
        (json!({ "scaleToZero": { "after": "5m" } }), &[(Forbidden, "spec.scaleToZero")]),
        (
            json!({ "fallback": { "after": "", "replicas": -1 } }),
            &[(Required, "spec.fallback.after"), (Invalid, "spec.fallback.replicas")],
        ),
    ];
    for (spec, refused) in rows {
        check("ScalingPolicy", json!({ "spec": spec }), refused);
    }
}

#[test]
fn cluster_objects_and_events() {
    check(
        "Node",
        json!({ "spec": { "taints": [{ "key": "a", "effect": "X" }] } }),
        &[(NotSupported, "metadata.taints[0].effect")],
    );
    check("Node", json!({ "spec": { "podCIDRs": ["10.0.0.0/33"] } }), &[(Invalid, "spec.podCIDRs[0]")]);
    check("Namespace", json!({ "spec": { "finalizers": ["x"] } }), &[(Invalid, "spec.finalizers")]);
    check(
        "Lease",
        json!({ "spec": { "leaseDurationSeconds": 0 } }),
        &[(Invalid, "spec.leaseDurationSeconds")],
    );
    check("Lease", json!({ "spec": { "leaseTransitions": -1 } }), &[(Invalid, "spec.leaseTransitions")]);
    check(
        "Event",
        json!({ "involvedObject": { "namespace": "other" } }),
        &[(Invalid, "involvedObject.namespace")],
    );
    let strict = json!({
        "apiVersion": "events.k8s.io/v1", "involvedObject": null, "type": "Odd",
        "regarding": { "kind": "Pod", "name": "p", "namespace": "ns" },
    });
    check("Event", strict, &[(Required, "eventTime"), (Invalid, "type")]);
}

/// Changes of a stored object that are refused. The first finding is enough.
#[test]
fn updates() {
    let rows: Vec<(&str, Value, FieldErrorKind, &str)> = vec![
        ("Pod", json!({ "spec": { "nodeName": "n" } }), Forbidden, "spec"),
        ("Pod", json!({ "spec": { "containers": [] } }), Required, "spec.containers"),
        ("Pod", json!({ "spec": { "tolerations": [] } }), Forbidden, "spec.tolerations"),
        (
            "Deployment",
            json!({ "spec": { "selector": { "matchLabels": { "x": "y" } } } }),
            Invalid,
            "spec.selector",
        ),
        (
            "ReplicaSet",
            json!({ "spec": { "selector": { "matchLabels": { "x": "y" } } } }),
            Invalid,
            "spec.selector",
        ),
        ("Secret", json!({ "type": "other" }), Invalid, "type"),
        ("EndpointSlice", json!({ "addressType": "IPv6" }), Invalid, "addressType"),
        ("ControllerRevision", json!({ "data": { "a": 2 } }), Invalid, "data"),
        (
            "PersistentVolume",
            json!({ "spec": { "hostPath": { "path": "/y" } } }),
            Forbidden,
            "spec.persistentvolumesource",
        ),
        ("PersistentVolumeClaim", json!({ "spec": { "accessModes": ["ReadWriteMany"] } }), Forbidden, "spec"),
    ];
    for (kind, patch, reason, field) in rows {
        let (row, old) = prepared(kind, &json!({}));
        let mut new = crate::patch::merge::apply(&old, &patch);
        decode::object(&row.schema, &mut new).expect("good types");
        row.strategy.default(&mut new);
        if !patch.to_string().contains("tolerations") {
            row.strategy.prepare_update(&mut new, &old);
        }
        let errs = row.strategy.validate_update(&new, &old);
        assert!(errs.iter().any(|e| e.kind == reason && e.field == field), "{kind} with {patch}: {errs:?}");
        assert_eq!(row.strategy.validate_update(&old, &old), [], "{kind} unchanged");
    }
}

#[test]
fn a_deleted_object_gets_no_finalizers_and_keeps_its_identity() {
    let old = json!({ "name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"] });
    let new = json!({ "name": "b", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y", "x/z"] });
    let got: Vec<_> = meta::validate_update(&new, &old).into_iter().map(|e| (e.kind, e.field)).collect();
    assert_eq!(got, [(Forbidden, "metadata.finalizers".to_owned()), (Invalid, "metadata.name".to_owned())]);
}
