//! The tables of facts under `data/`: how lists and maps merge, what Go's encoder leaves out, named Go types, defaults.
//!
//! The rule that the Go table corrects: a required field is always written; an optional scalar, list or map is left out
//! when it has its zero value; an optional struct, time or quantity is a pointer, so it is written when it was given.

use std::collections::HashMap;

use serde_json::Value;

const MERGE_KEYS: &str = include_str!("../../data/merge-keys.tsv");
const OWN_MERGE_KEYS: &str = include_str!("../../data/own-merge-keys.tsv");
const GO_FIELDS: &str = include_str!("../../data/go-fields.tsv");
const GO_TYPES: &str = include_str!("../../data/go-types.tsv");
const DEFAULTS: &str = include_str!("../../data/defaults.tsv");

/// One row of `merge-keys.tsv`. `(self)` rows describe the struct itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Merge {
    /// `atomic list`, `set list`, `map list`, `atomic map`, `granular map` or empty.
    pub(super) shape: &'static str,
    pub(super) keys: &'static str,
    pub(super) strategy: &'static str,
    pub(super) patch_key: &'static str,
}

/// How the Go field departs from the rule.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum GoField {
    /// A pointer with `omitempty`.
    Pointer,
    /// Always written.
    Value,
    /// A pointer without `omitempty`: `null` if absent.
    Null,
}

pub(super) struct Facts {
    merge: HashMap<(&'static str, &'static str), Merge>,
    go_fields: HashMap<(&'static str, &'static str), GoField>,
    go_types: HashMap<(&'static str, &'static str), &'static str>,
    defaults: HashMap<(&'static str, &'static str), &'static str>,
}

impl Facts {
    pub(super) fn load() -> Self {
        Self {
            merge: merge_rows(),
            go_fields: go_field_rows(),
            go_types: go_type_rows(),
            defaults: default_rows(),
        }
    }

    pub(super) fn merge(&self, definition: &str, field: &str) -> Merge {
        get(&self.merge, definition, field).unwrap_or_default()
    }

    pub(super) fn go_field(&self, definition: &str, field: &str) -> Option<GoField> {
        get(&self.go_fields, definition, field)
    }

    pub(super) fn go_type(&self, definition: &str, field: &str) -> Option<&'static str> {
        get(&self.go_types, definition, field)
    }

    pub(super) fn default(&self, definition: &str, field: &str) -> Option<Value> {
        get(&self.defaults, definition, field).and_then(|text| serde_json::from_str(text).ok())
    }
}

/// `core.v1.PodSpec` for `io.k8s.api.core.v1.PodSpec`: the last three parts.
pub(crate) fn short_name(definition: &str) -> &str {
    let dots = definition.rmatch_indices('.').nth(2);
    dots.map_or(definition, |(at, _)| &definition[at + 1..])
}

fn get<V: Copy>(map: &HashMap<(&'static str, &'static str), V>, definition: &str, field: &str) -> Option<V> {
    // A key of borrowed parts cannot be looked up without a lifetime of its own; the shorter one coerces.
    let map: &HashMap<(&str, &str), V> = map;
    map.get(&(definition, field)).copied()
}

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.split('\t').collect())
}

fn column(row: &[&'static str], i: usize) -> &'static str {
    row.get(i).copied().unwrap_or_default()
}

fn merge_rows() -> HashMap<(&'static str, &'static str), Merge> {
    let row = |r: Vec<&'static str>| {
        let merge = Merge {
            shape: column(&r, 2),
            keys: column(&r, 3),
            strategy: column(&r, 4),
            patch_key: column(&r, 5),
        };
        ((column(&r, 0), column(&r, 1)), merge)
    };
    rows(MERGE_KEYS).chain(rows(OWN_MERGE_KEYS)).map(row).collect()
}

fn go_field_rows() -> HashMap<(&'static str, &'static str), GoField> {
    let mut map = HashMap::new();
    for row in rows(GO_FIELDS) {
        let fact = match column(&row, 2) {
            "pointer" => GoField::Pointer,
            "value" => GoField::Value,
            _ => GoField::Null,
        };
        for field in column(&row, 1).split(',') {
            map.insert((column(&row, 0), field), fact);
        }
    }
    map
}

fn go_type_rows() -> HashMap<(&'static str, &'static str), &'static str> {
    let mut map = HashMap::new();
    for row in rows(GO_TYPES) {
        for (definition, field) in column(&row, 1).split(' ').filter_map(|path| path.rsplit_once('.')) {
            map.insert((definition, field), column(&row, 0));
        }
    }
    map
}

fn default_rows() -> HashMap<(&'static str, &'static str), &'static str> {
    rows(DEFAULTS).map(|r| ((column(&r, 0), column(&r, 1)), column(&r, 2))).collect()
}

/// Facts about fields that `known` denies.
#[cfg(test)]
pub(super) fn unknown_fields(known: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let facts = Facts::load();
    let merge = facts.merge.keys().filter(|(_, f)| *f != "(self)");
    let all = merge.chain(facts.go_fields.keys()).chain(facts.go_types.keys()).chain(facts.defaults.keys());
    let mut unknown: Vec<String> =
        all.filter(|(d, f)| !known(d, f)).map(|(d, f)| format!("{d}.{f}")).collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        for (name, want) in [
            ("io.k8s.api.core.v1.PodSpec", "core.v1.PodSpec"),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "meta.v1.ObjectMeta"),
            ("Plain", "Plain"),
        ] {
            assert_eq!(short_name(name), want);
        }
    }

    #[test]
    fn the_tables_parse() {
        let facts = Facts::load();
        assert!(facts.merge.len() > 400 && facts.go_fields.len() > 150);
        for default in facts.defaults.values() {
            serde_json::from_str::<Value>(default).unwrap();
        }
    }
}
