//! Patch: JSON, merge and strategic merge patches, and server-side apply.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use loadline_api::decode;
use loadline_api::field::FieldError;
use loadline_api::patch::{self, PatchError, apply::ApplyError, go_value};
use loadline_api::status::{ApiError, Reason};
use serde_json::Value;

use super::metadata::settle_namespace;
use super::{Part, Step, Write};
use crate::cache::Object;
use crate::negotiate::{Accepted, BodyType, patch_body};
use crate::object::Meta as _;
use crate::options::{FieldValidation, WriteOptions};
use crate::respond::{Failure, HttpResponse, Result};

/// A patch, decoded as far as it can be without its target.
pub(crate) enum Patch {
    Json(Bytes),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl From<PatchError> for Failure {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Internal(message) => Self::Bare(message),
            other => Self::Api(other.into()),
        }
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Invalid(message) => Self::Bare(message),
            other => Self::Api(other.into()),
        }
    }
}

impl Patch {
    /// Decodes a body; the second part lists what the document has twice.
    pub(crate) fn decode(ty: BodyType, bytes: Bytes) -> Result<(Self, Vec<String>)> {
        Ok(match ty {
            BodyType::JsonPatch => (Self::Json(bytes), Vec::new()),
            BodyType::MergePatch => (Self::Merge(patch::merge::decode(&bytes)?), duplicates(&bytes)),
            BodyType::StrategicMergePatch => {
                (Self::Strategic(patch::merge::decode(&bytes)?), duplicates(&bytes))
            }
            _ => {
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| ApiError::bad_request("error decoding YAML: invalid UTF-8"))?;
                let document = loadline_api::yaml::parse(text)
                    .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
                if !document.value.is_object() {
                    return Err(
                        ApiError::bad_request("error decoding YAML: the document is not an object").into()
                    );
                }
                (Self::Apply(document.value), document.duplicates)
            }
        })
    }

    /// Applies any but an apply patch, and brings the result into the form of its type.
    pub(crate) fn patched(
        &self,
        schema: &loadline_api::schema::Struct,
        old: &Value,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value> {
        let mut new = match self {
            Self::Json(bytes) => patch::json::apply(old, bytes)?,
            Self::Merge(patch) => patch::merge::apply(old, patch),
            Self::Strategic(patch) => patch::strategic::apply(schema, old, patch)?,
            Self::Apply(_) => return Err(Failure::Bare("an apply patch has its own way".to_owned())),
        };
        if !new.is_object() {
            return Err(self.misfit(&new, "json: cannot unmarshal the result into an object"));
        }
        let shown = new.clone();
        match crate::codec::conform(schema, &mut new) {
            Ok(strict) if strict.is_empty() || validation == FieldValidation::Ignore => {}
            Ok(strict) if validation == FieldValidation::Strict => {
                return Err(self.misfit(&shown, &format!("strict decoding error: {}", strict.join(", "))));
            }
            Ok(strict) => *warnings = strict,
            Err(error) => return Err(self.misfit(&shown, &error.message)),
        }
        Ok(new)
    }

    /// The result is no object of its type.
    fn misfit(&self, result: &Value, why: &str) -> Failure {
        let shown = match self {
            Self::Strategic(patch) => go_value(patch),
            _ => result.to_string(),
        };
        let error = FieldError::invalid("patch", &Value::from(shown), why);
        ApiError::invalid("", "", "", &[error]).into()
    }
}

fn duplicates(bytes: &[u8]) -> Vec<String> {
    let paths = decode::parse(bytes).map(|(_, twice)| twice).unwrap_or_default();
    paths
        .into_iter()
        .map(|p| if p.starts_with("duplicate") { p } else { format!("duplicate field {p:?}") })
        .collect()
}

impl Write<'_> {
    pub(crate) async fn patch(&self, body: Body, accepted: Accepted, part: &Part) -> Result<HttpResponse> {
        let ty = patch_body(&self.call.headers)?;
        let apply = ty == BodyType::ApplyPatch;
        let options = WriteOptions::parse(&self.call.query, "PatchOptions", apply, self.call.user_agent())?;
        let bytes = crate::body::read(body, &self.app.limits).await?;
        let (patch, twice) = Patch::decode(ty, bytes)?;
        if !twice.is_empty() && options.validation == FieldValidation::Strict {
            let message = format!("strict decoding error: {}", twice.join(", "));
            return Err(ApiError::bad_request(message).into());
        }
        let mut warnings = Vec::new();
        let base = match self.current().await {
            Ok(base) => base,
            Err(missing) => return self.apply_new(missing, &patch, part, &options, accepted).await,
        };
        let schema = self.resource.kind.schema.clone();
        let plan = |old: &Value, _: &Object| {
            let mut found = Vec::new();
            let mut seen = Vec::new();
            let (new, deletes) = match &patch {
                Patch::Apply(applied) => {
                    let owners = self.owners(&options.manager, part.subresource());
                    let mut new = owners.apply(Some(old), applied, options.force)?;
                    self.check_name(&new)?;
                    crate::codec::conform(&schema, &mut new)?;
                    self.resource.kind.strategy.default(&mut new);
                    self.check_applied_version(applied, old)?;
                    let deletes = self.settle(&mut new, old, part, &mut found)?;
                    (new, deletes)
                }
                other => {
                    let mut new = other.patched(&schema, old, options.validation, &mut seen)?;
                    self.check_name(&new)?;
                    self.resource.kind.strategy.default(&mut new);
                    let deletes = self.prepare_update(&mut new, old, part, &options.manager, &mut found)?;
                    (new, deletes)
                }
            };
            seen.extend(found);
            warnings = seen;
            Ok(if deletes { Step::Delete(new) } else { Step::Put(new) })
        };
        let done = self.guarded(base, options.dry_run, part, plan).await?;
        if options.validation == FieldValidation::Warn {
            warnings.splice(0..0, twice);
        }
        self.answer(StatusCode::OK, &done, accepted, &warnings)
    }

    /// Applying to what does not exist creates it; other patches do not.
    async fn apply_new(
        &self,
        missing: Failure,
        patch: &Patch,
        part: &Part,
        options: &WriteOptions,
        accepted: Accepted,
    ) -> Result<HttpResponse> {
        let not_found = matches!(&missing, Failure::Api(e) if e.reason == Reason::NotFound);
        let Patch::Apply(applied) = patch else { return Err(missing) };
        if !not_found || *part != Part::Whole {
            return Err(missing);
        }
        if !applied.uid().is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                applied.uid()
            );
            return Err(self.resource.conflict(&self.call.path.name, &why).into());
        }
        let mut obj = self.owners(&options.manager, "").apply(None, applied, options.force)?;
        self.check_name(&obj)?;
        settle_namespace(&mut obj, &self.call.path.namespace)?;
        crate::codec::conform(&self.resource.kind.schema, &mut obj)?;
        self.resource.stamp(&mut obj);
        self.resource.kind.strategy.default(&mut obj);
        let mut warnings = Vec::new();
        let done = self.insert(obj, options.dry_run, &mut warnings).await?;
        self.answer(StatusCode::CREATED, &done, accepted, &warnings)
    }

    /// An applied configuration may name the revision that it was made from.
    fn check_applied_version(&self, applied: &Value, old: &Value) -> Result<()> {
        let given = applied.meta_str("resourceVersion");
        if given.is_empty() || given == old.meta_str("resourceVersion") {
            return Ok(());
        }
        Err(self.resource.modified(old.name()).into())
    }
}
