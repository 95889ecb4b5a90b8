//! How a simulated container behaves, and how annotations say so. Pure.
//!
//! Annotations (on the pod or the container; the container's win), all below `sim.loadline.io/`:
//!
//! | key                  | meaning                                                                   |
//! |----------------------|---------------------------------------------------------------------------|
//! | `start-seconds`      | how long starting it takes                                                |
//! | `fail-start`         | starting it fails with this message                                       |
//! | `ready-after-seconds`| commands run in it (probes) exit with 1 for so long after the start       |
//! | `cpu-millis`         | millicores: `250`, or steps after the start, `0s=100,30s=500,1m30s=100`   |
//! | `memory-bytes`       | memory in use; more than the limit is an OOM kill                         |
//! | `exit-after-seconds` | ends by itself so long after the start …                                  |
//! | `exit-code`          | … with this code (0)                                                      |
//! | `stop-seconds`       | how long it takes to end when asked to (0) …                              |
//! | `term-exit-code`     | … with this code (0)                                                      |
//! | `ignore-term`        | `true`: it has to be killed                                               |

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Labels;

pub const PREFIX: &str = "sim.loadline.io/";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long `start_container` takes; `None`: `SimConfig::start_delay`.
    pub start: Option<Duration>,
    pub fail_start: Option<String>,
    pub ready_after: Duration,
    pub cpu: CpuCurve,
    pub memory: u64,
    pub exit_after: Option<Duration>,
    pub exit_code: i32,
    pub stop: Duration,
    pub term_exit_code: i32,
    pub ignore_term: bool,
}

impl Default for Behaviour {
    /// A small idle server that ends at once when asked to.
    fn default() -> Self {
        Self {
            start: None,
            fail_start: None,
            ready_after: Duration::ZERO,
            cpu: CpuCurve::constant(1),
            memory: 16 << 20,
            exit_after: None,
            exit_code: 0,
            stop: Duration::ZERO,
            term_exit_code: 0,
            ignore_term: false,
        }
    }
}

/// Demand for CPU time as steps: from each offset on, so many millicores. Before the first: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuCurve(BTreeMap<Duration, u64>);

/// CPU time over a while, in thousandths of a nanosecond so that nothing is lost to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) used: u128,
    /// What the limit kept back.
    pub(super) throttled: u128,
    /// Nanoseconds during which demand was above the limit.
    pub(super) throttled_wall: u128,
}

impl CpuCurve {
    pub fn constant(millis: u64) -> Self {
        Self(BTreeMap::from([(Duration::ZERO, millis)]))
    }

    pub fn steps(steps: impl IntoIterator<Item = (Duration, u64)>) -> Self {
        Self(steps.into_iter().collect())
    }

    /// What is used between two offsets under a limit in millicores.
    pub(super) fn integrate(&self, from: Duration, to: Duration, limit: Option<u64>) -> CpuTime {
        let mut total = CpuTime::default();
        let ends = self.0.keys().skip(1).copied().chain([Duration::MAX]);
        for ((begin, demand), end) in self.0.iter().zip(ends) {
            let wall = end.min(to).saturating_sub((*begin).max(from)).as_nanos();
            let demand = u128::from(*demand);
            let used = limit.map_or(demand, |limit| demand.min(limit.into()));
            total.used += used * wall;
            total.throttled += (demand - used) * wall;
            total.throttled_wall += if demand > used { wall } else { 0 };
        }
        total
    }
}

impl std::str::FromStr for CpuCurve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(millis) = text.parse() {
            return Ok(Self::constant(millis));
        }
        let step = |step: &str| {
            let (offset, millis) = step.split_once('=')?;
            let offset: jiff::SignedDuration = offset.trim().parse().ok()?;
            Some((Duration::try_from(offset).ok()?, millis.trim().parse().ok()?))
        };
        let steps: Option<BTreeMap<_, _>> = text.split(',').map(step).collect();
        steps.map(Self).ok_or_else(|| "a number, or steps such as `0s=100,30s=500`".into())
    }
}

