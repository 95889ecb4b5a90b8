//! Messages that another implementation encodes, against the JSON of the same objects.

// The builder macro converts what needs it and what does not; helpers of tests may unwrap.
#![allow(clippy::useless_conversion, clippy::needless_update, clippy::unwrap_used)]

mod build;
mod kinds;
mod pods;

use k8s_pb::api::autoscaling::v1 as autoscaling;
use k8s_pb::api::core::v1 as core;
use k8s_pb::api::policy::v1 as policy;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use loadline_api::decode::{self, Decoded, Expected};
use loadline_api::kinds::{Registry, split_api_version};
use loadline_api::{protobuf, schema};
use prost::Message as _;
use serde_json::{Value, json};

use build::*;

/// The envelope that client-go puts around a message.
fn enveloped(document: &Value, raw: Vec<u8>) -> Vec<u8> {
    let field = |name: &str| document[name].as_str().map(str::to_owned);
    let unknown = pb!(Unknown {
        type_meta: TypeMeta { api_version: field("apiVersion"), kind: field("kind") },
        raw: raw,
        content_encoding: s(""),
        content_type: s(""),
    });
    [b"k8s\0".to_vec(), unknown.encode_to_vec()].concat()
}

/// Both forms of an object must decode to the same.
fn check(raw: Vec<u8>, document: &Value) {
    let (group, version) = split_api_version(document["apiVersion"].as_str().unwrap());
    let kind = document["kind"].as_str().unwrap();
    let schema = schema::of(group, version, kind).unwrap();
    let expected = Expected { group, version, kind, schema: &schema };
    let kinds = Registry::builtin().snapshot();
    let Decoded { value: want, strict } =
        decode::body(&kinds, expected, document.to_string().as_bytes()).unwrap();
    assert_eq!(strict, Vec::<String>::new(), "the JSON of {kind} is wrong itself");
    let got = decode::protobuf_body(&kinds, expected, &enveloped(document, raw)).unwrap().value;
    assert_eq!(pretty(&got), pretty(&want), "{kind}");
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn objects() {
    let cases = [
        pods::pod(),
        pods::deployment(),
        kinds::autoscaler(),
        kinds::core_event(),
        kinds::events_event(),
        kinds::service(),
        kinds::node(),
        kinds::volume(),
    ];
    for (raw, document) in cases.into_iter().chain(kinds::small_ones()) {
        check(raw, &document);
    }
}

#[test]
fn scales() {
    let scale = pb!(autoscaling::Scale {
        metadata: named("d"),
        spec: pb!(autoscaling::ScaleSpec { replicas: 3 }),
        status: pb!(autoscaling::ScaleStatus { replicas: 2, selector: s("a=b") }),
    });
    let document = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
        "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "a=b"}});
    check(scale.encode_to_vec(), &document);
}

/// The documents beside an object, as the server reads them.
#[test]
fn options() {
    let options = pb!(meta::DeleteOptions {
        grace_period_seconds: 0i64,
        preconditions: pb!(meta::Preconditions { uid: s("u") }),
        propagation_policy: s("Foreground"),
        dry_run: list(&["All"]),
    });
    let options_json = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"},
        "propagationPolicy": "Foreground", "dryRun": ["All"]});
    let binding = pb!(core::Binding {
        metadata: named("p"),
        target: pb!(core::ObjectReference { kind: s("Node"), name: s("n") }),
    });
    let eviction = pb!(policy::Eviction { metadata: named("p"), delete_options: options.clone() });
    for ((group, version, kind), raw, mut want) in [
        (("meta.k8s.io", "v1", "DeleteOptions"), options.encode_to_vec(), options_json.clone()),
        (
            ("", "v1", "Binding"),
            binding.encode_to_vec(),
            json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
        ),
        (
            ("policy", "v1", "Eviction"),
            eviction.encode_to_vec(),
            json!({"metadata": {"name": "p"}, "deleteOptions": options_json}),
        ),
    ] {
        want["apiVersion"] = json!("any/v1");
        want["kind"] = json!(kind);
        let schema = schema::of(group, version, kind).unwrap();
        let got = protobuf::document(&schema, &enveloped(&want, raw)).unwrap();
        assert_eq!(pretty(&got), pretty(&want), "{kind}");
    }
}
