//! The structure of every type: what decoding, field validation, strategic merge, server-side apply and the
//! OpenAPI documents all read.
//!
//! Owns the descriptions of Kubernetes' types that Loadline serves. They are built once, on first use, from the JSON
//! schemas of the typed crates and from three tables of facts (`data/`), and then shared. Never looks at an object.

mod build;
mod facts;
mod roots;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

pub(crate) use facts::short_name;

/// A type that a field can have.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// base64 in JSON
    Bytes,
    /// `metav1.Time`, whole seconds
    Time,
    /// `metav1.MicroTime`
    MicroTime,
    /// `metav1.Duration`, as Go prints it
    Duration,
    Quantity,
    IntOrString,
    /// Anything goes: `RawExtension`, `FieldsV1`, preserved unknown fields.
    Any,
    Struct(Arc<Struct>),
    List(Box<List>),
    Map(Box<Map>),
}

#[derive(Clone, Debug)]
pub struct List {
    pub item: Type,
    pub merge: ListMerge,
    /// Strategic merge: the key by which items merge; `None` replaces the whole list. For a list of scalars with
    /// strategy `merge`, `Some("")`.
    pub patch_merge_key: Option<String>,
    /// Strategic merge strategy `retainKeys` beside `merge`.
    pub retain_keys: bool,
}

/// How server-side apply merges a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListMerge {
    Atomic,
    Set,
    /// Items are identified by these fields.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Map {
    pub value: Type,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
}

/// An object type with named fields.
#[derive(Debug)]
pub struct Struct {
    /// As in Kubernetes' OpenAPI: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    pub description: String,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The whole struct is one unit to server-side apply (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub description: String,
    pub ty: Type,
    pub required: bool,
    /// Strategic merge `retainKeys` on a struct (e.g. a Deployment's strategy).
    pub retain_keys: bool,
    /// The Go field is a plain value with `omitempty`: its zero value is dropped when decoded.
    pub omit_zero: bool,
    /// Go writes the field even if it was not given: with its zero value, or with `null` (see [`Field::zero`]).
    pub always: bool,
    /// Where `always`: the zero value is `null` although the type is a struct or a scalar (a Go pointer without
    /// `omitempty`).
    pub null_zero: bool,
    /// The default that the OpenAPI document states; server-side apply completes list keys with it.
    pub default: Option<Value>,
    /// The named Go type in decoding errors, where it is not the plain one: `v1.RestartPolicy`.
    pub go_type: Option<&'static str>,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).and_then(|i| self.fields.get(i))
    }

    /// The index of a field in [`Struct::fields`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(name)).ok()
    }

    /// The Go type's name in error messages, e.g. `v1.PodSpec`.
    pub fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let kind = parts.next().unwrap_or_default();
        let version = parts.next().unwrap_or_default();
        format!("{version}.{kind}")
    }

    /// The bare type name, e.g. `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// What Go writes for a struct of which nothing was given: its `always` fields.
    pub fn zero(&self) -> Value {
        Value::Object(self.fields.iter().filter(|f| f.always).map(|f| (f.name.clone(), f.zero())).collect())
    }
}

impl Field {
    /// What Go writes for an `always` field that was not given.
    pub fn zero(&self) -> Value {
        if self.null_zero { Value::Null } else { self.ty.zero() }
    }
}

impl Type {
    /// Go's zero value of the type as its encoder writes it.
    pub fn zero(&self) -> Value {
        match self {
            Type::String => Value::from(""),
            Type::Duration => Value::from("0s"),
            Type::Quantity => Value::from("0"),
            Type::Bool => Value::from(false),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
            Type::Struct(s) => s.zero(),
            Type::Bytes | Type::Time | Type::MicroTime | Type::Any | Type::List(_) | Type::Map(_) => {
                Value::Null
            }
        }
    }
}

