//! The OpenAPI documents against what clients look for in them.

use std::collections::BTreeSet;

use super::*;
use crate::kinds::Registry;

fn document(group: &str, version: &str) -> Value {
    let kinds = Registry::builtin().snapshot();
    serde_json::from_slice(&v3_document(&kinds, group, version).expect("a document")).expect("JSON")
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.insert(reference.clone());
            }
            object.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn assert_no_dangling(document: &Value, root: &str, schemas: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(found.len() > 5);
    for reference in found {
        let name = reference.strip_prefix(root).unwrap_or_else(|| panic!("{reference} elsewhere"));
        assert!(schemas[name].is_object(), "{reference} dangles");
    }
}

#[test]
fn no_reference_dangles() {
    let kinds = Registry::builtin().snapshot();
    for gv in kinds.group_versions() {
        let document = document(gv.group, gv.version);
        assert_no_dangling(&document, "#/components/schemas/", &document["components"]["schemas"]);
    }
    let v2: Value = serde_json::from_slice(&v2_document(&kinds)).expect("JSON");
    assert_no_dangling(&v2, "#/definitions/", &v2["definitions"]);
    assert_eq!(v2["swagger"], "2.0");
}

#[test]
fn the_index_names_every_group_version_with_its_hash() {
    let kinds = Registry::builtin().snapshot();
    let index = v3_index(&kinds);
    for gv in kinds.group_versions() {
        let path = path_of(gv.group, gv.version);
        let hash = content_hash(&v3_document(&kinds, gv.group, gv.version).expect("a document"));
        assert_eq!(hash.len(), 128);
        assert_eq!(index["paths"][&path]["serverRelativeURL"], format!("/openapi/v3/{path}?hash={hash}"));
    }
    assert!(v3_document(&kinds, "apps", "v2").is_none());
}

#[test]
fn every_kind_has_its_paths_and_its_schema() {
    for gv in Registry::builtin().snapshot().group_versions() {
        let document = document(gv.group, gv.version);
        let root = format!("/{}", path_of(gv.group, gv.version));
        for kind in &gv.kinds {
            let want = json!({"group": gv.group, "version": gv.version, "kind": kind.kind});
            let schema = &document["components"]["schemas"][&kind.schema.name];
            assert_eq!(schema["x-kubernetes-group-version-kind"][0], want);
            if !kind.has_verb("get") {
                continue;
            }
            let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
            let path = format!("{root}{scope}/{}/{{name}}", kind.resource);
            let item = &document["paths"][&path];
            for (method, action) in [("get", "get"), ("patch", "patch"), ("put", "put"), ("delete", "delete")]
            {
                assert_eq!(item[method]["x-kubernetes-group-version-kind"], want, "{path}");
                assert_eq!(item[method]["x-kubernetes-action"], action, "{path}");
            }
            let parameters = item["patch"]["parameters"].as_array().expect("parameters");
            assert!(
                parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"),
                "{path}"
            );
            assert!(
                item["patch"]["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object()
            );
        }
    }
}

#[test]
fn operation_ids_are_unique() {
    let kinds = Registry::builtin().snapshot();
    let v2: Value = serde_json::from_slice(&v2_document(&kinds)).expect("JSON");
    let mut seen = BTreeSet::new();
    for (path, item) in v2["paths"].as_object().expect("paths") {
        for operation in item.as_object().expect("an item").values().filter(|o| o.is_object()) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(seen.insert(id.to_owned()), "{id} at {path}");
        }
    }
    assert!(seen.contains("listCoreV1NamespacedPod") && seen.contains("listCoreV1PodForAllNamespaces"));
    assert!(seen.contains("patchAppsV1NamespacedDeploymentScale") && seen.contains("readCoreV1Node"));
}

#[test]
fn merge_facts_are_stated() {
    let core = document("", "v1");
    let schemas = &core["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &spec["containers"];
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let reference = json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]);
    assert_eq!(containers["items"]["allOf"], reference);
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(spec["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(schemas["io.k8s.api.core.v1.ObjectReference"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(schemas["io.k8s.api.core.v1.ServicePort"]["properties"]["protocol"]["default"], "TCP");
    let claim = &schemas["io.k8s.api.core.v1.PersistentVolumeSpec"]["properties"]["claimRef"];
    assert_eq!(claim["x-kubernetes-map-type"], "granular");
    let strategy = &document("apps", "v1")["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]
        ["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
}

#[test]
fn descriptions_are_there() {
    let core = document("", "v1");
    for (name, schema) in core["components"]["schemas"].as_object().expect("schemas") {
        let scalar = schema.get("properties").is_none();
        assert!(scalar || schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{name}");
    }
    let policy = document("autoscaling.loadline.io", "v1alpha1");
    let spec = &policy["components"]["schemas"]["io.loadline.autoscaling.v1alpha1.ScalingPolicySpec"];
    assert_eq!(spec["required"], json!(["maxReplicas", "scaleTargetRef"]));
    for (name, field) in spec["properties"].as_object().expect("fields") {
        assert!(field["description"].is_string(), "{name}");
    }
}

/// The text fields of a message with this number, and its messages: enough to walk down to a definition.
fn fields(mut bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        while let Some((first, rest)) = bytes.split_first() {
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        match key & 7 {
            0 => {}
            2 => {
                let (field, rest) = bytes.split_at(usize::try_from(value).expect("a length"));
                bytes = rest;
                if key >> 3 == wanted {
                    found.push(field);
                }
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

#[test]
fn protobuf_holds_the_definitions() {
    let kinds = Registry::builtin().snapshot();
    let bytes = v2_protobuf(&kinds);
    let json: Value = serde_json::from_slice(&v2_document(&kinds)).expect("JSON");
    assert_eq!(fields(&bytes, 1), [b"2.0"]);
    let strategy = &json["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy", "{strategy}");
    let definitions = fields(fields(&bytes, 9)[0], 1);
    let want = json["definitions"].as_object().expect("definitions");
    assert_eq!(definitions.len(), want.len());
    for named in definitions {
        let name = str::from_utf8(fields(named, 1)[0]).expect("text");
        let schema = fields(named, 2)[0];
        let properties = fields(schema, 25).first().map_or(0, |properties| fields(properties, 1).len());
        assert_eq!(
            properties,
            want[name]["properties"].as_object().map_or(0, serde_json::Map::len),
            "{name}"
        );
        let kind = "x-kubernetes-group-version-kind";
        let extension = fields(schema, 31).into_iter().find(|named| fields(named, 1)[0] == kind.as_bytes());
        let extension = extension.map(|named| fields(fields(named, 2)[0], 2)[0]);
        let text = extension.map(|yaml| serde_json::from_slice::<Value>(yaml).expect("JSON is YAML"));
        assert_eq!(text.as_ref(), want[name].get(kind), "{name}");
    }
}
