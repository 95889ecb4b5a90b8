//! Events are kept for an hour after the last time they were seen, as Kubernetes keeps them. The store knows no leases,
//! so the server looks for old ones now and then.

use std::sync::Arc;
use std::time::Duration;

use loadline_store::{Expect, StoreError};
use serde_json::Value;
use tracing::{debug, warn};

use crate::app::App;
use crate::object::{now_seconds, seconds};

const KEEP_SECONDS: i64 = 3600;
const EVERY: Duration = Duration::from_secs(60);
/// Deletions in one round, so that a flood of events does not become a flood of writes.
const AT_ONCE: usize = 2_000;

pub(crate) async fn run(app: Arc<App>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = round(&app, now_seconds()).await {
            warn!(%error, "old events could not be removed");
        }
    }
}

async fn round(app: &App, now: i64) -> Result<(), StoreError> {
    let Some(events) = app.table.load().find("", "v1", "events").cloned() else { return Ok(()) };
    let view = events.cache.view("", None, 0, false, 0, |_| true);
    let old = view.objects.iter().filter(|o| o.value().is_ok_and(|event| is_old(&event, now)));
    let mut removed = 0;
    for object in old.take(AT_ONCE) {
        let key = events.cache.store_key(&object.key);
        match app.store.delete(&key, Expect::Revision(object.revision)).await {
            Ok((revision, _)) => {
                events.cache.wrote(revision);
                removed += 1;
            }
            // Seen again just now, or gone already.
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    if removed > 0 {
        debug!(removed, "old events removed");
    }
    Ok(())
}

fn is_old(event: &Value, now: i64) -> bool {
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["firstTimestamp"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
    ];
    // A clock that stood wrong for a moment does not make an event immortal or old: the latest time that is not ahead.
    let latest = times.iter().filter_map(|t| seconds(t.as_str()?)).filter(|t| *t <= now).max();
    latest.is_some_and(|latest| now - latest > KEEP_SECONDS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_sight_counts() {
        let at = |first: &str, last: Value| json!({"metadata": {"creationTimestamp": first}, "lastTimestamp": last});
        let now = seconds("2026-01-01T12:00:00Z").unwrap();
        assert!(is_old(&at("2026-01-01T10:00:00Z", Value::Null), now));
        assert!(!is_old(&at("2026-01-01T10:00:00Z", json!("2026-01-01T11:30:00Z")), now));
        assert!(!is_old(&at("2026-01-01T11:30:00Z", Value::Null), now));
        assert!(!is_old(&json!({}), now));
    }
}
