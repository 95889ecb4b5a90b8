//! A server on an embedded store in a temporary folder, and a client that speaks JSON to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use loadline_server::identity::MASTERS;
use loadline_server::{Config, Identity, LocalService, Server};
use loadline_store::{Embedded, EmbeddedOptions, Store};
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) dir: tempfile::TempDir,
    embedded: Option<Arc<Embedded>>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |_| {}).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, edit: impl FnOnce(&mut Config)) -> Self {
        let options = EmbeddedOptions::default();
        let store = Arc::new(Embedded::open(dir.path().join("store"), options).unwrap());
        let mut cluster = Self::start_on(dir, store.clone(), edit).await;
        cluster.embedded = Some(store);
        cluster
    }

    pub(crate) async fn start_on(
        dir: tempfile::TempDir,
        store: Arc<dyn Store>,
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path());
        edit(&mut config);
        let server = Server::start(config, store).await.unwrap();
        Self { server, dir, embedded: None }
    }

    /// Stops everything; the folder is left for another start.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.server.shutdown().await;
        if let Some(store) = self.embedded {
            store.close().await;
        }
        self.dir
    }

    pub(crate) fn admin(&self) -> Client {
        self.client(Identity::new("admin", &[MASTERS]))
    }

    pub(crate) fn client(&self, identity: Identity) -> Client {
        Client { service: self.server.local(identity) }
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    service: LocalService,
}

pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{:#}", self.body);
        self.body
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers.get_all(header::WARNING).iter().map(|w| w.to_str().unwrap().to_owned()).collect()
    }
}

impl Client {
    pub(crate) async fn send(&self, request: Request<Body>) -> axum::http::Response<Body> {
        match self.service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, ty: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, ty)
            .header(header::USER_AGENT, "tests/1")
            .body(body.into())
            .unwrap();
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "application/json", Body::empty()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request =
            Request::builder().uri(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { code: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, "application/json", Body::empty()).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.call(Method::DELETE, path, "application/json", options.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch.to_string()).await
    }

    pub(crate) async fn apply(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::PATCH, path, "application/apply-patch+yaml", object.to_string()).await
    }

    /// A namespace with its default service account.
    pub(crate) async fn namespace(&self, name: &str) {
        self.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
        let account = json!({"metadata": {"name": "default"}});
        self.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await.expect(201);
    }

    pub(crate) async fn config_map(&self, namespace: &str, name: &str, label: &str) -> Value {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}, "data": {"k": "v"}});
        self.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &object).await.expect(201)
    }

    pub(crate) async fn watch(&self, path: &str) -> Events {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Events { body: response.into_body().into_data_stream(), buffer: Vec::new() }
    }
}

/// The events of a watch, one by one.
pub(crate) struct Events {
    body: axum::body::BodyDataStream,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let more: Option<Bytes> = tokio::time::timeout(Duration::from_secs(20), self.body.next())
                .await
                .expect("no event within 20 s")
                .map(Result::unwrap);
            self.buffer.extend_from_slice(&more?);
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

/// Polls until `check` is happy; fails with what it saw last.
pub(crate) async fn eventually<T: std::fmt::Debug, F: Future<Output = Result<(), T>>>(
    mut check: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match check().await {
            Ok(()) => return,
            Err(seen) if tokio::time::Instant::now() > deadline => panic!("not in time; last seen: {seen:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) fn pair(ty: &str, name: &str) -> (String, String) {
    (ty.to_owned(), name.to_owned())
}

pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}
