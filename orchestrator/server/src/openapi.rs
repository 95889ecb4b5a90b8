//! `/openapi/v3` and `/openapi/v2`. Documents are built when they are asked for, off the request threads: clients keep
//! them by their hash, and megabytes that nobody reads are better not held.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use loadline_api::kinds::{Registry, Snapshot};
use loadline_api::openapi;
use loadline_api::status::ApiError;
use tokio::sync::OnceCell;

use crate::negotiate::{Encoding, Offer, accept};
use crate::request::Query;
use crate::respond::{Failure, HttpResponse, Result, encoded};

#[derive(Default)]
pub(crate) struct OpenApi {
    index: OnceCell<Bytes>,
}

impl OpenApi {
    pub(crate) async fn answer(
        &self,
        registry: &Registry,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<HttpResponse> {
        let kinds = registry.snapshot();
        if path == "/openapi/v2" && asks_for_protobuf(headers) {
            let document = build(kinds, |kinds| openapi::v2_protobuf(&kinds)).await?;
            let mut response = hashed(document, None, Encoding::Json);
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(openapi::V2_PROTOBUF));
            return Ok(response);
        }
        let encoding = accept(headers, Offer::Plain)?.encoding;
        match path {
            "/openapi/v3" => {
                let build = || build(kinds, |kinds| openapi::v3_index(&kinds).to_string().into_bytes());
                let index = self.index.get_or_try_init(build).await?;
                Ok(encoded(StatusCode::OK, index.clone(), encoding))
            }
            "/openapi/v2" => {
                let document = build(kinds, |kinds| openapi::v2_document(&kinds)).await?;
                Ok(hashed(document, None, encoding))
            }
            _ => {
                let (group, version) = group_version(path).ok_or(Failure::NoPage)?;
                if !kinds.group_versions().iter().any(|gv| gv.group == group && gv.version == version) {
                    return Err(Failure::NoPage);
                }
                let document = build(kinds, move |kinds| {
                    openapi::v3_document(&kinds, &group, &version).unwrap_or_default()
                })
                .await?;
                Ok(hashed(document, query.text("hash"), encoding))
            }
        }
    }
}

/// The first media type of `Accept`, when it is protobuf: clients that read it name nothing else, or name it first.
/// They write it with an `@`, which no answer may have: Go does not parse it.
fn asks_for_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    first.replace('@', ".") == openapi::V2_PROTOBUF
}

/// `/openapi/v3/apis/apps/v1`
fn group_version(path: &str) -> Option<(String, String)> {
    let rest: Vec<&str> = path.strip_prefix("/openapi/v3/")?.split('/').collect();
    match rest.as_slice() {
        ["api", version] => Some((String::new(), (*version).to_owned())),
        ["apis", group, version] => Some(((*group).to_owned(), (*version).to_owned())),
        _ => None,
    }
}

async fn build(
    kinds: Arc<Snapshot>,
    make: impl FnOnce(Arc<Snapshot>) -> Vec<u8> + Send + 'static,
) -> Result<Bytes> {
    let built = tokio::task::spawn_blocking(move || make(kinds)).await;
    built
        .map(Bytes::from)
        .map_err(|e| ApiError::internal(format!("the document could not be made: {e}")).into())
}

fn hashed(document: Bytes, asked: Option<&str>, encoding: Encoding) -> HttpResponse {
    let hash = openapi::content_hash(&document);
    let same = asked == Some(hash.as_str());
    let mut response = encoded(StatusCode::OK, document, encoding);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if same {
        // The address holds the hash of the content, so the content at it never changes.
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    response
}
