//! Writes: create, update, patch, delete. Each reads the present object from the fresh cache, makes the next one from
//! it without waiting on anything, and writes it guarded by the revision that it was made from; lost races start again.

mod admission;
mod create;
mod delete;
mod metadata;
mod patch;
mod update;

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use loadline_api::status::{ApiError, Reason};
use loadline_store::{Expect, Revision, StoreError};
use serde_json::Value;

pub(crate) use patch::Patch;
pub(crate) use update::Part;

use crate::app::{App, Call};
use crate::cache::{Cache, Object};
use crate::negotiate::Accepted;
use crate::object::now_seconds;
use crate::options::{DeleteOptions, FieldValidation};
use crate::owners::Writer;
use crate::respond::{Failure, HttpResponse, Result, encoded, warn};
use crate::shape::Shape;
use crate::table::Resource;

/// How often a lost race is run again. Each loss means that somebody else made progress.
const ATTEMPTS: usize = 64;

/// One write request.
pub(crate) struct Write<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) resource: &'a Arc<Resource>,
    pub(crate) call: &'a Call,
    /// Unix seconds, the same for everything that this request stamps.
    pub(crate) now: i64,
}

/// What is to happen to an object.
pub(crate) enum Step {
    /// Write this.
    Put(Value),
    /// Nothing changed.
    Same,
    /// Remove the object; the answer shows this.
    Delete(Value),
}

/// What happened.
pub(crate) struct Done {
    /// Served bytes.
    pub(crate) body: Bytes,
    pub(crate) revision: Revision,
}

impl<'a> Write<'a> {
    pub(crate) fn new(app: &'a Arc<App>, resource: &'a Arc<Resource>, call: &'a Call) -> Self {
        Self { app, resource, call, now: now_seconds() }
    }

    /// Runs a write on the resource itself; subresources have their own ways in.
    pub(crate) async fn run(&self, body: Body, accepted: Accepted) -> Result<HttpResponse> {
        match self.call.verb {
            "create" => self.create(body, accepted).await,
            "update" => self.update(body, accepted, &Part::Whole).await,
            "patch" => self.patch(body, accepted, &Part::Whole).await,
            "delete" => self.delete(body, accepted).await,
            "deletecollection" => self.delete_collection(body, accepted).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }

    /// The object in this request's body.
    pub(crate) fn decode(&self, bytes: &[u8], validation: FieldValidation) -> Result<crate::codec::Object> {
        let kinds = self.app.registry.snapshot();
        crate::codec::object(&kinds, &self.resource.kind, &self.call.headers, bytes, validation)
    }

    pub(crate) fn owners<'b>(&'b self, manager: &'b str, subresource: &'b str) -> Writer<'b> {
        Writer { app: self.app, resource: self.resource, manager, subresource, now: self.now }
    }

    /// The key of the object of this request, within its resource.
    pub(crate) fn key(&self) -> String {
        Cache::key(&self.call.path.namespace, &self.call.path.name)
    }

    /// The object of this request as the store has it now.
    pub(crate) async fn current(&self) -> Result<Arc<Object>> {
        self.app.feed.fresh().await?;
        let found = self.resource.cache.get(&self.key());
        found.ok_or_else(|| self.resource.not_found(&self.call.path.name).into())
    }

    /// Makes the next state of an object with `plan`, and writes it; again with what is there when somebody was
    /// faster. `plan` sees the object as this row serves it.
    pub(crate) async fn change(
        &self,
        mut base: Arc<Object>,
        dry_run: bool,
        mut plan: impl FnMut(&Value, &Object) -> Result<Step>,
    ) -> Result<Done> {
        let store_key = self.resource.cache.store_key(&base.key);
        for _ in 0..ATTEMPTS {
            let old = self.resource.value(&base)?;
            let outcome = match plan(&old, &base)? {
                Step::Same => return self.unchanged(&base),
                Step::Delete(last) => {
                    let body = self.resource.head.encode(&last);
                    let body = self.splice(&body, base.revision)?;
                    if dry_run {
                        return Ok(Done { body, revision: base.revision });
                    }
                    let deleted = self.app.store.delete(&store_key, Expect::Revision(base.revision)).await;
                    deleted.map(|(revision, _)| {
                        self.resource.cache.wrote(revision);
                        Done { body, revision: base.revision }
                    })
                }
                Step::Put(new) => {
                    let served = self.resource.head.encode(&new);
                    let body = self.splice(&served, base.revision)?;
                    if body == self.resource.body(&base)? {
                        return self.unchanged(&base);
                    }
                    if dry_run {
                        return Ok(Done { body, revision: base.revision });
                    }
                    let stored = if self.resource.converts() {
                        self.resource.encode_stored(&new)
                    } else {
                        served.clone()
                    };
                    let put = self.app.store.put(&store_key, stored, Expect::Revision(base.revision)).await;
                    match put {
                        Ok(entry) => {
                            self.resource.cache.wrote(entry.mod_revision);
                            Ok(Done {
                                body: self.splice(&served, entry.mod_revision)?,
                                revision: entry.mod_revision,
                            })
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(StoreError::Conflict { current: Some(entry) }) => {
                    base = Arc::new(self.resource.cache.object(&entry));
                }
                Err(StoreError::Conflict { current: None }) => {
                    return Err(self.resource.not_found(base.name()).into());
                }
                Err(other) => return Err(other.into()),
            }
        }
        let message = "the object is written to by too many at once, please try again";
        Err(ApiError::new(Reason::ServerTimeout, message).retry_after(1).into())
    }

    fn unchanged(&self, base: &Object) -> Result<Done> {
        Ok(Done { body: self.resource.body(base)?, revision: base.revision })
    }

    fn splice(&self, encoded: &[u8], revision: Revision) -> Result<Bytes> {
        self.resource.head.splice(encoded, revision).map_err(|e| Failure::Bare(e.to_string()))
    }

    /// The answer that shows one object.
    pub(crate) fn answer(
        &self,
        code: StatusCode,
        done: &Done,
        accepted: Accepted,
        warnings: &[String],
    ) -> Result<HttpResponse> {
        let shape = Shape::one(self.resource, accepted, &self.call.query)?;
        let mut response =
            encoded(code, shape.of_bytes(done.body.clone(), done.revision)?, accepted.encoding);
        warn(&mut response, warnings);
        Ok(response)
    }
}

/// The JSON of a deletion's options, from a body that may be empty.
pub(crate) async fn delete_options(app: &App, call: &Call, body: Body) -> Result<DeleteOptions> {
    let bytes = crate::body::read(body, &app.limits).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let value = crate::codec::plain(&call.headers, &bytes, "meta.k8s.io", "v1", "DeleteOptions")?;
    DeleteOptions::parse(&call.query, Some(&value))
}
