//! When a probe runs and what its results add up to. Pure.
//!
//! Upstream waits a whole period before the second attempt. Here a readiness or startup probe that has not succeeded
//! yet is tried more often in between (after 100 ms, then every tenth of the time waited so far, at most the period),
//! so that a container is seen ready when it is. These extra attempts can only succeed: failures count at the normal
//! pace alone, so thresholds mean what they mean upstream. After the first success the pace is the period.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use crate::plan::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

pub(crate) fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(value.filter(|v| *v > 0).unwrap_or(default).unsigned_abs().into())
}

pub(crate) fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10)
}

pub(crate) fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

pub(crate) fn initial_delay(probe: &Probe) -> Duration {
    Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs().into())
}

/// Adds results up to a verdict.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    failure_threshold: i32,
    success_threshold: i32,
    last: Option<bool>,
    run: i32,
    verdict: Option<Verdict>,
}

impl Counter {
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            failure_threshold: probe.failure_threshold.filter(|t| *t > 0).unwrap_or(3),
            success_threshold: probe.success_threshold.filter(|t| *t > 0).unwrap_or(1),
            last: None,
            run: 0,
            verdict: None,
        }
    }

    /// The verdict after this result; it stays as it was until a threshold is reached.
    pub(crate) fn record(&mut self, ok: bool) -> Option<Verdict> {
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        if ok && self.run >= self.success_threshold {
            self.verdict = Some(Verdict::Success);
        } else if !ok && self.run >= self.failure_threshold {
            self.verdict = Some(Verdict::Failure);
        }
        self.verdict
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.verdict == Some(Verdict::Success)
    }

    /// Extra attempts make sense only where one success is enough.
    pub(crate) fn may_hurry(&self, kind: Kind) -> bool {
        kind != Kind::Liveness && self.success_threshold == 1 && self.verdict.is_none()
    }
}

/// The wait before the next extra attempt, `waited` after the first; `None` when the normal tick comes first.
pub(crate) fn hurry(kind_is_exec: bool, waited: Duration, until_tick: Duration) -> Option<Duration> {
    // A process in the container costs far more than a connection.
    let floor = if kind_is_exec { Duration::from_millis(500) } else { Duration::from_millis(100) };
    let delay = floor.max(waited / 10);
    (delay < until_tick).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(failures: i32, successes: i32) -> Counter {
        Counter::new(&Probe {
            failure_threshold: Some(failures),
            success_threshold: Some(successes),
            ..Probe::default()
        })
    }

    #[test]
    fn verdicts_need_their_threshold() {
        use Verdict::{Failure, Success};
        type Case = (i32, i32, &'static [bool], &'static [Option<Verdict>]);
        let cases: [Case; 4] = [
            (3, 1, &[false, false, false, true], &[None, None, Some(Failure), Some(Success)]),
            (
                2,
                2,
                &[true, true, false, true, false, false],
                &[None, Some(Success), Some(Success), Some(Success), Some(Success), Some(Failure)],
            ),
            (1, 1, &[false, true], &[Some(Failure), Some(Success)]),
            (
                3,
                1,
                &[true, false, false, true, false],
                &[Some(Success), Some(Success), Some(Success), Some(Success), Some(Success)],
            ),
        ];
        for (failures, successes, results, verdicts) in cases {
            let mut counter = counter(failures, successes);
            let got: Vec<Option<Verdict>> = results.iter().map(|r| counter.record(*r)).collect();
            assert_eq!(got, verdicts, "{results:?}");
        }
    }

    #[test]
    fn hurrying_slows_down_and_leaves_the_tick_alone() {
        let ms = Duration::from_millis;
        assert_eq!(hurry(false, ms(0), ms(10_000)), Some(ms(100)));
        assert_eq!(hurry(false, ms(5_000), ms(5_000)), Some(ms(500)));
        assert_eq!(hurry(false, ms(9_950), ms(50)), None);
        assert_eq!(hurry(true, ms(0), ms(10_000)), Some(ms(500)));
        assert!(counter(3, 1).may_hurry(Kind::Readiness) && counter(3, 1).may_hurry(Kind::Startup));
        assert!(!counter(3, 2).may_hurry(Kind::Readiness) && !counter(3, 1).may_hurry(Kind::Liveness));
        let mut ready = counter(3, 1);
        ready.record(true);
        assert!(!ready.may_hurry(Kind::Readiness));
    }

    #[test]
    fn defaults_are_upstreams() {
        let probe = Probe::default();
        assert_eq!((period(&probe).as_secs(), timeout(&probe).as_secs()), (10, 1));
        assert_eq!(initial_delay(&probe), Duration::ZERO);
    }
}
