//! The kubelet API over TLS: who may use it, logs, exec over WebSocket, metrics.

#![allow(clippy::unwrap_used)]

#[path = "support/harness.rs"]
mod harness;

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use harness::{Cluster, eventually};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use loadline_server::pki::Issued;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A TLS connection to the kubelet, with or without a client certificate.
async fn connect(
    cluster: &Cluster,
    port: u16,
    client: Option<&Issued>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let ca =
        rustls_pki_types::CertificateDer::from_pem_slice(cluster.server.pki().ca_pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
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
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

async fn get(
    cluster: &Cluster,
    port: u16,
    client: Option<&Issued>,
    path: &str,
) -> Result<(StatusCode, String), String> {
    let stream = connect(cluster, port, client).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "node").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn admin(cluster: &Cluster) -> Issued {
    cluster.server.pki().issue_client("admin", &["system:masters"]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_masters_may_ask() {
    let cluster = Cluster::start().await;
    let port = cluster.node("node-1", 1).await.kubelet.addr.port();
    let admin = admin(&cluster);
    let other = cluster.server.pki().issue_client("somebody", &["people"]).unwrap();
    assert_eq!(
        get(&cluster, port, Some(&admin), "/healthz").await.unwrap(),
        (StatusCode::OK, "ok".to_owned())
    );
    assert!(get(&cluster, port, None, "/healthz").await.is_err(), "no certificate, no connection");
    for path in ["/pods", "/metrics", "/metrics/resource", "/containerLogs/default/p/c"] {
        let (status, _) = get(&cluster, port, Some(&other), path).await.unwrap();
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    let (status, body) = get(&cluster, port, Some(&admin), "/metrics").await.unwrap();
    assert!(status == StatusCode::OK && body.contains("kubelet_running_pods"), "{status} {body}");
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_pods_and_metrics() {
    let cluster = Cluster::start().await;
    let port = cluster.node("node-1", 1).await.kubelet.addr.port();
    let admin = admin(&cluster);
    cluster.create("web", "node-1", json!({})).await;
    cluster.running("web").await;
    eventually("logs are served", || async {
        match get(&cluster, port, Some(&admin), "/containerLogs/default/web/app?tailLines=10").await? {
            (StatusCode::OK, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let cases = [
        ("/containerLogs/default/none/app", 404, "pod \"none\" does not exist"),
        ("/containerLogs/default/web/none", 404, "container \"none\" not found in pod \"web\""),
        (
            "/containerLogs/default/web/app?previous=true",
            400,
            "previous terminated container \"app\" in pod \"web\" not found",
        ),
        ("/containerLogs/default/web/app?tailLines=-1", 422, "tailLines must be 0 or more"),
    ];
    for (path, code, text) in cases {
        let (status, body) = get(&cluster, port, Some(&admin), path).await.unwrap();
        assert_eq!((status.as_u16(), body.trim()), (code, text), "{path}");
    }
    let (_, pods) = get(&cluster, port, Some(&admin), "/pods").await.unwrap();
    assert!(pods.contains("\"kind\":\"PodList\"") && pods.contains("\"web\""));
    eventually("the container is measured", || async {
        let (_, text) = get(&cluster, port, Some(&admin), "/metrics/resource").await?;
        let labels = "{container=\"app\",namespace=\"default\",pod=\"web\"}";
        let line =
            text.lines().find(|l| l.starts_with(&format!("container_cpu_usage_seconds_total{labels}")));
        match line.map(|l| l.split(' ').count()) {
            Some(3) if text.contains("resource_scrape_error 0") => Ok(()),
            _ => Err(text),
        }
    })
    .await;
    cluster.scope.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_over_websocket() {
    let cluster = Cluster::start().await;
    let port = cluster.node("node-1", 1).await.kubelet.addr.port();
    let admin = admin(&cluster);
    cluster.create("web", "node-1", json!({})).await;
    cluster.running("web").await;
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let path = "exec/default/web/app?command=echo&command=hi&output=1&error=1&input=1";
        let (mut socket, chosen) = eventually("the container may be entered", || async {
            let stream = connect(&cluster, port, Some(&admin)).await.map_err(|e| e.to_string())?;
            let mut request = format!("wss://127.0.0.1:{port}/{path}").into_client_request().unwrap();
            let offered = format!("nonsense, {protocol}");
            request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
            let (socket, response) =
                tokio_tungstenite::client_async(request, stream).await.map_err(|e| e.to_string())?;
            Ok::<_, String>((socket, response.headers().get("sec-websocket-protocol").cloned()))
        })
        .await;
        assert_eq!(chosen.unwrap(), protocol);
        let _ = socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await;
        let (mut out, mut status) = (String::new(), String::new());
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(data) => match data.split_first() {
                    Some((1 | 2, text)) => out.push_str(&String::from_utf8_lossy(text)),
                    Some((3, text)) => status.push_str(&String::from_utf8_lossy(text)),
                    other => panic!("{other:?}"),
                },
                Message::Close(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(out.contains("echo"), "{out}");
        assert!(status.contains("\"Success\""), "{status}");
    }
    let (status, _) =
        get(&cluster, port, Some(&admin), "/exec/default/web/app?command=ls&output=1").await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST, "not a WebSocket");
    cluster.scope.shutdown().await;
}
