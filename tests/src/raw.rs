//! Requests made by hand: paths that no URL library would let through, bodies that are no JSON, bytes that are no HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::TOKEN;

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Where the API is, and whom to trust.
#[derive(Clone)]
pub struct Endpoint {
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// One request; by default a GET of JSON with the tests' token.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        let headers = vec![("authorization".to_owned(), format!("Bearer {TOKEN}"))];
        Self { method: method.to_owned(), path: path.to_owned(), headers, body: Bytes::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Null when it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Endpoint {
    pub fn new(url: &str, ca_pem: &[u8]) -> Self {
        let addr = url.strip_prefix("https://").unwrap().parse().unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        // A second call finds the provider already there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { addr, tls: Arc::new(tls) }
    }

    /// A TLS connection that speaks `protocol` (`http/1.1`, `h2`).
    pub async fn connect(&self, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.addr).await?;
        TlsConnector::from(Arc::new(tls)).connect(ServerName::from(self.addr.ip()), stream).await
    }

    /// The path goes out as it is; a server that hangs up is an error.
    pub async fn send(&self, request: &Request) -> Result<Answer, String> {
        let exchange = self.exchange(request);
        tokio::time::timeout(ANSWERS_WITHIN, exchange)
            .await
            .map_err(|_| format!("no answer in {ANSWERS_WITHIN:?}"))?
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, String> {
        let stream = self.connect("http/1.1").await.map_err(|e| format!("connecting: {e}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let driver = tokio::spawn(connection);
        let uri: Uri = request.path.parse().map_err(|e| format!("{}: {e}", request.path))?;
        let mut built = http::Request::builder().method(request.method.as_str()).uri(uri);
        built = built.header("host", self.addr.to_string());
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let built = built.body(Full::new(request.body.clone())).map_err(|e| e.to_string())?;
        let answer = sender.send_request(built).await.map_err(|e| format!("sending: {e:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| format!("reading: {e:?}"))?.to_bytes();
        drop(sender);
        driver.abort();
        Ok(Answer { code: head.status.as_u16(), headers: head.headers, body })
    }

    /// Sends bytes as they are and reads until the server hangs up, or for `within`.
    pub async fn bytes(&self, protocol: &str, bytes: &[u8], within: Duration) -> Vec<u8> {
        let mut stream = self.connect(protocol).await.unwrap();
        let mut read = Vec::new();
        // Errors here are the server hanging up, which is one of the right answers.
        let _ = tokio::time::timeout(within, async {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            stream.read_to_end(&mut read).await
        })
        .await;
        read
    }
}
