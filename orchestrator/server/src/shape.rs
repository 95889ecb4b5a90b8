//! The forms in which objects leave the server: themselves, table rows, or metadata alone; one at a time, in lists,
//! and in watch events.

use std::sync::Arc;

use bytes::Bytes;
use loadline_api::kinds::Column;
use loadline_api::status::{ApiError, Reason};
use serde_json::Value;

use crate::cache::Object;
use crate::negotiate::{Accepted, Form};
use crate::object::{now_seconds, partial, raw_metadata};
use crate::request::Query;
use crate::respond::Result;
use crate::table::Resource;

/// What a table row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Metadata,
    Object,
    None,
}

/// How one request wants objects.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) resource: Arc<Resource>,
    pub(crate) accepted: Accepted,
    include: Include,
}

impl Shape {
    /// For answers with one object (or events of it).
    pub(crate) fn one(resource: &Arc<Resource>, accepted: Accepted, query: &Query) -> Result<Self> {
        if accepted.form == Form::MetadataList {
            return Err(not_acceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list",
            ));
        }
        Self::new(resource, accepted, query)
    }

    /// For answers with a list.
    pub(crate) fn list(resource: &Arc<Resource>, accepted: Accepted, query: &Query) -> Result<Self> {
        if accepted.form == Form::Metadata {
            return Err(not_acceptable(
                "you requested PartialObjectMetadata, but the requested object is a list",
            ));
        }
        Self::new(resource, accepted, query)
    }

    pub(crate) fn new(resource: &Arc<Resource>, accepted: Accepted, query: &Query) -> Result<Self> {
        let include = match query.text("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("Object") => Include::Object,
            Some("None") => Include::None,
            Some(other) => {
                return Err(
                    ApiError::bad_request(format!("unrecognized includeObject value: {other:?}")).into()
                );
            }
        };
        Ok(Self { resource: resource.clone(), accepted, include })
    }

    /// Served bytes of one object, in this form.
    pub(crate) fn body(&self, object: &Object) -> Result<Bytes> {
        let served = self.resource.body(object)?;
        self.of_bytes(served, object.revision)
    }

    /// The same, from bytes that this row serves.
    pub(crate) fn of_bytes(&self, served: Bytes, revision: u64) -> Result<Bytes> {
        Ok(match self.accepted.form {
            Form::Metadata | Form::MetadataList => partial(&served),
            Form::Table => {
                let mut out = Vec::with_capacity(2048);
                self.table_head(&mut out, revision, true, None, 0);
                self.row(&mut out, &served, now_seconds());
                out.extend_from_slice(b"]}");
                out.into()
            }
            Form::Object | Form::DiscoveryList => served,
        })
    }

    /// The object of a watch event; tables name their columns only the first time.
    pub(crate) fn event_body(&self, served: Bytes, revision: u64, first: bool) -> Result<Bytes> {
        if self.accepted.form != Form::Table {
            return self.of_bytes(served, revision);
        }
        let mut out = Vec::with_capacity(2048);
        self.table_head(&mut out, revision, first, None, 0);
        self.row(&mut out, &served, now_seconds());
        out.extend_from_slice(b"]}");
        Ok(out.into())
    }

    /// The beginning of a list, up to its items.
    pub(crate) fn list_head(&self, out: &mut Vec<u8>, revision: u64, cursor: Option<&str>, remaining: u64) {
        if self.accepted.form == Form::Table {
            self.table_head(out, revision, true, cursor, remaining);
            return;
        }
        let (kind, version) = match self.accepted.form {
            Form::MetadataList | Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1"),
            _ => (self.resource.kind.kind, &*self.resource.head.api_version),
        };
        out.extend_from_slice(
            format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":"#).as_bytes(),
        );
        list_meta(out, revision, cursor, remaining);
        out.extend_from_slice(br#","items":["#);
    }

    /// One member of a list.
    pub(crate) fn item(&self, out: &mut Vec<u8>, object: &Object, now: i64) -> Result<()> {
        if self.accepted.form == Form::Object && !self.resource.converts() {
            // The hot path: bytes as they are, without kind and apiVersion.
            out.push(b'{');
            out.extend_from_slice(object.body.get(self.resource.head.item_offset()..).unwrap_or_default());
            return Ok(());
        }
        let served = self.resource.body(object)?;
        match self.accepted.form {
            Form::Table => self.row(out, &served, now),
            Form::Metadata | Form::MetadataList => out.extend_from_slice(&partial(&served)),
            Form::Object | Form::DiscoveryList => {
                out.push(b'{');
                out.extend_from_slice(served.get(self.resource.head.item_offset()..).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// About how many bytes an item takes.
    pub(crate) fn item_size(&self, object: &Object) -> usize {
        match self.accepted.form {
            Form::Object | Form::DiscoveryList => object.body.len() + 2,
            _ => 512,
        }
    }

    fn table_head(
        &self,
        out: &mut Vec<u8>,
        revision: u64,
        columns: bool,
        cursor: Option<&str>,
        remaining: u64,
    ) {
        out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        list_meta(out, revision, cursor, remaining);
        out.extend_from_slice(br#","columnDefinitions":"#);
        if columns {
            write_columns(out, self.resource.kind.columns);
        } else {
            out.extend_from_slice(b"null");
        }
        out.extend_from_slice(br#","rows":["#);
    }

    fn row(&self, out: &mut Vec<u8>, served: &Bytes, now: i64) {
        let value: Value = serde_json::from_slice(served).unwrap_or_default();
        let cells = self.resource.kind.strategy.row(&value, now);
        out.extend_from_slice(br#"{"cells":"#);
        let _ = serde_json::to_writer(&mut *out, &cells);
        out.extend_from_slice(br#","object":"#);
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Object => out.extend_from_slice(served),
            Include::Metadata => {
                out.extend_from_slice(
                    br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
                );
                out.extend_from_slice(raw_metadata(served).as_bytes());
                out.push(b'}');
            }
        }
        out.push(b'}');
    }
}

fn list_meta(out: &mut Vec<u8>, revision: u64, cursor: Option<&str>, remaining: u64) {
    out.extend_from_slice(format!(r#"{{"resourceVersion":"{revision}""#).as_bytes());
    if let Some(cursor) = cursor {
        out.extend_from_slice(format!(r#","continue":"{cursor}""#).as_bytes());
    }
    if remaining > 0 {
        out.extend_from_slice(format!(r#","remainingItemCount":{remaining}"#).as_bytes());
    }
    out.push(b'}');
}

fn write_columns(out: &mut Vec<u8>, columns: &[Column]) {
    let list: Vec<Value> = columns
        .iter()
        .map(|c| {
            serde_json::json!({"name": c.name, "type": c.ty, "format": c.format, "description": c.description,
                "priority": c.priority})
        })
        .collect();
    let _ = serde_json::to_writer(out, &list);
}

fn not_acceptable(message: &str) -> crate::respond::Failure {
    ApiError::new(Reason::NotAcceptable, message).into()
}
