//! Container statistics straight from the cgroup files, for both versions of the interface.
//!
//! Where a container's files are is found once, from `/proc/<pid>/cgroup` and the mount table; the files then stay
//! open and each reading is one `pread` per file. No value is made up: a file that is absent or unreadable gives
//! `None`. A machine with both versions mounted ("hybrid") keeps its controllers on version 1.

mod parse;
mod read;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use read::Readers;

/// Where the controllers are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Version 1: controller → mount.
    v1: HashMap<String, Hierarchy>,
    v2: Option<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// The path within the hierarchy that is mounted there; `/` unless we are in a container ourselves.
    root: String,
}

impl Hierarchy {
    fn directory(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        self.mount.join(below.trim_start_matches('/'))
    }
}

/// A process's place: controller → path for version 1, and the path for version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    v1: HashMap<String, String>,
    v2: Option<String>,
}

/// The directories that matter for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directories {
    V1 { cpu: Option<PathBuf>, cpuacct: Option<PathBuf>, memory: Option<PathBuf>, pids: Option<PathBuf> },
    V2(PathBuf),
}

impl Directories {
    fn mention(&self, id: &str) -> bool {
        let mentions = |directory: &PathBuf| directory.to_string_lossy().contains(id);
        match self {
            Self::V1 { cpuacct, memory, .. } => cpuacct.iter().chain(memory).all(mentions),
            Self::V2(directory) => mentions(directory),
        }
    }
}

impl Hierarchies {
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Ok(Self::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// `id parent major:minor root mount options [optional]… - type source super-options`; see proc(5).
    fn from_mountinfo(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut fields = before.split(' ').skip(3);
            let (Some(root), Some(mount)) = (fields.next(), fields.next()) else { continue };
            let mut rest = after.split(' ');
            let (Some(kind), Some(options)) = (rest.next(), rest.nth(1)) else { continue };
            let hierarchy = Hierarchy { mount: unescape(mount).into(), root: unescape(root) };
            match kind {
                "cgroup2" => {
                    found.v2.get_or_insert(hierarchy);
                }
                "cgroup" => {
                    for controller in options.split(',') {
                        found.v1.entry(controller.to_owned()).or_insert_with(|| hierarchy.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// `None` when there is nothing to read for this process.
    fn locate(&self, membership: &Membership) -> Option<Directories> {
        let v1 = |controller: &str| Some(self.v1.get(controller)?.directory(membership.v1.get(controller)?));
        let (cpu, cpuacct, memory, pids) = (v1("cpu"), v1("cpuacct"), v1("memory"), v1("pids"));
        if cpuacct.is_some() || memory.is_some() {
            return Some(Directories::V1 { cpu, cpuacct, memory, pids });
        }
        Some(Directories::V2(self.v2.as_ref()?.directory(membership.v2.as_ref()?)))
    }

    pub(crate) fn of_process(&self, pid: u32) -> io::Result<Option<Directories>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(self.locate(&Membership::parse(&text)))
    }

    pub(crate) fn directories(&self, pid: u32) -> io::Result<Vec<PathBuf>> {
        Ok(match self.of_process(pid)? {
            Some(Directories::V1 { cpu, cpuacct, memory, pids }) => {
                [cpu, cpuacct, memory, pids].into_iter().flatten().collect()
            }
            Some(Directories::V2(directory)) => vec![directory],
            None => Vec::new(),
        })
    }

    /// Removes an empty cgroup from every hierarchy: runc removes a container's, but not the parent it made for it.
    /// One that is not empty stays.
    pub(crate) fn remove(&self, path: &str) {
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return;
        }
        let mut mounts: Vec<&Path> =
            self.v1.values().chain(&self.v2).map(|one| one.mount.as_path()).collect();
        mounts.sort();
        mounts.dedup();
        for mount in mounts {
            // Absent in most, and busy while another container of the pod ends: both are fine.
            let _ = std::fs::remove_dir(mount.join(relative));
        }
    }
}

impl Membership {
    /// `/proc/<pid>/cgroup`: lines of `hierarchy:controllers:path`; version 2 is `0::path`.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if id == "0" && controllers.is_empty() {
                found.v2 = Some(path.to_owned());
                continue;
            }
            for controller in controllers.split(',') {
                found.v1.insert(controller.to_owned(), path.to_owned());
            }
        }
        found
    }
}

/// The kernel writes space, tab, newline and backslash in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_V1: &str = "\
29 23 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
30 29 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
32 29 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
33 29 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
    const PROCESS_V1: &str = "\
9:name=systemd:/docker/abc
8:pids:/docker/abc
4:memory:/docker/abc
2:cpu,cpuacct:/docker/abc
0::/
";
    const MOUNTS_V2: &str =
        "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn version_1() {
        let found = Hierarchies::from_mountinfo(MOUNTS_V1).locate(&Membership::parse(PROCESS_V1));
        let directory =
            |controller: &str| Some(PathBuf::from(format!("/sys/fs/cgroup/{controller}/docker/abc")));
        let expected = Directories::V1 {
            cpu: directory("cpu,cpuacct"),
            cpuacct: directory("cpu,cpuacct"),
            memory: directory("memory"),
            pids: directory("pids"),
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn version_2() {
        let hierarchies = Hierarchies::from_mountinfo(MOUNTS_V2);
        let found = hierarchies.locate(&Membership::parse("0::/system.slice/docker-abc.scope\n"));
        let expected = Directories::V2("/sys/fs/cgroup/system.slice/docker-abc.scope".into());
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn a_mounted_part_of_a_hierarchy() {
        let mounts = "35 24 0:30 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::from_mountinfo(mounts).locate(&Membership::parse("0::/outer/docker/abc\n"));
        assert_eq!(found, Some(Directories::V2("/sys/fs/cgroup/docker/abc".into())));
    }

    #[test]
    fn nonsense_gives_nothing() {
        for (mounts, process) in [("", "0::/x"), (MOUNTS_V2, ""), ("a - b", "1:2"), (MOUNTS_V1, "x\n::\n")] {
            let found = Hierarchies::from_mountinfo(mounts).locate(&Membership::parse(process));
            assert_eq!(found, None, "{mounts:?} {process:?}");
        }
        assert_eq!(unescape("/a\\040b"), "/a b");
    }
}
