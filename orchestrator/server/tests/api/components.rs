//! What others answer behind the server: delegated resources, and kubelets.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadline_server::{Delegate, Identity, Pki};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::util::BoxCloneSyncService;

use crate::support::{Client, Cluster};

#[tokio::test]
async fn delegates_answer_behind_the_servers_rights() {
    let router = Router::new()
        .route("/apis/metrics.k8s.io/v1beta1/nodes", get(|| async { "nodes" }))
        .route("/apis/apps/v1/namespaces/{ns}/deployments/{name}/decisions", get(|| async { "decisions" }));
    let delegate =
        |group: &str, version: &str, kind: &str, resource: &str, sub: Option<&str>, namespaced| Delegate {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            singular: String::new(),
            short_names: Vec::new(),
            subresource: sub.map(str::to_owned),
            namespaced,
            verbs: vec!["get".to_owned(), "list".to_owned()],
            service: BoxCloneSyncService::new(router.clone().into_service()),
        };
    let cluster = Cluster::start_in(tempfile::tempdir().unwrap(), |c| {
        c.delegates = vec![
            delegate("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", None, false),
            delegate("apps", "v1", "DecisionList", "deployments", Some("decisions"), true),
        ];
    })
    .await;
    let admin = cluster.admin();
    assert_eq!(admin.get("/apis/metrics.k8s.io/v1beta1/nodes").await.expect(200), "nodes");
    assert_eq!(
        admin.get("/apis/apps/v1/namespaces/ns/deployments/d/decisions").await.expect(200),
        "decisions"
    );
    let list = admin.get("/apis/metrics.k8s.io/v1beta1").await.expect(200);
    assert_eq!(list["resources"][0]["kind"], "NodeMetrics");
    let apps = admin.get("/apis/apps/v1").await.expect(200);
    assert!(apps["resources"].as_array().unwrap().iter().any(|r| r["name"] == "deployments/decisions"));
    admin.post("/apis/metrics.k8s.io/v1beta1/nodes", &json!({})).await.expect(405);
    let bob = cluster.client(Identity::new("bob", &[]));
    bob.get("/apis/metrics.k8s.io/v1beta1/nodes").await.expect(403);
}

/// A kubelet that answers logs with its request, and upgrades exec to an echo.
async fn kubelet(pki: &Pki) -> u16 {
    let (chain, key) = pki.issue_server("node", &["127.0.0.1".to_owned()]).unwrap().rustls().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
    let uri = request.uri().to_string();
    if uri.starts_with("/containerLogs/") {
        return Ok(Response::new(Body::from(uri)));
    }
    if uri.contains("refuse") {
        let mut response = Response::new(Body::from("no such container"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let seen = format!("{uri} {}\n", request.headers().contains_key(header::AUTHORIZATION));
    tokio::spawn(async move {
        let mut io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        io.write_all(seen.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        let n = io.read(&mut buffer).await.unwrap();
        io.write_all(&buffer[..n]).await.unwrap();
        io.shutdown().await.unwrap();
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, "websocket".parse().unwrap());
    response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
    Ok(response)
}

async fn with_pod() -> (Cluster, Client) {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "s3cret,admin,1,\"system:masters\"\n").unwrap();
    let cluster = Cluster::start_in(dir, |c| c.token_auth_file = Some(tokens)).await;
    let admin = cluster.admin();
    let port = kubelet(cluster.server.pki()).await;
    admin.namespace("ns").await;
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    admin.merge("/api/v1/nodes/n1/status", &status).await.expect(200);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/ns/pods", &pod).await.expect(201);
    (cluster, admin)
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let (_cluster, admin) = with_pod().await;
    let pods = "/api/v1/namespaces/ns/pods";
    let log = admin.get(&format!("{pods}/p/log?tailLines=5&follow=true&other=x")).await.expect(200);
    assert_eq!(log, "/containerLogs/ns/p/c?follow=true&tailLines=5");
    admin.get(&format!("{pods}/p/log?container=nope")).await.expect(400);
    admin.get(&format!("{pods}/none/log")).await.expect(404);
    let loose = json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    admin.post(pods, &loose).await.expect(201);
    let refused = admin.get(&format!("{pods}/q/log")).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("does not have a host assigned"));
    admin.get(&format!("{pods}/p/exec?command=ls")).await.expect(400);
}

#[tokio::test]
async fn streams_pass_through() {
    let (cluster, _admin) = with_pod().await;
    let exec = |command: &str| {
        format!(
            "GET /api/v1/namespaces/ns/pods/p/exec?command={command}&stdin=true&stdout=true HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer s3cret\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    };
    let mut stream = crate::tls::connect(&cluster, None).await.unwrap();
    stream.write_all(exec("ls%20-l").as_bytes()).await.unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains("false\n") {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    // The kubelet is told what to run, and nothing of the client's credentials.
    assert!(seen.contains("/exec/ns/p/c?input=1&output=1&command=ls%20%2Dl false"), "{seen}");
    stream.write_all(b"echo").await.unwrap();
    let n = stream.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..n], b"echo");

    let mut stream = crate::tls::connect(&cluster, None).await.unwrap();
    stream.write_all(exec("refuse").as_bytes()).await.unwrap();
    let n = stream.read(&mut buffer).await.unwrap();
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
}
