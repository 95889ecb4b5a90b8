//! Loadline's own kinds. `ScalingPolicy` (group `autoscaling.loadline.io`) says how a workload follows its demand.
//!
//! Owns the shape only: defaults and validation are in `rules`, what a policy means is the autoscaler's business.

use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscalerBehavior};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time};
use k8s_openapi::{ListableResource, Metadata, NamespaceResourceScope, Resource};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// The group of Loadline's own kinds.
pub const GROUP: &str = "autoscaling.loadline.io";

/// Scales one workload by objectives, evaluated every second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ScalingPolicy {
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: ScalingPolicySpec,
    #[serde(default)]
    pub status: Option<ScalingPolicyStatus>,
}

/// What a ScalingPolicy asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.ScalingPolicySpec")]
pub struct ScalingPolicySpec {
    /// The workload to scale: anything with a scale subresource, in the policy's namespace.
    pub scale_target_ref: CrossVersionObjectReference,
    /// The lower limit of replicas. 0 allows scaling to zero. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The upper limit of replicas; not smaller than minReplicas.
    pub max_replicas: i32,
    /// Auto scales; Recommend only records what it would do; Paused evaluates nothing. Defaults to Auto.
    #[serde(default)]
    pub mode: Mode,
    /// Each objective proposes a count of replicas; the largest wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objectives: Vec<Objective>,
    /// Limits that hold at certain times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// Whether a forecast of the demand may raise the lower limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Rates and windows of change, as in HorizontalPodAutoscaler v2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
    /// When to go to zero replicas, and how long connections wait for the first pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<ScaleToZero>,
    /// What to do when metrics are missing for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// Decide and scale.
    #[default]
    Auto,
    /// Decide and record, but do not scale.
    Recommend,
    /// Do nothing.
    Paused,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Recommend => "Recommend",
            Self::Paused => "Paused",
        }
    }
}

/// One thing to hold; exactly one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.Objective")]
pub struct Objective {
    /// A resource that the pods use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceObjective>,
    /// Events per second that the pods count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateObjective>,
    /// A quantile of a duration that the pods measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyObjective>,
    /// Requests that the pods have accepted and not yet answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlightObjective>,
    /// Work that waits somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueObjective>,
    /// The answer to a query of a Prometheus-compatible server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusObjective>,
}

/// Holds the use of a resource: one of utilization and averageValue is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.ResourceObjective")]
pub struct ResourceObjective {
    /// The resource: cpu or memory.
    pub name: String,
    /// Per cent of the pods' requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<i32>,
    /// The mean use of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_value: Option<Quantity>,
}

/// Holds the rate of a counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.RateObjective")]
pub struct RateObjective {
    /// The name of a counter that the pods export.
    pub metric: String,
    /// Events per second for each pod.
    pub per_pod: Quantity,
}

/// Holds a quantile of a latency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.LatencyObjective")]
pub struct LatencyObjective {
    /// The name of a histogram in seconds that the pods export.
    pub metric: String,
    /// The quantile between 0 and 1, e.g. "0.95".
    pub quantile: String,
    /// The longest duration that the quantile may have, e.g. 200ms.
    pub target: String,
}

/// Holds the number of open requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.InFlightObjective")]
pub struct InFlightObjective {
    /// The name of a gauge that the pods export.
    pub metric: String,
    /// Open requests for each pod.
    pub per_pod: Quantity,
}

/// Holds the length of a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.QueueObjective")]
pub struct QueueObjective {
    /// The name of a gauge.
    pub metric: String,
    /// The object that the metric describes; without it, the pods of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<CrossVersionObjectReference>,
    /// Waiting items for each pod.
    pub per_pod: Quantity,
}

/// Holds the answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.PrometheusObjective")]
pub struct PrometheusObjective {
    /// The address of a server with the Prometheus query API, e.g. `http://prometheus:9090`.
    pub server_address: String,
    /// A query that yields one number.
    pub query: String,
    /// What of that number each pod bears.
    pub per_pod: Quantity,
}

/// Limits from a cron time on, for a duration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.Schedule")]
pub struct Schedule {
    /// When it begins: five cron fields.
    pub cron: String,
    /// A name of the tz database. Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// How long it lasts, e.g. 10h.
    pub duration: String,
    /// The lower limit of replicas meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The upper limit of replicas meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
}

