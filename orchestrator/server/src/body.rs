//! Request bodies: read whole, within size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use loadline_api::status::{ApiError, Reason};

use crate::config::Limits;
use crate::respond::Result;

/// Reads a body. Too long: 413 without reading on; too slow: 408-like Timeout.
pub(crate) async fn read(body: Body, limits: &Limits) -> Result<Bytes> {
    let limit = limits.body_bytes;
    let known = http_body::Body::size_hint(&body);
    if known.lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let mut body = body;
    let mut first: Option<Bytes> = None;
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = next(&mut body, limits.body_idle).await? {
        let Ok(data) = frame.into_data() else { continue };
        let size = first.as_ref().map_or(0, Bytes::len).max(rest.as_ref().map_or(0, BytesMut::len)) + data.len();
        if size > limit {
            return Err(too_large(limit));
        }
        match (&mut first, &mut rest) {
            // Most bodies come in one piece and are used as they came.
            (None, None) => first = Some(data),
            (_, Some(buffer)) => buffer.extend_from_slice(&data),
            (Some(start), None) => {
                let mut buffer = BytesMut::with_capacity((size * 2).min(limit));
                buffer.extend_from_slice(start);
                buffer.extend_from_slice(&data);
                rest = Some(buffer);
            }
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

async fn next(body: &mut Body, idle: Duration) -> Result<Option<http_body::Frame<Bytes>>> {
    match tokio::time::timeout(idle, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => Err(ApiError::bad_request(format!("the request body cannot be read: {error}")).into()),
        Err(_) => Err(ApiError::new(Reason::Timeout, "the request body did not arrive in time").into()),
    }
}

fn too_large(limit: usize) -> crate::respond::Failure {
    ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}")).into()
}
