//! The formats of cgroup files, and how their figures become `ContainerStats`. Pure.

use crate::ContainerStats;

/// Version 1 writes "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// What one reading of a version 1 container found; each the file's text.
#[derive(Default)]
pub(super) struct V1<'a> {
    pub(super) cpu_stat: Option<&'a str>,
    pub(super) usage: Option<&'a str>,
    pub(super) usage_user: Option<&'a str>,
    pub(super) usage_sys: Option<&'a str>,
    pub(super) memory_usage: Option<&'a str>,
    pub(super) memory_stat: Option<&'a str>,
    pub(super) memory_limit: Option<&'a str>,
    pub(super) oom_control: Option<&'a str>,
    pub(super) procs: Option<&'a str>,
}

#[derive(Default)]
pub(super) struct V2<'a> {
    pub(super) cpu_stat: Option<&'a str>,
    pub(super) memory_current: Option<&'a str>,
    pub(super) memory_stat: Option<&'a str>,
    pub(super) memory_max: Option<&'a str>,
    pub(super) memory_events: Option<&'a str>,
    pub(super) procs: Option<&'a str>,
}

impl V1<'_> {
    pub(super) fn stats(&self) -> ContainerStats {
        let cpu = |key| field(self.cpu_stat?, key);
        let memory = |key| field(self.memory_stat?, key);
        let usage = self.memory_usage.and_then(number);
        ContainerStats {
            cpu_usage_nanos: self.usage.and_then(number),
            cpu_user_nanos: self.usage_user.and_then(number),
            cpu_system_nanos: self.usage_sys.and_then(number),
            cfs_periods: cpu("nr_periods"),
            cfs_throttled_periods: cpu("nr_throttled"),
            cfs_throttled_nanos: cpu("throttled_time"),
            memory_usage: usage,
            memory_working_set: working_set(usage, memory("total_inactive_file")),
            memory_rss: memory("total_rss"),
            memory_cache: memory("total_cache"),
            memory_limit: self.memory_limit.and_then(number).filter(|limit| *limit < NO_LIMIT),
            memory_page_faults: memory("total_pgfault"),
            memory_major_page_faults: memory("total_pgmajfault"),
            processes: self.procs.map(lines),
            oom_events: self.oom_control.and_then(|text| field(text, "oom_kill")),
            ..ContainerStats::default()
        }
    }
}

impl V2<'_> {
    pub(super) fn stats(&self) -> ContainerStats {
        let cpu = |key| field(self.cpu_stat?, key);
        let nanos = |key| cpu(key)?.checked_mul(1000);
        let memory = |key| field(self.memory_stat?, key);
        let usage = self.memory_current.and_then(number);
        ContainerStats {
            cpu_usage_nanos: nanos("usage_usec"),
            cpu_user_nanos: nanos("user_usec"),
            cpu_system_nanos: nanos("system_usec"),
            cfs_periods: cpu("nr_periods"),
            cfs_throttled_periods: cpu("nr_throttled"),
            cfs_throttled_nanos: nanos("throttled_usec"),
            memory_usage: usage,
            memory_working_set: working_set(usage, memory("inactive_file")),
            memory_rss: memory("anon"),
            memory_cache: memory("file"),
            // "max" is no number, and no limit.
            memory_limit: self.memory_max.and_then(number),
            memory_page_faults: memory("pgfault"),
            memory_major_page_faults: memory("pgmajfault"),
            processes: self.procs.map(lines),
            oom_events: self.memory_events.and_then(|text| field(text, "oom_kill")),
            ..ContainerStats::default()
        }
    }
}

/// As cAdvisor reckons it: what cannot be dropped at once.
fn working_set(usage: Option<u64>, inactive_file: Option<u64>) -> Option<u64> {
    Some(usage?.saturating_sub(inactive_file?))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

fn lines(text: &str) -> u64 {
    text.lines().count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from a container on Linux 6.18 with Docker 20.10, version 1.
    #[test]
    fn version_1() {
        let stats = V1 {
            cpu_stat: Some("nr_periods 40\nnr_throttled 38\nthrottled_time 1893204561\n"),
            usage: Some("2004112345\n"),
            usage_user: Some("1500000000\n"),
            usage_sys: Some("504112345\n"),
            memory_usage: Some("5632000\n"),
            memory_stat: Some(
                "cache 135168\nrss 4096\ninactive_file 1\npgfault 9\nhierarchical_memory_limit 16777216\n\
                 total_cache 2162688\ntotal_rss 409600\ntotal_pgfault 1023\ntotal_pgmajfault 3\n\
                 total_inactive_anon 0\ntotal_inactive_file 1081344\n",
            ),
            memory_limit: Some("16777216\n"),
            oom_control: Some("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            procs: Some("1\n7\n"),
        }
        .stats();
        let expected = ContainerStats {
            cpu_usage_nanos: Some(2_004_112_345),
            cpu_user_nanos: Some(1_500_000_000),
            cpu_system_nanos: Some(504_112_345),
            cfs_periods: Some(40),
            cfs_throttled_periods: Some(38),
            cfs_throttled_nanos: Some(1_893_204_561),
            memory_usage: Some(5_632_000),
            memory_working_set: Some(5_632_000 - 1_081_344),
            memory_rss: Some(409_600),
            memory_cache: Some(2_162_688),
            memory_limit: Some(16_777_216),
            memory_page_faults: Some(1023),
            memory_major_page_faults: Some(3),
            processes: Some(2),
            oom_events: Some(2),
            ..ContainerStats::default()
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn version_2() {
        let stats = V2 {
            cpu_stat: Some(
                "usage_usec 2004112\nuser_usec 1500000\nsystem_usec 504112\nnr_periods 40\nnr_throttled 38\n\
                 throttled_usec 1893204\nnr_bursts 0\nburst_usec 0\n",
            ),
            memory_current: Some("5632000\n"),
            memory_stat: Some(
                "anon 409600\nfile 2162688\ninactive_file 1081344\npgfault 1023\npgmajfault 3\n",
            ),
            memory_max: Some("max\n"),
            memory_events: Some("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n"),
            procs: Some("1\n"),
        }
        .stats();
        assert_eq!(stats.cpu_usage_nanos, Some(2_004_112_000));
        assert_eq!(stats.cfs_throttled_nanos, Some(1_893_204_000));
        assert_eq!(stats.memory_working_set, Some(5_632_000 - 1_081_344));
        assert_eq!((stats.memory_rss, stats.memory_cache), (Some(409_600), Some(2_162_688)));
        assert_eq!((stats.memory_limit, stats.oom_events, stats.processes), (None, Some(1), Some(1)));
    }

    #[test]
    fn absent_is_absent() {
        assert_eq!(V1::default().stats(), ContainerStats::default());
        assert_eq!(V2::default().stats(), ContainerStats::default());
        let odd = V1 {
            usage: Some("many\n"),
            memory_usage: Some("10\n"),
            memory_limit: Some("9223372036854771712\n"),
            cpu_stat: Some("nr_periods\nnr_throttled x\n"),
            ..V1::default()
        };
        assert_eq!(odd.stats(), ContainerStats { memory_usage: Some(10), ..ContainerStats::default() });
    }
}
