//! What a decision is made from. Owns the shapes of the inputs, each with its age, so that a decision can be stored,
//! shown and made again; reads no clock and asks nobody.
//!
//! Units: amounts are thousandths (milli-cores, milli-bytes), as Kubernetes compares them; times are milliseconds.
//! There are no floating-point numbers here: JSON would not keep them bit by bit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Amounts by resource name, in thousandths.
pub type Amounts = BTreeMap<String, i64>;

/// Everything that one decision sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// When, since the epoch.
    pub time: i64,
    /// The target's scale subresource, or why it could not be read.
    pub scale: Read<Scale>,
    /// The pods that the scale's selector selects.
    pub pods: Vec<Pod>,
    /// Why the resource metrics could not be read; no pod has a sample then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_error: Option<String>,
    /// Values of Pods, Object and External metrics, by their place in the policy.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub readings: BTreeMap<usize, Read<Reading>>,
    /// Other autoscalers that reach for the same pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rivals: Vec<Rival>,
    /// What the object's status said before.
    pub previous: Previous,
    /// Until when the user asks to leave the count alone (an annotation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<i64>,
}

/// A value, or the words of the one that could not give it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Read<T> {
    Value(T),
    Error(String),
}

impl<T> Default for Read<T> {
    fn default() -> Self {
        Self::Error("not read".to_owned())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scale {
    pub spec_replicas: i32,
    pub status_replicas: i32,
    /// As the scale subresource has it; empty means that there is none.
    pub selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub name: String,
    pub phase: String,
    pub deleted: bool,
    /// Since status.startTime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ago: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// Requests of the pod as a whole, where they are given.
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub requests: Amounts,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub limits: Amounts,
    /// The containers that run as long as the pod: ordinary ones and restartable init containers.
    pub containers: Vec<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

/// The Ready condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ready {
    /// True, False or Unknown.
    pub status: String,
    pub changed_ago: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub requests: Amounts,
    #[serde(skip_serializing_if = "Amounts::is_empty")]
    pub limits: Amounts,
}

/// What the metrics API said of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sample {
    pub age: i64,
    /// The time over which rates were taken.
    pub window: i64,
    /// Usage by container.
    pub containers: BTreeMap<String, Amounts>,
}

/// The value of a metric that is not a resource, in thousandths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reading {
    /// By pod.
    Pods(BTreeMap<String, i64>),
    Object(i64),
    External(Vec<i64>),
}

/// Another autoscaler that selects some of the same pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rival {
    /// namespace/name
    pub name: String,
    pub kind: String,
    pub same_target: bool,
    /// Whether it was there first.
    pub older: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Previous {
    pub desired_replicas: i32,
    /// The condition ScaledToZero, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaled_to_zero: Option<bool>,
}

impl Record {
    /// How many pods were seen, and how old what is known of them is.
    pub fn ages(&self) -> String {
        let ages: Vec<i64> = self.pods.iter().filter_map(|p| p.sample.as_ref()).map(|s| s.age).collect();
        let (pods, ready) = (self.pods.len(), self.pods.iter().filter(|p| p.is_ready()).count());
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match (ages.iter().min(), ages.iter().max()) {
            (Some(min), Some(max)) => format!(
                "{pods} pods, {ready} ready, {} with samples, {:.1} to {:.1} s old",
                ages.len(),
                seconds(*min),
                seconds(*max)
            ),
            _ => format!("{pods} pods, {ready} ready, none with a sample"),
        }
    }

    /// The autoscalers that keep this one from acting, or none. On one target the older autoscaler acts; where pods
    /// of different targets overlap nobody can tell whose usage it is, so nobody acts, as upstream.
    pub fn conflicting(&self) -> Vec<&Rival> {
        self.rivals.iter().filter(|r| !r.same_target || r.older).collect()
    }
}

impl Pod {
    /// Whether it will never serve again.
    pub fn is_gone(&self) -> bool {
        self.deleted || self.phase == "Failed" || self.phase == "Succeeded"
    }

    pub fn is_ready(&self) -> bool {
        self.phase == "Running" && self.ready.as_ref().is_some_and(|r| r.status == "True")
    }

    /// The request of the pod, or of one container in it; an error names the container that has none.
    pub fn request<'a>(&'a self, resource: &str, container: Option<&str>) -> Result<i64, &'a str> {
        self.sum(resource, container, &self.requests, |c| &c.requests)
    }

    /// As [`Pod::request`], for limits.
    pub fn limit(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        self.sum(resource, container, &self.limits, |c| &c.limits).ok().filter(|l| *l > 0)
    }

    fn sum<'a>(
        &'a self,
        resource: &str,
        container: Option<&str>,
        whole: &Amounts,
        of: impl Fn(&Container) -> &Amounts,
    ) -> Result<i64, &'a str> {
        if let (None, Some(amount)) = (container, whole.get(resource)) {
            return Ok(*amount);
        }
        let mut sum = 0_i64;
        for c in self.containers.iter().filter(|c| container.is_none_or(|name| name == c.name)) {
            sum = sum.saturating_add(*of(c).get(resource).ok_or(c.name.as_str())?);
        }
        Ok(sum)
    }

    /// The usage of the pod, or of one container in it; none if a container lacks a value.
    pub fn usage(&self, resource: &str, container: Option<&str>) -> Option<i64> {
        let containers = &self.sample.as_ref()?.containers;
        match container {
            Some(name) => containers.get(name)?.get(resource).copied(),
            None if containers.is_empty() => None,
            None => containers.values().try_fold(0_i64, |sum, c| Some(sum.saturating_add(*c.get(resource)?))),
        }
    }
}
