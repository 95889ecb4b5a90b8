//! The table against the schemas, recorded and broken bodies, and what only an odd client would send.

use std::collections::BTreeSet;

use serde_json::json;

use super::fields::Slot;
use super::*;
use crate::decode::{self, Decoded, Expected};
use crate::kinds::Registry;
use crate::schema::{self, Type, short_name};

/// Fields of Kubernetes 1.36 behind alpha gates, of which the numbers' source (1.35) knows nothing.
const UNNUMBERED: [(&str, &str); 5] = [
    ("core.v1.PodSpec", "schedulingGroup"),
    ("core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses"),
    ("core.v1.ResourceHealth", "message"),
    ("core.v1.VolumeMountStatus", "volumeStatus"),
    ("meta.v1.ListMeta", "shardInfo"),
];

/// All structs that the types with a protobuf form reach.
fn reached() -> Vec<std::sync::Arc<Struct>> {
    let mut todo: Vec<_> = [
        ("meta.k8s.io", "v1", "DeleteOptions"),
        ("meta.k8s.io", "v1", "Status"),
        ("", "v1", "Binding"),
        ("policy", "v1", "Eviction"),
        ("autoscaling", "v1", "Scale"),
    ]
    .into_iter()
    .map(|(group, version, kind)| schema::of(group, version, kind).unwrap())
    .collect();
    todo.extend(Registry::builtin().snapshot().kinds().iter().map(|k| k.schema.clone()));
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    while let Some(s) = todo.pop() {
        if s.name.contains("loadline") || !seen.insert(s.name.clone()) {
            continue;
        }
        for field in &s.fields {
            if UNNUMBERED.contains(&(short_name(&s.name), &field.name)) {
                continue;
            }
            let mut ty = &field.ty;
            loop {
                ty = match ty {
                    Type::List(list) => &list.item,
                    Type::Map(map) => &map.value,
                    _ => break,
                };
            }
            if let Type::Struct(inner) = ty {
                todo.push(inner.clone());
            }
        }
        all.push(s);
    }
    all
}

/// The JSON names of a message's fields, those of embedded messages among them.
fn names(message: &str, depth: usize) -> Vec<&'static str> {
    assert!(depth < 3, "{message} is embedded too deeply");
    let numbers = fields::of(message).unwrap_or_else(|| panic!("no numbers of {message}"));
    let of = |slot: &Slot| match slot {
        Slot::Field(name) => vec![*name],
        Slot::Embedded(inner) => names(inner, depth + 1),
    };
    numbers.iter().flat_map(|(_, slot)| of(slot)).collect()
}

