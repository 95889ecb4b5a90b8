//! Python with the packages that the tests use, from a virtual environment in `target/venv`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{repository, skipped};

/// An interpreter that can import what is asked for.
pub struct Python;

impl Python {
    /// With the `kubernetes` client and PyYAML; the environment is made when it is missing. `None` after a notice.
    pub fn with_client() -> Option<&'static PathBuf> {
        static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
        FOUND.get_or_init(|| environment().map_err(|why| skipped("the Python client", &why)).ok()).as_ref()
    }

    /// With PyYAML alone: the environment's, or the machine's own. `None` after a notice.
    pub fn with_yaml() -> Option<PathBuf> {
        let own = [venv().join("bin/python"), PathBuf::from("python3")];
        let found = own.into_iter().find(|python| imports(python, "yaml"));
        found.or_else(|| Self::with_client().cloned())
    }
}

fn venv() -> PathBuf {
    repository().join("target/venv")
}

fn imports(python: &Path, modules: &str) -> bool {
    let output = Command::new(python).args(["-c", &format!("import {modules}")]).output();
    output.is_ok_and(|output| output.status.success())
}

fn environment() -> Result<PathBuf, String> {
    let python = venv().join("bin/python");
    if imports(&python, "kubernetes, yaml") {
        return Ok(python);
    }
    let dir = venv().to_string_lossy().into_owned();
    tool(Path::new("python3"), &["-m", "venv", &dir])?;
    tool(
        &python,
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kubernetes>=31", "pyyaml>=6"],
    )?;
    if imports(&python, "kubernetes, yaml") { Ok(python) } else { Err("it cannot be imported".to_owned()) }
}

fn tool(program: &Path, args: &[&str]) -> Result<(), String> {
    let output =
        Command::new(program).args(args).output().map_err(|e| format!("{}: {e}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} {}: {}", program.display(), args.join(" "), said.lines().last().unwrap_or_default()))
}
