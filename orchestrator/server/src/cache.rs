//! The watch cache of one stored resource: every object once, encoded, in key order, and a ring of its last events.
//!
//! One writer (the feed) applies events; readers take short read locks and leave with `Arc`s. Watches follow the ring
//! by position, so a slow one costs nothing and is ended when its position falls off.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadline_api::kinds::Kind;
use loadline_api::selector::Labels;
use loadline_api::status::qualified;
use loadline_store::{Entry, Revision};
use serde_json::Value;
use tokio::sync::watch;

use crate::object::{Head, Peek};

/// Events of a quiet kind are kept beyond their age, up to this many.
const KEEP_AT_LEAST: usize = 1_000;

/// One object as it is served in its storage version.
#[derive(Debug)]
pub(crate) struct Object {
    /// `namespace/name`, or the name alone.
    pub(crate) key: Arc<str>,
    pub(crate) revision: Revision,
    pub(crate) body: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// The values of `Strategy::selectable_fields`, in that order.
    fields: Box<[Box<str>]>,
    /// The stored value cannot be read.
    pub(crate) broken: bool,
}

impl Object {
    pub(crate) fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(ns, _)| ns)
    }

    pub(crate) fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    pub(crate) fn labels(&self) -> LabelsOf<'_> {
        LabelsOf(&self.labels)
    }

    pub(crate) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map(AsRef::as_ref).unwrap_or_default()
    }

    pub(crate) fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// An object's labels, for selectors.
pub(crate) struct LabelsOf<'a>(&'a [(Box<str>, Box<str>)]);

impl Labels for LabelsOf<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| **k == *key).map(|(_, v)| v.as_ref())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

/// A change of one object. A deletion carries the last state with the deletion's revision.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    pub(crate) ty: EventType,
    pub(crate) revision: Revision,
    pub(crate) object: Arc<Object>,
    pub(crate) previous: Option<Arc<Object>>,
    at: Instant,
}

struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    ring: VecDeque<Arc<CacheEvent>>,
    /// The position of the ring's first event; positions only grow.
    first: u64,
    /// Every event after this revision is in the ring.
    low: Revision,
    /// The revision of the last event.
    last: Revision,
}

/// A consistent view of a part of the cache.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) objects: Vec<Arc<Object>>,
    /// The view holds everything up to this revision.
    pub(crate) revision: Revision,
    /// Objects follow the last one.
    pub(crate) more: bool,
    /// How many, where it was asked for.
    pub(crate) remaining: u64,
    /// Where a watch goes on.
    pub(crate) position: u64,
}

/// Why a watch cannot start or go on: the oldest revision that could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld(pub Revision);

pub(crate) struct Cache {
    pub(crate) kind: Arc<Kind>,
    pub(crate) head: Head,
    /// `/registry/deployments.apps/`
    pub(crate) prefix: String,
    state: RwLock<State>,
    /// Counts changes; watches wait on it.
    changed: watch::Sender<u64>,
    history: Duration,
    history_events: usize,
    /// The last revision at which this server itself wrote an object of the kind.
    written: AtomicU64,
}

/// Under this, keys are `GROUP-RESOURCE/NAMESPACE/NAME`.
pub(crate) const ROOT: &str = "/registry/";

