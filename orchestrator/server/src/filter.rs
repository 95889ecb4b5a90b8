//! Which objects a list or watch is about: a namespace, a name, label and field selectors.

use std::borrow::Cow;
use std::sync::Arc;

use loadline_api::selector::{FieldSelector, Selector};
use loadline_api::status::ApiError;

use crate::cache::Object;
use crate::respond::Result;
use crate::table::Resource;

#[derive(Clone)]
pub(crate) struct Filter {
    resource: Arc<Resource>,
    /// Keys begin with it: a namespace and its slash, or nothing.
    pub(crate) prefix: String,
    name: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    pub(crate) fn new(
        resource: &Arc<Resource>,
        namespace: &str,
        name: &str,
        labels: Selector,
        fields: FieldSelector,
    ) -> Result<Self> {
        let known = resource.kind.strategy.selectable_fields();
        for term in &fields.requirements {
            let field = term.field.as_str();
            if !matches!(field, "metadata.name" | "metadata.namespace") && !known.contains(&field) {
                let message = if known.is_empty() {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                };
                return Err(ApiError::bad_request(message).into());
            }
        }
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let name = (!name.is_empty()).then(|| name.to_owned());
        Ok(Self { resource: resource.clone(), prefix, name, labels, fields })
    }

    /// Whether selectors may leave out objects under the prefix.
    pub(crate) fn selects(&self) -> bool {
        self.name.is_some() || !self.labels.is_everything() || !self.fields.is_everything()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        object.key.starts_with(&self.prefix) && self.selected(object)
    }

    /// [`Filter::matches`] for an object that is under the prefix.
    pub(crate) fn selected(&self, object: &Object) -> bool {
        self.name.as_deref().is_none_or(|n| n == object.name())
            && (self.labels.is_everything() || self.labels.matches(&object.labels()))
            && (self.fields.is_everything() || self.fields_match(object))
    }

    fn fields_match(&self, object: &Object) -> bool {
        let strategy = self.resource.kind.strategy;
        let known = strategy.selectable_fields();
        let own = |field: &str| match field {
            "metadata.name" => Some(object.name()),
            "metadata.namespace" => Some(object.namespace()),
            _ => None,
        };
        if !self.resource.converts() {
            return self.fields.matches(|field| {
                let index = || known.iter().position(|k| *k == field).unwrap_or(usize::MAX);
                Cow::Borrowed(own(field).unwrap_or_else(|| object.field(index())))
            });
        }
        let Ok(value) = self.resource.value(object) else { return false };
        self.fields.matches(|field| match own(field) {
            Some(text) => Cow::Owned(text.to_owned()),
            None => Cow::Owned(strategy.selectable(&value, field)),
        })
    }
}
