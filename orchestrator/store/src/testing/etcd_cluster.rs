//! Real etcd members as children of the test, on free ports, in a directory that goes with them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub struct EtcdCluster {
    members: Vec<Member>,
    flags: Vec<String>,
    directory: TempDir,
}

struct Member {
    client: String,
    peer: String,
    child: Option<Child>,
}

const BINARIES: [&str; 2] = ["/usr/bin/etcd", "/usr/local/bin/etcd"];

fn binary() -> Option<PathBuf> {
    BINARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// `count` different ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl EtcdCluster {
    /// `None`, and a line that says so, when etcd is not installed.
    pub fn start(size: usize) -> Option<Self> {
        Self::start_with(size, "http", Vec::new())
    }

    /// With another scheme for clients and the flags that it needs.
    pub fn start_with(size: usize, scheme: &str, flags: Vec<String>) -> Option<Self> {
        if binary().is_none() {
            eprintln!("skipped: no etcd");
            return None;
        }
        let ports = free_ports(2 * size);
        let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        let members = ports.chunks(2).map(|ports| Member {
            client: url(scheme, ports[0]),
            peer: url("http", ports[1]),
            child: None,
        });
        let mut cluster =
            EtcdCluster { members: members.collect(), flags, directory: tempfile::tempdir().unwrap() };
        (0..size).for_each(|number| cluster.restart(number));
        Some(cluster)
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a member on what its directory holds.
    pub fn restart(&mut self, number: usize) {
        self.kill(number);
        let names: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}={}", member.peer))
            .collect();
        let member = &self.members[number];
        let log = std::fs::File::create(self.directory.path().join(format!("m{number}.log"))).unwrap();
        let child = Command::new(binary().unwrap())
            .arg(format!("--name=m{number}"))
            .arg("--data-dir")
            .arg(self.directory.path().join(format!("m{number}")))
            .arg(format!("--listen-client-urls={}", member.client))
            .arg(format!("--advertise-client-urls={}", member.client))
            .arg(format!("--listen-peer-urls={}", member.peer))
            .arg(format!("--initial-advertise-peer-urls={}", member.peer))
            .arg(format!("--initial-cluster={}", names.join(",")))
            .arg("--logger=zap")
            .args(&self.flags)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[number].child = Some(child);
    }

    /// Stops a member without its peers noticing closed connections, and lets it go on.
    pub fn freeze(&self, number: usize, frozen: bool) {
        let pid = self.members[number].child.as_ref().unwrap().id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 0..self.members.len() {
                let log = std::fs::read_to_string(self.directory.path().join(format!("m{number}.log")));
                let log = log.unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                eprintln!("etcd m{number}, newest first: {tail:#?}");
            }
        }
        (0..self.members.len()).for_each(|number| self.kill(number));
    }
}
