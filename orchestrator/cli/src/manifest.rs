//! Objects that the user names with `-f`: files, directories, or `-` for standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use loadline_api::yaml;
use serde_json::Value;

/// All objects in order; lists are taken apart.
pub fn read(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        for (name, text) in texts(file)? {
            for document in yaml::documents(&text) {
                let document = document.with_context(|| format!("reading {name}"))?;
                if let Some(twice) = document.duplicates.first() {
                    bail!("{name}: the key {twice} is there twice");
                }
                flatten(document.value, &name, &mut objects)?;
            }
        }
    }
    if objects.is_empty() {
        bail!("there is no object in what -f names");
    }
    Ok(objects)
}

fn texts(file: &Path) -> Result<Vec<(String, String)>> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(vec![("standard input".to_owned(), text)]);
    }
    let shown = |p: &Path| p.display().to_string();
    if !file.is_dir() {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        return Ok(vec![(shown(file), text)]);
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(file)
        .with_context(|| format!("reading {}", file.display()))?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|p| {
            Ok((shown(p), std::fs::read_to_string(p).with_context(|| format!("reading {}", p.display()))?))
        })
        .collect()
}

fn flatten(document: Value, file: &str, objects: &mut Vec<Value>) -> Result<()> {
    if document.is_null() {
        return Ok(());
    }
    if document["kind"].as_str().is_some_and(|k| k.ends_with("List")) && document["items"].is_array() {
        for item in document["items"].as_array().cloned().unwrap_or_default() {
            flatten(item, file, objects)?;
        }
        return Ok(());
    }
    for key in ["apiVersion", "kind"] {
        if !document[key].is_string() {
            bail!("{file}: an object has no {key}");
        }
    }
    objects.push(document);
    Ok(())
}
