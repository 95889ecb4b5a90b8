//! Rates and windows of change, as `spec.behavior` of HorizontalPodAutoscaler v2 has them, resolved once.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use serde::{Deserialize, Serialize};

use crate::amount::nanos;
use crate::state::ScaleEvent;

/// 10 %, in billionths.
pub const DEFAULT_TOLERANCE: i64 = 100_000_000;
const DEFAULT_DOWN_WINDOW_S: i32 = 300;

/// Both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Behavior {
    pub up: Rules,
    pub down: Rules,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// For which past recommendations count.
    pub window_seconds: i32,
    pub select: Select,
    pub policies: Vec<Rate>,
    /// Billionths.
    pub tolerance: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Select {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Per cent of the replicas rather than pods.
    pub percent: bool,
    pub value: i32,
    pub period_seconds: i32,
}

/// Which way a rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

impl Behavior {
    /// With the defaults that the API server fills in when `behavior` is given.
    pub fn resolve(given: &HorizontalPodAutoscalerBehavior) -> Self {
        Self {
            up: Rules::resolve(given.scale_up.as_ref(), Way::Up),
            down: Rules::resolve(given.scale_down.as_ref(), Way::Down),
        }
    }

    /// The longest period of any rate, in ms: how long scale events matter.
    pub fn memory(&self) -> i64 {
        let periods = self.up.policies.iter().chain(&self.down.policies).map(|p| p.period_seconds);
        i64::from(periods.max().unwrap_or(0)) * 1000
    }
}

impl Rules {
    pub fn resolve(given: Option<&HPAScalingRules>, way: Way) -> Self {
        let window = if way == Way::Up { 0 } else { DEFAULT_DOWN_WINDOW_S };
        let per_cent = Rate { percent: true, value: 100, period_seconds: 15 };
        let default = match way {
            Way::Up => vec![Rate { percent: false, value: 4, period_seconds: 15 }, per_cent],
            Way::Down => vec![per_cent],
        };
        let policies = given.and_then(|g| g.policies.as_ref()).map(|given| {
            let one = |p: &k8s_openapi::api::autoscaling::v2::HPAScalingPolicy| Rate {
                percent: p.type_ == "Percent",
                value: p.value,
                period_seconds: p.period_seconds,
            };
            given.iter().map(one).collect()
        });
        Self {
            window_seconds: given.and_then(|g| g.stabilization_window_seconds).unwrap_or(window),
            select: match given.and_then(|g| g.select_policy.as_deref()) {
                Some("Disabled") => Select::Disabled,
                Some("Min") => Select::Min,
                _ => Select::Max,
            },
            policies: policies.unwrap_or(default),
            tolerance: given
                .and_then(|g| g.tolerance.as_ref())
                .and_then(nanos)
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or(DEFAULT_TOLERANCE),
        }
    }

    pub fn window_ms(&self) -> i64 {
        i64::from(self.window_seconds) * 1000
    }

    pub fn tolerance(&self) -> f64 {
        self.tolerance as f64 / 1e9
    }

    /// The most replicas that the rates allow (up), or the fewest (down).
    pub fn limit(&self, way: Way, current: i32, now: i64, ups: &[ScaleEvent], downs: &[ScaleEvent]) -> i32 {
        let proposals = self.policies.iter().map(|policy| {
            let start = current - changed(ups, now, policy) + changed(downs, now, policy);
            let share = f64::from(policy.value) / 100.0;
            match (way, policy.percent) {
                (Way::Up, false) => start.saturating_add(policy.value),
                // Rounded up: a small count would never grow otherwise.
                (Way::Up, true) => (f64::from(start) * (1.0 + share)).ceil() as i32,
                (Way::Down, false) => start.saturating_sub(policy.value),
                (Way::Down, true) => (f64::from(start) * (1.0 - share)) as i32,
            }
        });
        let limit = match (self.select, way) {
            (Select::Disabled, _) => return current,
            (Select::Max, Way::Up) => proposals.max().unwrap_or(i32::MIN),
            (Select::Min, Way::Up) => proposals.min().unwrap_or(i32::MAX),
            (Select::Max, Way::Down) => proposals.min().unwrap_or(i32::MAX),
            (Select::Min, Way::Down) => proposals.max().unwrap_or(i32::MIN),
        };
        // Changes of the recent past may have used up more than the rate allows; they are not undone.
        if way == Way::Up { limit.max(current) } else { limit.min(current) }
    }
}

fn changed(events: &[ScaleEvent], now: i64, policy: &Rate) -> i32 {
    let cutoff = now - i64::from(policy.period_seconds) * 1000;
    events.iter().filter(|e| e.at > cutoff).fold(0, |sum, e| sum.saturating_add(e.change))
}
