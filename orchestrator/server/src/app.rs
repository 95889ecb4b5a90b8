//! One request from its head to its answer: target, identity, rights, limits, dispatch, count.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use loadline_api::kinds::Registry;
use loadline_api::status::{ApiError, Reason};
use loadline_store::Store;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::alloc::Allocator;
use crate::authz::authorize;
use crate::config::{Delegate, Limits};
use crate::discovery::Discovery;
use crate::feed::Feed;
use crate::health;
use crate::identity::{Identity, Tokens};
use crate::metrics::{Labels, Metrics, RequestKind};
use crate::negotiate::{Encoding, Offer, accept};
use crate::openapi::OpenApi;
use crate::proxy::Kubelets;
use crate::request::{Query, ResourcePath, Target, parse_path, verb};
use crate::respond::{Failure, HttpResponse, Result, failure, json, text, warn};
use crate::shape::Shape;
use crate::table::{Resource, Table};
use crate::write::Write;

const ENDPOINTS_DEPRECATED: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// Everything that requests share.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) registry: Registry,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: Tokens,
    pub(crate) allocator: Allocator,
    pub(crate) delegates: Vec<Delegate>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) kubelets: Kubelets,
    pub(crate) advertise: (IpAddr, u16),
    pub(crate) stop: watch::Sender<bool>,
}

/// Where a request came from, as far as it is proven.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Over the network, with the identity of a verified client certificate if there was one.
    Network(Option<Identity>),
    /// From this process.
    Local(Identity),
}

/// One request, taken apart.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) identity: Identity,
    pub(crate) verb: &'static str,
    pub(crate) path: ResourcePath,
}

impl Call {
    pub(crate) fn user_agent(&self) -> &str {
        self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

impl App {
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Answers any request; never fails.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Body>, peer: Peer) -> HttpResponse {
        let started = Instant::now();
        let head = request.method() == Method::HEAD;
        let mut seen = Seen::default();
        let encoding = accept(request.headers(), Offer::Plain).map(|a| a.encoding).unwrap_or(Encoding::Json);
        let (request, leftover) = crate::body::keep(request);
        let result = self.clone().answer(request, peer, &mut seen).await;
        let mut response = result.unwrap_or_else(|error| failure(&error, encoding));
        if let Some(leftover) = leftover {
            leftover.drain().await;
        }
        if seen.path.resource == "endpoints" && seen.path.group.is_empty() {
            warn(&mut response, &[ENDPOINTS_DEPRECATED.to_owned()]);
        }
        if head {
            *response.body_mut() = Body::empty();
        }
        let labels = Labels {
            verb: seen.verb,
            group: &seen.path.group,
            version: &seen.path.version,
            resource: &seen.path.resource,
            subresource: &seen.path.subresource,
            scope: seen.scope(),
            dry_run: seen.dry_run,
        };
        self.metrics.finished(&labels, response.status().as_u16(), started.elapsed());
        response
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Body>,
        peer: Peer,
        seen: &mut Seen,
    ) -> Result<HttpResponse> {
        let target = parse_path(request.uri().path()).map_err(|_| {
            ApiError::bad_request(
                "the path holds a segment that no object can have (empty, dots, or an escaped slash)",
            )
        })?;
        let local = matches!(peer, Peer::Local(_));
        let identity = self.authenticate(request.headers(), peer)?;
        let query = Query::parse(request.uri().query());
        match target {
            Target::Path(path) => {
                let verb = method_verb(request.method());
                seen.verb = verb;
                authorize(&identity, verb, &Target::Path(path.clone()))?;
                self.path(&path, &query, request).await
            }
            Target::Resource(path) => {
                let verb = verb(request.method(), &path, &query).ok_or_else(Failure::method_not_allowed)?;
                seen.verb = verb;
                // Whoever runs commands in a pod must be allowed to create there, whatever the method.
                let runs = matches!(path.subresource.as_str(), "exec" | "attach" | "portforward");
                let target = Target::Resource(path);
                authorize(&identity, if runs { "create" } else { verb }, &target)?;
                let Target::Resource(path) = target else { return Err(Failure::NoPage) };
                self.resource(path, query, identity, verb, local, request, seen).await
            }
        }
    }

    fn authenticate(&self, headers: &HeaderMap, peer: Peer) -> Result<Identity> {
        match peer {
            Peer::Local(identity) | Peer::Network(Some(identity)) => return Ok(identity),
            Peer::Network(None) => {}
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Identity::anonymous()) };
        let token = value.to_str().ok().and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let known = token.and_then(|t| self.tokens.find(t));
        known.cloned().ok_or_else(|| ApiError::new(Reason::Unauthorized, "Unauthorized").into())
    }

