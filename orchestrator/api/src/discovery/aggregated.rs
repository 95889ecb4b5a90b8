//! `APIGroupDiscoveryList`: all groups, versions and resources in one document.

use serde_json::{Map, Value, json};

use super::resource::{self, Resource};
use super::{AggregatedVersion, Extra, groups};
use crate::kinds::Snapshot;

pub(super) fn list(
    kinds: &Snapshot,
    extras: &[Extra<'_>],
    version: AggregatedVersion,
    wanted: impl Fn(&str) -> bool,
) -> Value {
    let items: Vec<Value> = groups(kinds, extras)
        .iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources = nested(&resource::all(kinds, extras, group, version));
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            // Core's item has no name.
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", version.as_str()),
        "metadata": {},
        "items": items,
    })
}

/// Resources with their subresources inside. A subresource whose parent is not there stands under a bare one.
fn nested(resources: &[Resource<'_>]) -> Vec<Value> {
    let mut all: Vec<(&str, Map<String, Value>, Vec<Value>)> = Vec::new();
    for resource in resources {
        if !all.iter().any(|(parent, _, _)| *parent == resource.parent) {
            all.push((resource.parent, bare(resource), Vec::new()));
        }
        let Some((_, entry, subresources)) = all.iter_mut().find(|(parent, _, _)| *parent == resource.parent)
        else {
            continue;
        };
        match resource.subresource {
            Some(_) => subresources.push(Value::Object(resource.aggregated())),
            None => *entry = resource.aggregated(),
        }
    }
    let with_subresources = |(_, mut entry, subresources): (&str, Map<String, Value>, Vec<Value>)| {
        if !subresources.is_empty() {
            entry.insert("subresources".to_owned(), Value::from(subresources));
        }
        Value::Object(entry)
    };
    all.into_iter().map(with_subresources).collect()
}

/// What is known of a parent from its subresource.
fn bare(resource: &Resource<'_>) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("resource".to_owned(), Value::from(resource.parent));
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    entry.insert("scope".to_owned(), Value::from(scope));
    entry.insert("singularResource".to_owned(), Value::from(""));
    entry.insert("verbs".to_owned(), json!([]));
    entry
}
