//! Metrics, read through the API. One read of the resource metrics serves every policy of a namespace in that second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use loadline_api::own::duration;
use loadline_api::selector::Selector;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::target::Targets;
use crate::amount::milli;
use crate::record::{Amounts, Read, Reading, Sample};

/// A little under a second, so that a policy which looks every second finds something new every time.
const FRESH: Duration = Duration::from_millis(900);
/// The same for whoever has seen that something is going on.
const EAGER: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(5);

/// The samples of a namespace's pods, with the time they are of.
pub(crate) struct Snapshot {
    pods: HashMap<String, (Timestamp, Sample)>,
}

impl Snapshot {
    /// The sample of a pod as a decision at `now` sees it.
    pub(crate) fn sample(&self, pod: &str, now: Timestamp) -> Option<Sample> {
        let (at, sample) = self.pods.get(pod)?;
        let age = (now.as_millisecond() - at.as_millisecond()).max(0);
        Some(Sample { age, ..sample.clone() })
    }
}

type Answer = Result<Arc<Snapshot>, String>;
type Slot = Arc<Mutex<Option<(Instant, Answer)>>>;

pub(crate) struct Sources {
    client: kube::Client,
    /// By namespace and window.
    slots: std::sync::Mutex<HashMap<(String, Option<i64>), Slot>>,
}

impl Sources {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, slots: std::sync::Mutex::default() }
    }

    /// Usage of the namespace's pods over `window` seconds, or over the default of the metrics API.
    pub(crate) async fn resources(&self, namespace: &str, window: Option<i64>, eager: bool) -> Answer {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry((namespace.to_owned(), window)).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some((at, answer)) = &*slot
            && at.elapsed() < if eager { EAGER } else { FRESH }
        {
            return answer.clone();
        }
        let at = Instant::now();
        let query = window.map_or_else(String::new, |s| format!("?window={s}s"));
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{query}");
        let answer = self.get::<PodMetricsList>(&path).await.map(|list| Arc::new(list.into()));
        let answer = answer.map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"));
        *slot = Some((at, answer.clone()));
        answer
    }

    /// The value of a Pods, Object or External metric; none for resources.
    pub(crate) async fn reading(
        &self,
        namespace: &str,
        selector: &str,
        metric: &MetricSpec,
        targets: &Targets,
    ) -> Option<Read<Reading>> {
        let answer = match (&metric.pods, &metric.object, &metric.external) {
            (Some(m), _, _) => self.pods_metric(namespace, selector, &m.metric).await,
            (_, Some(m), _) => {
                let object = &m.described_object;
                let version = object.api_version.as_deref().unwrap_or("v1");
                match targets.resource(version, &object.kind).await {
                    Ok(resource) => {
                        self.object_metric(namespace, &resource.plural, &object.name, &m.metric).await
                    }
                    Err(error) => Err(format!("unable to fetch metrics from custom metrics API: {error}")),
                }
            }
            (_, _, Some(m)) => self.external_metric(namespace, &m.metric).await,
            _ => return None,
        };
        Some(match answer {
            Ok(reading) => Read::Value(reading),
            Err(error) => Read::Error(error),
        })
    }

    async fn pods_metric(
        &self,
        namespace: &str,
        selector: &str,
        metric: &MetricIdentifier,
    ) -> Result<Reading, String> {
        let items = self.custom(namespace, "pods", "*", metric, Some(selector)).await?;
        Ok(Reading::Pods(items.into_iter().collect()))
    }

    async fn object_metric(
        &self,
        namespace: &str,
        plural: &str,
        name: &str,
        metric: &MetricIdentifier,
    ) -> Result<Reading, String> {
        let items = self.custom(namespace, plural, name, metric, None).await?;
        let value = items.values().next().ok_or("no metrics returned from custom metrics API")?;
        Ok(Reading::Object(*value))
    }

    async fn custom(
        &self,
        namespace: &str,
        plural: &str,
        name: &str,
        metric: &MetricIdentifier,
        selector: Option<&str>,
    ) -> Result<BTreeMap<String, i64>, String> {
        let failed = |e: String| format!("unable to fetch metrics from custom metrics API: {e}");
        let mut query = Vec::new();
        query.extend(selector.map(|s| ("labelSelector", s.to_owned())));
        query.extend(metric_selector(metric).map_err(failed)?.map(|s| ("metricLabelSelector", s)));
        let base = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{plural}/{name}");
        let path = with_query(&format!("{base}/{}", metric.name), &query);
        let list: MetricValueList = self.get(&path).await.map_err(failed)?;
        let items = list.items.into_iter();
        Ok(items.filter_map(|i| Some((i.described_object.name, milli(&i.value)?))).collect())
    }

    async fn external_metric(&self, namespace: &str, metric: &MetricIdentifier) -> Result<Reading, String> {
        let failed = |e: String| format!("unable to fetch metrics from external metrics API: {e}");
        let query: Vec<_> =
            metric_selector(metric).map_err(failed)?.map(|s| ("labelSelector", s)).into_iter().collect();
        let path = with_query(
            &format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", metric.name),
            &query,
        );
        let list: MetricValueList = self.get(&path).await.map_err(failed)?;
        Ok(Reading::External(list.items.iter().filter_map(|i| milli(&i.value)).collect()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
        match timeout(PATIENCE, self.client.request::<T>(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

fn metric_selector(metric: &MetricIdentifier) -> Result<Option<String>, String> {
    let Some(selector) = &metric.selector else { return Ok(None) };
    let selector = Selector::from_label_selector(Some(selector)).map_err(|e| e.to_string())?;
    Ok(Some(selector.to_string()))
}

fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let mut text = path.to_owned();
    for (i, (key, value)) in query.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        // Labels are made of few characters; everything else is escaped.
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[derive(Deserialize)]
struct PodMetricsList {
    #[serde(default)]
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    timestamp: Time,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Quantity>,
}

impl From<PodMetricsList> for Snapshot {
    fn from(list: PodMetricsList) -> Self {
        let pods = list.items.into_iter().filter_map(|pod| {
            let window = i64::try_from(duration(&pod.window)?.as_millis()).ok()?;
            let usage = |usage: BTreeMap<String, Quantity>| -> Amounts {
                usage.into_iter().filter_map(|(name, value)| Some((name, milli(&value)?))).collect()
            };
            let containers = pod.containers.into_iter().map(|c| (c.name, usage(c.usage))).collect();
            Some((pod.metadata.name?, (pod.timestamp.0, Sample { age: 0, window, containers })))
        });
        Self { pods: pods.collect() }
    }
}

#[derive(Deserialize)]
struct MetricValueList {
    #[serde(default)]
    items: Vec<MetricValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    #[serde(default)]
    described_object: Described,
    value: Quantity,
}

#[derive(Default, Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}