/// All types that the roots reach, by OpenAPI name, and the names of the roots themselves.
struct Schemas {
    definitions: BTreeMap<String, Arc<Struct>>,
    roots: Vec<(roots::Gvk, Arc<Struct>)>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(build::schemas);

/// The type of a kind, e.g. `("apps", "v1", "Deployment")`; core's group is empty. Besides the kinds of the table this
/// knows the bodies of subresources, and of `meta.k8s.io` DeleteOptions and Status.
pub fn of(group: &str, version: &str, kind: &str) -> Option<Arc<Struct>> {
    let found =
        SCHEMAS.roots.iter().find(|(g, _)| g.kind == kind && g.group == group && g.version == version);
    found.map(|(_, s)| s.clone())
}

/// The type with an OpenAPI name, e.g. `io.k8s.api.core.v1.PodTemplateSpec`.
pub fn definition(name: &str) -> Option<Arc<Struct>> {
    SCHEMAS.definitions.get(name).cloned()
}

/// Names of all known types, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCHEMAS.definitions.keys().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_kind(group: &str, version: &str, kind: &str) -> Arc<Struct> {
        of(group, version, kind).unwrap_or_else(|| panic!("no schema of {group}/{version} {kind}"))
    }

    /// Follows a dotted path; `[]` and `{}` step into list items and map values.
    fn at(root: &Arc<Struct>, path: &str) -> Field {
        let mut current = root.clone();
        let mut found = None;
        for part in path.split('.') {
            let field =
                current.field(part).unwrap_or_else(|| panic!("{part} of {path} in {}", current.name)).clone();
            let mut ty = &field.ty;
            while let Type::List(l) = ty {
                ty = &l.item;
            }
            if let Type::Struct(s) = ty {
                current = s.clone();
            }
            found = Some(field);
        }
        found.unwrap_or_else(|| panic!("empty path"))
    }

    #[test]
    fn every_root_has_metadata_or_is_an_option() {
        for (gvk, s) in &SCHEMAS.roots {
            let options = gvk.kind.ends_with("Options");
            assert!(options || s.field("metadata").is_some(), "{} {}", gvk.group, gvk.kind);
            assert!(s.field("kind").is_some() && s.field("apiVersion").is_some(), "{}", gvk.kind);
        }
    }

    #[test]
    fn fields_are_sorted_and_unique() {
        for s in SCHEMAS.definitions.values() {
            assert!(s.fields.is_sorted_by(|a, b| a.name < b.name), "{}", s.name);
        }
    }

    #[test]
    fn types_of_fields() {
        let pod = of_kind("", "v1", "Pod");
        for (path, want) in [
            ("metadata.creationTimestamp", "Time"),
            ("metadata.managedFields.fieldsV1", "Any"),
            ("metadata.generation", "Int64"),
            ("spec.hostNetwork", "Bool"),
            ("spec.terminationGracePeriodSeconds", "Int64"),
            ("spec.containers.livenessProbe.httpGet.port", "IntOrString"),
            ("spec.containers.resources.claims.name", "String"),
            ("spec.volumes.emptyDir.sizeLimit", "Quantity"),
        ] {
            assert_eq!(format!("{:?}", at(&pod, path).ty), want, "{path}");
        }
        let lease = of_kind("coordination.k8s.io", "v1", "Lease");
        assert!(matches!(at(&lease, "spec.renewTime").ty, Type::MicroTime));
        let secret = of_kind("", "v1", "Secret");
        let Type::Map(data) = at(&secret, "data").ty else { panic!("data is a map") };
        assert!(matches!(data.value, Type::Bytes));
        let revision = of_kind("apps", "v1", "ControllerRevision");
        assert!(matches!(at(&revision, "data").ty, Type::Any));
    }

    #[test]
    fn lists_merge_as_the_table_says() {
        let pod = of_kind("", "v1", "Pod");
        for (path, keys, patch_key, retain) in [
            ("spec.containers", Some("name"), Some("name"), false),
            ("spec.containers.ports", Some("containerPort,protocol"), Some("containerPort"), false),
            ("spec.volumes", Some("name"), Some("name"), true),
            ("spec.tolerations", None, None, false),
            ("spec.containers.command", None, None, false),
            ("metadata.ownerReferences", Some("uid"), Some("uid"), false),
            (
                "spec.topologySpreadConstraints",
                Some("topologyKey,whenUnsatisfiable"),
                Some("topologyKey"),
                false,
            ),
        ] {
            let Type::List(list) = at(&pod, path).ty else { panic!("{path} is a list") };
            let got = match &list.merge {
                ListMerge::Map(keys) => Some(keys.join(",")),
                _ => None,
            };
            assert_eq!(got.as_deref(), keys, "{path}");
            assert_eq!(list.patch_merge_key.as_deref(), patch_key, "{path}");
            assert_eq!(list.retain_keys, retain, "{path}");
        }
        let Type::List(finalizers) = at(&pod, "metadata.finalizers").ty else { panic!("finalizers") };
        assert_eq!((finalizers.merge, finalizers.patch_merge_key.as_deref()), (ListMerge::Set, Some("")));
    }

    #[test]
    fn atomic_structs_and_their_exceptions() {
        let pod = of_kind("", "v1", "Pod");
        let Type::Map(selector) = at(&pod, "spec.nodeSelector").ty else { panic!("nodeSelector") };
        assert!(selector.atomic);
        let Type::Struct(owner) = at(&of_kind("", "v1", "Event"), "involvedObject").ty else {
            panic!("involvedObject")
        };
        assert!(owner.atomic);
        let Type::Struct(claim) = at(&of_kind("", "v1", "PersistentVolume"), "spec.claimRef").ty else {
            panic!("claim")
        };
        assert!(!claim.atomic);
        assert!(at(&of_kind("apps", "v1", "Deployment"), "spec.strategy").retain_keys);
    }

    #[test]
    fn zero_values() {
        let deployment = of_kind("apps", "v1", "Deployment");
        for (path, omit, always) in [
            ("spec.replicas", false, false),
            ("spec.paused", true, false),
            ("spec.minReadySeconds", true, false),
            ("spec.strategy", false, true),
            ("spec.template.spec.containers.name", false, true),
            ("spec.template.spec.containers.image", true, false),
            ("spec.template.spec.containers.resources", false, true),
            ("spec.template.spec.automountServiceAccountToken", false, false),
            ("spec.template.spec.hostNetwork", true, false),
            ("spec.template.spec.nodeSelector", true, false),
            ("status", false, true),
        ] {
            let field = at(&deployment, path);
            assert_eq!((field.omit_zero, field.always), (omit, always), "{path}");
        }
        let hpa = of_kind("autoscaling", "v2", "HorizontalPodAutoscaler");
        assert_eq!(
            at(&hpa, "status").zero(),
            serde_json::json!({"currentMetrics": null, "desiredReplicas": 0})
        );
    }

    #[test]
    fn every_fact_names_a_known_field() {
        let unknown = facts::unknown_fields(|definition, field| match definition_by_short_name(definition) {
            // A definition that no kind here reaches.
            None => true,
            Some(s) => s.field(field).is_some(),
        });
        assert_eq!(unknown, Vec::<String>::new());
    }

    fn definition_by_short_name(short: &str) -> Option<Arc<Struct>> {
        SCHEMAS.definitions.values().find(|s| facts::short_name(&s.name) == short).cloned()
    }
}
