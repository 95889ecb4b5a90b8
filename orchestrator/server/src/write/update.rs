//! Update: of an object, or of the part of it that a subresource is.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::field::FieldError;
use loadline_api::rules::meta;
use loadline_api::status::ApiError;
use serde_json::{Value, json};

use super::metadata::{carry_over, next_generation, tidy};
use super::{Step, Write};
use crate::cache::Object;
use crate::negotiate::Accepted;
use crate::object::Meta as _;
use crate::options::WriteOptions;
use crate::respond::{Failure, HttpResponse, Result};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but what subresources own.
    Whole,
    Status,
    /// A Namespace's `spec.finalizers`.
    Finalize,
}

impl Part {
    /// The subresource's name in managedFields; empty for the object itself.
    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Status => "status",
            Self::Finalize => "finalize",
        }
    }
}

impl Write<'_> {
    pub(crate) async fn update(&self, body: Body, accepted: Accepted, part: &Part) -> Result<HttpResponse> {
        let options = WriteOptions::parse(&self.call.query, "UpdateOptions", false, self.call.user_agent())?;
        let bytes = crate::body::read(body, &self.app.limits).await?;
        let decoded = self.decode(&bytes, options.validation)?;
        let obj = decoded.value;
        self.check_name(&obj)?;
        let base = match self.current().await {
            Ok(base) => base,
            Err(missing) => {
                let creates = *part == Part::Whole && self.resource.kind.strategy.allow_create_on_update();
                if !creates
                    || !matches!(&missing, Failure::Api(e) if e.reason == loadline_api::status::Reason::NotFound)
                {
                    return Err(missing);
                }
                return self.create_on_update(obj, decoded.warnings, &options, accepted).await;
            }
        };
        let mut warnings = decoded.warnings;
        let plan = |old: &Value, base: &Object| {
            let mut new = obj.clone();
            self.check_uid(&new, old, base)?;
            let deletes = self.prepare_update(&mut new, old, part, &options.manager, &mut Vec::new())?;
            Ok(if deletes { Step::Delete(new) } else { Step::Put(new) })
        };
        let done = self.guarded(base, options.dry_run, part, plan).await?;
        warnings.extend(self.resource.kind.strategy.warnings(&obj));
        self.answer(StatusCode::OK, &done, accepted, &warnings)
    }

    async fn create_on_update(
        &self,
        mut obj: Value,
        mut warnings: Vec<String>,
        options: &WriteOptions,
        accepted: Accepted,
    ) -> Result<HttpResponse> {
        if !obj.uid().is_empty() {
            return Err(self
                .resource
                .conflict(&self.call.path.name, "Precondition failed: the object does not exist")
                .into());
        }
        super::metadata::settle_namespace(&mut obj, &self.call.path.namespace)?;
        obj.meta_mut().remove("resourceVersion");
        self.owners(&options.manager, "").record(None, &mut obj);
        let done = self.insert(obj, options.dry_run, &mut warnings).await?;
        self.answer(StatusCode::CREATED, &done, accepted, &warnings)
    }

    /// [`Write::change`], holding what a Service's next state takes until it is written.
    pub(crate) async fn guarded(
        &self,
        base: std::sync::Arc<Object>,
        dry_run: bool,
        part: &Part,
        mut plan: impl FnMut(&Value, &Object) -> Result<Step>,
    ) -> Result<super::Done> {
        if *part != Part::Whole || !self.resource.is("", "services") {
            return self.change(base, dry_run, plan).await;
        }
        let mut ticket = None;
        let done = self
            .change(base, dry_run, |old, base| {
                // What the attempt before had taken is given back first.
                ticket = None;
                let step = plan(old, base)?;
                if let Step::Put(mut new) = step {
                    ticket = self.allocate(&mut new, Some(old))?;
                    return Ok(Step::Put(new));
                }
                Ok(step)
            })
            .await?;
        if let Some(ticket) = ticket.filter(|_| !dry_run) {
            ticket.written(done.revision);
        }
        Ok(done)
    }

    /// The object in the body must be the one in the URL.
    pub(super) fn check_name(&self, obj: &Value) -> Result<()> {
        let (name, namespace) = (&self.call.path.name, &self.call.path.namespace);
        let own = obj.name();
        if own.is_empty() {
            let message = format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            );
            return Err(ApiError::bad_request(message).into());
        }
        if own != name {
            let message =
                format!("the name of the object ({own}) does not match the name on the URL ({name})");
            return Err(ApiError::bad_request(message).into());
        }
        let own = obj.meta_str("namespace");
        if !namespace.is_empty() && !own.is_empty() && own != namespace {
            let message = format!(
                "the namespace of the object ({own}) does not match the namespace on the request ({namespace})"
            );
            return Err(ApiError::bad_request(message).into());
        }
        Ok(())
    }

    fn check_uid(&self, new: &Value, old: &Value, base: &Object) -> Result<()> {
        let (wanted, is) = (new.uid(), old.uid());
        if wanted.is_empty() || wanted == is {
            return Ok(());
        }
        let key = self.resource.cache.store_key(&base.key);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: UID in precondition: {wanted}, UID in object meta: {is}"
        );
        Err(self.resource.conflict(base.name(), &why).into())
    }

    /// Settles the revision that an update is based on.
    pub(super) fn check_version(&self, new: &Value, old: &Value) -> Result<()> {
        let kind = &self.resource.kind;
        let given = new.meta_str("resourceVersion");
        let given = if given.is_empty() {
            0
        } else {
            given
                .parse::<u64>()
                .map_err(|_| Failure::Bare(format!("strconv.ParseUint: parsing {given:?}: invalid syntax")))?
        };
        if given == 0 {
            if kind.strategy.allow_unconditional_update() {
                return Ok(());
            }
            let error =
                FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(ApiError::invalid(kind.group, kind.kind, old.name(), &[error]).into());
        }
        if given.to_string() == old.meta_str("resourceVersion") {
            Ok(())
        } else {
            Err(self.resource.modified(old.name()).into())
        }
    }

    /// Makes a client's `new` the next state of `old`, or says why not. `true`: the object is to be removed, as
    /// nothing holds it any more.
    pub(super) fn prepare_update(
        &self,
        new: &mut Value,
        old: &Value,
        part: &Part,
        manager: &str,
        warnings: &mut Vec<String>,
    ) -> Result<bool> {
        self.check_version(new, old)?;
        self.owners(manager, part.subresource()).record(Some(old), new);
        self.settle(new, old, part, warnings)
    }

    /// The rest of [`Write::prepare_update`], for callers that kept the owners of fields themselves.
    pub(crate) fn settle(
        &self,
        new: &mut Value,
        old: &Value,
        part: &Part,
        warnings: &mut Vec<String>,
    ) -> Result<bool> {
        let kind = &self.resource.kind;
        let strategy = kind.strategy;
        self.resource.stamp(new);
        carry_over(new, old);
        match part {
            Part::Whole => {
                strategy.prepare_update(new, old);
                if strategy.has_generation() && strategy.spec_changed(new, old) {
                    next_generation(new);
                }
            }
            Part::Status => strategy.prepare_status_update(new, old),
            Part::Finalize => finalize(new, old),
        }
        loadline_api::decode::complete(&kind.schema, new);
        tidy(new);
        crate::owners::settle_times(new, old);
        let mut errors = meta::validate_update(&new["metadata"], &old["metadata"]);
        errors.extend(match part {
            Part::Whole => strategy.validate_update(new, old),
            Part::Status => strategy.validate_status_update(new, old),
            Part::Finalize => Vec::new(),
        });
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind.group, kind.kind, new.name(), &errors).into());
        }
        if *part == Part::Whole {
            warnings.extend(strategy.warnings(new));
        }
        Ok(self.nothing_holds(new, old))
    }

    /// An object whose deletion has begun goes with its last finalizer.
    fn nothing_holds(&self, new: &Value, old: &Value) -> bool {
        let ended = old.deleting() && new.finalizers().is_empty() && new.grace().unwrap_or(0) == 0;
        let empty_spec = !self.resource.is("", "namespaces")
            || new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        ended && empty_spec
    }
}

/// Everything of a Namespace but its `spec.finalizers` stays.
fn finalize(new: &mut Value, old: &Value) {
    let finalizers = new["spec"]["finalizers"].take();
    let metadata = new["metadata"].take();
    *new = old.clone();
    new["metadata"] = metadata;
    if finalizers.as_array().is_some_and(|l| !l.is_empty()) {
        new["spec"]["finalizers"] = finalizers;
    } else if let Some(spec) = new["spec"].as_object_mut() {
        spec.remove("finalizers");
    }
}
