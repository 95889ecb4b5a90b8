//! HTTP and TCP probes: a fresh connection each time, no certificate checks, redirects followed only to the same
//! host. Message texts are upstream's.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::prober::Attempt;

const MAX_REDIRECTS: usize = 10;
const MAX_BODY: usize = 10 * 1024;

pub(crate) async fn tcp(host: &str, port: u16, timeout: Duration) -> Attempt {
    let address = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Attempt::Success,
        Ok(Err(e)) => Attempt::Failure(format!("dial tcp {address}: connect: {}", plain(&e))),
        Err(_) => Attempt::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

/// Go's words for the usual errors.
fn plain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => e.to_string(),
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(crate) async fn get(action: &HTTPGetAction, pod_ip: &str, port: u16, timeout: Duration) -> Attempt {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let scheme = if action.scheme.as_deref() == Some("HTTPS") { "https" } else { "http" };
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{}{slash}{path}", authority(host, port));
    match tokio::time::timeout(timeout, follow(action, url.clone())).await {
        Ok(attempt) => attempt,
        Err(_) => Attempt::Failure(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn follow(action: &HTTPGetAction, mut url: String) -> Attempt {
    for _ in 0..=MAX_REDIRECTS {
        let answer = match once(action, &url).await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Failure(format!("Get {url:?}: {error}")),
        };
        match answer {
            Answer::Redirect(to) => match same_host(&url, &to) {
                Some(next) => url = next,
                // Upstream warns and succeeds: the container answered.
                None => return Attempt::Success,
            },
            Answer::Code(code) if (200..400).contains(&code) => return Attempt::Success,
            Answer::Code(code) => {
                return Attempt::Failure(format!("HTTP probe failed with statuscode: {code}"));
            }
        }
    }
    Attempt::Failure(format!("Get {url:?}: stopped after {MAX_REDIRECTS} redirects"))
}

enum Answer {
    Code(u16),
    Redirect(String),
}

fn same_host(from: &str, to: &str) -> Option<String> {
    let from: Uri = from.parse().ok()?;
    let to_uri: Uri = to.parse().ok()?;
    match to_uri.authority() {
        None if to.starts_with('/') => Some(format!("{}://{}{to}", from.scheme_str()?, from.authority()?)),
        None => None,
        Some(a) => (a.host() == from.host()? && to_uri.scheme().is_some()).then(|| to.to_owned()),
    }
}

async fn once(action: &HTTPGetAction, url: &str) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{e}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = authority(&host, port);
    let stream = TcpStream::connect(&address)
        .await
        .map_err(|e| format!("dial tcp {address}: connect: {}", plain(&e)))?;
    let request = request(action, &uri)?;
    if tls {
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(TLS.clone());
        let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    }
}

fn request(action: &HTTPGetAction, uri: &Uri) -> Result<Request<Empty<Bytes>>, String> {
    let target = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::get(target).body(Empty::new()).map_err(|e| e.to_string())?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|e| e.to_string())?);
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|e| e.to_string())?;
        let value = HeaderValue::from_str(&header.value).map_err(|e| e.to_string())?;
        headers.insert(name, value);
    }
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.status();
        let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        // Reading a little spares the server a broken pipe; more than that is of no interest.
        let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok(match location {
            Some(to) if code.is_redirection() => Answer::Redirect(to),
            _ => Answer::Code(code.as_u16()),
        })
    };
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        ended = connection => match ended {
            Err(e) => Err(e.to_string()),
            // The answer may be in already although the connection is done.
            Ok(()) => talk.await,
        },
    }
}

/// Probes ask whether a server answers, not who it is.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[expect(clippy::unwrap_used, reason = "ring supports the default protocol versions")]
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers each connection with the next text; returns the port and what the requests said.
    async fn server(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let n = stream.read(&mut buffer).await.unwrap();
                seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            seen
        });
        (port, task)
    }

    fn outcome(attempt: Attempt) -> Result<(), String> {
        match attempt {
            Attempt::Success => Ok(()),
            Attempt::Failure(m) | Attempt::Error(m) => Err(m),
        }
    }

    fn action() -> HTTPGetAction {
        serde_json::from_value(serde_json::json!({"port": 1, "path": "/healthz?x=1",
            "httpHeaders": [{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "me.example"}]}))
        .unwrap()
    }

    #[tokio::test]
    async fn codes_headers_and_redirects() {
        let (port, seen) = server(&[
            "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        let second = Duration::from_secs(1);
        assert_eq!(outcome(get(&action(), "127.0.0.1", port, second).await), Ok(()));
        assert_eq!(
            outcome(get(&action(), "127.0.0.1", port, second).await),
            Err("HTTP probe failed with statuscode: 503".to_owned())
        );
        let seen = seen.await.unwrap();
        assert!(seen[0].starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{}", seen[0]);
        assert!(seen[0].contains("x-probe: yes") && seen[0].contains("host: me.example"), "{}", seen[0]);
        assert!(seen[1].starts_with("GET /there HTTP/1.1"), "{}", seen[1]);
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(outcome(tcp("127.0.0.1", port, Duration::from_secs(1)).await), Ok(()));
        let silent = outcome(get(&action(), "127.0.0.1", port, Duration::from_millis(50)).await).unwrap_err();
        assert!(silent.contains("context deadline exceeded"), "{silent}");
        drop(listener);
        let refused = outcome(tcp("127.0.0.1", port, Duration::from_secs(1)).await).unwrap_err();
        assert_eq!(refused, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
