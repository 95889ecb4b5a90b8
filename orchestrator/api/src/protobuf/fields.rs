//! The table of field numbers, `data/protobuf-fields.tsv`. A message that is embedded in another has its fields listed
//! under its own name; in JSON they are fields of what embeds it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::schema::short_name;

const TABLE: &str = include_str!("../../data/protobuf-fields.tsv");

/// What a field number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A field, by its JSON name.
    Field(&'static str),
    /// A message whose fields are the parent's own.
    Embedded(&'static str),
}

/// The numbers of a message's fields, ascending.
pub(super) type Numbers = [(u32, Slot)];

static MESSAGES: LazyLock<HashMap<&'static str, Vec<(u32, Slot)>>> = LazyLock::new(|| rows().collect());

/// The fields of a definition, given by its full OpenAPI name or by its last three parts.
pub(super) fn of(definition: &str) -> Option<&'static Numbers> {
    MESSAGES.get(short_name(definition)).map(Vec::as_slice)
}

pub(super) fn slot(numbers: &Numbers, number: u32) -> Option<Slot> {
    let at = numbers.binary_search_by_key(&number, |(n, _)| *n).ok()?;
    numbers.get(at).map(|(_, slot)| *slot)
}

fn rows() -> impl Iterator<Item = (&'static str, Vec<(u32, Slot)>)> {
    TABLE.lines().filter(|l| !l.starts_with('#')).filter_map(|line| {
        let (message, fields) = line.split_once('\t')?;
        Some((message, fields.split(' ').filter_map(entry).collect()))
    })
}

fn entry(text: &'static str) -> Option<(u32, Slot)> {
    let (name, number) = text.split_once('=')?;
    let slot = name.strip_prefix('+').map_or(Slot::Field(name), Slot::Embedded);
    Some((number.parse().ok()?, slot))
}

/// The names of all messages of the table, and the number of its fields as text has them.
#[cfg(test)]
pub(super) fn messages() -> (Vec<&'static str>, usize) {
    let fields = TABLE.lines().filter(|l| !l.starts_with('#')).map(|l| l.matches('=').count()).sum();
    (MESSAGES.keys().copied().collect(), fields)
}