impl Cache {
    pub(crate) fn new(kind: Arc<Kind>, history: Duration, history_events: usize) -> Self {
        let state =
            State { objects: BTreeMap::new(), ring: VecDeque::new(), first: 0, low: Revision::MAX, last: 0 };
        Self {
            head: Head::new(kind.group, kind.version, kind.kind),
            prefix: format!("{ROOT}{}/", qualified(kind.group, kind.resource)),
            kind,
            state: RwLock::new(state),
            changed: watch::Sender::new(0),
            history,
            history_events,
            written: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(namespace: &str, name: &str) -> String {
        if namespace.is_empty() { name.to_owned() } else { [namespace, "/", name].concat() }
    }

    pub(crate) fn store_key(&self, key: &str) -> String {
        [self.prefix.as_str(), key].concat()
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.read().objects.get(key).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Objects whose key starts with `prefix`, after the key `after`, that `keep` says yes to. `known` is a revision
    /// that the cache is known to have reached.
    pub(crate) fn view(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        count: bool,
        known: Revision,
        mut keep: impl FnMut(&Object) -> bool,
    ) -> View {
        let state = self.read();
        let mut view = View {
            revision: known.max(state.last),
            position: state.first + state.ring.len() as u64,
            ..View::default()
        };
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let mut all = state
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, o)| o)
            .take_while(|o| o.key.starts_with(prefix));
        for object in all.by_ref() {
            // A full page has more after it when any object follows, whether or not it would be selected.
            if limit > 0 && view.objects.len() == limit {
                view.more = true;
                view.remaining = if count { 1 + all.filter(|o| !o.broken).count() as u64 } else { 0 };
                break;
            }
            if object.broken || !keep(object) {
                continue;
            }
            view.objects.push(object.clone());
        }
        view
    }

    /// The position from which a watch gets every event after `revision`.
    pub(crate) fn position_after(&self, revision: Revision) -> Result<u64, TooOld> {
        let state = self.read();
        if revision < state.low {
            return Err(TooOld(state.low));
        }
        let index = state.ring.partition_point(|e| e.revision <= revision);
        Ok(state.first + index as u64)
    }

    /// Up to `max` events from `position` on.
    pub(crate) fn events_from(
        &self,
        position: u64,
        max: usize,
        out: &mut Vec<Arc<CacheEvent>>,
    ) -> Result<u64, TooOld> {
        let state = self.read();
        let Some(skip) = position.checked_sub(state.first) else { return Err(TooOld(state.low)) };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(state.ring.len());
        let before = out.len();
        out.extend(state.ring.range(skip..).take(max).cloned());
        Ok(state.first + (skip + out.len() - before) as u64)
    }

    /// No event after this revision happened to the kind, as far as the cache knows.
    pub(crate) fn last_change(&self) -> Revision {
        self.read().last
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Remembers a write, for [`Cache::written`].
    pub(crate) fn wrote(&self, revision: Revision) {
        self.written.fetch_max(revision, Ordering::AcqRel);
    }

    /// A cache that has reached this revision shows every write of the kind that this server has acknowledged.
    pub(crate) fn written(&self) -> Revision {
        self.written.load(Ordering::Acquire)
    }

    /// Replaces everything with what the store holds at `revision`. Watches that were open must start again.
    pub(crate) fn load(&self, objects: Vec<Object>, revision: Revision) {
        let objects: BTreeMap<_, _> = objects.into_iter().map(|o| (o.key.clone(), Arc::new(o))).collect();
        let mut state = self.write();
        state.first += state.ring.len() as u64 + 1;
        state.ring = VecDeque::new();
        state.low = revision;
        state.last = revision;
        state.objects = objects;
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Makes an object of a stored entry; an unreadable one is kept, marked.
    pub(crate) fn object(&self, entry: &Entry) -> Object {
        let key: Arc<str> = entry.key.strip_prefix(self.prefix.as_str()).unwrap_or(&entry.key).into();
        match self.parse(&key, &entry.value, entry.mod_revision) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "stored object cannot be read");
                Object {
                    key,
                    revision: entry.mod_revision,
                    body: Bytes::new(),
                    labels: Box::default(),
                    fields: Box::default(),
                    broken: true,
                }
            }
        }
    }

    fn parse(&self, key: &Arc<str>, value: &[u8], revision: Revision) -> Result<Object, serde_json::Error> {
        let body = self.head.splice(value, revision)?;
        let peek: Peek = serde_json::from_slice(&body)?;
        let names = self.kind.strategy.selectable_fields();
        let fields = if names.is_empty() {
            Box::default()
        } else {
            let value: Value = serde_json::from_slice(&body)?;
            names.iter().map(|n| self.kind.strategy.selectable(&value, n).into_boxed_str()).collect()
        };
        Ok(Object {
            key: key.clone(),
            revision,
            body,
            labels: peek.metadata.labels.into_boxed_slice(),
            fields,
            broken: false,
        })
    }

    /// Takes over one write.
    pub(crate) fn put(&self, entry: &Entry) {
        let object = Arc::new(self.object(entry));
        let mut state = self.write();
        let previous = state.objects.insert(object.key.clone(), object.clone());
        let ty = if previous.is_some() { EventType::Modified } else { EventType::Added };
        self.record(&mut state, ty, object, previous);
    }

    /// Takes over one deletion.
    pub(crate) fn delete(&self, key: &str, revision: Revision) {
        let key = key.strip_prefix(self.prefix.as_str()).unwrap_or(key);
        let mut state = self.write();
        let Some(previous) = state.objects.remove(key) else { return };
        let object = Arc::new(Object {
            key: previous.key.clone(),
            revision,
            body: self.head.with_revision(&previous.body, revision),
            labels: previous.labels.clone(),
            fields: previous.fields.clone(),
            broken: previous.broken,
        });
        self.record(&mut state, EventType::Deleted, object, Some(previous));
    }

    fn record(&self, state: &mut State, ty: EventType, object: Arc<Object>, previous: Option<Arc<Object>>) {
        let now = Instant::now();
        state.last = object.revision;
        let revision = object.revision;
        state.ring.push_back(Arc::new(CacheEvent { ty, revision, object, previous, at: now }));
        self.forget(state, now);
    }

    /// Tells watches that there is something new; once for a batch of events.
    pub(crate) fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Drops events that are old enough.
    pub(crate) fn prune(&self) {
        self.forget(&mut self.write(), Instant::now());
    }

