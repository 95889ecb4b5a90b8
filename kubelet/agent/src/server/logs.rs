//! `/containerLogs`: which instance's log is meant, and its stream.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use loadline_runtime::{LogOptions, Output, RuntimeError};
use serde::Deserialize;

use super::{Api, refuse};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Options {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<i64>,
    /// `All`, `Stdout` or `Stderr`.
    stream: Option<String>,
}

pub(super) async fn logs(
    State(api): State<Api>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Response {
    let pod = match api.pod(&namespace, &name, &container) {
        Ok(pod) => pod,
        Err(answer) => return answer,
    };
    let (log, limit) = match checked(&options, Timestamp::now()) {
        Ok(checked) => checked,
        Err(message) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let id = match instance(&pod, &container, is_true(options.previous.as_deref())) {
        Ok(id) => id,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let lines = match api.node.config.runtime.logs(&id, &log).await {
        Ok(lines) => lines,
        Err(RuntimeError::NotFound(_)) => {
            let message = format!("unable to retrieve container logs for {}://{id}", api.node.runtime_name);
            return refuse(StatusCode::BAD_REQUEST, message);
        }
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let wanted = options.stream.unwrap_or_default();
    let body = Body::from_stream(limited(lines, limit, wanted));
    ([(header::CONTENT_TYPE, "text/plain")], body).into_response()
}

/// As Go's `ParseBool`, and as a flag without a value.
fn is_true(text: Option<&str>) -> bool {
    matches!(text, Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn checked(options: &Options, now: Timestamp) -> Result<(LogOptions, Option<u64>), String> {
    let since = match (options.since_seconds, &options.since_time) {
        (Some(_), Some(_)) => {
            return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned());
        }
        (Some(s), None) if s < 1 => return Err("sinceSeconds must be greater than 0".to_owned()),
        (Some(s), None) => Some(now.checked_sub(SignedDuration::from_secs(s)).map_err(|e| e.to_string())?),
        (None, Some(t)) => Some(t.parse::<Timestamp>().map_err(|e| format!("sinceTime: {e}"))?),
        (None, None) => None,
    };
    let tail =
        options.tail_lines.map(|n| u64::try_from(n).map_err(|_| "tailLines must be 0 or more".to_owned()));
    let limit = match options.limit_bytes {
        Some(n) if n < 1 => return Err("limitBytes must be greater than 0".to_owned()),
        other => other.map(i64::unsigned_abs),
    };
    let log = LogOptions {
        follow: is_true(options.follow.as_deref()),
        tail: tail.transpose()?,
        since,
        timestamps: is_true(options.timestamps.as_deref()),
    };
    Ok((log, limit))
}

pub(super) fn container_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.into_iter().find(|s| s.name == container)
}

/// The runtime id of the instance whose log is asked for; the error in upstream's words.
fn instance(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = crate::names::name(pod);
    let Some(status) = container_status(pod, container) else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let state = status.state.clone().unwrap_or_default();
    let last =
        status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.clone());
    let id = if previous {
        last.ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"))?
    } else if state.running.is_some() {
        status.container_id.clone().unwrap_or_default()
    } else if let Some(terminated) = state.terminated {
        terminated
            .container_id
            .or(last)
            .ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"))?
    } else if let Some(last) = last {
        last
    } else {
        let reason = state.waiting.and_then(|w| w.reason);
        let why = match reason.as_deref() {
            Some("ErrImagePull") => ": image can't be pulled",
            Some("ImagePullBackOff") => ": trying and failing to pull image",
            Some(other) => {
                return Err(format!("container {container:?} in pod {name:?} is waiting to start: {other}"));
            }
            None => " - no logs yet",
        };
        return Err(format!("container {container:?} in pod {name:?} is waiting to start{why}"));
    };
    Ok(id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

/// At most `limit` bytes of one stream or of both.
fn limited(
    lines: impl Stream<Item = Result<Output, RuntimeError>> + Send + 'static,
    limit: Option<u64>,
    wanted: String,
) -> impl Stream<Item = Result<Bytes, RuntimeError>> + Send + 'static {
    let mut left = limit;
    let chunks = lines.filter_map(move |item| {
        let chunk = match (item, wanted.as_str()) {
            (Err(error), _) => Some(Err(error)),
            (Ok(Output::Stdout(_)), "Stderr") | (Ok(Output::Stderr(_)), "Stdout") => None,
            (Ok(Output::Stdout(bytes) | Output::Stderr(bytes)), _) => Some(Ok(bytes)),
        };
        futures::future::ready(chunk)
    });
    chunks.scan(false, move |full, item| {
        if *full {
            return futures::future::ready(None);
        }
        let item = item.map(|bytes| match &mut left {
            None => bytes,
            Some(left) => {
                let take = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                *full = *left == 0;
                bytes.slice(..take)
            }
        });
        futures::future::ready(Some(item))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ask(status: Value, previous: bool) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}]}, "status": {"containerStatuses": [status]}}))
        .unwrap();
        instance(&pod, "c", previous)
    }

    fn status(state: Value, last: Value) -> Value {
        json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "docker://now", "state": state, "lastState": last})
    }

    #[test]
    fn instances_and_errors() {
        let ended =
            |id: &str| json!({"terminated": {"exitCode": 1, "containerID": format!("docker://{id}")}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let cases = [
            (status(json!({"running": {}}), json!({})), false, Ok("now")),
            (status(json!({"running": {}}), ended("old")), true, Ok("old")),
            (
                status(json!({"running": {}}), json!({})),
                true,
                Err("previous terminated container \"c\" in pod \"p\" not found"),
            ),
            (status(ended("gone"), json!({})), false, Ok("gone")),
            (status(waiting("CrashLoopBackOff"), ended("old")), false, Ok("old")),
            (
                status(waiting("ContainerCreating"), json!({})),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                status(waiting("ErrImagePull"), json!({})),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            (
                status(waiting("ImagePullBackOff"), json!({})),
                false,
                Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"),
            ),
        ];
        for (status, previous, expected) in cases {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(ask(status.clone(), previous), expected, "{status}");
        }
    }

    #[test]
    fn options_are_checked() {
        let now = Timestamp::from_second(1_000).unwrap();
        let good = Options {
            since_seconds: Some(10),
            tail_lines: Some(5),
            follow: Some("true".into()),
            ..Default::default()
        };
        let (log, limit) = checked(&good, now).unwrap();
        assert_eq!(
            (log.since, log.tail, log.follow, limit),
            (Timestamp::from_second(990).ok(), Some(5), true, None)
        );
        let bad = [
            Options { since_seconds: Some(0), ..Default::default() },
            Options { tail_lines: Some(-1), ..Default::default() },
            Options { limit_bytes: Some(0), ..Default::default() },
            Options { since_time: Some("yesterday".into()), ..Default::default() },
            Options {
                since_time: Some("2024-01-01T00:00:00Z".into()),
                since_seconds: Some(1),
                ..Default::default()
            },
        ];
        for options in bad {
            assert!(checked(&options, now).is_err(), "{options:?}");
        }
    }

    #[tokio::test]
    async fn the_limit_cuts_inside_a_line() {
        let lines =
            [Output::Stdout("abc\n".into()), Output::Stderr("x\n".into()), Output::Stdout("def\n".into())];
        let take = |limit, wanted: &str| {
            let lines = futures::stream::iter(lines.clone().map(Ok));
            limited(lines, limit, wanted.to_owned()).map(|b| b.unwrap()).collect::<Vec<Bytes>>()
        };
        assert_eq!(take(None, "").await.concat(), b"abc\nx\ndef\n");
        assert_eq!(take(Some(5), "").await.concat(), b"abc\nx");
        assert_eq!(take(Some(6), "Stdout").await.concat(), b"abc\nde");
        assert_eq!(take(None, "Stderr").await.concat(), b"x\n");
    }
}
