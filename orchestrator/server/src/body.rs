//! Request bodies: read whole, within size and time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
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
        let size =
            first.as_ref().map_or(0, Bytes::len).max(rest.as_ref().map_or(0, BytesMut::len)) + data.len();
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
        Ok(Some(Err(error))) => {
            Err(ApiError::bad_request(format!("the request body cannot be read: {error}")).into())
        }
        Err(_) => Err(ApiError::new(Reason::Timeout, "the request body did not arrive in time").into()),
    }
}

fn too_large(limit: usize) -> crate::respond::Failure {
    ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: limit is {limit}")).into()
}

/// How much of a body that nobody wanted is read to keep its connection, and for how long. A client that is still
/// writing when the connection goes never sees the answer, so this is more than any honest mistake.
const DRAIN_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);

type Slot = Arc<Mutex<Option<Body>>>;

/// The rest of a body that was let go before its end.
pub(crate) struct Leftover(Slot);

/// Makes sure that what a refused request has sent is read, so that the next one on its connection is understood.
/// Requests without a body pass as they are.
pub(crate) fn keep(request: Request<Body>) -> (Request<Body>, Option<Leftover>) {
    if http_body::Body::is_end_stream(request.body()) {
        return (request, None);
    }
    let slot = Slot::default();
    let leftover = Leftover(slot.clone());
    (request.map(|body| Body::new(Kept { body: Some(body), slot })), Some(leftover))
}

impl Leftover {
    pub(crate) async fn drain(self) {
        let rest = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = rest else { return };
        if http_body::Body::size_hint(&body).lower() > DRAIN_BYTES as u64 {
            return;
        }
        let mut limited = http_body_util::Limited::new(body, DRAIN_BYTES);
        let discard = async { while let Some(Ok(_)) = limited.frame().await {} };
        // Whatever it was, it was not wanted; a connection that cannot be kept is closed.
        let _ = tokio::time::timeout(DRAIN_TIME, discard).await;
    }
}

struct Kept {
    body: Option<Body>,
    slot: Slot,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        match self.body.as_mut() {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|b| !http_body::Body::is_end_stream(b)) {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
