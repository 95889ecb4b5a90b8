//! The load of the API bench: connections that each send one request after another over TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kube::config::Kubeconfig;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the server is, and how it knows us.
#[derive(Clone)]
pub struct Target {
    address: String,
    tls: TlsConnector,
}

impl Target {
    pub fn from_kubeconfig(path: &std::path::Path) -> Result<Self> {
        let file = Kubeconfig::read_from(path)?;
        let cluster = file.clusters.first().and_then(|c| c.cluster.as_ref()).context("no cluster")?;
        let user = file.auth_infos.first().and_then(|u| u.auth_info.as_ref()).context("no user")?;
        let pem = |text: Option<&String>| -> Result<Vec<u8>> {
            Ok(BASE64_STANDARD.decode(text.context("the kubeconfig lacks a certificate")?)?)
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem(cluster.certificate_authority_data.as_ref())?)
        {
            roots.add(certificate?)?;
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem(user.client_certificate_data.as_ref())?)
            .collect::<Result<_, _>>()?;
        let key = user.client_key_data.as_ref().context("the kubeconfig lacks a key")?;
        let key = BASE64_STANDARD.decode(key.expose_secret())?;
        let key = PrivateKeyDer::from_pem_slice(&key)?;
        let config =
            ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        let address = cluster.server.as_deref().unwrap_or_default().trim_start_matches("https://").to_owned();
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        tcp.set_nodelay(true)?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(h, _)| h);
        let stream = self.tls.connect(ServerName::try_from(host.to_owned())?, tcp).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.clone() })
    }
}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends one request, reads the whole answer, and returns its length.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<usize> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", &self.host)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .header("User-Agent", "loadline-bench")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                length += data.len();
            }
        }
        if !status.is_success() {
            bail!("{method} {path}: {status}");
        }
        Ok(length)
    }
}

/// What a run of requests did.
pub struct Throughput {
    pub per_second: f64,
    pub p99_ms: f64,
}

/// `connections` clients, each asking `request(client, nth)` again and again for `time`.
pub async fn hammer<F>(target: &Target, connections: usize, time: Duration, request: F) -> Result<Throughput>
where
    F: Fn(usize, usize) -> (&'static str, String, Bytes) + Clone + Send + Sync + 'static,
{
    let mut tasks = Vec::new();
    for client in 0..connections {
        let mut connection = target.connect().await?;
        let request = request.clone();
        tasks.push(tokio::spawn(async move {
            let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
            let started = Instant::now();
            let mut nth = 0;
            while started.elapsed() < time {
                let (method, path, body) = request(client, nth);
                nth += 1;
                let sent = Instant::now();
                connection.send(method, &path, body).await?;
                latencies.saturating_record(sent.elapsed().as_micros().try_into().unwrap_or(u64::MAX));
            }
            Ok::<_, anyhow::Error>((latencies, started.elapsed()))
        }));
    }
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut longest = Duration::ZERO;
    for task in tasks {
        let (latencies, elapsed) = task.await??;
        all.add(latencies)?;
        longest = longest.max(elapsed);
    }
    Ok(Throughput {
        per_second: all.len() as f64 / longest.as_secs_f64(),
        p99_ms: all.value_at_quantile(0.99) as f64 / 1000.0,
    })
}
