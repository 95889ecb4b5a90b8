//! The documents that say what this server serves: made once, at start. OpenAPI documents are larger and are made when
//! somebody first asks.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use loadline_api::discovery::{self as docs, AggregatedVersion, Extra};
use loadline_api::kinds::Snapshot;
use serde_json::{Value, json};

use crate::config::Delegate;
use crate::negotiate::{Form, Offer, accept};
use crate::respond::{Failure, HttpResponse, Result, encoded};

pub(crate) struct Discovery {
    /// By path: `/api`, `/apis/apps/v1` …
    plain: HashMap<String, Bytes>,
    aggregated: HashMap<(&'static str, &'static str), Bytes>,
}

impl Discovery {
    pub(crate) fn new(kinds: &Arc<Snapshot>, delegates: &[Delegate], address: (IpAddr, u16)) -> Self {
        let verbs: Vec<Vec<&str>> =
            delegates.iter().map(|d| d.verbs.iter().map(String::as_str).collect()).collect();
        let extras: Vec<Extra<'_>> = delegates
            .iter()
            .zip(&verbs)
            .map(|(d, verbs)| Extra {
                group: &d.group,
                version: &d.version,
                kind: &d.kind,
                resource: &d.resource,
                subresource: d.subresource.as_deref(),
                singular: &d.singular,
                namespaced: d.namespaced,
                verbs,
            })
            .collect();
        let mut plain = HashMap::new();
        let mut put = |path: String, document: Value| {
            plain.insert(path, Bytes::from(document.to_string()));
        };
        put("/api".to_owned(), docs::api_versions(&SocketAddr::from(address).to_string()));
        let groups = docs::api_group_list(kinds, &extras);
        if let Some(core) = docs::api_resource_list(kinds, &extras, "", "v1") {
            put("/api/v1".to_owned(), core);
        }
        let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
        for group in groups["groups"].as_array().into_iter().flatten() {
            let name = group["name"].as_str().unwrap_or_default();
            if let Some(document) = docs::api_group(kinds, &extras, name) {
                put(format!("/apis/{name}"), document);
                paths.push(format!("/apis/{name}"));
            }
            for version in group["versions"].as_array().into_iter().flatten() {
                let version = version["version"].as_str().unwrap_or_default();
                if let Some(document) = docs::api_resource_list(kinds, &extras, name, version) {
                    put(format!("/apis/{name}/{version}"), document);
                    paths.push(format!("/apis/{name}/{version}"));
                }
            }
        }
        put("/apis".to_owned(), groups);
        paths.extend(
            ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
                .map(str::to_owned),
        );
        put("/".to_owned(), json!({"paths": paths}));
        let mut aggregated = HashMap::new();
        for version in [AggregatedVersion::V2, AggregatedVersion::V2Beta1] {
            let core = docs::aggregated_core(kinds, &extras, version).to_string();
            let groups = docs::aggregated_groups(kinds, &extras, version).to_string();
            aggregated.insert(("/api", version.as_str()), Bytes::from(core));
            aggregated.insert(("/apis", version.as_str()), Bytes::from(groups));
        }
        Self { plain, aggregated }
    }

    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Result<HttpResponse> {
        let document = self.plain.get(path).ok_or(Failure::NoPage)?;
        let accepted = accept(headers, Offer::Discovery)?;
        let version = if accepted.beta { AggregatedVersion::V2Beta1 } else { AggregatedVersion::V2 }.as_str();
        if accepted.form == Form::DiscoveryList
            && let Some(document) = self.aggregated.get(&(path, version))
        {
            let mut response = encoded(StatusCode::OK, document.clone(), accepted.encoding);
            let ty = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            if let Ok(ty) = HeaderValue::from_str(&ty) {
                response.headers_mut().insert(header::CONTENT_TYPE, ty);
            }
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        }
        Ok(encoded(StatusCode::OK, document.clone(), accepted.encoding))
    }
}
