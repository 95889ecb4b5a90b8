//! The running server: its start, its listener, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use loadline_api::kinds::Registry;
use loadline_store::Store;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::alloc::Allocator;
use crate::app::{App, Peer};
use crate::bootstrap;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::feed::Feed;
use crate::identity::{Identity, TokenFileError, Tokens};
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::pki::{Pki, PkiError};
use crate::proxy::Kubelets;
use crate::respond::HttpResponse;
use crate::table::Table;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
/// How long open requests may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
const PRUNE_EVERY: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 10_000;
const MAX_HEADERS: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    #[error("listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("set up TLS: {0}")]
    Tls(String),
    #[error("create the first objects: {0}")]
    Bootstrap(String),
}

/// A server that listens. Dropping it stops it at once; [`Server::shutdown`] drains it.
pub struct Server {
    app: Arc<App>,
    addr: SocketAddr,
    pki: Arc<Pki>,
    listener: Option<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds, makes or reads the certificates, loads the caches (waiting for the store as long as it takes), creates
    /// the first objects, and serves.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let pki = Arc::new(Pki::open(&config.data_dir.join("pki"))?);
        let tokens = config.token_auth_file.as_deref().map(Tokens::read).transpose()?.unwrap_or_default();
        let socket = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        let addr =
            socket.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
        let advertise = advertised(&config, addr);
        let tls = tls(&pki, &config, advertise)?;

        let registry = Registry::builtin();
        let table = Table::new(&registry.snapshot(), &config.limits);
        let feed = Arc::new(Feed::new(store.clone(), table.caches().iter().cloned()));
        let services = table.find("", "v1", "services").map(|r| r.cache.clone());
        let app = Arc::new(App {
            discovery: Discovery::new(&registry.snapshot(), &config.delegates, (advertise, addr.port())),
            openapi: OpenApi::default(),
            kubelets: Kubelets::new(&pki)?,
            allocator: Allocator::new(config.service_cidr, config.node_ports, services),
            registry,
            table: ArcSwap::from_pointee(table),
            feed: feed.clone(),
            store,
            limits: config.limits,
            metrics: Metrics::default(),
            tokens,
            delegates: config.delegates.clone(),
            advertise: (advertise, addr.port()),
            stop: watch::Sender::new(false),
        });
        let mut background = vec![tokio::spawn(feed.clone().run()), tokio::spawn(prune(feed.clone()))];
        let listener = tokio::spawn(listen(app.clone(), socket, tls));
        info!(%addr, "API server listening");
        let mut server = Self { app, addr, pki, listener: Some(listener), background: Vec::new() };
        server.background.append(&mut background);
        server.loaded().await;
        server.background.push(tokio::spawn(crate::expiry::run(server.app.clone())));
        if config.bootstrap {
            bootstrap::run(&server.app, &config).await.map_err(StartError::Bootstrap)?;
        }
        Ok(server)
    }

    async fn loaded(&self) {
        while self.app.feed.reach(1).await.is_err() {
            warn!("waiting for the store");
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The cluster's authority, for kubeconfigs and for kubelets' certificates.
    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// A service for callers in this process: the same code path as over the network, without sockets.
    /// `kube::Client::new(server.local(identity), "default")` works with it.
    pub fn local(&self, identity: Identity) -> LocalService {
        LocalService { app: self.app.clone(), identity }
    }

    /// Takes no more connections, ends watches, lets open requests finish, and stops.
    pub async fn shutdown(mut self) {
        self.app.stop.send_replace(true);
        if let Some(listener) = self.listener.take()
            && tokio::time::timeout(DRAIN + Duration::from_secs(1), listener).await.is_err()
        {
            warn!("open requests did not end in time");
        }
        info!("API server stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.app.stop.send_replace(true);
        self.background.drain(..).for_each(|task| task.abort());
        if let Some(listener) = self.listener.take() {
            listener.abort();
        }
    }
}

async fn prune(feed: Arc<Feed>) {
    let mut tick = tokio::time::interval(PRUNE_EVERY);
    loop {
        tick.tick().await;
        feed.prune();
    }
}

/// The address that others reach this server at.
fn advertised(config: &Config, addr: SocketAddr) -> IpAddr {
    config.advertise.unwrap_or_else(|| {
        if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() }
    })
}

fn tls(pki: &Pki, config: &Config, advertise: IpAddr) -> Result<TlsAcceptor, StartError> {
    let bad = |e: String| StartError::Tls(e);
    let mut sans: Vec<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    sans.push("kubernetes.default.svc.cluster.local".to_owned());
    sans.extend(["127.0.0.1".to_owned(), "::1".to_owned(), advertise.to_string()]);
    sans.push(crate::alloc::first_address(config.service_cidr).to_string());
    sans.extend(config.extra_sans.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    sans.retain(|s| seen.insert(s.clone()));
    let (chain, key) = pki.server("apiserver", "kube-apiserver", &sans)?.rustls()?;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).map_err(|e| bad(e.to_string()))?;
    roots.add(ca).map_err(|e| bad(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| bad(e.to_string()))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| bad(e.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

async fn listen(app: Arc<App>, socket: TcpListener, tls: TlsAcceptor) {
    let graceful = GracefulShutdown::new();
    let mut stopping = app.stopping();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADERS.max(128 * 1024))
        .max_headers(128)
        .pipeline_flush(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX))
        .max_concurrent_streams(250)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let http = Arc::new(http);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|s| *s) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to come back instead of spinning.
                warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            debug!("too many connections, one closed");
            continue;
        };
        let watcher = graceful.watcher();
        let (app, tls, http) = (app.clone(), tls.clone(), http.clone());
        tokio::spawn(async move {
            let _slot = slot;
            connection(app, stream, tls, &http, watcher).await;
        });
    }
    drop(socket);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        warn!("connections were still busy at the end");
    }
}

async fn connection(
    app: Arc<App>,
    stream: TcpStream,
    tls: TlsAcceptor,
    http: &Builder<TokioExecutor>,
    graceful: hyper_util::server::graceful::Watcher,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "TLS handshake failed"),
        Err(_) => return debug!("TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let identity = certificate.and_then(|c| Identity::from_certificate(c));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (app, peer) = (app.clone(), Peer::Network(identity.clone()));
        async move { Ok::<_, Infallible>(app.handle(request.map(Body::new), peer).await) }
    });
    let served = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = graceful.watch(served).await {
        debug!(%error, "connection ended");
    }
}

/// The API for callers in this process, as one identity.
#[derive(Clone)]
pub struct LocalService {
    app: Arc<App>,
    identity: Identity,
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (app, peer) = (self.app.clone(), Peer::Local(self.identity.clone()));
        Box::pin(async move { Ok(app.handle(request.map(Body::new), peer).await) })
    }
}
