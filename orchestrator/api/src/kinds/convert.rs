//! Conversions between versions that share stored objects: Events of both groups, HorizontalPodAutoscaler v1 and v2.
//! Each direction keeps everything; what the other version has no field for travels as Kubernetes lets it travel.

mod autoscaler;
mod event;
mod metric;

pub use autoscaler::{autoscaler_v1_to_v2, autoscaler_v2_to_v1};
pub use event::{event_from_core, event_to_core};

use serde_json::{Map, Value};

/// Moves a field to another name; `null` stays where it was given.
fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}
