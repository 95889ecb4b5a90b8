//! The rules of this repository that a compiler does not check, as tests: who may depend on whom, what pure modules may
//! not do, what every file has, and what no file may name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers as well")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use loadline_tests::repository;

/// Who may use whom in the product; dev-dependencies are free. `loadline` and `loadline-tests` may use everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("loadline-api", &[]),
    ("loadline-store", &[]),
    ("loadline-client", &["loadline-api"]),
    ("loadline-server", &["loadline-api", "loadline-store"]),
    ("loadline-scheduler", &["loadline-api", "loadline-client"]),
    ("loadline-controllers", &["loadline-api", "loadline-client"]),
    ("loadline-metrics", &["loadline-api", "loadline-client"]),
    ("loadline-autoscaler", &["loadline-api", "loadline-client"]),
    ("loadline-runtime", &["loadline-api", "loadline-client"]),
    ("loadline-network", &["loadline-api", "loadline-client"]),
    ("loadline-kubelet", &["loadline-api", "loadline-client", "loadline-runtime", "loadline-network"]),
    ("loadline-example-web", &[]),
];

/// Libraries that only one crate may know (and the binary and the tests).
const ONLY_IN: &[(&str, &[&str])] = &[
    ("bollard", &["loadline-runtime"]),
    ("redb", &["loadline-store"]),
    ("etcd-client", &["loadline-store"]),
    ("rtnetlink", &["loadline-network"]),
];

/// The rest of this crate's dependency lists, and generated or foreign folders.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules"];

struct Package {
    name: String,
    dependencies: BTreeSet<String>,
    folder: PathBuf,
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below the root, as paths relative to it.
fn files() -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if !NOT_OURS.contains(&name.as_str()) {
                    walk(&path, found);
                }
            } else {
                found.push(path);
            }
        }
    }
    let root = repository();
    let mut found = Vec::new();
    walk(&root, &mut found);
    let mut relative: Vec<PathBuf> =
        found.iter().map(|p| p.strip_prefix(&root).unwrap().to_owned()).collect();
    relative.sort();
    relative
}

fn rust_files() -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

fn packages() -> Vec<Package> {
    let manifests = files().into_iter().filter(|p| p.ends_with("Cargo.toml") && p.components().count() > 1);
    manifests.map(|manifest| package(&manifest)).collect()
}

/// The few lines of a manifest that matter here; cargo has checked the rest.
fn package(manifest: &Path) -> Package {
    let (mut section, mut name, mut dependencies) = (String::new(), String::new(), BTreeSet::new());
    for line in read(&repository().join(manifest)).lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[') {
            section = title.trim_end_matches(']').to_owned();
            // [dependencies.NAME], [target.'…'.dependencies]
            if let Some(one) = section.strip_prefix("dependencies.") {
                dependencies.insert(one.to_owned());
            }
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            let of_target = section.starts_with("target.") && section.ends_with(".dependencies");
            match section.as_str() {
                "package" if key == "name" => name = value.trim().trim_matches('"').to_owned(),
                "dependencies" | "build-dependencies" => {
                    dependencies.insert(key.to_owned());
                }
                _ if of_target => {
                    dependencies.insert(key.to_owned());
                }
                _ => {}
            }
        }
    }
    Package { name, dependencies, folder: manifest.parent().unwrap().to_owned() }
}

