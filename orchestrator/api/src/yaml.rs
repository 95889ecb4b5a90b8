//! YAML manifests, in the flavour of Kubernetes' own parser (YAML 1.1): `y`, `no` and `on` are booleans, `0644` is
//! octal, keys become strings. Reads documents into JSON values and writes values as YAML.
//!
//! Hostile input is bounded: nesting, and what aliases expand to. Knows nothing of kinds.

mod build;
mod scalar;
mod write;

use serde_json::Value;

use build::Builder;

/// Why a document could not be read; the text is what Kubernetes' clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    #[error("yaml: line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("yaml: document contains excessive aliasing")]
    Aliasing,
    #[error("yaml: line {line}: exceeded max depth of {}", build::MAX_DEPTH)]
    Depth { line: usize },
    #[error("yaml: line {line}: {what}")]
    Unsupported { line: usize, what: &'static str },
}

/// One document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// Keys that a mapping has twice: `line 3: key "a" already set in map`. The last one counts.
    pub duplicates: Vec<String>,
}

/// The first document of a text; `null` if there is none.
pub fn parse(text: &str) -> Result<Document, YamlError> {
    documents(text).next().unwrap_or_else(|| Ok(Document::default()))
}

/// All documents of a text. Ends after the first error.
pub fn documents(text: &str) -> impl Iterator<Item = Result<Document, YamlError>> {
    let mut builder = Some(Builder::new(text));
    std::iter::from_fn(move || {
        let next = builder.as_mut()?.document();
        if !matches!(next, Some(Ok(_))) {
            builder = None;
        }
        next
    })
}

/// A value as a YAML document, as `kubectl get -o yaml` shows it.
pub fn to_yaml(value: &Value) -> String {
    write::document(value)
}

#[cfg(test)]
mod tests;
