//! `GET …/decisions`: what an autoscaler decided, oldest first, each with everything that it was made from.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use loadline_api::status::ApiError;
use loadline_client::Delegated;
use serde_json::{Value, json};

use crate::fast::when;
use crate::ring::{Entry, Key, Kind, Ring};

pub(crate) fn delegates(ring: &Arc<Ring>) -> Vec<Delegated> {
    let of = |group, version, resource, singular, kind| Delegated {
        group,
        version,
        kind: "DecisionList",
        resource,
        singular,
        subresource: Some("decisions"),
        namespaced: true,
        verbs: &["get"],
        router: router(group, version, resource, kind, ring.clone()),
    };
    vec![
        of("autoscaling.loadline.io", "v1alpha1", "scalingpolicies", "scalingpolicy", Kind::ScalingPolicy),
        of("autoscaling", "v2", "horizontalpodautoscalers", "horizontalpodautoscaler", Kind::Hpa),
    ]
}

fn router(group: &str, version: &str, resource: &str, kind: Kind, ring: Arc<Ring>) -> Router {
    let path = format!("/apis/{group}/{version}/namespaces/{{namespace}}/{resource}/{{name}}/decisions");
    Router::new().route(&path, get(decisions)).with_state((kind, ring))
}

async fn decisions(
    State((kind, ring)): State<(Kind, Arc<Ring>)>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let key = Key { kind, namespace, name };
    let Some(entries) = ring.get(&key) else { return not_found(&key) };
    let items: Vec<Value> = entries.iter().map(|e| item(e)).collect();
    Json(json!({
        "kind": "DecisionList",
        "apiVersion": "autoscaling.loadline.io/v1alpha1",
        "metadata": {},
        "items": items,
    }))
    .into_response()
}

fn not_found(key: &Key) -> Response {
    let (group, resource) = match key.kind {
        Kind::Hpa => ("autoscaling", "horizontalpodautoscalers"),
        Kind::ScalingPolicy => ("autoscaling.loadline.io", "scalingpolicies"),
    };
    let error = ApiError::not_found(group, resource, &key.name);
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": error.message,
        "reason": error.reason, "details": error.details, "code": 404,
    });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

fn item(entry: &Entry) -> Value {
    let decision = &entry.decision;
    json!({
        "time": when(entry.record.time),
        "currentReplicas": decision.current,
        "desiredReplicas": decision.desired,
        "profile": entry.policy.profile(),
        "summary": decision.summary,
        "details": decision.details,
        "refused": entry.refused,
        "decision": decision,
        "policy": entry.policy,
        "record": entry.record,
        "state": entry.state,
    })
}