    fn forget(&self, state: &mut State, now: Instant) {
        while let Some(oldest) = state.ring.front() {
            let aged = now.duration_since(oldest.at) > self.history && state.ring.len() > KEEP_AT_LEAST;
            if !aged && state.ring.len() <= self.history_events {
                break;
            }
            state.low = oldest.revision;
            state.first += 1;
            state.ring.pop_front();
        }
        if state.ring.len() < state.ring.capacity() / 4 {
            state.ring.shrink_to(KEEP_AT_LEAST.max(state.ring.len() * 2));
        }
    }

    // A poisoned lock means that a writer died between two assignments of plain data; what is there is whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use loadline_api::kinds::Registry;

    use super::*;

    fn cache(events: usize) -> Cache {
        let kinds = Registry::builtin().snapshot();
        let kind = kinds.resource("", "v1", "configmaps").unwrap().clone();
        Cache::new(kind, Duration::from_secs(80), events)
    }

    fn entry(cache: &Cache, name: &str, revision: Revision) -> Entry {
        let value = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","labels":{{"l":"{revision}"}}}}}}"#
        );
        Entry {
            key: cache.store_key(&Cache::key("ns", name)).into(),
            value: value.into(),
            create_revision: revision,
            mod_revision: revision,
        }
    }

    #[test]
    fn views_and_events_agree() {
        let cache = cache(100);
        cache.load(vec![cache.object(&entry(&cache, "a", 3))], 5);
        let start = cache.position_after(5).unwrap();
        assert_eq!(cache.position_after(4), Err(TooOld(5)));
        cache.put(&entry(&cache, "b", 6));
        cache.put(&entry(&cache, "a", 7));
        cache.delete(&cache.store_key("ns/b"), 9);
        let mut events = Vec::new();
        let next = cache.events_from(start, 100, &mut events).unwrap();
        let seen: Vec<_> = events.iter().map(|e| (e.ty, e.object.name().to_owned(), e.revision)).collect();
        assert_eq!(
            seen,
            [
                (EventType::Added, "b".to_owned(), 6),
                (EventType::Modified, "a".to_owned(), 7),
                (EventType::Deleted, "b".to_owned(), 9)
            ]
        );
        assert!(std::str::from_utf8(&events[2].object.body).unwrap().contains(r#""resourceVersion":"9""#));
        assert_eq!(events[1].object.labels().label("l"), Some("7"));
        assert_eq!(cache.events_from(next, 100, &mut Vec::new()), Ok(next));
        let view = cache.view("ns/", None, 0, false, 5, |_| true);
        assert_eq!((view.objects.len(), view.revision, view.position), (1, 9, next));
        assert_eq!(cache.position_after(6).unwrap(), start + 1);
    }

    #[test]
    fn the_ring_is_bounded_and_late_watches_are_told() {
        let cache = cache(3);
        cache.load(Vec::new(), 1);
        let start = cache.position_after(1).unwrap();
        for revision in 2..10 {
            cache.put(&entry(&cache, "a", revision));
        }
        assert_eq!(cache.events_from(start, 10, &mut Vec::new()), Err(TooOld(6)));
        assert_eq!(cache.position_after(5), Err(TooOld(6)));
        let mut events = Vec::new();
        let position = cache.position_after(6).unwrap();
        cache.events_from(position, 10, &mut events).unwrap();
        assert_eq!(events.iter().map(|e| e.revision).collect::<Vec<_>>(), [7, 8, 9]);
        cache.load(Vec::new(), 20);
        assert_eq!(cache.events_from(position, 10, &mut Vec::new()), Err(TooOld(20)));
    }

    #[test]
    fn pages_stay_within_their_namespace() {
        let cache = cache(100);
        cache.load(Vec::new(), 1);
        for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.put(&entry(&cache, name, 2 + i as u64));
        }
        let mut other = entry(&cache, "z", 9);
        other.key = cache.store_key("nsx/z").into();
        cache.put(&other);
        let first = cache.view("ns/", None, 2, true, 1, |_| true);
        assert!(first.more);
        assert_eq!((first.remaining, first.objects.len()), (1, 2));
        let second = cache.view("ns/", Some(&first.objects[1].key), 2, true, 1, |_| true);
        assert_eq!(second.objects.iter().map(|o| o.name()).collect::<Vec<_>>(), ["c"]);
        assert!(!second.more);
    }

    #[test]
    fn a_broken_value_does_not_break_the_rest() {
        let cache = cache(100);
        cache.load(Vec::new(), 1);
        let mut bad = entry(&cache, "bad", 2);
        bad.value = Bytes::from_static(b"\xff{");
        cache.put(&bad);
        cache.put(&entry(&cache, "good", 3));
        assert!(cache.get("ns/bad").unwrap().broken);
        assert_eq!(cache.view("ns/", None, 0, false, 1, |_| true).objects.len(), 1);
    }
}