impl Behaviour {
    /// Changes what the annotations name. The error says which one is wrong and what it should be.
    pub(super) fn annotate(mut self, annotations: &Labels) -> Result<Self, String> {
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            self.set(name, value.trim())
                .map_err(|wanted| format!("annotation {key}={value:?}: expected {wanted}"))?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "start-seconds" => self.start = Some(seconds(value)?),
            "fail-start" => self.fail_start = Some(value.to_owned()),
            "ready-after-seconds" => self.ready_after = seconds(value)?,
            "cpu-millis" => self.cpu = value.parse()?,
            "memory-bytes" => self.memory = parsed(value, "a number of bytes")?,
            "exit-after-seconds" => self.exit_after = Some(seconds(value)?),
            "exit-code" => self.exit_code = code(value)?,
            "stop-seconds" => self.stop = seconds(value)?,
            "term-exit-code" => self.term_exit_code = code(value)?,
            "ignore-term" => self.ignore_term = parsed(value, "`true` or `false`")?,
            _ => return Err("one of the names that the simulator knows".into()),
        }
        Ok(())
    }
}

fn parsed<T: std::str::FromStr>(value: &str, wanted: &str) -> Result<T, String> {
    value.parse().map_err(|_| wanted.to_owned())
}

fn code(value: &str) -> Result<i32, String> {
    parsed::<u8>(value, "an exit code from 0 to 255").map(i32::from)
}

fn seconds(value: &str) -> Result<Duration, String> {
    let number: f64 = parsed(value, "seconds, such as 1.5")?;
    Duration::try_from_secs_f64(number).map_err(|error| format!("seconds: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn curves_integrate_exactly() {
        let curve: CpuCurve = "0s=100,10s=500,20s=0".parse().unwrap();
        const SECOND: u128 = 1_000_000_000;
        // from, to, limit → milli-nanoseconds used, throttled
        let cases = [
            (0, 10, None, 100 * 10 * SECOND, 0),
            (5, 15, None, (500 + 2500) * SECOND, 0),
            (0, 100, None, 6000 * SECOND, 0),
            (20, 100, None, 0, 0),
            (7, 7, None, 0, 0),
            (5, 15, Some(200), (500 + 1000) * SECOND, 1500 * SECOND),
        ];
        for (from, to, limit, used, throttled) in cases {
            let time = curve.integrate(secs(from), secs(to), limit);
            assert_eq!((time.used, time.throttled), (used, throttled), "{from} {to} {limit:?}");
        }
        let late = CpuCurve::steps([(secs(5), 100)]);
        assert_eq!(late.integrate(secs(0), secs(6), None).used, 100 * SECOND);
    }

    #[test]
    fn annotations() {
        let given = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Behaviour::default().annotate(&pairs.collect())
        };
        let behaviour = given(&[
            ("sim.loadline.io/start-seconds", "1.5"),
            ("sim.loadline.io/cpu-millis", "250"),
            ("sim.loadline.io/exit-code", "3"),
            ("prometheus.io/scrape", "true"),
        ]);
        let expected = Behaviour {
            start: Some(Duration::from_millis(1500)),
            cpu: CpuCurve::constant(250),
            exit_code: 3,
            ..Behaviour::default()
        };
        assert_eq!(behaviour, Ok(expected));
        for (key, value) in [
            ("start-seconds", "soon"),
            ("start-seconds", "-1"),
            ("start-seconds", "inf"),
            ("cpu-millis", "0s"),
            ("cpu-millis", "-1s=5"),
            ("cpu-millis", ""),
            ("memory-bytes", "16Mi"),
            ("exit-code", "256"),
            ("ignore-term", "yes"),
            ("no-such-thing", "1"),
        ] {
            let error = given(&[(&format!("{PREFIX}{key}"), value)]).unwrap_err();
            assert!(error.contains(key) && error.contains("expected"), "{error}");
        }
    }
}
