//! The load generator: requests leave on a schedule whether or not earlier ones were answered (open loop), and latency
//! counts from the scheduled moment, so a slow service cannot hide its queue.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Requests that may be under way at once; what comes on top is counted as dropped, not silently delayed.
const MAX_IN_FLIGHT: usize = 4096;

/// One step of the schedule: `rate` requests a second for `duration`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub duration: Duration,
    pub rate: f64,
}

/// `30s@50,1m@200`: half a minute at 50 requests a second, then a minute at 200.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(pub Vec<Step>);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(step).collect::<Result<_, _>>().map(Self)
    }
}

fn step(text: &str) -> Result<Step, String> {
    let wrong = || format!("{text:?} is no step; write DURATION@RATE, e.g. 30s@50 or 1m@200");
    let (duration, rate) = text.trim().split_once('@').ok_or_else(wrong)?;
    let duration = parse_duration(duration).ok_or_else(wrong)?;
    let rate: f64 = rate.parse().map_err(|_| wrong())?;
    if !(0.0..=100_000.0).contains(&rate) {
        return Err(format!("rate {rate} of {text:?} is out of range; 0 to 100000 requests a second"));
    }
    Ok(Step { duration, rate })
}

/// `500ms`, `30s`, `2m`, `1h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

impl Schedule {
    /// The rate at `at` after the start; `None` once it is over.
    fn rate_at(&self, at: Duration) -> Option<f64> {
        let mut end = Duration::ZERO;
        for step in &self.0 {
            end += step.duration;
            if at < end {
                return Some(step.rate);
            }
        }
        None
    }

    /// The moment of the request after one at `at` (both since the start).
    fn next_arrival(&self, at: Duration) -> Option<Duration> {
        let mut end = Duration::ZERO;
        for step in &self.0 {
            let begin = end;
            end += step.duration;
            if at >= end || step.rate <= 0.0 {
                continue;
            }
            let next = at.max(begin) + Duration::from_secs_f64(1.0 / step.rate);
            if next < end {
                return Some(next);
            }
        }
        None
    }
}

/// What happened in one second, or in the whole run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub seconds: f64,
    pub target_rate: f64,
    pub ok: u64,
    pub errors: u64,
    /// Not sent, because too many were under way.
    pub dropped: u64,
    pub in_flight: usize,
    /// Milliseconds from the scheduled moment to the full answer; `None` without an answer.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1} ms"));
        write!(
            f,
            "{:>6.0}s  target {:>6.0}/s  ok {:>6}  errors {:>4}  dropped {:>4}  in flight {:>4}  p50 {:>9}  p95 {:>9}  p99 {:>9}",
            self.seconds,
            self.target_rate,
            self.ok,
            self.errors,
            self.dropped,
            self.in_flight,
            ms(self.p50_ms),
            ms(self.p95_ms),
            ms(self.p99_ms),
        )
    }
}

struct Shared {
    in_flight: AtomicUsize,
    dropped: AtomicU64,
}

/// Drives `schedule` against `url`; `each_second` sees a report a second. Returns the report of the whole run.
pub async fn run(url: &str, schedule: &Schedule, mut each_second: impl FnMut(&Report)) -> Result<Report> {
    let client = client().context("building the HTTP client")?;
    let url: reqwest::Url = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    if url.scheme() != "http" {
        bail!(
            "{url} is not reached over plain HTTP, which is all that the load generator speaks; give an http:// URL"
        );
    }
    if schedule.0.is_empty() {
        bail!("the schedule is empty");
    }
    let shared = Arc::new(Shared { in_flight: AtomicUsize::new(0), dropped: AtomicU64::new(0) });
    let (results_tx, mut results) = mpsc::unbounded_channel::<Outcome>();
    let start = Instant::now();
    let sender = tokio::spawn(send_all(client, url, schedule.clone(), start, shared.clone(), results_tx));

    let mut whole = Window::new()?;
    let mut second = Window::new()?;
    let mut ticks = tokio::time::interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    loop {
        tokio::select! {
            outcome = results.recv() => match outcome {
                Some(outcome) => {
                    second.add(outcome);
                    whole.add(outcome);
                }
                None => break,
            },
            _ = ticks.tick() => {
                let report = second.report(start.elapsed(), schedule, &shared);
                whole.dropped += report.dropped;
                each_second(&report);
                second = Window::new()?;
            }
        }
    }
    sender.await.context("the sending task failed")?;
    let elapsed = start.elapsed();
    let dropped = whole.dropped;
    let mut report = whole.report(elapsed, schedule, &shared);
    report.dropped += dropped;
    report.target_rate = schedule.0.iter().map(|s| s.rate * s.duration.as_secs_f64()).sum::<f64>()
        / schedule.0.iter().map(|s| s.duration.as_secs_f64()).sum::<f64>().max(f64::MIN_POSITIVE);
    Ok(report)
}

