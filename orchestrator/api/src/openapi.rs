//! The OpenAPI documents: `/openapi/v3` with one document per group version, and `/openapi/v2`.
//!
//! They are functions of the kinds table; nothing is kept. A document takes some milliseconds to build, so a server may
//! build it for each request, or keep the bytes as long as it likes.
//!
//! What kubectl (≥ 1.27) needs of them, for the author of the handlers:
//! - `explain` and `apply` ask for `/openapi/v3`, take `serverRelativeURL` of the group version from it, and fetch that
//!   as JSON (`Accept: application/json`). `apply` reads the merge keys of lists there, sees by the query parameter
//!   `fieldValidation` of the PATCH operation that the server validates, and skips validation of its own.
//! - A document that is asked for with the hash of the index may be answered with far-off `Expires`; one with another
//!   hash is answered with a redirect (301) to the right one, or simply with the document.
//! - `/openapi/v2` is asked for only when v3 does not know a kind, and then only in protobuf (`V2_PROTOBUF`), with no
//!   fallback to JSON in the client. JSON is for other clients.
//! - Resources that components serve behind the server (`metrics.k8s.io`) have no document; clients that want a schema
//!   of theirs get 404 for it, as from an aggregated server without OpenAPI.

mod paths;
mod proto;
mod schemas;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::kinds::{GroupVersion, Snapshot};

/// Which of the two specifications is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// `GET /openapi/v3`: the paths of the documents, each with the hash of its content.
pub fn v3_index(kinds: &Snapshot) -> Value {
    let mut index = Map::new();
    for gv in kinds.group_versions() {
        let path = path_of(gv.group, gv.version);
        let hash = content_hash(&bytes(&document_v3(kinds, &gv)));
        index.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
    }
    json!({"paths": index})
}

/// `GET /openapi/v3/api/v1`, `GET /openapi/v3/apis/GROUP/VERSION`: the JSON text. `None` for an unknown group version.
pub fn v3_document(kinds: &Snapshot, group: &str, version: &str) -> Option<Vec<u8>> {
    let gv = kinds.group_versions().into_iter().find(|gv| gv.group == group && gv.version == version)?;
    Some(bytes(&document_v3(kinds, &gv)))
}

/// The media type of the v2 document in protobuf.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `GET /openapi/v2` in protobuf.
pub fn v2_protobuf(kinds: &Snapshot) -> Vec<u8> {
    proto::document(&document_v2(kinds))
}

/// `GET /openapi/v2`: the JSON text.
pub fn v2_document(kinds: &Snapshot) -> Vec<u8> {
    bytes(&document_v2(kinds))
}

fn document_v2(kinds: &Snapshot) -> Value {
    let mut definitions = schemas::Definitions::new(kinds, Dialect::V2);
    let mut paths = BTreeMap::new();
    for gv in kinds.group_versions() {
        definitions.add(&gv);
        paths.extend(paths::of(&gv, Dialect::V2));
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": definitions.done(),
    })
}

/// SHA-512 of a document, as Kubernetes shows it in the index and as an `ETag`: upper-case hexadecimal digits.
pub fn content_hash(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `api/v1`, `apis/apps/v1`: the key of a group version in the index, and the end of its document's path.
pub fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn document_v3(kinds: &Snapshot, gv: &GroupVersion) -> Value {
    let mut schemas = schemas::Definitions::new(kinds, Dialect::V3);
    schemas.add(gv);
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::of(gv, Dialect::V3),
        "components": {"schemas": schemas.done()},
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

fn bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
