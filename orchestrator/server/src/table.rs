//! The route table: every served row with its cache, found without allocating.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use loadline_api::kinds::{Kind, Snapshot};
use loadline_api::status::{ApiError, qualified};
use serde_json::Value;

use crate::cache::{Cache, Object};
use crate::config::Limits;
use crate::object::Head;
use crate::respond::{Failure, Result};

/// One resource of one group and version.
pub(crate) struct Resource {
    pub(crate) kind: Arc<Kind>,
    /// The row in whose version objects are stored; `kind` itself for most.
    pub(crate) storage: Arc<Kind>,
    pub(crate) head: Head,
    pub(crate) cache: Arc<Cache>,
    /// How many versions of the kind are served.
    pub(crate) versions: usize,
}

impl Resource {
    /// Served and stored versions differ.
    pub(crate) fn converts(&self) -> bool {
        !Arc::ptr_eq(&self.kind, &self.storage)
    }

    /// The object as this row serves it, with its revision.
    pub(crate) fn body(&self, object: &Object) -> Result<Bytes> {
        if object.broken {
            return Err(broken(&object.key));
        }
        if !self.converts() {
            return Ok(object.body.clone());
        }
        let value = self.served(object.value().map_err(|_| broken(&object.key))?);
        self.head.splice(&self.head.encode(&value), object.revision).map_err(|_| broken(&object.key))
    }

    /// The same as a value.
    pub(crate) fn value(&self, object: &Object) -> Result<Value> {
        if object.broken {
            return Err(broken(&object.key));
        }
        Ok(self.served(object.value().map_err(|_| broken(&object.key))?))
    }

    fn served(&self, stored: Value) -> Value {
        if !self.converts() {
            return stored;
        }
        let mut value = self.kind.strategy.from_stored(stored);
        self.stamp(&mut value);
        value
    }

    /// Sets kind and apiVersion.
    pub(crate) fn stamp(&self, value: &mut Value) {
        if let Some(map) = value.as_object_mut() {
            map.insert("kind".to_owned(), Value::from(self.kind.kind));
            map.insert("apiVersion".to_owned(), Value::from(&*self.head.api_version));
        }
    }

    /// The bytes that the store keeps for a served value.
    pub(crate) fn encode_stored(&self, value: &Value) -> Bytes {
        if self.converts() {
            let stored = self.kind.strategy.to_stored(value.clone());
            self.cache.head.encode(&stored)
        } else {
            self.head.encode(value)
        }
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(self.kind.group, self.kind.resource, name)
    }

    pub(crate) fn already_exists(&self, name: &str) -> ApiError {
        ApiError::already_exists(self.kind.group, self.kind.resource, name)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(self.kind.group, self.kind.resource, name, why)
    }

    pub(crate) fn modified(&self, name: &str) -> ApiError {
        self.conflict(
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.kind.group == group && self.kind.resource == resource
    }
}

fn broken(key: &str) -> Failure {
    Failure::Bare(format!(
        "the stored value of {key:?} is damaged and cannot be read; delete and create it again"
    ))
}

/// All rows at one moment.
#[derive(Default)]
pub(crate) struct Table {
    by_resource: HashMap<&'static str, Vec<Arc<Resource>>>,
    caches: Vec<Arc<Cache>>,
}

impl Table {
    pub(crate) fn new(kinds: &Snapshot, limits: &Limits) -> Self {
        let mut table = Self::default();
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        for kind in kinds.kinds() {
            // Kinds that can only be created (bindings) are not stored.
            if !kind.has_verb("get") {
                continue;
            }
            let storage = kinds.storage(kind).clone();
            let cache = caches
                .entry(qualified(storage.group, storage.resource))
                .or_insert_with(|| {
                    Arc::new(Cache::new(storage.clone(), limits.history, limits.history_events))
                })
                .clone();
            let resource = Resource {
                head: Head::new(kind.group, kind.version, kind.kind),
                versions: kinds
                    .kinds()
                    .iter()
                    .filter(|k| {
                        qualified(kinds.storage(k).group, k.resource)
                            == qualified(storage.group, storage.resource)
                    })
                    .count(),
                kind: kind.clone(),
                storage,
                cache,
            };
            table.by_resource.entry(kind.resource).or_default().push(Arc::new(resource));
        }
        table.caches = caches.into_values().collect();
        table
    }

    pub(crate) fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Resource>> {
        self.by_resource.get(resource)?.iter().find(|r| r.kind.group == group && r.kind.version == version)
    }

    pub(crate) fn caches(&self) -> &[Arc<Cache>] {
        &self.caches
    }
}