fn client() -> Result<reqwest::Client> {
    // Connections that stay idle for a moment would stick to the pods that were there first; a service mesh of clients
    // comes and goes, so keep them only briefly.
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(crate::tls::client_config()?)
        .timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(1))
        .build()?)
}

async fn send_all(
    client: reqwest::Client,
    url: reqwest::Url,
    schedule: Schedule,
    start: Instant,
    shared: Arc<Shared>,
    results: mpsc::UnboundedSender<Outcome>,
) {
    let mut at = Duration::ZERO;
    while let Some(next) = schedule.next_arrival(at) {
        at = next;
        let scheduled = start + at;
        tokio::time::sleep_until(scheduled).await;
        if shared.in_flight.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT {
            shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (client, url, shared, results) = (client.clone(), url.clone(), shared.clone(), results.clone());
        tokio::spawn(async move {
            let ok = request(&client, url).await;
            shared.in_flight.fetch_sub(1, Ordering::Relaxed);
            // The receiver is gone only when the run was cut short.
            let _ = results.send(Outcome { ok, latency: scheduled.elapsed() });
        });
    }
}

async fn request(client: &reqwest::Client, url: reqwest::Url) -> bool {
    match client.get(url).send().await {
        Ok(response) if response.status().is_success() => response.bytes().await.is_ok(),
        _ => false,
    }
}

#[derive(Clone, Copy)]
struct Outcome {
    ok: bool,
    latency: Duration,
}

struct Window {
    latencies: Histogram<u64>,
    ok: u64,
    errors: u64,
    dropped: u64,
}

impl Window {
    fn new() -> Result<Self> {
        // Microseconds up to a minute, three digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { latencies, ok: 0, errors: 0, dropped: 0 })
    }

    fn add(&mut self, outcome: Outcome) {
        if outcome.ok {
            self.ok += 1;
            self.latencies.saturating_record(outcome.latency.as_micros().try_into().unwrap_or(u64::MAX));
        } else {
            self.errors += 1;
        }
    }

    fn report(&self, elapsed: Duration, schedule: &Schedule, shared: &Shared) -> Report {
        let quantile = |q: f64| (self.ok > 0).then(|| self.latencies.value_at_quantile(q) as f64 / 1000.0);
        Report {
            seconds: elapsed.as_secs_f64(),
            target_rate: schedule.rate_at(elapsed).unwrap_or(0.0),
            ok: self.ok,
            errors: self.errors,
            dropped: shared.dropped.swap(0, Ordering::Relaxed),
            in_flight: shared.in_flight.load(Ordering::Relaxed),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            max_ms: quantile(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_parse_or_say_how_to_mend_them() {
        let schedule: Schedule = "30s@50, 1m@200,500ms@0".parse().unwrap();
        let shown: Vec<_> = schedule.0.iter().map(|s| (s.duration.as_millis(), s.rate)).collect();
        assert_eq!(shown, [(30_000, 50.0), (60_000, 200.0), (500, 0.0)]);
        for wrong in ["", "30s", "@5", "30s@", "30x@5", "-1s@5", "1s@-5", "1s@NaN", "1s@1e9"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong:?} was accepted");
        }
    }

    #[tokio::test]
    async fn urls_that_cannot_be_driven_are_refused_at_once() {
        let schedule: Schedule = "1s@1".parse().unwrap();
        for (url, why) in [("https://127.0.0.1/", "give an http:// URL"), ("127.0.0.1", "is no URL")] {
            let error = run(url, &schedule, |_| {}).await.unwrap_err();
            assert!(format!("{error:#}").contains(why), "{url}: {error:#}");
        }
    }

    #[test]
    fn arrivals_follow_the_rate_and_end_with_the_schedule() {
        let schedule: Schedule = "1s@2,1s@0,1s@4".parse().unwrap();
        let mut at = Duration::ZERO;
        let mut arrivals = Vec::new();
        while let Some(next) = schedule.next_arrival(at) {
            arrivals.push(next.as_millis());
            at = next;
        }
        assert_eq!(arrivals, [500, 2250, 2500, 2750]);
    }
}
