//! managedFields: hands each write to `loadline_api::patch::apply` with what it must know of the request.

use loadline_api::patch::apply::{self, Write};
use loadline_api::patch::managed::keep_times;
use loadline_api::schema::Struct;
use serde_json::Value;
use std::sync::Arc;

use crate::app::App;
use crate::object::timestamp;
use crate::table::Resource;

/// Who writes what, when.
pub(crate) struct Writer<'a> {
    pub(crate) app: &'a App,
    pub(crate) resource: &'a Resource,
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: i64,
}

impl Writer<'_> {
    /// Records a create (`old` is `None`) or another change that is not an apply.
    pub(crate) fn record(&self, old: Option<&Value>, new: &mut Value) {
        self.with(|write| apply::update(write, old, new));
    }

    /// Merges an applied configuration.
    pub(crate) fn apply(
        &self,
        old: Option<&Value>,
        applied: &Value,
        force: bool,
    ) -> Result<Value, apply::ApplyError> {
        self.with(|write| apply::apply(write, old, applied, force))
    }

    fn with<T>(&self, run: impl FnOnce(&Write<'_>) -> T) -> T {
        let now = timestamp(self.now);
        let convert = |value: &Value, version: &str| self.convert(value, version);
        let several = self.resource.converts() || self.resource.versions > 1;
        run(&Write {
            schema: &self.resource.kind.schema,
            api_version: &self.resource.head.api_version,
            manager: self.manager,
            subresource: self.subresource,
            now: now.as_str().unwrap_or_default(),
            convert: several.then_some(&convert as &apply::Convert<'_>),
        })
    }

    /// The object as another of its versions has it.
    fn convert(&self, value: &Value, version: &str) -> Option<(Value, Arc<Struct>)> {
        let kinds = self.app.registry.snapshot();
        let own = &self.resource.kind;
        let target = kinds.api_kind(version, own.kind)?;
        if Arc::ptr_eq(target, own) {
            return Some((value.clone(), own.schema.clone()));
        }
        let stored =
            if self.resource.converts() { own.strategy.to_stored(value.clone()) } else { value.clone() };
        let is_storage = Arc::ptr_eq(target, &self.resource.storage);
        let other = if is_storage { stored } else { target.strategy.from_stored(stored) };
        Some((other, target.schema.clone()))
    }
}

/// Puts the times of managedFields back where nothing else has changed.
pub(crate) fn settle_times(new: &mut Value, old: &Value) {
    keep_times(new, old);
}
