//! `metrics.k8s.io/v1beta1`. Beyond the standard, `?window=3s` asks for a rate over another time than 15 s.

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use jiff::Timestamp;
use loadline_api::selector::Selector;
use loadline_api::status::{ApiError, Reason};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::window::{PodKey, Usage};
use crate::{GROUP, Pods, Shared, VERSION};

const DEFAULT_WINDOW_MS: i64 = 15_000;
const MAX_WINDOW_MS: i64 = 15 * 60 * 1000;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let path = |rest: &str| format!("/apis/{GROUP}/{VERSION}/{rest}");
    Router::new()
        .route(&path("nodes"), get(list_nodes))
        .route(&path("nodes/{name}"), get(get_node))
        .route(&path("pods"), get(list_all_pods))
        .route(&path("namespaces/{namespace}/pods"), get(list_pods))
        .route(&path("namespaces/{namespace}/pods/{name}"), get(get_pod))
        .with_state(shared)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    #[serde(default)]
    label_selector: String,
    window: Option<String>,
}

impl Params {
    fn selector(&self) -> Result<Selector, Refused> {
        Selector::parse(&self.label_selector)
            .map_err(|e| Refused(StatusCode::BAD_REQUEST, ApiError::bad_request(e.to_string())))
    }

    fn window_ms(&self) -> Result<i64, Refused> {
        let Some(text) = &self.window else { return Ok(DEFAULT_WINDOW_MS) };
        let seconds: Option<i64> = text.strip_suffix('s').and_then(|s| s.parse().ok());
        match seconds.map(|s| s.saturating_mul(1000)) {
            Some(ms) if (1000..=MAX_WINDOW_MS).contains(&ms) => Ok(ms),
            _ => {
                let message = format!("window {text:?} is not valid; write 1s to {}s", MAX_WINDOW_MS / 1000);
                Err(Refused(StatusCode::BAD_REQUEST, ApiError::bad_request(message)))
            }
        }
    }
}

/// An error with its place at the HTTP edge.
struct Refused(StatusCode, ApiError);

impl Refused {
    fn not_found(resource: &str, name: &str) -> Self {
        Self(StatusCode::NOT_FOUND, ApiError::not_found(GROUP, resource, name))
    }

    fn starting() -> Self {
        let error =
            ApiError::new(Reason::ServiceUnavailable, "metrics are not gathered yet; try again in a second");
        Self(StatusCode::SERVICE_UNAVAILABLE, error.retry_after(1))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.1.message,
            "reason": self.1.reason, "details": self.1.details, "code": self.0.as_u16(),
        });
        (self.0, Json(body)).into_response()
    }
}

type Answer = Result<Json<Value>, Refused>;

async fn list_nodes(State(shared): State<Arc<Shared>>, Query(params): Query<Params>) -> Answer {
    let (selector, window_ms) = (params.selector()?, params.window_ms()?);
    if !selector.is_everything() {
        // Labels of nodes are not kept here; a wrong answer would be worse than none.
        let message = "node metrics cannot be selected by labels; select the nodes and ask for them by name";
        return Err(Refused(StatusCode::BAD_REQUEST, ApiError::bad_request(message)));
    }
    let now = Timestamp::now().as_millisecond();
    let window = shared.window.read().unwrap_or_else(PoisonError::into_inner);
    let items: Vec<Value> = window
        .node_names()
        .filter_map(|name| Some(node_metrics(name, window.node(name, window_ms, now)?)))
        .collect();
    Ok(list("NodeMetricsList", items))
}

