//! What a decision says: the count, why, what to remember, and what the object's status shall show.

use k8s_openapi::api::autoscaling::v2::MetricStatus;
use serde::{Deserialize, Serialize};

use crate::state::Hold;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// The replicas in the target's spec when this was decided.
    pub current: i32,
    /// The replicas that are right; the same as `current` where nothing is to be done.
    pub desired: i32,
    /// The change to carry out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale: Option<Rescale>,
    /// What the metrics alone ask for; to be remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<i32>,
    /// Conditions to set, in order of their first mention. They assume that the change succeeds.
    pub conditions: Vec<Condition>,
    /// What the status shows besides conditions; none leaves it as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    pub events: Vec<Event>,
    /// What each metric proposed.
    pub candidates: Vec<Candidate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// Every rule that changed the count on its way.
    pub clamps: Vec<Clamp>,
    /// A count of the user's that is respected from now on, or still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// One line in plain words.
    pub summary: String,
    /// One line for each finding.
    pub details: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    pub to: i32,
    /// As in the event SuccessfulRescale.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// True or False.
    pub status: String,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub current_replicas: i32,
    pub desired_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_metrics: Option<Vec<MetricStatus>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub metric: String,
    /// What was measured, in words.
    pub measured: String,
    pub target: String,
    /// The replicas that it asks for, or none if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamp {
    pub rule: String,
    pub from: i32,
    pub to: i32,
    pub why: String,
}

pub(crate) const ABLE: &str = "AbleToScale";
pub(crate) const ACTIVE: &str = "ScalingActive";
pub(crate) const LIMITED: &str = "ScalingLimited";
pub(crate) const ZERO: &str = "ScaledToZero";

impl Decision {
    pub(crate) fn condition(&mut self, type_: &str, status: bool, reason: &str, message: impl Into<String>) {
        let new = Condition {
            type_: type_.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
        };
        match self.conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(old) => *old = new,
            None => self.conditions.push(new),
        }
    }

    pub(crate) fn warn(&mut self, reason: &str, message: impl Into<String>) {
        self.events.push(Event { warning: true, reason: reason.to_owned(), message: message.into() });
    }

    /// Notes that a rule turned `from` into `to`, if it did.
    pub(crate) fn clamp(&mut self, rule: &str, from: i32, to: i32, why: impl Into<String>) {
        if from != to {
            let why = why.into();
            self.details.push(format!("{rule}: {from} → {to}, {why}"));
            self.clamps.push(Clamp { rule: rule.to_owned(), from, to, why });
        }
    }

    /// The change is to be made: conditions and events as if it succeeds.
    pub(crate) fn change_to(&mut self, to: i32, reason: String) {
        self.desired = to;
        let message = format!("the HPA controller was able to update the target scale to {to}");
        self.condition(ABLE, true, "SucceededRescale", message);
        self.events.push(Event {
            warning: false,
            reason: "SuccessfulRescale".to_owned(),
            message: format!("New size: {to}; reason: {reason}"),
        });
        self.rescale = Some(Rescale { to, reason });
    }

    pub fn find(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }

    /// The same decision after the target refused the change: what the status and the events say then.
    #[must_use]
    pub fn refused(&self, error: &str, previous_desired: i32) -> Self {
        let mut failed = self.clone();
        let Some(rescale) = failed.rescale.take() else { return failed };
        failed.events.retain(|e| e.reason != "SuccessfulRescale");
        let message = format!("New size: {}; reason: {}; error: {error}", rescale.to, rescale.reason);
        failed.warn("FailedRescale", message);
        let message = format!("the HPA controller was unable to update the target scale: {error}");
        failed.condition(ABLE, false, "FailedUpdateScale", message);
        if let Some(status) = &mut failed.status {
            status.desired_replicas = previous_desired;
        }
        failed.desired = failed.current;
        failed.summary = format!("{}; the target could not be scaled: {error}", self.summary);
        failed
    }
}
