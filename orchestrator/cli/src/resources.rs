//! Which resources the server has, and which one the user means by `po`, `deploy/web` or `pods,services`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use http::Request;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployment.apps`, as `-o name` and messages show it.
    pub fn singular_with_group(&self) -> String {
        let singular =
            if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        if self.group.is_empty() { singular } else { format!("{singular}.{}", self.group) }
    }

    /// The path of the collection, or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}", self.api_version())
        };
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path = format!("{path}/namespaces/{namespace}");
        }
        path = format!("{path}/{}", self.plural);
        match name {
            Some(name) => format!("{path}/{name}"),
            None => path,
        }
    }

    fn is_called(&self, name: &str) -> bool {
        let (name, group) = name.split_once('.').map_or((name, None), |(n, g)| (n, Some(g)));
        let called = self.plural == name
            || self.singular == name
            || self.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|s| s == name);
        called && group.is_none_or(|g| self.group == g || format!("{}.{}", self.version, self.group) == g)
    }
}

/// All resources of a server, preferred versions first.
pub struct Resources(Vec<Resource>);

impl Resources {
    pub async fn discover(client: &kube::Client) -> Result<Self> {
        let mut all = Vec::new();
        for root in ["/api", "/apis"] {
            let request = Request::get(root)
                .header(
                    "Accept",
                    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                )
                .body(Vec::new())?;
            let list: Value = client.request(request).await.context("asking the server what it serves")?;
            collect(&list, &mut all);
        }
        Ok(Self(all))
    }

    /// What the user means by one word: a resource, or a category such as `all`.
    pub fn find(&self, word: &str) -> Result<Vec<&Resource>> {
        let word = word.to_lowercase();
        if let Some(one) = self.0.iter().find(|r| r.is_called(&word)) {
            return Ok(vec![one]);
        }
        let category: Vec<&Resource> = self.0.iter().filter(|r| r.categories.contains(&word)).collect();
        if category.is_empty() {
            let known: BTreeSet<&str> = self.0.iter().map(|r| r.plural.as_str()).collect();
            let known: Vec<&str> = known.into_iter().collect();
            bail!("the server has no resource {word:?}; it has {}", known.join(", "));
        }
        Ok(category)
    }

    /// The resource of an object by its `apiVersion` and `kind`.
    pub fn of(&self, api_version: &str, kind: &str) -> Result<&Resource> {
        self.0
            .iter()
            .find(|r| r.api_version() == api_version && r.kind == kind)
            .with_context(|| format!("the server does not know the kind {kind:?} in {api_version:?}"))
    }
}

fn collect(list: &Value, all: &mut Vec<Resource>) {
    let array = |v: &Value, key: &str| v[key].as_array().cloned().unwrap_or_default();
    let texts = |v: &Value, key: &str| -> Vec<String> {
        array(v, key).iter().filter_map(|t| t.as_str().map(str::to_owned)).collect()
    };
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    for group in array(list, "items") {
        for version in array(&group, "versions") {
            for resource in array(&version, "resources") {
                all.push(Resource {
                    group: group["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                    version: text(&version, "version"),
                    kind: resource["responseKind"]["kind"].as_str().unwrap_or_default().to_owned(),
                    plural: text(&resource, "resource"),
                    singular: text(&resource, "singularResource"),
                    short_names: texts(&resource, "shortNames"),
                    categories: texts(&resource, "categories"),
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: texts(&resource, "verbs"),
                });
            }
        }
    }
}

/// What a command is about: `pods`, `pods a b`, `pod/a deploy/b`.
pub struct Target<'a> {
    pub resource: &'a Resource,
    pub name: Option<String>,
}

/// Reads `TYPE[,TYPE] [NAME…]` and `TYPE/NAME…`.
pub fn targets<'a>(resources: &'a Resources, words: &[String]) -> Result<Vec<Target<'a>>> {
    let Some(first) = words.first() else {
        bail!("say what: a type such as pods, or TYPE/NAME such as deploy/web")
    };
    let mut found = Vec::new();
    if first.contains('/') {
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                bail!(
                    "{word:?}: either every word is TYPE/NAME, or the first is the type and the others are names"
                )
            };
            for resource in resources.find(kind)? {
                found.push(Target { resource, name: Some(name.to_owned()) });
            }
        }
        return Ok(found);
    }
    for kind in first.split(',') {
        for resource in resources.find(kind)? {
            if words.len() == 1 {
                found.push(Target { resource, name: None });
            }
            for name in &words[1..] {
                if name.contains('/') {
                    bail!("{name:?}: the type is given already; write names alone, or TYPE/NAME for each");
                }
                found.push(Target { resource, name: Some(name.clone()) });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resources() -> Resources {
        let resource = |kind: &str, plural: &str, short: &[&str], categories: &[&str]| {
            json!({"resource": plural, "singularResource": kind.to_lowercase(), "scope": "Namespaced", "verbs": ["get"],
                   "shortNames": short, "categories": categories, "responseKind": {"kind": kind}})
        };
        let mut all = Vec::new();
        collect(
            &json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [
            resource("Pod", "pods", &["po"], &["all"]), resource("Event", "events", &["ev"], &[])]}]}]}),
            &mut all,
        );
        collect(
            &json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [resource("Deployment", "deployments", &["deploy"], &["all"])]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [resource("Event", "events", &["ev"], &[])]}]}]}),
            &mut all,
        );
        Resources(all)
    }

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        match targets(&resources(), &words) {
            Ok(found) => found
                .iter()
                .map(|t| t.resource.path(Some("n"), t.name.as_deref()))
                .collect::<Vec<_>>()
                .join(" "),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn what_the_user_means() {
        let cases: [(&[&str], &str); 9] = [
            (&["po"], "/api/v1/namespaces/n/pods"),
            (&["Pod", "a", "b"], "/api/v1/namespaces/n/pods/a /api/v1/namespaces/n/pods/b"),
            (
                &["deploy/web", "po/a"],
                "/apis/apps/v1/namespaces/n/deployments/web /api/v1/namespaces/n/pods/a",
            ),
            (&["all"], "/api/v1/namespaces/n/pods /apis/apps/v1/namespaces/n/deployments"),
            (&["po,deploy"], "/api/v1/namespaces/n/pods /apis/apps/v1/namespaces/n/deployments"),
            (&["events"], "/api/v1/namespaces/n/events"),
            (&["events.events.k8s.io"], "/apis/events.k8s.io/v1/namespaces/n/events"),
            (&["deployments.v1.apps"], "/apis/apps/v1/namespaces/n/deployments"),
            (
                &["po", "deploy/a"],
                "error: \"deploy/a\": the type is given already; write names alone, or TYPE/NAME for each",
            ),
        ];
        for (words, want) in cases {
            assert_eq!(shown(words), want, "{words:?}");
        }
        assert!(shown(&["nonsense"]).starts_with("error: the server has no resource \"nonsense\""));
    }
}
