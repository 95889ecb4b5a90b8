//! Over the network: certificates, tokens, nobody; bodies that come slowly; the end of the server.

use std::sync::Arc;
use std::time::Duration;

use loadline_server::{Issued, Pki};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Cluster;

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "s3cret,admin,1,\"system:masters\"\nt0ken,bob,2\n").unwrap();
    Cluster::start_in(dir, |c| {
        c.token_auth_file = Some(tokens);
        c.limits.body_idle = Duration::from_millis(300);
    })
    .await
}

pub(crate) async fn connect(
    cluster: &Cluster,
    client: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let ca = CertificateDer::from_pem_slice(cluster.server.pki().ca_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let config = match client {
        Some(issued) => {
            let (chain, key) = issued.rustls().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(cluster.server.addr()).await?;
    let name = ServerName::try_from("kubernetes.default").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request on a connection of its own; the whole answer as text.
async fn ask(cluster: &Cluster, client: Option<&Issued>, path: &str, headers: &str) -> String {
    let mut stream = match connect(cluster, client).await {
        Ok(stream) => stream,
        Err(error) => return format!("refused: {error}"),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Ok(_) => String::from_utf8_lossy(&answer).into_owned(),
        Err(error) => format!("refused: {error}"),
    }
}

#[tokio::test]
async fn who_is_who() {
    let cluster = cluster().await;
    let pki = cluster.server.pki();
    let nodes = "/api/v1/nodes";
    let admin = pki.issue_client("admin", &["system:masters"]).unwrap();
    assert!(ask(&cluster, Some(&admin), nodes, "").await.starts_with("HTTP/1.1 200"));
    let kubelet = pki.issue_client("system:node:n1", &["system:nodes"]).unwrap();
    assert!(ask(&cluster, Some(&kubelet), nodes, "").await.starts_with("HTTP/1.1 200"));
    let deployments = "/apis/apps/v1/deployments";
    assert!(ask(&cluster, Some(&kubelet), deployments, "").await.starts_with("HTTP/1.1 403"));
    assert!(ask(&cluster, None, nodes, "Authorization: Bearer s3cret\r\n").await.starts_with("HTTP/1.1 200"));
    let bob = ask(&cluster, None, nodes, "Authorization: Bearer t0ken\r\n").await;
    assert!(bob.starts_with("HTTP/1.1 403") && bob.contains(r#"User \"bob\" cannot list"#), "{bob}");
    for bad in ["Bearer nope", "Bearer ", "Basic YTpi"] {
        let answer = ask(&cluster, None, nodes, &format!("Authorization: {bad}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{bad}: {answer}");
    }
    let nobody = ask(&cluster, None, nodes, "").await;
    assert!(nobody.starts_with("HTTP/1.1 403") && nobody.contains("system:anonymous"), "{nobody}");
    assert!(ask(&cluster, None, "/healthz", "").await.ends_with("ok"));
    // Headers say nothing about who one is.
    let liar = "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\nImpersonate-User: admin\r\n";
    assert!(ask(&cluster, None, nodes, liar).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn foreign_certificates_are_refused() {
    let cluster = cluster().await;
    let other = tempfile::tempdir().unwrap();
    let stranger = Pki::open(other.path()).unwrap().issue_client("admin", &["system:masters"]).unwrap();
    let answer = ask(&cluster, Some(&stranger), "/api/v1/nodes", "").await;
    assert!(answer.starts_with("refused"), "{answer}");
}

#[tokio::test]
async fn too_many_at_once_are_asked_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "s3cret,admin,1,\"system:masters\"\n").unwrap();
    let cluster = Cluster::start_in(dir, |c| {
        c.token_auth_file = Some(tokens);
        c.limits.reads_in_flight = 0;
    })
    .await;
    let answer = ask(&cluster, None, "/api/v1/nodes", "Authorization: Bearer s3cret\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    // Health is never turned away, nor are the components of this process.
    assert!(ask(&cluster, None, "/readyz", "").await.starts_with("HTTP/1.1 200"));
    cluster.admin().get("/api/v1/nodes").await.expect(200);
}

#[tokio::test]
async fn slow_bodies_do_not_wait_for_ever() {
    let cluster = cluster().await;
    let mut stream = connect(&cluster, None).await.unwrap();
    let head = "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 504"), "{text}");
}

#[tokio::test]
async fn connections_survive_refused_bodies() {
    let cluster = cluster().await;
    let mut stream = connect(&cluster, None).await.unwrap();
    for _ in 0..3 {
        // The body comes after the head, and nobody wants it.
        let head = "POST /api/v1/namespaces?dryRun=Some HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(b"{}").await.unwrap();
        let mut answer = vec![0; 8192];
        let n = stream.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..n]).starts_with("HTTP/1.1 422"), "{n}");
    }
}

#[tokio::test]
async fn the_end_waits_for_no_watch() {
    let cluster = cluster().await;
    let mut stream = connect(&cluster, None).await.unwrap();
    let request =
        "GET /api/v1/namespaces?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = vec![0; 16 * 1024];
    assert!(stream.read(&mut seen).await.unwrap() > 0);
    let stop = tokio::spawn(cluster.stop());
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut rest)).await.unwrap().ok();
    tokio::time::timeout(Duration::from_secs(8), stop).await.unwrap().unwrap();
}
