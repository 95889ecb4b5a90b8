//! Answers: documents as JSON or YAML, and errors as `Status` objects with the HTTP code of their reason. The only
//! place that maps a reason to a code.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use loadline_api::status::{ApiError, Details, Reason};
use loadline_store::StoreError;
use serde::Serialize;
use serde_json::Value;

use crate::negotiate::Encoding;

pub(crate) type HttpResponse = Response<Body>;

/// What a request ended with short of success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An error that Kubernetes answers as a bare 500, without a reason.
    #[error("{0}")]
    Bare(String),
    /// A page's revision is gone; the token goes on without consistency.
    #[error("the continue token has expired")]
    ExpiredToken(String),
    /// 404 for paths outside the API: plain text, as Go's server writes it.
    #[error("404 page not found")]
    NoPage,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The resource is not served, or not at this path.
    pub(crate) fn no_resource() -> Self {
        ApiError::new(Reason::NotFound, "the server could not find the requested resource").into()
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        ApiError::new(Reason::MethodNotAllowed, message).into()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        store_error(error).into()
    }
}

/// What a client learns of a failed store. Conflicts are the caller's to handle; one that comes here lost every retry.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(why) => {
            tracing::warn!(error = %why, "store unavailable");
            ApiError::new(
                Reason::ServiceUnavailable,
                format!("the store cannot be reached at the moment, please try again: {why}"),
            )
            .retry_after(1)
        }
        StoreError::Conflict { .. } => ApiError::new(
            Reason::Conflict,
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        StoreError::Compacted { requested, oldest } => expired(requested, oldest),
        StoreError::Future { requested, current } => too_large(requested, current),
        StoreError::Size { size, limit, what } => ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("the object is too large to be stored: {what} of {size} bytes, the limit is {limit}"),
        ),
        StoreError::Open(why) | StoreError::Fatal(why) => {
            tracing::error!(error = %why, "store failed");
            ApiError::internal(format!("the store failed: {why}"))
        }
    }
}

/// The revision asked for is forgotten.
pub(crate) fn expired(requested: u64, oldest: u64) -> ApiError {
    ApiError::new(Reason::Expired, format!("too old resource version: {requested} ({oldest})"))
}

/// The revision asked for is not there yet.
pub(crate) fn too_large(requested: u64, current: u64) -> ApiError {
    ApiError::new(
        Reason::Timeout,
        format!("Timeout: Too large resource version: {requested}, current: {current}"),
    )
    .with_cause(loadline_api::status::Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: None,
    })
    .retry_after(1)
}

pub(crate) fn code(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::Unauthorized => StatusCode::UNAUTHORIZED,
        Reason::Forbidden => StatusCode::FORBIDDEN,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::AlreadyExists | Reason::Conflict => StatusCode::CONFLICT,
        Reason::Gone | Reason::Expired => StatusCode::GONE,
        Reason::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::RequestEntityTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::ServerTimeout | Reason::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `metav1.Status`, in the order in which Go writes it.
#[derive(Debug, Serialize)]
pub(crate) struct Status<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: ListMeta<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Default, Serialize)]
struct ListMeta<'a> {
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    cursor: &'a str,
}

impl<'a> Status<'a> {
    pub(crate) fn of(error: &'a ApiError) -> Self {
        let details = (*error.details != Details::default()).then_some(&*error.details);
        Self { details, reason: Some(error.reason), ..Self::failure(&error.message, code(error.reason)) }
    }

    fn failure(message: &'a str, code: StatusCode) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: ListMeta::default(),
            status: "Failure",
            message,
            reason: None,
            details: None,
            code: Some(code.as_u16()),
        }
    }

    /// `code` is given for what was created (bindings, evictions), not for deletions.
    pub(crate) fn success(details: Option<&'a Details>, code: Option<StatusCode>) -> Self {
        Self {
            kind: "Status",
            api_version: "v1",
            metadata: ListMeta::default(),
            status: "Success",
            message: "",
            reason: None,
            details,
            code: code.map(|c| c.as_u16()),
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Bytes that are JSON already.
pub(crate) fn json(code: StatusCode, body: impl Into<Body>) -> HttpResponse {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON bytes in the encoding that the client chose.
pub(crate) fn encoded(code: StatusCode, body: Bytes, encoding: Encoding) -> HttpResponse {
    match encoding {
        Encoding::Json => json(code, body),
        Encoding::Yaml => {
            let text = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|v| serde_yaml::to_string(&v).ok())
                .unwrap_or_default();
            let mut response = json(code, text);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
            response
        }
    }
}

pub(crate) fn text(code: StatusCode, body: impl Into<Body>) -> HttpResponse {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a failed request.
pub(crate) fn failure(failure: &Failure, encoding: Encoding) -> HttpResponse {
    match failure {
        Failure::NoPage => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        Failure::ExpiredToken(token) => {
            let error = crate::read::expired_token_error();
            let mut status = Status::of(&error);
            status.metadata.cursor = token;
            encoded(code(error.reason), status.to_bytes(), encoding)
        }
        Failure::Bare(message) => {
            let code = StatusCode::INTERNAL_SERVER_ERROR;
            encoded(code, Status::failure(message, code).to_bytes(), encoding)
        }
        Failure::Api(error) => {
            let code = code(error.reason);
            let mut response = encoded(code, Status::of(error).to_bytes(), encoding);
            if let Some(seconds) = error.details.retry_after_seconds {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            if code == StatusCode::UNAUTHORIZED {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"loadline\""));
            }
            response
        }
    }
}

/// Adds `Warning: 299` headers.
pub(crate) fn warn(response: &mut HttpResponse, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let clean: String = quoted.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{clean}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
