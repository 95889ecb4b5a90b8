//! The history that the rules look back on. Owned by whoever calls `decide`; a decision never changes it, it says what
//! to remember, and [`State::after`] makes the next state from that.

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::policy::Policy;
use crate::record::{Read, Record};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Since when this history is gathered: the start of the autoscaler, or of the object.
    pub since: i64,
    /// What was recommended before windows and rates.
    pub recommendations: Vec<Recommendation>,
    /// Replicas added, and replicas removed, by this autoscaler.
    pub ups: Vec<ScaleEvent>,
    pub downs: Vec<ScaleEvent>,
    /// When metrics were last good enough to recommend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<i64>,
    /// The count that this autoscaler left the target with; a different one was set by somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<i32>,
    /// A count that somebody else set and that is respected for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    pub at: i64,
    pub replicas: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleEvent {
    pub at: i64,
    /// How many replicas came or went; never negative.
    pub change: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub since: i64,
    pub until: i64,
    pub replicas: i32,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to be done, or it was done.
    Done,
    /// The target could not be scaled.
    Failed,
}

impl State {
    /// A history that begins now.
    pub fn new(now: i64) -> Self {
        Self { since: now, ..Self::default() }
    }

    /// The recommendations, with the count that is there as the first one if there is none yet: an autoscaler that has
    /// just started must not undo what the one before it found right.
    pub fn recommendations_or(&self, now: i64, current: i32) -> Vec<Recommendation> {
        if self.recommendations.is_empty() {
            return vec![Recommendation { at: now, replicas: current }];
        }
        self.recommendations.clone()
    }

    /// The highest recommendation that is not older than `window` ms.
    pub fn highest(&self, now: i64, window: i64) -> Option<i32> {
        self.recommendations.iter().filter(|r| r.at >= now - window).map(|r| r.replicas).max()
    }

    /// The history after a decision and what became of it.
    #[must_use]
    pub fn after(&self, policy: &Policy, record: &Record, decision: &Decision, outcome: Outcome) -> Self {
        let mut next = self.clone();
        let now = record.time;
        let Read::Value(scale) = &record.scale else { return next };
        next.recommendations = self.recommendations_or(now, scale.spec_replicas);
        if let Some(replicas) = decision.recommendation {
            next.recommendations.push(Recommendation { at: now, replicas });
            next.measured_at = Some(now);
        }
        let current = scale.spec_replicas;
        let scaled = decision.rescale.as_ref().filter(|_| outcome == Outcome::Done);
        if let Some(rescale) = scaled {
            let event = ScaleEvent { at: now, change: (rescale.to - current).abs() };
            if rescale.to > current { &mut next.ups } else { &mut next.downs }.push(event);
        }
        next.expected = Some(scaled.map_or(current, |r| r.to));
        next.hold = decision.hold;
        let (recommendations, events) = policy.memory();
        next.recommendations.retain(|r| r.at >= now - recommendations);
        next.ups.retain(|e| e.at >= now - events);
        next.downs.retain(|e| e.at >= now - events);
        if next.recommendations.is_empty() {
            // The list is never empty again: an empty one would count as a fresh start.
            next.recommendations.push(Recommendation { at: now, replicas: next.expected.unwrap_or(current) });
        }
        next
    }
}
