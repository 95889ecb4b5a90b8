//! Secondary indexes over shared caches, and a read-your-writes overlay. Kept up to date by the cache's own
//! notifications, so a controller that is woken by a change finds it here.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use loadline_client::{Cache, Change};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::meta::{Key, revision, uid};

struct Groups<K> {
    groups: HashMap<String, BTreeMap<Key, Arc<K>>>,
    member_of: HashMap<Key, String>,
}

/// The objects of a cache, grouped by a text derived from each (its namespace, its node …).
pub(crate) struct Index<K>(Arc<Mutex<Groups<K>>>);

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Index<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Must be made before any other listener is added to `cache`, which then sees what it is woken for.
    pub(crate) fn new(cache: &Cache<K>, group: impl Fn(&K) -> String + Send + 'static) -> Self {
        let groups = Arc::new(Mutex::new(Groups { groups: HashMap::new(), member_of: HashMap::new() }));
        let index = Self(groups.clone());
        cache.on_change(move |change| {
            let mut state = groups.lock().unwrap_or_else(PoisonError::into_inner);
            let object = change.object();
            let key = Key::of(object.meta());
            let now_in = matches!(change, Change::Applied { .. }).then(|| group(object));
            let was_in = match &now_in {
                Some(now) => state.member_of.insert(key.clone(), now.clone()),
                None => state.member_of.remove(&key),
            };
            if let Some(was) = was_in.filter(|was| Some(was) != now_in.as_ref())
                && let Some(members) = state.groups.get_mut(&was)
            {
                members.remove(&key);
                if members.is_empty() {
                    state.groups.remove(&was);
                }
            }
            if let Some(now) = now_in {
                state.groups.entry(now).or_default().insert(key, object.clone());
            }
        });
        index
    }

    /// By namespace, the index that most controllers want.
    pub(crate) fn by_namespace(cache: &Cache<K>) -> Self {
        Self::new(cache, |o| o.meta().namespace.clone().unwrap_or_default())
    }

    /// In the order of their keys.
    pub(crate) fn group(&self, group: &str) -> Vec<Arc<K>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.groups.get(group).map(|members| members.values().cloned().collect()).unwrap_or_default()
    }
}

/// How long an own write is believed against a cache that does not show it: far longer than any watch delay that is
/// not a fault, and bounded, because the object may have come and gone before the write's answer arrived.
const OVERLAY: Duration = Duration::from_secs(10);

enum Write<K> {
    Applied(Arc<K>),
    Deleted { uid: String },
}

type Writes<K> = HashMap<Key, (Instant, Write<K>)>;

/// Own writes that the cache does not show yet, so that a plan is never made from a view older than one's own acts.
pub(crate) struct Overlay<K>(Arc<Mutex<Writes<K>>>);

impl<K> Clone for Overlay<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Overlay<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    pub(crate) fn new(cache: &Cache<K>) -> Self {
        let overlay = Self(Arc::default());
        let writes = overlay.clone();
        cache.on_change(move |change| {
            let mut writes = writes.lock();
            let meta = change.object().meta();
            let key = Key::of(meta);
            let caught_up = match (writes.get(&key), change) {
                (None, _) => false,
                (Some((_, Write::Applied(own))), Change::Applied { .. }) => {
                    revision(meta) >= revision(own.meta())
                }
                (Some((_, Write::Applied(own))), Change::Deleted { .. }) => uid(meta) == uid(own.meta()),
                (Some((_, Write::Deleted { uid: own })), Change::Applied { .. }) => uid(meta) != own,
                (Some((_, Write::Deleted { .. })), Change::Deleted { .. }) => true,
            };
            if caught_up {
                writes.remove(&key);
            }
        });
        overlay
    }

    pub(crate) fn applied(&self, object: K) {
        self.lock().insert(Key::of(object.meta()), (Instant::now(), Write::Applied(Arc::new(object))));
    }

    pub(crate) fn deleted(&self, object: &K) {
        let uid = uid(object.meta()).to_owned();
        self.lock().insert(Key::of(object.meta()), (Instant::now(), Write::Deleted { uid }));
    }

    /// `cached`, with own newer writes to objects that `wanted` accepts.
    pub(crate) fn view(&self, cached: Vec<Arc<K>>, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let mut writes = self.lock();
        writes.retain(|_, (at, _)| at.elapsed() < OVERLAY);
        let mut view: BTreeMap<Key, Arc<K>> = cached.into_iter().map(|o| (Key::of(o.meta()), o)).collect();
        for (key, (_, write)) in writes.iter() {
            match write {
                Write::Applied(own) if wanted(own) => {
                    let newer = view.get(key).is_none_or(|o| revision(o.meta()) < revision(own.meta()));
                    if newer {
                        view.insert(key.clone(), own.clone());
                    }
                }
                Write::Applied(_) => {}
                Write::Deleted { uid: own } => {
                    if view.get(key).is_some_and(|o| uid(o.meta()) == own) {
                        view.remove(key);
                    }
                }
            }
        }
        view.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Writes<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