/// Whether a forecast takes part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.Forecast")]
pub struct Forecast {
    /// Off, or Auto: while its recent errors are small it may raise the lower limit.
    #[serde(default)]
    pub mode: ForecastMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ForecastMode {
    #[default]
    Off,
    Auto,
}

/// How to go to zero and back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.ScaleToZero")]
pub struct ScaleToZero {
    /// How long there must be no demand, e.g. 5m.
    pub after: String,
    /// How long a connection waits for the first ready pod, e.g. 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// What to do without metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.Fallback")]
pub struct Fallback {
    /// How long metrics must be missing, e.g. 30s.
    pub after: String,
    /// The replicas to have at least then.
    pub replicas: i32,
}

/// What the autoscaler saw and did last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.ScalingPolicyStatus")]
pub struct ScalingPolicyStatus {
    /// The generation of the spec that the last decision was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The replicas that the target has.
    #[serde(default)]
    pub current_replicas: i32,
    /// The replicas that the last decision asks for.
    #[serde(default)]
    pub desired_replicas: i32,
    /// When the target was last scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// The last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision: Option<LastDecision>,
    /// Until when a count that a user set is respected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Time>,
    /// AbleToScale, ScalingActive and ScalingLimited, as in HorizontalPodAutoscaler v2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A decision in brief.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.loadline.autoscaling.v1alpha1.LastDecision")]
pub struct LastDecision {
    pub time: MicroTime,
    /// Why, in plain words.
    pub reason: String,
    /// The replicas that were decided on.
    pub replicas: i32,
}

impl Resource for ScalingPolicy {
    const API_VERSION: &'static str = "autoscaling.loadline.io/v1alpha1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "ScalingPolicy";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "scalingpolicies";
    type Scope = NamespaceResourceScope;
}

impl ListableResource for ScalingPolicy {
    const LIST_KIND: &'static str = "ScalingPolicyList";
}

impl Metadata for ScalingPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Serialize for ScalingPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = 4 + usize::from(self.status.is_some());
        let mut state = serializer.serialize_struct(Self::KIND, fields)?;
        state.serialize_field("apiVersion", Self::API_VERSION)?;
        state.serialize_field("kind", Self::KIND)?;
        state.serialize_field("metadata", &self.metadata)?;
        state.serialize_field("spec", &self.spec)?;
        if let Some(status) = &self.status {
            state.serialize_field("status", status)?;
        }
        state.end()
    }
}

impl JsonSchema for ScalingPolicy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "io.loadline.autoscaling.v1alpha1.ScalingPolicy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "ScalingPolicy keeps a workload at its load line: it holds objectives by changing the number of replicas, once a second.",
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string", "description": "The group and version of this object's schema."},
                "kind": {"type": "string", "description": "ScalingPolicy."},
                "metadata": described(generator.subschema_for::<ObjectMeta>(), "Standard object's metadata."),
                "spec": described(generator.subschema_for::<ScalingPolicySpec>(), "What is asked for."),
                "status": described(generator.subschema_for::<ScalingPolicyStatus>(), "What was seen and done last."),
            },
            "required": ["metadata", "spec"],
        })
    }
}

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".to_owned(), description.into());
    schema
}

/// A duration as Go and Kubernetes write it (`1h30m`, `200ms`, `1.5s`); `None` if it is malformed, negative or too long.
pub fn duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let value: f64 = rest.get(..number)?.parse().ok()?;
        rest = rest.get(number..)?;
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += value * unit_seconds(rest.get(..unit)?)?;
        rest = rest.get(unit..)?;
    }
    // Whole nanoseconds, as Go has them: a sum of binary fractions would show its rounding.
    let nanos = (seconds * 1e9).round();
    (!text.is_empty() && nanos < i64::MAX as f64).then(|| std::time::Duration::from_nanos(nanos as u64))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EXAMPLE: &str = r#"
apiVersion: autoscaling.loadline.io/v1alpha1
kind: ScalingPolicy
metadata: {name: web, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 40
  mode: Auto
  objectives:
  - resource: {name: cpu, utilization: 70}
  - rate: {metric: http_requests_total, perPod: "100"}
  - latency: {metric: http_request_duration_seconds, quantile: "0.95", target: 200ms}
  - inFlight: {metric: http_requests_in_flight, perPod: "20"}
  - queue: {metric: jobs_waiting, object: {kind: Service, name: broker}, perPod: "30"}
  - prometheus: {serverAddress: "http://prometheus:9090", query: "sum(rate(x[1m]))", perPod: "100"}
  schedules:
  - {cron: "0 8 * * 1-5", timeZone: Asia/Shanghai, duration: 10h, minReplicas: 10}
  forecast: {mode: Auto}
  behavior: {}
  scaleToZero: {after: 5m, hold: 30s}
  fallback: {after: 30s, replicas: 6}
"#;

    #[test]
    fn a_full_policy_survives_a_round_trip() {
        let policy: ScalingPolicy = serde_yaml::from_str(EXAMPLE).unwrap();
        assert_eq!(policy.spec.objectives.len(), 6);
        let json = serde_json::to_value(&policy).unwrap();
        assert_eq!(json["apiVersion"], "autoscaling.loadline.io/v1alpha1");
        assert_eq!(json["spec"]["objectives"][3]["inFlight"]["perPod"], "20");
        assert_eq!(json["spec"]["scaleToZero"]["hold"], "30s");
        assert_eq!(serde_json::from_value::<ScalingPolicy>(json).unwrap(), policy);
    }

    #[test]
    fn an_unknown_mode_is_refused() {
        let text = EXAMPLE.replace("mode: Auto", "mode: Sometimes");
        assert!(serde_yaml::from_str::<ScalingPolicy>(&text).is_err());
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("5m", Some(Duration::from_secs(300))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("200ms", Some(Duration::from_millis(200))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("0", Some(Duration::ZERO)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5 m", None),
            ("-5m", None),
            ("5d", None),
            ("1..2s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text), want, "{text}");
        }
    }
}
