//! The set of kinds that a server serves now. Readers take a snapshot and keep it for a request; rows are added and
//! removed by publishing a new one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Kind, table};

/// Group versions in the order of discovery, and the kinds of each.
#[derive(Clone)]
pub struct GroupVersion {
    pub group: &'static str,
    pub version: &'static str,
    pub kinds: Vec<Arc<Kind>>,
}

/// All kinds at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<&'static str, Vec<Arc<Kind>>>,
    by_kind: HashMap<&'static str, Vec<Arc<Kind>>>,
}

/// The kinds table of a server.
pub struct Registry {
    current: RwLock<Arc<Snapshot>>,
}

impl Registry {
    /// The kinds that are built in.
    pub fn builtin() -> Self {
        Self::new(table::rows())
    }

    pub fn new(kinds: Vec<Kind>) -> Self {
        Self { current: RwLock::new(Arc::new(Snapshot::new(kinds.into_iter().map(Arc::new).collect()))) }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a row, or puts it in the place of the one with the same group, version and resource.
    pub fn put(&self, kind: Kind) {
        let kind = Arc::new(kind);
        self.change(|kinds| {
            kinds.retain(|k| !k.is(kind.group, kind.version, kind.resource));
            kinds.push(kind);
        });
    }

    /// Removes a row; `false` if there is none.
    pub fn remove(&self, group: &str, version: &str, resource: &str) -> bool {
        let mut found = false;
        self.change(|kinds| {
            kinds.retain(|k| {
                let same = k.is(group, version, resource);
                found |= same;
                !same
            });
        });
        found
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Kind>>)) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut kinds = current.kinds.clone();
        edit(&mut kinds);
        *current = Arc::new(Snapshot::new(kinds));
    }
}

impl Snapshot {
    fn new(kinds: Vec<Arc<Kind>>) -> Self {
        let mut by_resource: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::new();
        for kind in &kinds {
            by_resource.entry(kind.resource).or_default().push(kind.clone());
            by_kind.entry(kind.kind).or_default().push(kind.clone());
        }
        Self { kinds, by_resource, by_kind }
    }

    /// All kinds, in the order of discovery.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The row of a URL: core's group is empty.
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Kind>> {
        self.by_resource.get(resource)?.iter().find(|k| k.group == group && k.version == version)
    }

    /// The row of an object.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.by_kind.get(kind)?.iter().find(|k| k.group == group && k.version == version)
    }

    /// The row of an object by its `apiVersion`.
    pub fn api_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.kind(group, version, kind)
    }

    /// The row whose version the objects of `kind` are stored in; itself for most.
    pub fn storage<'a>(&'a self, kind: &'a Arc<Kind>) -> &'a Arc<Kind> {
        kind.stored_as.and_then(|(group, version)| self.kind(group, version, kind.kind)).unwrap_or(kind)
    }

    /// Every group version, in the order of discovery: of a group's versions the preferred one comes first.
    pub fn group_versions(&self) -> Vec<GroupVersion> {
        let mut all: Vec<GroupVersion> = Vec::new();
        for kind in &self.kinds {
            match all.iter_mut().find(|gv| gv.group == kind.group && gv.version == kind.version) {
                Some(gv) => gv.kinds.push(kind.clone()),
                None => {
                    all.push(GroupVersion {
                        group: kind.group,
                        version: kind.version,
                        kinds: vec![kind.clone()],
                    });
                }
            }
        }
        all
    }

    /// The groups, in the order of discovery, each with its versions, the preferred one first. Core is the group "".
    pub fn groups(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for kind in &self.kinds {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version) => {}
                Some((_, versions)) => versions.push(kind.version),
                None => groups.push((kind.group, vec![kind.version])),
            }
        }
        groups
    }
}

/// Group and version of an `apiVersion`: core's group is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
