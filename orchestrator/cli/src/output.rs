//! What the user sees: server-side tables, or the objects as JSON, YAML or names.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

pub fn print_object(object: &Value, format: Format) -> Result<()> {
    match format {
        Format::Yaml => print(&loadline_api::yaml::to_yaml(object)),
        _ => print(&format!("{}\n", serde_json::to_string_pretty(object)?)),
    }
}

/// Columns of text, each as wide as its widest cell.
#[derive(Default)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|h| (*h).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..count)
            .map(|i| self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}   ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Which parts of a server-side table are shown.
#[derive(Clone, Copy, Default)]
pub struct TableOptions {
    pub wide: bool,
    pub namespace: bool,
    pub labels: bool,
    pub no_headers: bool,
    /// `pod/a` instead of `a`, when several kinds are listed.
    pub with_kind: bool,
}

/// A `meta.k8s.io/v1` Table as text; `kind` is the singular name for `with_kind`.
pub fn table(table: &Value, kind: &str, options: TableOptions, columns: &mut Columns) {
    let empty = Vec::new();
    let definitions = table["columnDefinitions"].as_array().unwrap_or(&empty);
    let shown: Vec<usize> = definitions
        .iter()
        .enumerate()
        .filter(|(_, c)| options.wide || c["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(i, _)| i)
        .collect();
    if columns.rows.is_empty() && !options.no_headers {
        let mut header = Vec::new();
        if options.namespace {
            header.push("NAMESPACE".to_owned());
        }
        header.extend(
            shown.iter().map(|i| definitions[*i]["name"].as_str().unwrap_or_default().to_uppercase()),
        );
        if options.labels {
            header.push("LABELS".to_owned());
        }
        columns.rows.push(header);
    }
    for row in table["rows"].as_array().unwrap_or(&empty) {
        let meta = &row["object"]["metadata"];
        let mut cells = Vec::new();
        if options.namespace {
            cells.push(meta["namespace"].as_str().unwrap_or_default().to_owned());
        }
        for (nth, i) in shown.iter().enumerate() {
            let text = cell(&row["cells"][*i]);
            cells.push(if nth == 0 && options.with_kind { format!("{kind}/{text}") } else { text });
        }
        if options.labels {
            let labels: Vec<String> = meta["labels"]
                .as_object()
                .map(|l| l.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect())
                .unwrap_or_default();
            cells.push(if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") });
        }
        columns.rows.push(cells);
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(s) => s.lines().next().unwrap_or_default().to_owned(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_hide_wide_columns_and_line_up() {
        let source = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "shop", "labels": {"a": "b"}}}},
                {"cells": ["a-longer-name", 7, null], "object": {"metadata": {"namespace": "shop"}}}],
        });
        let shown = |options| {
            let mut columns = Columns::default();
            table(&source, "pod", options, &mut columns);
            columns.to_string()
        };
        assert_eq!(
            shown(TableOptions::default()),
            "NAME            READY\nweb-1           1/1\na-longer-name   7\n"
        );
        let all =
            TableOptions { wide: true, namespace: true, labels: true, no_headers: true, with_kind: true };
        assert_eq!(
            shown(all),
            "shop   pod/web-1           1/1   10.0.0.1   a=b\nshop   pod/a-longer-name   7     <none>     <none>\n"
        );
    }
}
