//! Repeated events become one object that counts them. Two events are the same when they say the same about the same
//! object: another note is another event, because it is the note that tells the reader what happened.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

/// A series ends when nothing was added to it for this long, as in client-go.
const EXPIRY: Duration = Duration::from_secs(6 * 60);
/// Series that are remembered; beyond that the one seen least recently is forgotten, and starts anew when it goes on.
const REMEMBERED: usize = 4096;
/// Of an object's name.
const LONGEST_NAME: usize = 253;

/// What happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) about: ObjectReference,
    /// `Normal` or `Warning`.
    pub(super) type_: &'static str,
    pub(super) reason: String,
    pub(super) action: String,
    pub(super) note: String,
}

/// The object without its resource version, which every change gives it anew.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    object: [Option<String>; 6],
    type_: &'static str,
    reason: String,
    note: String,
}

struct Series {
    event: String,
    count: i32,
    last: Instant,
}

/// Writes the events of one reporter.
pub(super) struct Writer {
    client: Client,
    reporter: &'static str,
    instance: String,
    series: HashMap<Key, Series>,
    remembered: usize,
}

impl Writer {
    pub(super) fn new(client: Client, reporter: &'static str, instance: Option<String>) -> Self {
        let instance = instance.unwrap_or_else(|| reporter.to_owned());
        Self { client, reporter, instance, series: HashMap::new(), remembered: REMEMBERED }
    }

    /// What could not be written is not counted.
    pub(super) async fn write(&mut self, seen: Occurrence) -> Result<(), kube::Error> {
        let namespace = seen.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let (key, now, last) = (Key::of(&seen), Timestamp::now(), Instant::now());
        self.series.retain(|_, series| series.last + EXPIRY > last);
        if let Some(series) = self.series.get_mut(&key) {
            let count = series.count + 1;
            let observed = EventSeries { count, last_observed_time: MicroTime(now) };
            let patch = Patch::Merge(Event { series: Some(observed), ..Event::default() });
            match api.patch(&series.event, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    (series.count, series.last) = (count, last);
                    return Ok(());
                }
                // Somebody deleted it: it is told once more.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(other) => return Err(other),
            }
        }
        let event = self.event(seen, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.remember(key, Series { event: name, count: 1, last });
        Ok(())
    }

    fn event(&self, seen: Occurrence, namespace: String, now: Timestamp) -> Event {
        let suffix = format!(".{:x}", now.as_nanosecond());
        let object = seen.about.name.as_deref().unwrap_or(self.reporter);
        let object: String = object.chars().take(LONGEST_NAME - suffix.len()).collect();
        Event {
            metadata: ObjectMeta {
                name: Some(object + &suffix),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(seen.type_.to_owned()),
            reason: Some(seen.reason),
            action: Some(seen.action),
            note: Some(seen.note),
            regarding: Some(seen.about),
            reporting_controller: Some(self.reporter.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, key: Key, series: Series) {
        if self.series.len() >= self.remembered && !self.series.contains_key(&key) {
            let oldest = self.series.iter().min_by_key(|(_, s)| s.last).map(|(key, _)| key.clone());
            oldest.map(|key| self.series.remove(&key));
        }
        self.series.insert(key, series);
    }
}

impl Key {
    fn of(seen: &Occurrence) -> Self {
        let ObjectReference { api_version, kind, namespace, name, uid, field_path, .. } = seen.about.clone();
        Self {
            object: [api_version, kind, namespace, name, uid, field_path],
            type_: seen.type_,
            reason: seen.reason.clone(),
            note: seen.note.clone(),
        }
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
