//! Requests that a kubelet answers: logs, exec, attach. The server dials the node's own address over TLS, as the
//! cluster's authority vouches for it, and passes bytes; an upgrade is offered to the client only after the kubelet
//! has agreed to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use loadline_api::status::{ApiError, Reason};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::app::{App, Call};
use crate::identity::MASTERS;
use crate::object::Meta as _;
use crate::options::At;
use crate::pki::Pki;
use crate::request::Query;
use crate::respond::{Failure, HttpResponse, Result};
use crate::server::StartError;

const CONNECT: Duration = Duration::from_secs(5);
const LOG_OPTIONS: [&str; 7] =
    ["follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes"];

/// The way to kubelets.
pub(crate) struct Kubelets {
    tls: TlsConnector,
}

impl Kubelets {
    pub(crate) fn new(pki: &Pki) -> std::result::Result<Self, StartError> {
        let bad = |e: String| StartError::Tls(e);
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).map_err(|e| bad(e.to_string()))?;
        roots.add(ca).map_err(|e| bad(e.to_string()))?;
        let (chain, key) =
            pki.client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[MASTERS])?.rustls()?;
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| bad(e.to_string()))?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .map_err(|e| bad(e.to_string()))?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    async fn connect(&self, address: IpAddr, port: u16) -> std::result::Result<SendRequest<Body>, String> {
        let work = async {
            let stream = TcpStream::connect((address, port)).await.map_err(|e| e.to_string())?;
            let _ = stream.set_nodelay(true);
            let name = ServerName::IpAddress(address.into());
            let stream = self.tls.connect(name, stream).await.map_err(|e| e.to_string())?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| e.to_string())?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    debug!(%error, "connection to the kubelet ended");
                }
            });
            Ok(sender)
        };
        tokio::time::timeout(CONNECT, work).await.map_err(|_| "timed out".to_owned())?
    }
}

/// Where a container runs.
struct Place {
    address: IpAddr,
    port: u16,
    node: String,
    container: String,
}

/// `pods/log`.
pub(crate) async fn log(app: &App, call: &Call) -> Result<HttpResponse> {
    let place = find(app, call).await?;
    let mut query = QueryText::default();
    for name in LOG_OPTIONS {
        if let Some(value) = call.query.text(name) {
            query.add(name, value);
        }
    }
    let (namespace, pod) = (&call.path.namespace, &call.path.name);
    let path = format!("/containerLogs/{namespace}/{pod}/{}{query}", place.container);
    let response = send(app, &place, Method::GET, &path, HeaderMap::new()).await?;
    if response.status().is_success() {
        let mut answer = HttpResponse::new(Body::new(response.into_body()));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        return Ok(answer);
    }
    Err(refused(response, &place).await)
}

/// `pods/exec` and `pods/attach`.
pub(crate) async fn stream(
    app: &App,
    call: &Call,
    what: &str,
    mut extensions: Extensions,
) -> Result<HttpResponse> {
    let Some(client) =
        extensions.remove::<OnUpgrade>().filter(|_| call.headers.contains_key(header::UPGRADE))
    else {
        return Err(ApiError::bad_request("Upgrade request required").into());
    };
    let place = find(app, call).await?;
    let mut query = QueryText::default();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(ours) {
            query.add(theirs, "1");
        }
    }
    let mut commands = 0;
    for command in call.query.all("command") {
        query.add("command", command);
        commands += 1;
    }
    if what == "exec" && commands == 0 {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container").into());
    }
    let (namespace, pod) = (&call.path.namespace, &call.path.name);
    let path = format!("/{what}/{namespace}/{pod}/{}{query}", place.container);
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        if passes(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let response = send(app, &place, call.method.clone(), &path, headers).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response, &place).await);
    }
    let mut answer = HttpResponse::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in response.headers() {
        if passes(name) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    let mut stopping = app.stopping();
    tokio::spawn(async move {
        let (client, kubelet) = match tokio::try_join!(client, hyper::upgrade::on(response)) {
            Ok(both) => both,
            Err(error) => return debug!(%error, "stream was not upgraded"),
        };
        let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
        tokio::select! {
            done = tokio::io::copy_bidirectional(&mut client, &mut kubelet) => {
                if let Err(error) = done {
                    debug!(%error, "stream ended");
                }
            }
            _ = stopping.wait_for(|s| *s) => {}
        }
    });
    Ok(answer)
}

/// Headers that belong to the stream. Nothing that tells who the client is goes to the kubelet.
fn passes(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "connection" | "upgrade" | "x-stream-protocol-version")
        || name.starts_with("sec-websocket-")
}

