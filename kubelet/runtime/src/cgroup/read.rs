//! Open cgroup files of all running containers, read again and again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use jiff::Timestamp;
use nix::errno::Errno;
use tracing::debug;

use super::parse::{V1, V2};
use super::{Directories, Hierarchies};
use crate::ContainerStats;

/// `memory.stat` is the longest of the files, some 2 KiB; `cgroup.procs` may be longer and is read in full too.
const FIRST_BUFFER: usize = 8 * 1024;

/// A file kept open with its own buffer; absent stays absent.
struct Source {
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Source {
    /// Absent or forbidden is for good; being out of file handles is not, and an error.
    fn open(directory: Option<&Path>, name: &str) -> io::Result<Self> {
        let opened = directory.map(|directory| File::open(directory.join(name))).transpose();
        let file = match opened {
            Err(error)
                if matches!(
                    error.raw_os_error().map(Errno::from_raw),
                    Some(Errno::EMFILE | Errno::ENFILE)
                ) =>
            {
                return Err(error);
            }
            opened => opened.ok().flatten(),
        };
        Ok(Self { file, buffer: Vec::new() })
    }

    /// The file as it is now. Reading at offset 0 makes the kernel write the figures anew.
    fn text<'a>(&'a mut self, scratch: &mut Vec<u8>) -> Option<&'a str> {
        let file = self.file.as_ref()?;
        let mut length = 0;
        loop {
            if scratch.len() == length {
                scratch.resize((length * 2).max(FIRST_BUFFER), 0);
            }
            match file.read_at(&mut scratch[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => {
                    length += read;
                    // These files come in one piece unless they are longer than the room for them.
                    if length < scratch.len() {
                        break;
                    }
                }
                // The cgroup is gone.
                Err(_) => return None,
            }
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&scratch[..length]);
        std::str::from_utf8(&self.buffer).ok()
    }
}

/// The files of one container, in the order of the fields of `V1` or `V2`.
enum Files {
    V1(Box<[Source; 9]>),
    V2(Box<[Source; 6]>),
}

struct Reader {
    pid: u32,
    files: Files,
}

impl Reader {
    fn open(pid: u32, directories: &Directories) -> io::Result<Self> {
        let files = match directories {
            Directories::V1 { cpu, cpuacct, memory, pids } => {
                let at = |directory: &Option<_>, name| Source::open(directory.as_deref(), name);
                Files::V1(Box::new([
                    at(cpu, "cpu.stat")?,
                    at(cpuacct, "cpuacct.usage")?,
                    at(cpuacct, "cpuacct.usage_user")?,
                    at(cpuacct, "cpuacct.usage_sys")?,
                    at(memory, "memory.usage_in_bytes")?,
                    at(memory, "memory.stat")?,
                    at(memory, "memory.limit_in_bytes")?,
                    at(memory, "memory.oom_control")?,
                    at(pids, "cgroup.procs")?,
                ]))
            }
            Directories::V2(directory) => {
                let at = |name| Source::open(Some(directory), name);
                Files::V2(Box::new([
                    at("cpu.stat")?,
                    at("memory.current")?,
                    at("memory.stat")?,
                    at("memory.max")?,
                    at("memory.events")?,
                    at("cgroup.procs")?,
                ]))
            }
        };
        Ok(Self { pid, files })
    }

    /// `None` when not one file could be read: the container is gone.
    fn read(&mut self, scratch: &mut Vec<u8>) -> Option<ContainerStats> {
        let at = Timestamp::now();
        let stats = match &mut self.files {
            Files::V1(sources) => {
                let texts = sources.each_mut().map(|source| source.text(scratch));
                let [cpu_stat, usage, usage_user, usage_sys, rest @ ..] = texts;
                let [memory_usage, memory_stat, memory_limit, oom_control, procs] = rest;
                let files = V1 {
                    cpu_stat,
                    usage,
                    usage_user,
                    usage_sys,
                    memory_usage,
                    memory_stat,
                    memory_limit,
                    oom_control,
                    procs,
                };
                files.stats()
            }
            Files::V2(sources) => {
                let texts = sources.each_mut().map(|source| source.text(scratch));
                let [cpu_stat, memory_current, memory_stat, memory_max, memory_events, procs] = texts;
                V2 { cpu_stat, memory_current, memory_stat, memory_max, memory_events, procs }.stats()
            }
        };
        (stats != ContainerStats::default()).then_some(ContainerStats { at, ..stats })
    }
}

#[derive(Default)]
pub(crate) struct Readers {
    by_container: HashMap<String, Reader>,
    scratch: Vec<u8>,
}

impl Readers {
    /// The cgroup must bear the container's id: the process may have ended and its number be another's.
    fn open(hierarchies: &Hierarchies, id: &str, pid: u32) -> io::Result<Option<Reader>> {
        let directories = hierarchies.of_process(pid)?.filter(|directories| directories.mention(id));
        directories.map(|directories| Reader::open(pid, &directories)).transpose()
    }

    /// One reading of each of these containers (id, process on the host); those that cannot be read are left out.
    pub(crate) fn read(
        &mut self,
        hierarchies: &Hierarchies,
        running: &[(String, u32)],
    ) -> Vec<(String, ContainerStats)> {
        let current: HashMap<&str, u32> = running.iter().map(|(id, pid)| (id.as_str(), *pid)).collect();
        self.by_container.retain(|id, reader| current.get(id.as_str()) == Some(&reader.pid));
        let mut all = Vec::with_capacity(running.len());
        for (id, pid) in running {
            if !self.by_container.contains_key(id) {
                match Self::open(hierarchies, id, *pid) {
                    Ok(Some(reader)) => {
                        self.by_container.insert(id.clone(), reader);
                    }
                    Ok(None) => debug!(id, pid, "no cgroup found for the container"),
                    Err(error) => debug!(%error, id, pid, "the container's cgroup could not be opened"),
                }
            }
            let Some(reader) = self.by_container.get_mut(id) else { continue };
            match reader.read(&mut self.scratch) {
                Some(stats) => all.push((id.clone(), stats)),
                None => {
                    self.by_container.remove(id);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_again_what_has_changed_and_drops_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 1\n");
        write("cgroup.procs", &"12345\n".repeat(5_000));
        let mut reader = Reader::open(1, &Directories::V2(dir.path().into())).unwrap();
        let mut scratch = Vec::new();
        let first = reader.read(&mut scratch).unwrap();
        assert_eq!((first.cpu_usage_nanos, first.processes), (Some(1000), Some(5_000)));
        assert_eq!(first.memory_usage, None);
        write("cpu.stat", "usage_usec 2\n");
        assert_eq!(reader.read(&mut scratch).unwrap().cpu_usage_nanos, Some(2000));
        let mut gone = Reader::open(1, &Directories::V2(dir.path().join("gone"))).unwrap();
        assert_eq!(gone.read(&mut scratch), None);
    }
}
