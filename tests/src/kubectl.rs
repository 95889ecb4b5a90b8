//! kubectl, where there is one that is new enough.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::cluster::Cluster;
use crate::process::{Output, run};
use crate::skipped;

/// The oldest minor version that these tests were written for.
const OLDEST: u32 = 27;

/// kubectl against one cluster.
pub struct Kubectl<'a> {
    program: &'static PathBuf,
    cluster: &'a Cluster,
}

impl<'a> Kubectl<'a> {
    /// Whether there is one; a notice is printed when there is none.
    pub fn exists() -> bool {
        program().is_some()
    }

    pub fn of(cluster: &'a Cluster) -> Self {
        let program = program().unwrap_or_else(|| panic!("ask Kubectl::exists first"));
        Self { program, cluster }
    }

    /// Words split at blanks.
    pub async fn run(&self, line: &str) -> Output {
        self.args(&line.split_whitespace().collect::<Vec<_>>()).await
    }

    pub async fn args(&self, args: &[&str]) -> Output {
        self.input(args, "").await
    }

    /// With a manifest on standard input.
    pub async fn stdin(&self, line: &str, input: &str) -> Output {
        self.input(&line.split_whitespace().collect::<Vec<_>>(), input).await
    }

    async fn input(&self, args: &[&str], input: &str) -> Output {
        run(self.program, args, &self.cluster.environment(), input).await
    }

    /// With one more environment variable.
    pub async fn with_env(&self, name: &str, value: &str, line: &str) -> Output {
        let mut env = self.cluster.environment();
        env.insert(name.to_owned(), value.to_owned());
        run(self.program, &line.split_whitespace().collect::<Vec<_>>(), &env, "").await
    }

    /// As a process that runs on.
    pub fn program(&self) -> &PathBuf {
        self.program
    }
}

fn program() -> Option<&'static PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find).as_ref()
}

fn find() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let Some(path) = std::env::split_paths(&paths).map(|dir| dir.join("kubectl")).find(|path| path.is_file())
    else {
        skipped("kubectl", "there is none on the PATH");
        return None;
    };
    let output = Command::new(&path).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or_default();
    if minor < OLDEST {
        skipped("kubectl", &format!("{} is older than 1.{OLDEST}", path.display()));
        return None;
    }
    Some(path)
}
