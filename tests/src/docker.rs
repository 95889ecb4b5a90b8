//! What tests on the local Docker Engine need: whether it is there, an image to run, and a clean end whatever happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::skipped;

/// Debian's static busybox, the only thing in the test image.
const BUSYBOX: &str = "/bin/busybox";

/// Whether this machine can run such tests; says what is missing otherwise.
pub fn available() -> bool {
    let answers = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if !answers("docker", &["version"]) {
        "a Docker Engine that answers"
    } else if !answers("nft", &["--version"]) {
        "nft"
    } else if !std::path::Path::new(BUSYBOX).exists() {
        "/bin/busybox (Debian's busybox-static)"
    } else {
        return true;
    };
    skipped("tests on Docker", missing);
    false
}

/// Runs a program and returns what it prints.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes an image of nothing but busybox.
pub fn import_busybox(reference: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::copy(BUSYBOX, dir.path().join("bin/busybox")).unwrap();
    let script = format!("tar -C {} -c . | docker import - {reference}", dir.path().display());
    run("sh", &["-c", &script]);
}

/// The names of a cluster's containers, running or not.
pub fn of_cluster(id: &str) -> Vec<String> {
    let filter = format!("label=io.loadline.cluster={id}");
    run("docker", &["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The names of all links that Loadline makes.
pub fn links() -> Vec<String> {
    let all = run("ip", &["-brief", "link"]);
    all.lines()
        .filter_map(|l| l.split_whitespace().next())
        .filter(|n| n.starts_with("ll"))
        .map(str::to_owned)
        .collect()
}

/// The body of `GET /` at `address:port`, on a connection of its own.
pub fn http(address: &str) -> std::io::Result<String> {
    let address = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no HTTP answer"))?;
    let ok = head.split_whitespace().nth(1) == Some("200");
    if ok { Ok(body.to_owned()) } else { Err(std::io::Error::other(head.to_owned())) }
}
