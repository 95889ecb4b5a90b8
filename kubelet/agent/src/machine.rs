//! What the machine has and is, from `/proc`, `/sys` and `/etc`. Reads only; what cannot be read is absent.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use loadline_api::quantity::Quantity;

use crate::config::{Config, KubeletError};
use crate::resources::Amounts;

const PAGE_TICKS: f64 = 100.0;

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// A field of `/proc/meminfo` in bytes.
pub(crate) fn meminfo(text: &str, field: &str) -> Option<i64> {
    let line = text.lines().find(|l| l.split(':').next() == Some(field))?;
    let kib: i64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes and share that are free where the kubelet keeps its data.
pub(crate) struct Disk {
    pub(crate) total: i64,
    pub(crate) free_share: f64,
}

pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = i64::try_from(stat.fragment_size()).ok()?;
    let total = i64::try_from(stat.blocks()).ok()?.checked_mul(unit)?;
    let free = i64::try_from(stat.blocks_available()).ok()?.checked_mul(unit)?;
    Some(Disk { total, free_share: if total > 0 { free as f64 / total as f64 } else { 0.0 } })
}

/// The machine's capacity with what the configuration puts in its place.
pub(crate) fn capacity(config: &Config) -> Result<Amounts, KubeletError> {
    let mut capacity = Amounts::new();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    capacity.insert("cpu".to_owned(), Quantity::from_units(i64::try_from(cpus).unwrap_or(i64::MAX)));
    if let Some(memory) = read("/proc/meminfo").and_then(|t| meminfo(&t, "MemTotal")) {
        let kib = Quantity::parse(&format!("{}Ki", memory / 1024));
        capacity.insert("memory".to_owned(), kib.unwrap_or(Quantity::from_bytes(memory)));
    }
    if let Some(disk) = disk(&config.data_dir) {
        let kib = Quantity::parse(&format!("{}Ki", disk.total / 1024));
        capacity.insert("ephemeral-storage".to_owned(), kib.unwrap_or(Quantity::from_bytes(disk.total)));
    }
    capacity.insert("pods".to_owned(), Quantity::from_units(config.max_pods.into()));
    capacity.extend(amounts(&config.capacity, "capacity")?);
    Ok(capacity)
}

pub(crate) fn allocatable(config: &Config, capacity: &Amounts) -> Result<Amounts, KubeletError> {
    let mut left = capacity.clone();
    for (name, reserved) in amounts(&config.reserved, "reserved")? {
        if let Some(amount) = left.get_mut(&name) {
            amount.sub(&reserved);
            if amount.is_negative() {
                *amount = Quantity::ZERO;
            }
        }
    }
    Ok(left)
}

fn amounts(texts: &BTreeMap<String, String>, what: &str) -> Result<Amounts, KubeletError> {
    let parse = |(name, text): (&String, &String)| {
        let quantity = Quantity::parse(text)
            .map_err(|e| KubeletError::Config(format!("{what} of {name}: {text:?} is no quantity: {e}")))?;
        Ok((name.clone(), quantity))
    };
    texts.iter().map(parse).collect()
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn system_info(runtime_version: &str) -> NodeSystemInfo {
    let os_release = read("/etc/os-release").unwrap_or_default();
    let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    let version = concat!("v1.36.0+loadline.", env!("CARGO_PKG_VERSION")).to_owned();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        kube_proxy_version: String::new(),
        kubelet_version: version,
        machine_id: read("/etc/machine-id").unwrap_or_default(),
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or_default().trim_matches('"').to_owned(),
        swap: None,
        system_uuid: read("/sys/class/dmi/id/product_uuid").unwrap_or_default(),
    }
}

/// Which resources run short, by upstream's default eviction thresholds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

pub(crate) fn pressure(data_dir: &Path) -> Pressure {
    let available = read("/proc/meminfo").and_then(|t| meminfo(&t, "MemAvailable"));
    let tasks = read("/proc/loadavg").and_then(|t| t.split(['/', ' ']).nth(4)?.parse::<f64>().ok());
    let max = read("/proc/sys/kernel/pid_max").and_then(|t| t.parse::<f64>().ok());
    Pressure {
        memory: available.is_some_and(|a| a < 100 << 20),
        disk: disk(data_dir).is_some_and(|d| d.free_share < 0.10),
        pids: matches!((tasks, max), (Some(t), Some(m)) if t > 0.95 * m),
    }
}

/// Seconds of CPU time that the machine has used: everything in `/proc/stat` but idle and iowait.
pub(crate) fn cpu_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().find(|l| l.starts_with("cpu "))?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let used = [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum::<f64>();
    (fields.len() >= 4).then_some(used / PAGE_TICKS)
}

/// Used memory without what the kernel can drop at once: total − free − inactive file pages.
pub(crate) fn working_set(meminfo_text: &str) -> Option<i64> {
    let field = |name| meminfo(meminfo_text, name);
    let used = field("MemTotal")? - field("MemFree")? - field("Inactive(file)").unwrap_or(0);
    Some(used.max(0))
}

/// CPU seconds and working set of the whole machine.
pub(crate) fn usage() -> (Option<f64>, Option<i64>) {
    let cpu = read("/proc/stat").and_then(|t| cpu_seconds(&t));
    (cpu, read("/proc/meminfo").and_then(|t| working_set(&t)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        let text = "MemTotal:       1000 kB\nMemFree:  200 kB\nInactive(file): 100 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(1_024_000));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(working_set(text), Some(700 * 1024));
        assert_eq!(cpu_seconds("cpu  100 50 50 1000 30 10 40 5 0 0\ncpu0 1 1 1 1\n"), Some(2.5));
        assert_eq!(cpu_seconds("nothing"), None);
    }
}
