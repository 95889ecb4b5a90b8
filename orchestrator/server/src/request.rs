//! What a request asks for: its path and query taken apart once, with nothing that could leave the key space.

use std::borrow::Cow;

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// A request's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(ResourcePath),
    /// Health, version, discovery and the like; the path without a trailing slash.
    Path(String),
}

/// `/api/v1/...` and `/apis/GROUP/VERSION/...`, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for the whole cluster.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource, for proxies.
    pub(crate) rest: String,
    /// The old `/watch/` prefix.
    pub(crate) watch_prefix: bool,
}

impl ResourcePath {
    /// `pods/log`, as authorization and errors name it.
    pub(crate) fn full_resource(&self) -> Cow<'_, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(&self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.subresource))
        }
    }
}

/// Why a path is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPath;

/// Takes a raw path apart. Encoded slashes, NULs and dot segments are refused.
pub(crate) fn parse_path(raw: &str) -> Result<Target, BadPath> {
    let trimmed = raw.trim_end_matches('/');
    let mut segments: Vec<Cow<'_, str>> = Vec::with_capacity(8);
    for part in trimmed.split('/').skip(1) {
        segments.push(segment(part)?);
    }
    let (group, version, rest) = match segments.as_slice() {
        [api, version, rest @ ..] if api == "api" && !rest.is_empty() => ("", version.as_ref(), rest),
        [apis, group, version, rest @ ..] if apis == "apis" && !rest.is_empty() => {
            (group.as_ref(), version.as_ref(), rest)
        }
        _ => {
            if segments.iter().any(|s| s.is_empty()) && segments.len() > 1 {
                return Err(BadPath);
            }
            return Ok(Target::Path(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }));
        }
    };
    if rest.iter().take(5).any(|s| s.is_empty()) {
        return Err(BadPath);
    }
    let (watch_prefix, rest) = match rest {
        [w, more @ ..] if w == "watch" && !more.is_empty() => (true, more),
        other => (false, other),
    };
    let mut path = ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        watch_prefix,
        ..ResourcePath::default()
    };
    let at = |i: usize| rest.get(i).map(|s| s.to_string()).unwrap_or_default();
    let used = match rest {
        [ns, name, resource, ..] if ns == "namespaces" && resource != "status" && resource != "finalize" => {
            path.namespace = name.to_string();
            path.resource = resource.to_string();
            path.name = at(3);
            path.subresource = at(4);
            5
        }
        _ => {
            path.resource = at(0);
            path.name = at(1);
            path.subresource = at(2);
            3
        }
    };
    if rest.len() > used {
        path.rest = rest[used..].join("/");
    }
    Ok(Target::Resource(path))
}

fn segment(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    let decoded = if raw.contains('%') {
        percent_decode_str(raw).decode_utf8().map_err(|_| BadPath)?
    } else {
        Cow::Borrowed(raw)
    };
    let bad =
        decoded == "." || decoded == ".." || decoded.bytes().any(|b| b == b'/' || b < 0x20 || b == 0x7f);
    if bad { Err(BadPath) } else { Ok(decoded) }
}

/// The query's parameters, decoded; the last of several equal names wins nothing: the first does, as in Go's
/// `url.Values.Get`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(raw: Option<&str>) -> Self {
        let pairs = match raw {
            None | Some("") => Vec::new(),
            Some(raw) => serde_urlencoded::from_str(raw).unwrap_or_default(),
        };
        Self { pairs }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// The value, or nothing when it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// apimachinery's conversion: anything but `false` and `0` is true, also the empty text.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

/// The API's verb for a method on a path.
pub(crate) fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<&'static str> {
    let one = !path.name.is_empty();
    let watch = path.watch_prefix || query.flag("watch");
    Some(match *method {
        Method::GET | Method::HEAD if !path.subresource.is_empty() => "get",
        Method::GET | Method::HEAD if watch && (!one || path.watch_prefix) => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(raw: &str) -> ResourcePath {
        match parse_path(raw) {
            Ok(Target::Resource(p)) => p,
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn resource_paths() {
        let cases = [
            ("/api/v1/pods", ("", "v1", "", "pods", "", "")),
            ("/api/v1/namespaces/a", ("", "v1", "", "namespaces", "a", "")),
            ("/api/v1/namespaces/a/status", ("", "v1", "", "namespaces", "a", "status")),
            ("/api/v1/namespaces/a/finalize", ("", "v1", "", "namespaces", "a", "finalize")),
            ("/api/v1/namespaces/a/pods/", ("", "v1", "a", "pods", "", "")),
            ("/api/v1/namespaces/a/pods/p/log", ("", "v1", "a", "pods", "p", "log")),
            ("/apis/apps/v1/namespaces/a/deployments/d", ("apps", "v1", "a", "deployments", "d", "")),
            ("/api/v1/nodes/system%3An", ("", "v1", "", "nodes", "system:n", "")),
        ];
        for (raw, (group, version, namespace, resource_name, name, sub)) in cases {
            let p = resource(raw);
            let got = (&*p.group, &*p.version, &*p.namespace, &*p.resource, &*p.name, &*p.subresource);
            assert_eq!(got, (group, version, namespace, resource_name, name, sub), "{raw}");
        }
        assert_eq!(resource("/api/v1/nodes/n/proxy/a/b").rest, "a/b");
        assert!(resource("/api/v1/watch/namespaces/a/pods").watch_prefix);
    }

    #[test]
    fn other_paths() {
        for raw in [
            "/healthz",
            "/livez/ping",
            "/api",
            "/api/v1",
            "/apis/apps",
            "/apis/apps/v1",
            "/openapi/v3/apis/apps/v1",
        ] {
            assert_eq!(parse_path(raw), Ok(Target::Path(raw.to_owned())));
        }
        assert_eq!(parse_path("/"), Ok(Target::Path("/".to_owned())));
    }

    #[test]
    fn names_that_would_leave_the_key_space_are_refused() {
        for raw in [
            "/api/v1/namespaces/../pods",
            "/api/v1/namespaces/a/configmaps/..",
            "/api/v1/namespaces/a/configmaps/%2e%2e",
            "/api/v1/namespaces/a/configmaps/x%2fy",
            "/api/v1/namespaces/a/configmaps/x%00",
            "/api/v1/namespaces/a%2Fb/configmaps",
            "/api/v1/namespaces//configmaps",
            "/api/v1/namespaces/a/configmaps/%ff",
        ] {
            assert_eq!(parse_path(raw), Err(BadPath), "{raw}");
        }
    }

    #[test]
    fn verbs() {
        let v = |method: Method, raw: &str, query: &str| {
            verb(&method, &resource(raw), &Query::parse(Some(query)))
        };
        assert_eq!(v(Method::GET, "/api/v1/pods", ""), Some("list"));
        assert_eq!(v(Method::GET, "/api/v1/pods", "watch=1"), Some("watch"));
        assert_eq!(v(Method::GET, "/api/v1/pods", "watch=false"), Some("list"));
        assert_eq!(v(Method::GET, "/api/v1/watch/pods", ""), Some("watch"));
        assert_eq!(v(Method::GET, "/api/v1/nodes/n", "watch=1"), Some("get"));
        assert_eq!(v(Method::DELETE, "/api/v1/namespaces/a/pods", ""), Some("deletecollection"));
        assert_eq!(v(Method::OPTIONS, "/api/v1/pods", ""), None);
    }
}
