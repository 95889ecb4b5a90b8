//! Child processes: the binary under test and the tools beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end after SIGTERM.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// How long a tool may take.
const TOOL_WITHIN: Duration = Duration::from_secs(120);
/// Lines of a log that are printed when a test fails.
const TAIL: usize = 40;

/// The `loadline` binary beside this test: `target/PROFILE/loadline`, or `$LOADLINE_BIN`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LOADLINE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("loadline");
    assert!(path.exists(), "{} is not built; run: cargo build -p loadline", path.display());
    path
}

/// A process that runs until it is told to end.
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    out: PathBuf,
    ended: Mutex<Option<ExitStatus>>,
    end: Mutex<Receiver<ExitStatus>>,
}

impl Process {
    /// Starts `program`; standard output and error go to files in `dir`.
    pub fn start(name: &str, program: &Path, args: &[String], dir: &Path) -> Self {
        let (out, log) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.log")));
        let mut child = std::process::Command::new(program)
            .args(args)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (sender, end) = channel();
        std::thread::spawn(move || {
            // Nobody listens any more when the test ended first.
            let _ = sender.send(child.wait().unwrap());
        });
        Self { name: name.to_owned(), pid, log, out, ended: Mutex::new(None), end: Mutex::new(end) }
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// What it printed.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The line of its output that begins with `ready`; panics with its log when it ends or takes too long.
    pub async fn ready(&self, within: Duration) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.stdout().lines().find(|line| line.starts_with("ready")) {
                return line.to_owned();
            }
            if let Some(status) = self.has_ended() {
                panic!("{} ended with {status} before it was ready\n{}", self.name, self.tail());
            }
            assert!(start.elapsed() < within, "{} is not ready after {within:?}\n{}", self.name, self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn has_ended(&self) -> Option<ExitStatus> {
        self.wait(Duration::ZERO)
    }

    /// Waits for its end.
    pub fn wait(&self, within: Duration) -> Option<ExitStatus> {
        let mut ended = self.ended.lock().unwrap();
        if ended.is_none() {
            match self.end.lock().unwrap().recv_timeout(within) {
                Ok(status) => *ended = Some(status),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        *ended
    }

    /// Sends a signal, unless it ended already.
    pub fn signal(&self, signal: Signal) {
        if self.has_ended().is_none() {
            kill(self.pid, signal).unwrap();
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        assert!(self.wait(ENDS_WITHIN).is_some(), "{} survived SIGKILL", self.name);
    }

    /// SIGTERM; it has to end with status 0.
    pub fn stop(&self) {
        self.signal(Signal::SIGTERM);
        match self.wait(ENDS_WITHIN) {
            Some(status) if status.success() => {}
            Some(status) => panic!("{} ended with {status} after SIGTERM\n{}", self.name, self.tail()),
            None => {
                self.kill();
                panic!("{} did not end within {ENDS_WITHIN:?} after SIGTERM\n{}", self.name, self.tail());
            }
        }
    }

    /// Resident memory in MiB.
    pub fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the last lines of {}:\n{}\n----", self.name, self.tail());
            self.kill();
        } else if self.has_ended().is_none() {
            self.stop();
        }
    }
}

/// What a tool answered.
#[derive(Debug)]
pub struct Output {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output; a status other than 0 fails the test.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    /// Its standard error; status 0 fails the test.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.status.success(), "this should have failed: {self}");
        self.stderr
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON: {error}: {text}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\nstdout: {}\nstderr: {}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// Runs a tool to its end with `input` on its standard input.
pub async fn run(program: &Path, args: &[&str], env: &BTreeMap<String, String>, input: &str) -> Output {
    use tokio::io::AsyncWriteExt;
    let command = format!("{} {}", program.display(), args.join(" "));
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("starting {command}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let write = tokio::spawn(async move {
        // A tool that does not want its input closes it.
        let _ = stdin.write_all(input.as_bytes()).await;
    });
    let output = tokio::time::timeout(TOOL_WITHIN, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{command}: not done after {TOOL_WITHIN:?}"))
        .unwrap();
    write.abort();
    Output {
        command,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