async fn find(app: &App, call: &Call) -> Result<Place> {
    let table = app.table.load_full();
    let resource = |name: &str| table.find("", "v1", name).ok_or_else(Failure::no_resource);
    let pods = resource("pods")?;
    let object = crate::read::find(app, pods, &call.path, At::Latest).await?;
    let pod = pods.value(&object)?;
    let container = container(&pod, &call.query)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name())).into());
    }
    let nodes = resource("nodes")?;
    let unknown =
        || ApiError::new(Reason::NotFound, format!("the node {node:?} of pod {:?} is not known", pod.name()));
    let value = nodes.value(&*nodes.cache.get(&node).ok_or_else(unknown)?)?;
    let (address, port) = kubelet_address(&value).ok_or_else(|| {
        ApiError::new(
            Reason::ServiceUnavailable,
            format!("the node {node:?} has not told where its kubelet listens"),
        )
    })?;
    Ok(Place { address, port, node, container })
}

/// The container that is asked for; the only one where none is named.
fn container(pod: &Value, query: &Query) -> Result<String> {
    let names: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    let regular = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let name = pod.name();
    match query.text("container") {
        Some(asked) if names.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")).into())
        }
        None if regular == 1 => Ok(names.first().copied().unwrap_or_default().to_owned()),
        None => {
            let choices = names[..regular.min(names.len())].join(" ");
            let message =
                format!("a container name must be specified for pod {name}, choose one of: [{choices}]");
            Err(ApiError::bad_request(message).into())
        }
    }
}

/// The node's internal address and the port of its kubelet. Addresses that reach no other machine's kubelet on purpose
/// (unspecified, multicast, link-local) are never dialled.
fn kubelet_address(node: &Value) -> Option<(IpAddr, u16)> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP")?;
    let address: IpAddr = internal["address"].as_str()?.parse().ok()?;
    let port = u16::try_from(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?).ok()?;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let bad = address.is_unspecified() || address.is_multicast() || link_local || port == 0;
    (!bad).then_some((address, port))
}

async fn send(
    app: &App,
    place: &Place,
    method: Method,
    path: &str,
    headers: HeaderMap,
) -> Result<axum::http::Response<hyper::body::Incoming>> {
    let failed = |why: String| {
        let message = format!("error dialing the kubelet of node {:?}: {why}", place.node);
        Failure::from(ApiError::new(Reason::ServiceUnavailable, message))
    };
    let mut sender = app.kubelets.connect(place.address, place.port).await.map_err(failed)?;
    let mut request =
        Request::builder().method(method).uri(path).body(Body::empty()).map_err(|e| failed(e.to_string()))?;
    *request.headers_mut() = headers;
    if let Ok(host) = HeaderValue::from_str(&format!("{}:{}", place.address, place.port)) {
        request.headers_mut().insert(header::HOST, host);
    }
    sender.send_request(request).await.map_err(|e| failed(e.to_string()))
}

/// What the kubelet said instead of yes.
async fn refused(response: axum::http::Response<hyper::body::Incoming>, place: &Place) -> Failure {
    use http_body_util::BodyExt as _;
    let status = response.status();
    let limited = http_body_util::Limited::new(response.into_body(), 4096);
    let text = limited.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = match status {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Reason::Forbidden,
        _ => Reason::InternalError,
    };
    let text = if text.is_empty() {
        format!("the kubelet of node {:?} answered {status}", place.node)
    } else {
        text
    };
    ApiError::new(reason, text).into()
}

/// A query string under construction.
#[derive(Default)]
struct QueryText(String);

impl QueryText {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
    }
}

impl std::fmt::Display for QueryText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen_as_kubernetes_chooses() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}]}});
        let ask = |pod: &Value, q: &str| container(pod, &Query::parse(Some(q))).map_err(|e| e.to_string());
        assert_eq!(ask(&one, ""), Ok("a".to_owned()));
        assert_eq!(ask(&two, "container=i"), Ok("i".to_owned()));
        assert!(ask(&two, "").unwrap_err().ends_with("choose one of: [a b]"));
        assert!(ask(&two, "container=z").unwrap_err().contains("is not valid for pod p"));
    }

    #[test]
    fn only_addresses_of_nodes_are_dialled() {
        let node = |address: &str| {
            json!({"status": {"addresses": [{"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}})
        };
        assert!(kubelet_address(&node("10.0.0.1")).is_some());
        for bad in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "x"] {
            assert!(kubelet_address(&node(bad)).is_none(), "{bad}");
        }
        assert!(kubelet_address(&json!({})).is_none());
    }

    #[test]
    fn queries_are_escaped() {
        let mut query = QueryText::default();
        query.add("command", "a b&c");
        query.add("tty", "1");
        assert_eq!(query.to_string(), "?command=a%20b%26c&tty=1");
    }
}