    async fn path(&self, path: &str, query: &Query, request: Request<Body>) -> Result<HttpResponse> {
        if health::is_health(path) {
            return health::check(self, path, query).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Failure::method_not_allowed());
        }
        match path {
            "/version" => {
                Ok(json(StatusCode::OK, serde_json::to_vec(&health::version()).unwrap_or_default()))
            }
            "/metrics" => {
                let table = self.table.load();
                let sizes = table
                    .caches()
                    .iter()
                    .map(|c| (loadline_api::status::qualified(c.kind.group, c.kind.resource), c.len()));
                let mut response = text(StatusCode::OK, self.metrics.text(sizes));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    axum::http::HeaderValue::from_static(prometheus::TEXT_FORMAT),
                );
                Ok(response)
            }
            _ if path.starts_with("/openapi/") => {
                self.openapi.answer(&self.registry, path, query, request.headers()).await
            }
            _ => self.discovery.answer(path, request.headers()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, used once")]
    async fn resource(
        self: Arc<Self>,
        path: ResourcePath,
        query: Query,
        identity: Identity,
        verb: &'static str,
        local: bool,
        request: Request<Body>,
        seen: &mut Seen,
    ) -> Result<HttpResponse> {
        let table = self.table.load();
        let resource = table.find(&path.group, &path.version, &path.resource).cloned();
        drop(table);
        // Names from unknown paths would let anybody grow the metrics without bound.
        let delegate = self.delegate(&path);
        if resource.is_some() || delegate.is_some() {
            seen.path = path.clone();
            seen.dry_run = query.text("dryRun").is_some();
        }
        let streams =
            verb == "watch" || matches!(path.subresource.as_str(), "log" | "exec" | "attach" | "portforward");
        let _in_flight = if local || streams {
            None
        } else {
            let (kind, limit) = match verb {
                "get" | "list" => (RequestKind::Read, self.limits.reads_in_flight),
                _ => (RequestKind::Write, self.limits.writes_in_flight),
            };
            let admitted = self.metrics.admit(kind, limit);
            Some(admitted.ok_or_else(|| {
                ApiError::new(Reason::TooManyRequests, "too many requests, please try again later")
                    .retry_after(1)
            })?)
        };
        let timeout = self.limits.request_timeout;
        let work = async {
            if let Some(delegate) = delegate {
                return delegate_call(delegate, verb, request).await;
            }
            let Some(resource) = resource else {
                if path.group.is_empty() && path.resource == "bindings" && verb == "create" {
                    return self.bindings(path, query, identity, request).await;
                }
                return Err(self.unknown(&path));
            };
            let (parts, body) = request.into_parts();
            let call = Call { method: parts.method, headers: parts.headers, query, identity, verb, path };
            self.served(resource, call, body, parts.extensions).await
        };
        if streams {
            return work.await;
        }
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::new(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            )
            .into()),
        }
    }

    /// The old way to bind pods: the body names the pod.
    async fn bindings(
        self: &Arc<Self>,
        path: ResourcePath,
        query: Query,
        identity: Identity,
        request: Request<Body>,
    ) -> Result<HttpResponse> {
        let pods = self.table.load().find("", "v1", "pods").cloned().ok_or_else(Failure::no_resource)?;
        if path.namespace.is_empty() || !path.name.is_empty() {
            return Err(Failure::method_not_allowed());
        }
        let (parts, body) = request.into_parts();
        let call =
            Call { method: parts.method, headers: parts.headers, query, identity, verb: "create", path };
        crate::sub::bindings(self, &pods, call, body).await
    }

    /// A path under a group that is served gets a Status, others plain text, as Kubernetes has it.
    fn unknown(&self, path: &ResourcePath) -> Failure {
        let known = self
            .registry
            .snapshot()
            .kinds()
            .iter()
            .any(|k| k.group == path.group && k.version == path.version)
            || self.delegates.iter().any(|d| d.group == path.group && d.version == path.version);
        if known { Failure::no_resource() } else { Failure::NoPage }
    }

    fn delegate(&self, path: &ResourcePath) -> Option<&Delegate> {
        self.delegates.iter().find(|d| {
            d.resource == path.resource
                && d.group == path.group
                && d.version == path.version
                && d.subresource.as_deref().unwrap_or_default() == path.subresource
        })
    }

    async fn served(
        self: &Arc<Self>,
        resource: Arc<Resource>,
        call: Call,
        body: Body,
        extensions: axum::http::Extensions,
    ) -> Result<HttpResponse> {
        let path = &call.path;
        let collection = path.name.is_empty();
        if resource.kind.namespaced {
            // One object needs its namespace; a collection is created in one.
            if path.namespace.is_empty() && !collection {
                return Err(Failure::no_resource());
            }
            if path.namespace.is_empty() && matches!(call.verb, "create" | "deletecollection") {
                return Err(Failure::method_not_allowed());
            }
        } else if !path.namespace.is_empty() {
            return Err(Failure::no_resource());
        }
        if !path.subresource.is_empty() {
            return crate::sub::serve(self, resource, call, body, extensions).await;
        }
        if !resource.kind.has_verb(call.verb) || (call.verb == "create" && !collection) {
            return Err(Failure::method_not_allowed());
        }
        if matches!(call.verb, "update" | "patch") && collection {
            return Err(Failure::method_not_allowed());
        }
        let accepted = accept(&call.headers, Offer::Objects)?;
        match call.verb {
            "get" => {
                crate::read::get(self, &Shape::one(&resource, accepted, &call.query)?, path, &call.query)
                    .await
            }
            "list" => {
                crate::read::list(self, &Shape::list(&resource, accepted, &call.query)?, path, &call.query)
                    .await
            }
            "watch" => {
                let shape = Shape::new(&resource, accepted, &call.query)?;
                crate::watch::watch(self, shape, path, &call.query).await
            }
            _ => Write::new(self, &resource, &call).run(body, accepted).await,
        }
    }
}

async fn delegate_call(delegate: &Delegate, verb: &str, request: Request<Body>) -> Result<HttpResponse> {
    if !delegate.verbs.iter().any(|v| v == verb) {
        return Err(Failure::method_not_allowed());
    }
    let service = delegate.service.clone();
    match service.oneshot(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

/// What metrics know of a request.
#[derive(Default)]
struct Seen {
    verb: &'static str,
    path: ResourcePath,
    dry_run: bool,
}

impl Seen {
    fn scope(&self) -> &'static str {
        if self.path.resource.is_empty() {
            ""
        } else if !self.path.name.is_empty() {
            "resource"
        } else if !self.path.namespace.is_empty() {
            "namespace"
        } else {
            "cluster"
        }
    }
}