#[test]
fn the_table_and_the_schemas_agree() {
    let mut wrong = Vec::new();
    for s in reached() {
        let short = short_name(&s.name);
        let numbered = names(short, 0);
        for name in &numbered {
            if s.field(name).is_none() {
                wrong.push(format!("{short} has no {name}"));
            }
        }
        let type_meta = |name: &str| matches!(name, "kind" | "apiVersion") && s.field("metadata").is_some();
        for field in &s.fields {
            let known = numbered.contains(&field.name.as_str())
                || type_meta(&field.name)
                || (short == "meta.v1.DeleteOptions" && matches!(&*field.name, "kind" | "apiVersion"))
                || UNNUMBERED.contains(&(short, &field.name));
            if !known {
                wrong.push(format!("no number of {short}.{}", field.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_table_is_well_formed_and_no_larger_than_needed() {
    let (messages, written) = fields::messages();
    let mut read = 0;
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let reached = reached();
    used.extend(reached.iter().map(|s| short_name(&s.name)));
    for message in &messages {
        let numbers = fields::of(message).unwrap();
        assert!(numbers.is_sorted_by(|a, b| a.0 < b.0), "{message}");
        read += numbers.len();
        used.extend(numbers.iter().filter_map(|(_, slot)| match slot {
            Slot::Embedded(inner) => Some(*inner),
            Slot::Field(_) => None,
        }));
    }
    assert_eq!(read, written, "every entry parses");
    let unused: Vec<_> = messages.iter().filter(|m| !used.contains(*m)).collect();
    assert_eq!(unused, Vec::<&&str>::new());
}

// A small encoder, enough for cases that no client would send.

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version), bytes(2, kind)].concat();
    [PREFIX, &bytes(1, meta), &bytes(2, raw), &bytes(3, ""), &bytes(4, "")].concat()
}

fn sent(group: &str, version: &str, kind: &str, body: &[u8]) -> crate::status::Result<Decoded> {
    let kinds = Registry::builtin().snapshot();
    let row = kinds.kind(group, version, kind).unwrap();
    decode::protobuf_body(&kinds, Expected::from(&**row), body)
}

fn pod(raw: &[u8]) -> Result<Value> {
    object(&schema::of("", "v1", "Pod").unwrap(), raw)
}

#[test]
fn what_comes_twice() {
    let container = |fields: &[u8]| bytes(2, bytes(2, fields));
    let label = |key: &str, value: &str| bytes(1, bytes(11, [bytes(1, key), bytes(2, value)].concat()));
    for (raw, want) in [
        // Messages merge, lists grow, of scalars the last one counts.
        (
            [bytes(1, bytes(1, "a")), bytes(1, bytes(1, "b")), bytes(1, bytes(3, "n"))].concat(),
            json!({"metadata": {"name": "b", "namespace": "n"}}),
        ),
        (
            [container(&bytes(1, "a")), container(&bytes(1, "b"))].concat(),
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
        ),
        (
            [label("a", "1"), label("b", "2"), label("a", "3")].concat(),
            json!({"metadata": {"labels": {"a": "3", "b": "2"}}}),
        ),
        // A missing key or value of a map is empty.
        (bytes(1, bytes(11, "")), json!({"metadata": {"labels": {"": ""}}})),
    ] {
        assert_eq!(pod(&raw), Ok(want));
    }
}

#[test]
fn numbers_on_the_wire() {
    let security = |raw: &[u8]| bytes(2, bytes(14, raw));
    let want = json!({"spec": {"securityContext": {"supplementalGroups": [1, 300]}}});
    assert_eq!(pod(&security(&[number(4, 1), number(4, 300)].concat())), Ok(want.clone()));
    assert_eq!(pod(&security(&bytes(4, [varint(1), varint(300)].concat()))), Ok(want));
    let minus_one = json!({"spec": {"priority": -1}});
    assert_eq!(pod(&bytes(2, number(25, u64::MAX))), Ok(minus_one.clone()));
    assert_eq!(pod(&bytes(2, number(25, u64::from(u32::MAX)))), Ok(minus_one));
    assert_eq!(pod(&bytes(2, number(11, 2))), Ok(json!({"spec": {"hostNetwork": true}})));
    // Unknown numbers are skipped, whatever they hold.
    let unknown =
        [number(100, 1), bytes(101, [0xff; 3]), [varint(102 << 3 | 1), vec![0; 8]].concat()].concat();
    assert_eq!(pod(&unknown), Ok(json!({})));
}

#[test]
fn times() {
    let created = |raw: &[u8]| bytes(1, bytes(8, raw));
    for (raw, want) in [
        (vec![], json!(null)),
        ([number(1, 0), number(2, 0)].concat(), json!("1970-01-01T00:00:00Z")),
        ([number(1, 1_700_000_000), number(2, 999)].concat(), json!("2023-11-14T22:13:20Z")),
    ] {
        assert_eq!(pod(&created(&raw)), Ok(json!({"metadata": {"creationTimestamp": want}})));
    }
    let error = pod(&created(&number(1, i64::MAX as u64))).unwrap_err();
    assert_eq!(error.to_string(), "seconds out of range for field metadata.creationTimestamp");
}

#[test]
fn errors_say_where() {
    for (raw, want) in [
        (bytes(2, bytes(2, number(1, 1))), "proto: wrong wireType = 0 for field spec.containers[0].name"),
        (bytes(2, bytes(2, bytes(2, [0xff]))), "invalid UTF-8 for field spec.containers[0].image"),
        (
            bytes(1, bytes(11, [bytes(1, "k"), number(2, 1)].concat())),
            "proto: wrong wireType = 0 for field metadata.labels.k",
        ),
        (bytes(2, [0x0a, 9]), "unexpected EOF for field spec"),
        (number(1, 1), "proto: wrong wireType = 0 for field metadata"),
        (vec![0x12], "unexpected EOF"),
        (
            bytes(1, bytes(17, bytes(7, bytes(1, "{")))),
            "embedded JSON cannot be read: EOF while parsing an object at line 1 column 1 for field metadata.managedFields[0].fieldsV1",
        ),
        (
            bytes(1, bytes(17, bytes(7, bytes(1, "k8s\0")))),
            "an embedded object must be JSON for field metadata.managedFields[0].fieldsV1",
        ),
    ] {
        assert_eq!(pod(&raw).unwrap_err().to_string(), want);
    }
}

#[test]
fn bodies() {
    let map = [bytes(1, bytes(1, "c")), bytes(2, [bytes(1, "k"), bytes(2, "v")].concat())].concat();
    let map = [map, bytes(3, [bytes(1, "b"), bytes(2, [0xff, 0])].concat())].concat();
    let good = |api_version: &str, kind: &str| sent("", "v1", "ConfigMap", &body(api_version, kind, &map));
    let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"},
        "binaryData": {"b": "/wA="}});
    assert_eq!(good("v1", "ConfigMap").unwrap().value, want);
    assert_eq!(good("", "").unwrap().value, want);
    let encoded = [PREFIX, &bytes(3, "gzip")].concat();
    let head = "the object provided is unrecognized (must be of type ConfigMap): ";
    for (bytes, why) in [
        (
            &b""[..],
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (<empty>)",
        ),
        (
            b"{}",
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] ({})",
        ),
        (b"k8s\0", "empty body (6b387300)"),
        (b"k8s\0\x0a\x09", "unexpected EOF (6b3873000a09)"),
        (&encoded, "content encoding \"gzip\" is not supported (6b3873001a04677a6970)"),
    ] {
        let error = sent("", "v1", "ConfigMap", bytes).unwrap_err();
        assert_eq!(error.message, format!("{head}{why}"));
        assert_eq!(error.reason, crate::status::Reason::BadRequest);
    }
    for (api_version, kind, part) in [
        ("v2", "ConfigMap", "no kind \"ConfigMap\" is registered for version \"v2\""),
        ("v1", "Secret", "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret)"),
        ("a/b/c", "ConfigMap", "unexpected GroupVersion string: a/b/c"),
    ] {
        let error = good(api_version, kind).unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
    }
    let error = sent("", "v1", "ConfigMap", &body("v1", "ConfigMap", &[0x0a, 0x05])).unwrap_err();
    assert_eq!(error.message, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected EOF");
}

#[test]
fn kinds_of_our_own_have_no_such_form() {
    let kinds = Registry::builtin().snapshot();
    for kind in kinds.kinds() {
        assert_eq!(knows(&kind.schema), !kind.group.contains("loadline"), "{}", kind.kind);
    }
}

/// The bodies of `kubectl.txt`, each as its command, its JSON and its bytes.
fn recorded() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let lines: Vec<_> = include_str!("kubectl.txt").lines().filter(|l| !l.starts_with('#')).collect();
    let hex = |text: &str| {
        let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(pair).collect()
    };
    lines.chunks(3).map(|c| (c[0], c[1], hex(c[2]))).collect()
}

