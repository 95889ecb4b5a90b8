//! Follows Docker's event stream: keeps the cache honest and wakes whoever listens.
//!
//! One task per `Docker`. When the stream breaks (the daemon restarts), it reconnects with a growing pause, lists
//! everything anew, and then says `Lost`. Docker replays recent events from a given time, so nothing falls between
//! the list and the subscription.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt;
use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::{Core, names};
use crate::RuntimeEvent;

/// The actions after which a pod looks different. Others (exec_*, attach, kill …) would only be noise.
const ACTIONS: [&str; 4] = ["start", "die", "oom", "destroy"];
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs until it is cancelled. `since`: the time before the first list, which `Docker::connect` made.
pub(crate) async fn follow(core: Arc<Core>, mut since: Timestamp) {
    let mut pause = FIRST_PAUSE;
    loop {
        let received = receive(&core, since).await;
        warn!(received, "docker event stream ended, reconnecting");
        if received > 0 {
            pause = FIRST_PAUSE;
        }
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            since = Timestamp::now();
            core.cache.invalidate_all();
            match core.observe_all(&[]).await {
                Ok(objects) => {
                    info!(objects = objects.len(), "docker is back");
                    break;
                }
                Err(error) => debug!(%error, "docker is still away"),
            }
        }
        core.wake(RuntimeEvent::Lost);
    }
}

/// Handles events until the stream ends; returns how many there were.
async fn receive(core: &Arc<Core>, since: Timestamp) -> u64 {
    let mut filters: HashMap<String, Vec<String>> = names::filter(&core.config, &[]);
    filters.insert("type".into(), vec!["container".into()]);
    filters.insert("event".into(), ACTIONS.iter().map(|action| (*action).to_owned()).collect());
    let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let mut events = Box::pin(core.client.events(Some(options)));
    let mut received = 0;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                received += 1;
                handle(core, event);
            }
            Err(error) => {
                warn!(%error, "docker event stream failed");
                break;
            }
        }
    }
    received
}

fn handle(core: &Arc<Core>, event: EventMessage) {
    let (Some(action), Some(actor)) = (event.action, event.actor) else { return };
    let (Some(id), Some(labels)) = (actor.id, actor.attributes) else { return };
    match action.as_str() {
        "destroy" => core.cache.forget(&id),
        action => core.cache.invalidate(&id, action == "oom"),
    }
    let sandbox_id = labels.get(names::SANDBOX_ID).unwrap_or(&id).clone();
    let pod_uid = labels.get(names::POD_UID).cloned().unwrap_or_default();
    core.wake(RuntimeEvent::Changed { sandbox_id, pod_uid });
    if action == "start" {
        // So that `stats` knows its process without asking; in a task, because the next event must not wait.
        let core = core.clone();
        tokio::spawn(async move {
            if let Err(error) = core.observe(&id).await {
                debug!(%error, id, "started container could not be inspected");
            }
        });
    }
}
