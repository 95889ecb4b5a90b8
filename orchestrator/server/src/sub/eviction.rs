//! `pods/eviction`: a deletion that asks. Without PodDisruptionBudgets nothing objects.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::status::ApiError;
use serde_json::Value;

use crate::negotiate::{Offer, accept};
use crate::object::Meta as _;
use crate::options::DeleteOptions;
use crate::request::Query;
use crate::respond::{HttpResponse, Result, Status, encoded};
use crate::write::Write;

pub(crate) async fn create(write: &Write<'_>, body: Body) -> Result<HttpResponse> {
    let call = write.call;
    let accepted = accept(&call.headers, Offer::Plain)?;
    let bytes = crate::body::read(body, &write.app.limits).await?;
    let eviction = crate::codec::plain(&call.headers, &bytes, "policy", "v1", "Eviction")?;
    let (name, own) = (&call.path.name, eviction.name());
    if own != name {
        let message = format!("name in URL does not match name in Eviction object: {name}, {own}");
        return Err(ApiError::bad_request(message).into());
    }
    let given = eviction.get("deleteOptions").filter(|o| o.is_object());
    let mut options = DeleteOptions::parse(&Query::default(), given.or(Some(&Value::Null)))?;
    options.dry_run |= call.query.text("dryRun").is_some();
    write.delete_one(&options).await?;
    let status = Status::success(None, Some(StatusCode::CREATED));
    Ok(encoded(StatusCode::CREATED, status.to_bytes(), accepted.encoding))
}
