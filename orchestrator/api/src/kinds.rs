//! The kinds table: one row declares all that the server needs to know of a kind. The table is dynamic, because
//! custom resources add rows at run time.

pub mod convert;
mod registry;
mod table;

use std::sync::Arc;

use serde_json::Value;

use crate::field::FieldError;
use crate::schema::Struct;

pub use registry::{GroupVersion, Registry, Snapshot, split_api_version};

/// One resource of one group and version.
pub struct Kind {
    /// Empty for core.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The plural, as in URLs.
    pub resource: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    pub schema: Arc<Struct>,
    pub columns: &'static [Column],
    pub strategy: &'static dyn Strategy,
    /// Versions of one resource that share stored objects name the same storage version here, e.g.
    /// `autoscaling/v2` for `autoscaling/v1`; `None` where this row is the storage version. (group, version)
    pub stored_as: Option<(&'static str, &'static str)>,
}

impl Kind {
    /// `apps/v1`; core's is `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether this is the row of that URL.
    pub fn is(&self, group: &str, version: &str, resource: &str) -> bool {
        self.group == group && self.version == version && self.resource == resource
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources.iter().copied().find(|s| s.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// Writes touch only `.status` (and what the kind allows beside it).
    Status,
    /// `autoscaling/v1` Scale over `.spec.replicas`, `.status.replicas` and the selector.
    Scale,
    /// Named ones that the server handles by code: `binding`, `eviction`, `log`, `exec`, `finalize` ….
    Other(&'static str),
}

impl Subresource {
    /// The last part of the URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Other(name) => name,
        }
    }
}

/// One column of the server-side table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub ty: &'static str,
    pub format: &'static str,
    pub priority: u8,
    pub description: &'static str,
}

/// What a kind does at each step of the request pipeline. All functions are pure.
pub trait Strategy: Send + Sync {
    /// Fills in defaults on a decoded object.
    fn default(&self, obj: &mut Value);

    /// Clears what clients may not set on create (status …) and derives what the server owns.
    fn prepare_create(&self, _obj: &mut Value) {}

    /// The same on update: keeps `status` of the old object, refuses nothing. The generic pipeline itself bumps
    /// `metadata.generation` when [`Strategy::spec_changed`].
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// Prepares an update of the status subresource: everything but `status` is taken from `old`.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let status = new.get_mut("status").map(Value::take);
        let meta = new.get_mut("metadata").map(Value::take);
        let mut next = old.clone();
        if let (Some(o), Some(s)) = (next.as_object_mut(), status) {
            o.insert("status".to_owned(), s);
        } else if let Some(o) = next.as_object_mut() {
            o.remove("status");
        }
        if let (Some(o), Some(m)) = (next.as_object_mut(), meta) {
            o.insert("metadata".to_owned(), m);
        }
        *new = next;
    }

    /// Kinds without a generation (ConfigMap, Secret, Event …) say `false`.
    fn has_generation(&self) -> bool {
        true
    }

    /// Whether `generation` grows. Metadata never counts.
    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// Everything about the object but its metadata, which the pipeline checks for all kinds alike.
    fn validate_create(&self, obj: &Value) -> Vec<FieldError>;

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError>;

    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Headers `Warning: 299` for a written object (deprecated fields and the like).
    fn warnings(&self, _obj: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The warning that every request for a deprecated kind is answered with, reads too.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// Whether a PUT may create the object, and whether one without resourceVersion is accepted.
    fn allow_create_on_update(&self) -> bool {
        false
    }
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// The name check for `metadata.name`; the default is a DNS-1123 subdomain.
    fn validate_name(&self, name: &str) -> Vec<String>;

    /// Field selectors beyond `metadata.name` and `metadata.namespace`: label → value as text.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }
    fn selectable(&self, _obj: &Value, _field: &str) -> String {
        String::new()
    }

    /// The cells of one table row, in the order of `Kind::columns`. `now` in Unix seconds, for ages.
    fn row(&self, obj: &Value, now: i64) -> Vec<Value>;

    /// Conversion between the served and the stored version (`stored_as`).
    fn to_stored(&self, obj: Value) -> Value {
        obj
    }
    #[expect(clippy::wrong_self_convention, reason = "the strategy converts an object, not itself")]
    fn from_stored(&self, obj: Value) -> Value {
        obj
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_with_metadata() {
        for kind in Registry::builtin().snapshot().kinds() {
            assert!(kind.schema.field("metadata").is_some(), "{} {}", kind.group, kind.kind);
            assert!(
                kind.schema.name.ends_with(&format!(".{}.{}", kind.version, kind.kind)),
                "{}",
                kind.schema.name
            );
        }
    }

    #[test]
    fn rows_have_as_many_cells_as_columns() {
        let empty =
            serde_json::json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        for kind in Registry::builtin().snapshot().kinds() {
            let row = kind.strategy.row(&empty, 1_770_000_000);
            assert_eq!(row.len(), kind.columns.len(), "{} {}", kind.group, kind.kind);
        }
    }

    #[test]
    fn rows_are_found_by_url_and_by_kind() {
        let kinds = Registry::builtin().snapshot();
        for (group, version, resource, kind) in [
            ("", "v1", "pods", "Pod"),
            ("", "v1", "events", "Event"),
            ("events.k8s.io", "v1", "events", "Event"),
            ("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
            ("autoscaling.loadline.io", "v1alpha1", "scalingpolicies", "ScalingPolicy"),
        ] {
            let by_url = kinds.resource(group, version, resource).expect(resource);
            let by_kind = kinds.kind(group, version, kind).expect(kind);
            assert!(Arc::ptr_eq(by_url, by_kind), "{resource}");
            assert!(Arc::ptr_eq(kinds.api_kind(&by_url.api_version(), kind).expect(kind), by_kind));
        }
        assert!(kinds.resource("apps", "v1", "pods").is_none());
        assert!(kinds.kind("", "v2", "Pod").is_none());
    }

    #[test]
    fn shared_objects_have_one_storage_version() {
        let kinds = Registry::builtin().snapshot();
        for (group, version, kind, stored) in [
            ("events.k8s.io", "v1", "Event", "v1"),
            ("autoscaling", "v1", "HorizontalPodAutoscaler", "autoscaling/v2"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler", "autoscaling/v2"),
            ("", "v1", "Pod", "v1"),
        ] {
            let row = kinds.kind(group, version, kind).expect(kind);
            assert_eq!(kinds.storage(row).api_version(), stored, "{group}/{version} {kind}");
        }
    }

    #[test]
    fn the_preferred_version_comes_first() {
        let groups = Registry::builtin().snapshot().groups();
        assert_eq!(groups.first(), Some(&("", vec!["v1"])));
        assert!(groups.contains(&("autoscaling", vec!["v2", "v1"])));
    }

    #[test]
    fn rows_come_and_go_without_disturbing_snapshots() {
        let registry = Registry::builtin();
        let before = registry.snapshot();
        assert!(registry.remove("", "v1", "pods"));
        assert!(!registry.remove("", "v1", "pods"));
        assert!(registry.snapshot().resource("", "v1", "pods").is_none());
        assert!(before.resource("", "v1", "pods").is_some());
        let lease = Registry::builtin().snapshot().kinds().len();
        assert_eq!(registry.snapshot().kinds().len() + 1, lease);
    }
}