async fn get_node(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Answer {
    let window_ms = params.window_ms()?;
    let now = Timestamp::now().as_millisecond();
    let window = shared.window.read().unwrap_or_else(PoisonError::into_inner);
    let usage = window.node(&name, window_ms, now).ok_or_else(|| Refused::not_found("nodes", &name))?;
    Ok(Json(with_type("NodeMetrics", node_metrics(&name, usage))))
}

async fn list_all_pods(State(shared): State<Arc<Shared>>, Query(params): Query<Params>) -> Answer {
    pods(&shared, None, &params)
}

async fn list_pods(
    State(shared): State<Arc<Shared>>,
    Path(namespace): Path<String>,
    Query(params): Query<Params>,
) -> Answer {
    pods(&shared, Some(&namespace), &params)
}

async fn get_pod(
    State(shared): State<Arc<Shared>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Answer {
    let window_ms = params.window_ms()?;
    let pods = pod_cache(&shared)?;
    let key = (namespace, name);
    pod_metrics(&shared, &pods, &key, &Selector::everything(), window_ms, Timestamp::now().as_millisecond())
        .map(|pod| Json(with_type("PodMetrics", pod)))
        .ok_or_else(|| Refused::not_found("pods", &format!("{}/{}", key.0, key.1)))
}

fn pods(shared: &Shared, namespace: Option<&str>, params: &Params) -> Answer {
    let (selector, window_ms) = (params.selector()?, params.window_ms()?);
    let cache = pod_cache(shared)?;
    let now = Timestamp::now().as_millisecond();
    let mut keys: Vec<PodKey> = {
        let window = shared.window.read().unwrap_or_else(PoisonError::into_inner);
        window.pod_keys().filter(|k| namespace.is_none_or(|n| k.0 == n)).cloned().collect()
    };
    keys.sort();
    let items =
        keys.iter().filter_map(|key| pod_metrics(shared, &cache, key, &selector, window_ms, now)).collect();
    Ok(list("PodMetricsList", items))
}

fn pod_cache(shared: &Shared) -> Result<Pods, Refused> {
    let pods = shared.pods.read().unwrap_or_else(PoisonError::into_inner);
    pods.clone().filter(Pods::is_synced).ok_or_else(Refused::starting)
}

fn pod_metrics(
    shared: &Shared,
    pods: &Pods,
    key: &PodKey,
    selector: &Selector,
    window_ms: i64,
    now: i64,
) -> Option<Value> {
    let pod = pods.get(&key.0, &key.1)?;
    let none = std::collections::BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    if !selector.matches(labels) {
        return None;
    }
    let window = shared.window.read().unwrap_or_else(PoisonError::into_inner);
    let usages = window.pod(key, window_ms, now)?;
    // The pod is as old as its oldest reading.
    let at = usages.iter().map(|(_, u)| u.at).min()?;
    let span_ms = usages.iter().map(|(_, u)| u.span_ms).max()?;
    let containers: Vec<Value> =
        usages.iter().map(|(name, u)| json!({"name": name, "usage": usage(*u)})).collect();
    let mut metadata = json!({"name": key.1, "namespace": key.0, "creationTimestamp": time(now)});
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    Some(
        json!({"metadata": metadata, "timestamp": time(at), "window": span(span_ms), "containers": containers}),
    )
}

fn node_metrics(name: &str, of: Usage) -> Value {
    json!({
        "metadata": {"name": name, "creationTimestamp": time(of.at)},
        "timestamp": time(of.at), "window": span(of.span_ms), "usage": usage(of),
    })
}

fn usage(of: Usage) -> Value {
    json!({
        "cpu": format!("{}n", (of.cpu_cores * 1e9).round() as i64),
        "memory": format!("{}Ki", (of.memory / 1024.0).round() as i64),
    })
}

fn time(ms: i64) -> String {
    // A sample's time came from a clock; one that cannot be shown is shown as the epoch.
    Timestamp::from_second(ms / 1000).unwrap_or_default().to_string()
}

/// As Go prints a duration.
fn span(ms: i64) -> String {
    if ms % 1000 == 0 { format!("{}s", ms / 1000) } else { format!("{}s", ms as f64 / 1000.0) }
}

fn with_type(kind: &str, object: Value) -> Value {
    let mut typed = Map::new();
    typed.insert("kind".to_owned(), json!(kind));
    typed.insert("apiVersion".to_owned(), json!(format!("{GROUP}/{VERSION}")));
    if let Value::Object(fields) = object {
        typed.extend(fields);
    }
    Value::Object(typed)
}

fn list(kind: &str, items: Vec<Value>) -> Json<Value> {
    Json(with_type(kind, json!({"metadata": {}, "items": items})))
}
