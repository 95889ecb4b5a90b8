//! What is asked for, resolved once from the API's objects.

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricTarget, ResourceMetricSource,
};
use loadline_api::own::ScalingPolicy;
use serde::{Deserialize, Serialize};

use crate::behavior::Behavior;
use crate::{fast, strict};

/// The annotation that puts a HorizontalPodAutoscaler into another profile.
pub const PROFILE: &str = "autoscaling.loadline.io/profile";
/// The annotation that asks to leave the replicas alone until a time (RFC 3339).
pub const HOLD_UNTIL: &str = "autoscaling.loadline.io/hold-until";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "profile", rename_all = "camelCase")]
pub enum Policy {
    /// HorizontalPodAutoscaler v2, exactly.
    Strict(strict::Policy),
    /// Loadline's own.
    Fast(fast::Policy),
}

impl Policy {
    pub fn from_hpa(hpa: &HorizontalPodAutoscaler) -> Self {
        let profile = hpa.metadata.annotations.as_ref().and_then(|a| a.get(PROFILE));
        match profile.map(String::as_str) {
            Some("fast") => Self::Fast(fast::Policy::from_hpa(hpa)),
            _ => Self::Strict(strict::Policy::from_hpa(hpa)),
        }
    }

    pub fn from_scaling_policy(policy: &ScalingPolicy) -> Self {
        Self::Fast(fast::Policy::from_scaling_policy(policy))
    }

    /// `strict` or `fast`.
    pub fn profile(&self) -> &'static str {
        match self {
            Self::Strict(_) => "strict",
            Self::Fast(_) => "fast",
        }
    }

    /// For how long recommendations and scale events matter, in ms.
    pub fn memory(&self) -> (i64, i64) {
        match self {
            Self::Strict(policy) => policy.memory(),
            Self::Fast(policy) => policy.memory(),
        }
    }
}

/// What the API server fills in where no metrics are given: CPU at 80 % of requests.
pub(crate) fn metrics(hpa: &HorizontalPodAutoscaler) -> Vec<MetricSpec> {
    let given = hpa.spec.metrics.clone().unwrap_or_default();
    if !given.is_empty() {
        return given;
    }
    let target =
        MetricTarget { type_: "Utilization".to_owned(), average_utilization: Some(80), ..Default::default() };
    vec![MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource { name: "cpu".to_owned(), target }),
        ..Default::default()
    }]
}

pub(crate) fn behavior(hpa: &HorizontalPodAutoscaler) -> Option<Behavior> {
    hpa.spec.behavior.as_ref().map(Behavior::resolve)
}