#[test]
fn dependencies_point_one_way() {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages() {
        if matches!(package.name.as_str(), "loadline" | "loadline-tests") {
            continue;
        }
        let Some(allowed) = rules.get(package.name.as_str()) else {
            wrong.push(format!("{} is new: say in this table what it may use", package.name));
            continue;
        };
        for used in package.dependencies.iter().filter(|d| *d == "loadline" || d.starts_with("loadline-")) {
            if !allowed.contains(&used.as_str()) {
                wrong.push(format!(
                    "{} uses {used}; it may use {allowed:?} (DESIGN: dependencies)",
                    package.name
                ));
            }
        }
        for (library, homes) in ONLY_IN {
            if package.dependencies.contains(*library) && !homes.contains(&package.name.as_str()) {
                wrong.push(format!("{} uses {library}, which only {homes:?} may know", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn packages_are_members_of_the_workspace() {
    let workspace = read(&repository().join("Cargo.toml"));
    for package in packages() {
        let member = format!("\"{}\"", package.folder.display());
        assert!(workspace.contains(&member), "{} is not among the members of Cargo.toml", package.name);
    }
}

/// `plan.rs`, what lies in `plan/`, and the autoscaler's `decide`: time, identity and randomness are passed in.
fn is_pure(path: &Path) -> bool {
    let has = |name: &str| path.components().any(|c| c.as_os_str() == name);
    let stem = path.file_stem().unwrap_or_default();
    (stem == "plan" || stem == "decide" || has("plan") || has("decide")) && has("src")
}

/// Text that makes a function impure. Tests within are read too: they have no need of these either.
const IMPURE: &[&str] = &[
    "async fn",
    "async move",
    "async {",
    ".await",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "Utc::now",
    "rand::",
    "thread_rng",
    "Uuid::new",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::env::var",
    "kube::Client",
    "kube::Api",
    "println!",
    "reqwest",
];

/// The code of a file without its comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn plans_are_pure() {
    let pure: Vec<PathBuf> = rust_files().into_iter().filter(|path| is_pure(path)).collect();
    assert!(pure.len() >= 5, "the rule has lost its files: {pure:?}");
    let mut wrong = Vec::new();
    for path in &pure {
        let text = read(&repository().join(path));
        for (number, line) in code(&text) {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|what| line.contains(**what))
                    .map(|what| format!("{}:{number}: {what}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "a plan has no async, clock, randomness or IO; pass them in: {wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let missing = rust_files().into_iter().filter(|path| {
        let text = read(&repository().join(path));
        // Scripts and attributes may come first; the first line of text has to be the module's.
        let first = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with("#!"));
        !first.is_some_and(|line| line.starts_with("//!"))
    });
    let missing: Vec<PathBuf> = missing.collect();
    assert!(missing.is_empty(), "these begin without `//!` docs: {missing:#?}");
}

#[test]
fn no_module_is_a_mod_rs() {
    let wrong: Vec<PathBuf> = rust_files().into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(wrong.is_empty(), "name the file after its module: {wrong:?}");
}

#[test]
fn nothing_is_left_undone() {
    let mut wrong = Vec::new();
    for path in rust_files().into_iter().filter(|path| !path.ends_with("tidy.rs")) {
        let text = read(&repository().join(&path));
        for (number, line) in code(&text) {
            let line = line.trim();
            let undone = ["todo!(", "unimplemented!(", "dbg!("].iter().any(|what| line.contains(what));
            // `#[ignore = "why"]` is the form with a reason.
            if undone || line == "#[ignore]" {
                wrong.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Put together here so that this file does not name them itself.
fn unwanted() -> Vec<(String, &'static str)> {
    let join = |parts: &[&str], between: &str| parts.join(between);
    vec![
        (join(&["docker", "io/"], "."), "a registry's host"),
        (join(&["index", "docker", "io"], "."), "a registry's host"),
        (join(&["registry", "k8s", "io"], "."), "a registry's host"),
        (join(&["k8s", "gcr", "io"], "."), "a registry's host"),
        (join(&["gcr", "io/"], "."), "a registry's host"),
        (join(&["quay", "io"], "."), "a registry's host"),
        (join(&["ghcr", "io"], "."), "a registry's host"),
        (join(&["mcr", "microsoft", "com"], "."), "a registry's host"),
        (join(&["public", "ecr", "aws"], "."), "a registry's host"),
        (join(&["", "work", "main"], "/"), "a path of one machine"),
        (join(&["", "work", "shared"], "/"), "a path of one machine"),
        (join(&["", "tmp", "w", ""], "/"), "a path of one machine"),
        (join(&["", "home", ""], "/"), "a path of one machine"),
        (join(&["", "root", "."], "/"), "a path of one machine"),
    ]
}

const TEXT: &[&str] =
    &["rs", "md", "toml", "yaml", "yml", "json", "py", "sh", "tsv", "html", "svelte", "ts", "js", "txt", ""];

#[test]
fn no_registry_and_no_machine_is_named() {
    let unwanted = unwanted();
    let mut wrong = Vec::new();
    for path in files() {
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(text) = std::fs::read_to_string(repository().join(&path)) else { continue };
        if !TEXT.contains(&extension.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for (what, why) in unwanted.iter().filter(|(what, _)| names(line, what)) {
                wrong.push(format!("{}:{}: {what}: {why}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether `what` stands in `line` by itself and not at the end of a longer name.
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        !before.is_some_and(inside) || what.starts_with('/') && !before.is_some_and(|c| inside(c) || c == '/')
    })
}