/// The row of the kind that a JSON document says it is.
fn row(json: &str) -> std::sync::Arc<crate::kinds::Kind> {
    let document: Value = serde_json::from_str(json).unwrap();
    let (group, version) = crate::kinds::split_api_version(document["apiVersion"].as_str().unwrap());
    let kinds = Registry::builtin().snapshot();
    kinds.kind(group, version, document["kind"].as_str().unwrap()).unwrap().clone()
}

#[test]
fn what_kubectl_sends_is_what_it_prints() {
    let kinds = Registry::builtin().snapshot();
    for (command, json, body) in recorded() {
        let row = row(json);
        let want = decode::body(&kinds, Expected::from(&*row), json.as_bytes()).unwrap();
        let got = decode::protobuf_body(&kinds, Expected::from(&*row), &body).unwrap();
        assert_eq!(got, want, "{command}");
    }
}

#[test]
fn cut_and_changed_bodies_are_read_or_refused() {
    let kinds = Registry::builtin().snapshot();
    for (_, json, body) in recorded() {
        let row = row(json);
        for at in 0..body.len() {
            let _ = decode::protobuf_body(&kinds, Expected::from(&*row), &body[..at]);
            for bit in 0..8 {
                let mut changed = body.clone();
                changed[at] ^= 1 << bit;
                let _ = decode::protobuf_body(&kinds, Expected::from(&*row), &changed);
            }
        }
    }
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look like messages more often than chance would have it.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            (1_u64..45, any::<u64>()).prop_map(|(n, v)| number(n, v)),
            (1_u64..45, "[a-z0-9]{0,6}").prop_map(|(n, s)| bytes(n, s)),
        ];
        leaf.prop_recursive(6, 64, 4, |inner| {
            prop::collection::vec((1_u64..45, inner), 0..4)
                .prop_map(|fields| fields.into_iter().flat_map(|(n, content)| bytes(n, content)).collect())
        })
    }

    proptest! {
        #[test]
        fn nothing_panics(raw in messages(), kind in prop::sample::select(vec![
            ("", "v1", "Pod"), ("", "v1", "Node"), ("", "v1", "Service"), ("", "v1", "PersistentVolume"),
            ("", "v1", "Event"), ("apps", "v1", "Deployment"), ("apps", "v1", "ControllerRevision"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler"), ("events.k8s.io", "v1", "Event"),
        ])) {
            let (group, version, name) = kind;
            let _ = sent(group, version, name, &body("", "", &raw));
            let _ = sent(group, version, name, &[PREFIX, &raw].concat());
            let _ = sent(group, version, name, &raw);
        }
    }
}
