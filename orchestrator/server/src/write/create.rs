//! Create.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::rules::meta;
use loadline_api::status::{ApiError, Reason};
use loadline_store::{Expect, StoreError};
use serde_json::Value;

use super::metadata::{fill_new, generate_name, next_generation, settle_namespace, tidy};
use super::{Done, Write, admission};
use crate::alloc::Ticket;
use crate::cache::Cache;
use crate::negotiate::Accepted;
use crate::object::Meta as _;
use crate::options::WriteOptions;
use crate::respond::{Failure, HttpResponse, Result};

/// Clashes of generated names that are tried again.
const NAME_ATTEMPTS: usize = 8;

impl Write<'_> {
    pub(super) async fn create(&self, body: Body, accepted: Accepted) -> Result<HttpResponse> {
        let options = WriteOptions::parse(&self.call.query, "CreateOptions", false, self.call.user_agent())?;
        let bytes = crate::body::read(body, &self.app.limits).await?;
        let decoded = self.decode(&bytes, options.validation)?;
        let (mut obj, mut warnings) = (decoded.value, decoded.warnings);
        settle_namespace(&mut obj, &self.call.path.namespace)?;
        self.owners(&options.manager, "").record(None, &mut obj);
        let done = self.insert(obj, options.dry_run, &mut warnings).await?;
        self.answer(StatusCode::CREATED, &done, accepted, &warnings)
    }

    /// Brings a decoded and defaulted object into being.
    pub(super) async fn insert(
        &self,
        mut obj: Value,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Done> {
        let generated = generate_name(&mut obj);
        self.check_namespace(obj.name()).await?;
        self.check_service_account(&obj).await?;
        if self.resource.is("", "services") {
            // What deleted Services had is free again.
            self.app.feed.reach(self.resource.cache.written()).await?;
        }
        if !generated {
            return self.insert_once(obj, dry_run, warnings).await;
        }
        for _ in 0..NAME_ATTEMPTS {
            match self.insert_once(obj.clone(), dry_run, warnings).await {
                Err(Failure::Api(error)) if error.reason == Reason::AlreadyExists => {
                    obj.set_meta("name", Value::from(""));
                    generate_name(&mut obj);
                }
                other => return other,
            }
        }
        Err(self.resource.already_exists(obj.name()).into())
    }

    async fn insert_once(&self, mut obj: Value, dry_run: bool, warnings: &mut Vec<String>) -> Result<Done> {
        let kind = &self.resource.kind;
        let strategy = kind.strategy;
        admission::protect_storage(kind.group, kind.resource, &mut obj);
        let version_given = !obj.meta_str("resourceVersion").is_empty();
        obj.meta_mut().remove("resourceVersion");
        fill_new(&mut obj, self.now, false);
        strategy.prepare_create(&mut obj);
        loadline_api::decode::complete(&kind.schema, &mut obj);
        let ticket = self.allocate(&mut obj, None)?;
        if strategy.has_generation() && obj.generation() == 0 {
            next_generation(&mut obj);
        }
        tidy(&mut obj);
        let mut errors =
            meta::validate_create(&obj["metadata"], kind.namespaced, |n| strategy.validate_name(n));
        errors.extend(strategy.validate_create(&obj));
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind.group, kind.kind, obj.name(), &errors).into());
        }
        warnings.extend(strategy.warnings(&obj));
        let key = Cache::key(&self.call.path.namespace, obj.name());
        let served = self.resource.head.encode(&obj);
        if dry_run {
            self.app.feed.fresh().await?;
            if self.resource.cache.get(&key).is_some() {
                return Err(self.resource.already_exists(obj.name()).into());
            }
            return Ok(Done { body: served, revision: 0 });
        }
        if version_given {
            return Err(Failure::Bare(
                "resourceVersion should not be set on objects to be created".to_owned(),
            ));
        }
        let stored =
            if self.resource.converts() { self.resource.encode_stored(&obj) } else { served.clone() };
        let store_key = self.resource.cache.store_key(&key);
        match self.app.store.put(&store_key, stored, Expect::Absent).await {
            Ok(entry) => {
                self.resource.cache.wrote(entry.mod_revision);
                if let Some(ticket) = ticket {
                    ticket.written(entry.mod_revision);
                }
                let body = self.splice(&served, entry.mod_revision)?;
                Ok(Done { body, revision: entry.mod_revision })
            }
            Err(StoreError::Conflict { .. }) => Err(self.resource.already_exists(obj.name()).into()),
            Err(other) => Err(other.into()),
        }
    }

    /// Addresses and ports, for Services.
    pub(super) fn allocate(&self, obj: &mut Value, old: Option<&Value>) -> Result<Option<Ticket<'_>>> {
        if !self.resource.is("", "services") {
            return Ok(None);
        }
        let kind = &self.resource.kind;
        match self.app.allocator.assign(obj, old) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(errors) => Err(ApiError::invalid(kind.group, kind.kind, obj.name(), &errors).into()),
        }
    }
}
