//! The kubelet API: HTTPS on the kubelet's own port, for clients of the cluster CA in group `system:masters`. Owns no
//! state; reads the pods' cache and the runtime.

mod logs;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Config, KubeletError, Tls};
use crate::context::Node;
use crate::stats::Sampler;

const HANDSHAKE: Duration = Duration::from_secs(10);
const GROUP: &str = "system:masters";

pub(crate) struct Listener {
    pub(crate) addr: SocketAddr,
    tcp: TcpListener,
    tls: TlsAcceptor,
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) node: Arc<Node>,
    sampler: Arc<Sampler>,
}

/// Whether the connection's client may use the API.
#[derive(Clone, Copy)]
struct Allowed(bool);

pub(crate) async fn listen(config: &Config) -> Result<Listener, KubeletError> {
    let tls = TlsAcceptor::from(Arc::new(tls(&config.tls)?));
    let failed = |source| KubeletError::Listen { addr: config.listen, source };
    let tcp = TcpListener::bind(config.listen).await.map_err(failed)?;
    Ok(Listener { addr: tcp.local_addr().map_err(failed)?, tcp, tls })
}

fn tls(tls: &Tls) -> Result<rustls::ServerConfig, KubeletError> {
    let error = |what: &str, e: &dyn std::fmt::Display| KubeletError::Tls(format!("{what}: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(tls.ca_pem.as_bytes()) {
        let cert = cert.map_err(|e| error("CA certificate", &e))?;
        roots.add(cert).map_err(|e| error("CA certificate", &e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| error("CA certificate", &e))?;
    let chain = CertificateDer::pem_slice_iter(tls.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| error("server certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(|e| error("server key", &e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| error("protocol versions", &e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| error("server certificate", &e))?;
    // Upgrades to WebSocket are an affair of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves for ever.
pub(crate) async fn serve(listener: Listener, node: Arc<Node>, sampler: Arc<Sampler>) {
    let router = router(Api { node: node.clone(), sampler });
    loop {
        let stream = match listener.tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "connection not accepted");
                // Out of file descriptors, mostly: trying at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, router) = (listener.tls.clone(), router.clone());
        node.scope.spawn_short(async move {
            if let Err(error) = connection(tls, stream, router).await {
                debug!(error, "connection ended");
            }
        });
    }
}

async fn connection(tls: TlsAcceptor, stream: TcpStream, router: Router) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream))
        .await
        .map_err(|_| "TLS handshake timed out".to_owned())?
        .map_err(|e| e.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let allowed = Allowed(certificate.is_some_and(is_master));
    let service = TowerToHyperService::new(router.layer(Extension(allowed)));
    auto::Builder::new(TokioExecutor::new())
        .http1_only()
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
        .map_err(|e| e.to_string())
}

fn is_master(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    parsed.subject().iter_organization().any(|o| o.as_str() == Ok(GROUP))
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/pods", get(pods))
        .route("/metrics", get(metrics))
        .route("/metrics/resource", get(resource))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::logs))
        .route("/exec/{namespace}/{pod}/{container}", get(stream::exec).post(stream::not_websocket))
        .route("/attach/{namespace}/{pod}/{container}", get(stream::attach).post(stream::not_websocket))
        .layer(middleware::from_fn(authorize))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(api)
}

async fn authorize(
    Extension(Allowed(allowed)): Extension<Allowed>,
    request: Request,
    next: Next,
) -> Response {
    if allowed {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "Forbidden: the client certificate's group may not use this API")
            .into_response()
    }
}

async fn pods(State(api): State<Api>) -> Response {
    let pods: Vec<Pod> = api.node.pods.all().iter().map(|p| (**p).clone()).collect();
    Json(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods })).into_response()
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, TEXT)], loadline_client::telemetry::metrics_text()).into_response()
}

async fn resource(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, TEXT)], api.sampler.text().await).into_response()
}

/// An answer in the kubelet's way: a code and a line of text.
pub(crate) fn refuse(code: StatusCode, message: String) -> Response {
    (code, message + "\n").into_response()
}

impl Api {
    /// The pod and the container's runtime id, or the answer that says what is missing.
    #[expect(clippy::result_large_err, reason = "the error is the response")]
    fn running(&self, namespace: &str, pod: &str, container: &str) -> Result<String, Response> {
        let pod = self.pod(namespace, pod, container)?;
        let status = logs::container_status(&pod, container);
        let id = status
            .filter(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))
            .and_then(|s| s.container_id.as_deref());
        let id = id.and_then(|id| id.split_once("://")).map(|(_, id)| id.to_owned());
        id.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("container not found ({container:?})")))
    }

    #[expect(clippy::result_large_err, reason = "the error is the response")]
    fn pod(&self, namespace: &str, name: &str, container: &str) -> Result<Arc<Pod>, Response> {
        let Some(pod) = self.node.pods.get(namespace, name) else {
            return Err(refuse(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist")));
        };
        if crate::names::container(&pod, container).is_none() {
            let message = format!("container {container:?} not found in pod {name:?}");
            return Err(refuse(StatusCode::NOT_FOUND, message));
        }
        Ok(pod)
    }
}
