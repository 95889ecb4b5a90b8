//! The harness of the end-to-end tests: it runs the real binary as a child process and talks to it as users do, over
//! TLS, with kubectl, with the Python client, with kube-rs and with hand-made requests.
//!
//! It owns what it starts: every process is told to end with SIGTERM when its handle goes, and a cluster that does not
//! then exit with status 0 fails the test. It never listens on a fixed port and writes only below temporary
//! directories. What a test needs and this machine lacks (kubectl, etcd, Python) is skipped with a printed notice.
//!
//! Everything here may panic: it runs in tests only, and a panic is how a test says what is wrong.

#![expect(clippy::unwrap_used, reason = "the harness of tests: a panic with its place is the message")]

mod cluster;
pub mod docker;
mod eventually;
mod kubectl;
mod process;
mod python;
mod raw;

pub use cluster::{Cluster, Options, TOKEN};
pub use eventually::{eventually, steadily};
pub use kubectl::Kubectl;
pub use process::{Output, Process, binary, run};
pub use python::Python;
pub use raw::{Answer, Endpoint, Request};

use std::path::PathBuf;

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Says on standard error that something was not tested, and why.
pub fn skipped(what: &str, why: &str) {
    eprintln!("skipped: {what}: {why}");
}
