//! The objects that every cluster begins with. Running it again changes nothing that is right already.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tracing::info;

use crate::alloc::first_address;
use crate::app::{App, Peer};
use crate::config::Config;
use crate::identity::Identity;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(crate) async fn run(app: &Arc<App>, config: &Config) -> Result<(), String> {
    for name in NAMESPACES {
        ensure(app, "/api/v1/namespaces", name, json!({"metadata": {"name": name}})).await?;
    }
    let (address, port) = app.advertise;
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": first_address(config.service_cidr).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
        },
    });
    ensure(app, "/api/v1/namespaces/default/services", "kubernetes", service).await?;
    endpoints(app, address, port).await
}

/// Where the `kubernetes` Service leads. A server that only this host can reach leads nowhere.
async fn endpoints(app: &Arc<App>, address: IpAddr, port: u16) -> Result<(), String> {
    if address.is_loopback() {
        return Ok(());
    }
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let address = address.to_string();
    let slice = json!({
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    let endpoints = json!({
        "metadata": {"name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    replace(
        app,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        slice,
        &["addressType", "endpoints", "ports"],
    )
    .await?;
    replace(app, "/api/v1/namespaces/default/endpoints", endpoints, &["subsets"]).await
}

async fn ensure(app: &Arc<App>, collection: &str, name: &str, object: Value) -> Result<(), String> {
    let (code, _) = call(app, Method::GET, &format!("{collection}/{name}"), None).await;
    if code == StatusCode::OK {
        return Ok(());
    }
    let (code, answer) = call(app, Method::POST, collection, Some(&object)).await;
    match code {
        StatusCode::CREATED => {
            info!(collection, name, "created");
            Ok(())
        }
        StatusCode::CONFLICT => Ok(()),
        _ => Err(format!("{collection}/{name}: {}", message(&answer))),
    }
}

/// Creates the object, or updates it where one of `fields` differs.
async fn replace(app: &Arc<App>, collection: &str, object: Value, fields: &[&str]) -> Result<(), String> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure(app, collection, &name, object.clone()).await?;
    let path = format!("{collection}/{name}");
    let (code, mut present) = call(app, Method::GET, &path, None).await;
    if code != StatusCode::OK {
        return Err(format!("{path}: {}", message(&present)));
    }
    // A dry run shows what our object looks like with its defaults.
    let mut wanted = present.clone();
    for field in fields {
        wanted[*field] = object[*field].clone();
    }
    let (code, shown) = call(app, Method::PUT, &format!("{path}?dryRun=All"), Some(&wanted)).await;
    if code == StatusCode::OK && fields.iter().all(|f| shown[*f] == present[*f]) {
        return Ok(());
    }
    for field in fields {
        present[*field] = object[*field].clone();
    }
    let (code, answer) = call(app, Method::PUT, &path, Some(&present)).await;
    if code == StatusCode::OK { Ok(()) } else { Err(format!("{path}: {}", message(&answer))) }
}

fn message(status: &Value) -> &str {
    status["message"].as_str().unwrap_or("no answer")
}

async fn call(app: &Arc<App>, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::USER_AGENT, "kube-apiserver/loadline")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body));
    let Ok(request) = request else { return (StatusCode::BAD_REQUEST, Value::Null) };
    let response = app.clone().handle(request, Peer::Local(Identity::component("system:apiserver"))).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}
