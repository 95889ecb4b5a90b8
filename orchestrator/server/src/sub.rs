//! Subresources.

mod binding;
mod eviction;
mod scale;

use std::sync::Arc;

use axum::body::Body;
use axum::http::Extensions;
use loadline_api::kinds::Subresource;

use crate::app::{App, Call};
use crate::negotiate::{Offer, accept};
use crate::respond::{Failure, HttpResponse, Result};
use crate::shape::Shape;
use crate::table::Resource;
use crate::write::{Part, Write};

pub(crate) async fn serve(
    app: &Arc<App>,
    resource: Arc<Resource>,
    call: Call,
    body: Body,
    extensions: Extensions,
) -> Result<HttpResponse> {
    let Some(sub) = resource.kind.subresource(&call.path.subresource) else {
        return Err(Failure::no_resource());
    };
    if call.path.name.is_empty() {
        return Err(Failure::no_resource());
    }
    let write = Write::new(app, &resource, &call);
    match (sub, call.verb) {
        (Subresource::Status, _) => part(&write, body, Part::Status).await,
        (Subresource::Scale, _) => scale::serve(&write, body).await,
        (Subresource::Other("finalize"), "update") => part(&write, body, Part::Finalize).await,
        (Subresource::Other("binding"), "create") => binding::create(&write, body).await,
        (Subresource::Other("eviction"), "create") => eviction::create(&write, body).await,
        (Subresource::Other("log"), "get") => crate::proxy::log(app, &call).await,
        (Subresource::Other(name @ ("exec" | "attach")), "get" | "create") => {
            crate::proxy::stream(app, &call, name, extensions).await
        }
        (Subresource::Other(_), _) => Err(Failure::method_not_allowed()),
    }
}

/// `POST …/bindings`: the binding names the pod.
pub(crate) async fn bindings(
    app: &Arc<App>,
    pods: &Arc<Resource>,
    call: Call,
    body: Body,
) -> Result<HttpResponse> {
    binding::create(&Write::new(app, pods, &call), body).await
}

async fn part(write: &Write<'_>, body: Body, part: Part) -> Result<HttpResponse> {
    let call = write.call;
    let accepted = accept(&call.headers, Offer::Objects)?;
    match call.verb {
        "get" => {
            let shape = Shape::one(write.resource, accepted, &call.query)?;
            crate::read::get(write.app, &shape, &call.path, &call.query).await
        }
        "update" => write.update(body, accepted, &part).await,
        "patch" => write.patch(body, accepted, &part).await,
        _ => Err(Failure::method_not_allowed()),
    }
}
