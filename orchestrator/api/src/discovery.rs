//! Discovery documents, plain and aggregated, as pure functions of the kinds table and of the resources that other
//! components serve behind the server.

mod aggregated;
mod resource;

use serde_json::{Value, json};

use crate::kinds::Snapshot;
use resource::Resource;

/// A resource, or a subresource of one, that a component behind the server answers.
#[derive(Clone, Copy, Debug)]
pub struct Extra<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// The plural of the (parent) resource.
    pub resource: &'a str,
    pub subresource: Option<&'a str>,
    /// Empty for a subresource, and where there is none.
    pub singular: &'a str,
    pub namespaced: bool,
    pub verbs: &'a [&'a str],
}

/// Which `APIGroupDiscoveryList` a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

impl AggregatedVersion {
    /// The version in the media type's `v=`.
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v2" => Some(Self::V2),
            "v2beta1" => Some(Self::V2Beta1),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }
}

/// `GET /api`. `address` is where the server is reached, `host:port`.
pub fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `GET /apis`
pub fn api_group_list(kinds: &Snapshot, extras: &[Extra<'_>]) -> Value {
    let groups: Vec<Value> = groups(kinds, extras)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(&group, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`; `None` for an unknown group, and for core, which is not one of these.
pub fn api_group(kinds: &Snapshot, extras: &[Extra<'_>], group: &str) -> Option<Value> {
    let (_, versions) = groups(kinds, extras).into_iter().find(|(g, _)| !g.is_empty() && g == group)?;
    let mut value = group_value(group, &versions);
    if let Some(object) = value.as_object_mut() {
        object.insert("kind".to_owned(), Value::from("APIGroup"));
        object.insert("apiVersion".to_owned(), Value::from("v1"));
    }
    Some(value)
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`; core's group is empty. `None` if nothing is served there.
pub fn api_resource_list(
    kinds: &Snapshot,
    extras: &[Extra<'_>],
    group: &str,
    version: &str,
) -> Option<Value> {
    let resources = resource::all(kinds, extras, group, version);
    if resources.is_empty() {
        return None;
    }
    let resources: Vec<Value> = resources.iter().map(Resource::plain).collect();
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": group_version(group, version),
        "resources": resources,
    });
    // Core's list is older than the field.
    if let (false, Some(object)) = (group.is_empty(), list.as_object_mut()) {
        object.insert("apiVersion".to_owned(), Value::from("v1"));
    }
    Some(list)
}

/// The aggregated document of `GET /api`.
pub fn aggregated_core(kinds: &Snapshot, extras: &[Extra<'_>], version: AggregatedVersion) -> Value {
    aggregated::list(kinds, extras, version, |group| group.is_empty())
}

/// The aggregated document of `GET /apis`.
pub fn aggregated_groups(kinds: &Snapshot, extras: &[Extra<'_>], version: AggregatedVersion) -> Value {
    aggregated::list(kinds, extras, version, |group| !group.is_empty())
}

/// Every group with its versions, the preferred one first: the table's, then those that only extras have.
fn groups(kinds: &Snapshot, extras: &[Extra<'_>]) -> Vec<(String, Vec<String>)> {
    let own = |(group, versions): (&str, Vec<&str>)| {
        (group.to_owned(), versions.into_iter().map(str::to_owned).collect())
    };
    let mut groups: Vec<(String, Vec<String>)> = kinds.groups().into_iter().map(own).collect();
    for extra in extras {
        match groups.iter_mut().find(|(group, _)| group == extra.group) {
            Some((_, versions)) if versions.iter().any(|v| v == extra.version) => {}
            Some((_, versions)) => versions.push(extra.version.to_owned()),
            None => groups.push((extra.group.to_owned(), vec![extra.version.to_owned()])),
        }
    }
    groups
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": group_version(group, v), "version": v})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;

    const EXTRAS: &[Extra<'static>] = &[
        Extra {
            group: "metrics.k8s.io",
            version: "v1beta1",
            kind: "PodMetrics",
            resource: "pods",
            subresource: None,
            singular: "pod",
            namespaced: true,
            verbs: &["get", "list"],
        },
        Extra {
            group: "autoscaling",
            version: "v2",
            kind: "DecisionList",
            resource: "horizontalpodautoscalers",
            subresource: Some("decisions"),
            singular: "",
            namespaced: true,
            verbs: &["get"],
        },
    ];

    fn find<'a>(list: &'a Value, name: &str) -> &'a Value {
        let resources = list["resources"].as_array().expect("resources");
        resources.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("{name} in {list}"))
    }

    #[test]
    fn groups_and_their_versions() {
        let kinds = Registry::builtin().snapshot();
        let want = json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": "autoscaling",
            "preferredVersion": {"groupVersion": "autoscaling/v2", "version": "v2"},
            "versions": [{"groupVersion": "autoscaling/v2", "version": "v2"}, {"groupVersion": "autoscaling/v1", "version": "v1"}],
        });
        assert_eq!(api_group(&kinds, EXTRAS, "autoscaling"), Some(want));
        assert!(api_group(&kinds, EXTRAS, "metrics.k8s.io").is_some());
        assert_eq!(api_group(&kinds, &[], "metrics.k8s.io"), None);
        assert_eq!(api_group(&kinds, &[], ""), None);
        let list = api_group_list(&kinds, EXTRAS);
        let names: Vec<&str> =
            list["groups"].as_array().expect("groups").iter().filter_map(|g| g["name"].as_str()).collect();
        assert!(names.contains(&"apps") && names.contains(&"metrics.k8s.io") && !names.contains(&""));
    }

    #[test]
    fn resources_of_a_group_version() {
        let kinds = Registry::builtin().snapshot();
        let verbs =
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let apps = api_resource_list(&kinds, EXTRAS, "apps", "v1").expect("apps");
        let want = json!({
            "categories": ["all"], "kind": "Deployment", "name": "deployments", "namespaced": true, "shortNames": ["deploy"],
            "singularName": "deployment", "storageVersionHash": "8aSe+NMegvE=", "verbs": verbs,
        });
        assert_eq!(find(&apps, "deployments"), &want);
        let want = json!({
            "group": "autoscaling", "version": "v1", "kind": "Scale", "name": "deployments/scale", "namespaced": true,
            "singularName": "", "verbs": ["get", "patch", "update"],
        });
        assert_eq!(find(&apps, "deployments/scale"), &want);
        for (group, version, name, hash) in [
            ("autoscaling", "v1", "horizontalpodautoscalers", "qwQve8ut294="),
            ("autoscaling", "v2", "horizontalpodautoscalers", "qwQve8ut294="),
            ("coordination.k8s.io", "v1", "leases", "gqkMMb/YqFM="),
            ("discovery.k8s.io", "v1", "endpointslices", "qgS0xkrxYAI="),
            ("events.k8s.io", "v1", "events", "r2yiGXH7wu8="),
        ] {
            let list = api_resource_list(&kinds, EXTRAS, group, version).expect(group);
            assert_eq!(list["apiVersion"], "v1");
            assert_eq!(find(&list, name)["storageVersionHash"], hash, "{group}/{version}");
        }
        let core = api_resource_list(&kinds, EXTRAS, "", "v1").expect("core");
        assert_eq!((core.get("apiVersion"), &core["groupVersion"]), (None, &json!("v1")));
        assert_eq!(find(&core, "bindings")["verbs"], json!(["create"]));
        assert!(find(&core, "bindings").get("storageVersionHash").is_none());
        let eviction = find(&core, "pods/eviction");
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert_eq!(api_resource_list(&kinds, EXTRAS, "apps", "v9"), None);
    }

    #[test]
    fn extras_appear_among_the_others() {
        let kinds = Registry::builtin().snapshot();
        let list = api_resource_list(&kinds, EXTRAS, "metrics.k8s.io", "v1beta1").expect("metrics");
        assert_eq!(find(&list, "pods")["verbs"], json!(["get", "list"]));
        let list = api_resource_list(&kinds, EXTRAS, "autoscaling", "v2").expect("autoscaling");
        assert_eq!(find(&list, "horizontalpodautoscalers/decisions")["kind"], "DecisionList");
    }

    #[test]
    fn aggregated_documents() {
        let kinds = Registry::builtin().snapshot();
        let core = aggregated_core(&kinds, EXTRAS, AggregatedVersion::V2);
        assert_eq!(
            (&core["kind"], &core["apiVersion"]),
            (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
        );
        let pods = core["items"][0]["versions"][0]["resources"].as_array().expect("resources");
        let pods = pods.iter().find(|r| r["resource"] == "pods").expect("pods");
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        assert_eq!((&pods["scope"], &pods["singularResource"]), (&json!("Namespaced"), &json!("pod")));
        let subresources = pods["subresources"].as_array().expect("subresources");
        assert!(
            subresources
                .iter()
                .any(|s| s["subresource"] == "eviction" && s["responseKind"]["kind"] == "Eviction")
        );

        let groups = aggregated_groups(&kinds, EXTRAS, AggregatedVersion::V2Beta1);
        assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let items = groups["items"].as_array().expect("items");
        assert!(items.iter().all(|i| i["metadata"]["name"] != ""));
        let autoscaling = items.iter().find(|i| i["metadata"]["name"] == "autoscaling").expect("autoscaling");
        assert_eq!(autoscaling["versions"][0]["version"], "v2");
        let hpa = &autoscaling["versions"][0]["resources"][0];
        assert!(
            hpa["subresources"]
                .as_array()
                .expect("subresources")
                .iter()
                .any(|s| s["subresource"] == "decisions")
        );
        assert_eq!(AggregatedVersion::parse("v2"), Some(AggregatedVersion::V2));
        assert_eq!(AggregatedVersion::parse("v3"), None);
    }
}
