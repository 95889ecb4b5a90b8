//! One resource or subresource as both forms of discovery show it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Extra;
use crate::kinds::{Kind, Snapshot, Subresource};

/// What a subresource speaks, if it is another kind than its parent: group, version, kind.
type Spoken = (&'static str, &'static str, &'static str);

pub(super) struct Resource<'a> {
    /// The plural, and the subresource.
    pub(super) parent: &'a str,
    pub(super) subresource: Option<&'a str>,
    pub(super) singular: &'a str,
    pub(super) namespaced: bool,
    /// Group, version and kind of its bodies.
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
    /// Its bodies are of another group version than the URL.
    pub(super) foreign: bool,
    pub(super) verbs: Vec<&'a str>,
    pub(super) short_names: &'a [&'a str],
    pub(super) categories: &'a [&'a str],
    pub(super) storage_version_hash: Option<String>,
}

/// All resources of a group version, by name, each followed by its subresources.
pub(super) fn all<'a>(
    kinds: &'a Snapshot,
    extras: &'a [Extra<'a>],
    group: &str,
    version: &str,
) -> Vec<Resource<'a>> {
    let mut all: Vec<Resource<'a>> = Vec::new();
    for kind in kinds.kinds().iter().filter(|k| k.group == group && k.version == version) {
        all.push(of_kind(kinds, kind));
        all.extend(kind.subresources.iter().map(|sub| of_subresource(kind, *sub)));
    }
    all.extend(extras.iter().filter(|e| e.group == group && e.version == version).map(of_extra));
    all.sort_by(|a, b| (a.parent, a.subresource).cmp(&(b.parent, b.subresource)));
    all
}

fn of_kind<'a>(kinds: &'a Snapshot, kind: &'a std::sync::Arc<Kind>) -> Resource<'a> {
    let stored = kind.has_verb("get").then(|| {
        let storage = kinds.storage(kind);
        hash(storage.group, storage.version, storage.kind)
    });
    Resource {
        parent: kind.resource,
        subresource: None,
        singular: kind.singular,
        namespaced: kind.namespaced,
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
        foreign: false,
        verbs: kind.verbs.to_vec(),
        short_names: kind.short_names,
        categories: kind.categories,
        storage_version_hash: stored,
    }
}

fn of_subresource(kind: &Kind, subresource: Subresource) -> Resource<'_> {
    const WRITE: &[&str] = &["get", "patch", "update"];
    let (spoken, verbs): (Option<Spoken>, &[&str]) = match subresource {
        Subresource::Status => (None, WRITE),
        Subresource::Scale => (Some(("autoscaling", "v1", "Scale")), WRITE),
        Subresource::Other(name) => match name {
            "binding" => (Some(("", "v1", "Binding")), &["create"]),
            "eviction" => (Some(("policy", "v1", "Eviction")), &["create"]),
            "attach" => (Some(("", "v1", "PodAttachOptions")), &["create", "get"]),
            "exec" => (Some(("", "v1", "PodExecOptions")), &["create", "get"]),
            "portforward" => (Some(("", "v1", "PodPortForwardOptions")), &["create", "get"]),
            "token" => (Some(("authentication.k8s.io", "v1", "TokenRequest")), &["create"]),
            "log" => (None, &["get"]),
            "finalize" => (None, &["update"]),
            _ => (None, WRITE),
        },
    };
    let (group, version, name) = spoken.unwrap_or((kind.group, kind.version, kind.kind));
    Resource {
        parent: kind.resource,
        subresource: Some(subresource.name()),
        singular: "",
        namespaced: kind.namespaced,
        group,
        version,
        kind: name,
        foreign: (group, version) != (kind.group, kind.version),
        verbs: verbs.to_vec(),
        short_names: &[],
        categories: &[],
        storage_version_hash: None,
    }
}

fn of_extra<'a>(extra: &'a Extra<'a>) -> Resource<'a> {
    Resource {
        parent: extra.resource,
        subresource: extra.subresource,
        singular: extra.singular,
        namespaced: extra.namespaced,
        group: extra.group,
        version: extra.version,
        kind: extra.kind,
        foreign: false,
        verbs: extra.verbs.to_vec(),
        short_names: &[],
        categories: &[],
        storage_version_hash: None,
    }
}

/// A short name of the storage version, by which clients notice that it changed.
fn hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(digest.get(..8).unwrap_or_default())
}

impl Resource<'_> {
    /// An `APIResource`.
    pub(super) fn plain(&self) -> Value {
        let name = match self.subresource {
            Some(sub) => format!("{}/{sub}", self.parent),
            None => self.parent.to_owned(),
        };
        let mut value = Map::new();
        let mut put = |name: &str, v: Value| value.insert(name.to_owned(), v);
        put("name", Value::from(name));
        put("singularName", Value::from(self.singular));
        put("namespaced", Value::from(self.namespaced));
        put("kind", Value::from(self.kind));
        put("verbs", Value::from(self.verbs.clone()));
        if self.foreign {
            if !self.group.is_empty() {
                put("group", Value::from(self.group));
            }
            put("version", Value::from(self.version));
        }
        if !self.short_names.is_empty() {
            put("shortNames", Value::from(self.short_names));
        }
        if !self.categories.is_empty() {
            put("categories", Value::from(self.categories));
        }
        if let Some(hash) = &self.storage_version_hash {
            put("storageVersionHash", Value::from(hash.as_str()));
        }
        Value::Object(value)
    }

    /// An `APIResourceDiscovery`, without its subresources, or an `APISubresourceDiscovery`.
    pub(super) fn aggregated(&self) -> Map<String, Value> {
        let mut value = Map::new();
        let mut put = |name: &str, v: Value| value.insert(name.to_owned(), v);
        put("responseKind", json!({"group": self.group, "version": self.version, "kind": self.kind}));
        put("verbs", Value::from(self.verbs.clone()));
        if let Some(subresource) = self.subresource {
            put("subresource", Value::from(subresource));
            return value;
        }
        put("resource", Value::from(self.parent));
        put("scope", Value::from(if self.namespaced { "Namespaced" } else { "Cluster" }));
        put("singularResource", Value::from(self.singular));
        if !self.short_names.is_empty() {
            put("shortNames", Value::from(self.short_names));
        }
        if !self.categories.is_empty() {
            put("categories", Value::from(self.categories));
        }
        value
    }
}
