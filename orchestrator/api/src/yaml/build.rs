//! Builds values from the events of the parser.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};
use serde_json::{Map, Value};

use super::{Document, YamlError, scalar};

pub(super) const MAX_DEPTH: usize = 100;
/// How many nodes aliases may add to a document.
const MAX_ALIASED: usize = 100_000;

type Result<T> = std::result::Result<T, YamlError>;

/// A node and how many nodes it holds, itself included.
struct Node {
    value: Value,
    size: usize,
    /// A plain `<<`, which merges the mappings that follow it.
    merge_key: bool,
}

pub(super) struct Builder<'t> {
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, (Value, usize)>,
    aliased: usize,
    duplicates: Vec<String>,
    line: usize,
    lines: usize,
}

impl<'t> Builder<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let events = Parser::new_from_str(text);
        Self {
            events,
            anchors: HashMap::new(),
            aliased: 0,
            duplicates: Vec::new(),
            line: 1,
            lines: text.lines().count(),
        }
    }

    /// The next document; `None` at the end of the text.
    pub(super) fn document(&mut self) -> Option<Result<Document>> {
        self.anchors.clear();
        self.aliased = 0;
        self.duplicates.clear();
        loop {
            match self.next() {
                Ok(None | Some(Event::StreamEnd)) => return None,
                Ok(Some(Event::DocumentStart(_))) => break,
                Ok(Some(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        let value = self.node(0).map(|node| node.map(|n| n.value).unwrap_or_default());
        // The end of the document belongs to it: there the parser finds what does not.
        let end =
            |value| self.next().map(|_| Document { value, duplicates: std::mem::take(&mut self.duplicates) });
        Some(value.and_then(end))
    }

    fn next(&mut self) -> Result<Option<Event<'t>>> {
        match self.events.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(Some(event))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    /// The next node; `None` at the end of what holds it.
    fn node(&mut self, depth: usize) -> Result<Option<Node>> {
        let Some(event) = self.next()? else { return Ok(None) };
        if depth > MAX_DEPTH {
            return Err(YamlError::Depth { line: self.line });
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge_key = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let plain = style == ScalarStyle::Plain;
                let line = self.line;
                let value = scalar::resolve(&text, plain, tag.as_deref())
                    .map_err(|what| YamlError::Unsupported { line, what })?;
                (anchor, Node { value, size: 1, merge_key })
            }
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(anchor) => return self.alias(anchor).map(Some),
            Event::SequenceEnd | Event::MappingEnd | Event::DocumentEnd | Event::StreamEnd => {
                return Ok(None);
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => return self.node(depth),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.value.clone(), node.size));
        }
        Ok(Some(node))
    }

    fn alias(&mut self, anchor: usize) -> Result<Node> {
        let Some((value, size)) = self.anchors.get(&anchor) else {
            return Err(YamlError::Unsupported { line: self.line, what: "anchor contains itself" });
        };
        self.aliased += size;
        if self.aliased > MAX_ALIASED {
            return Err(YamlError::Aliasing);
        }
        Ok(Node { value: value.clone(), size: *size, merge_key: false })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node> {
        let mut items = Vec::new();
        let mut size = 1;
        while let Some(item) = self.node(depth + 1)? {
            size += item.size;
            items.push(item.value);
        }
        Ok(Node { value: Value::Array(items), size, merge_key: false })
    }

    fn mapping(&mut self, depth: usize) -> Result<Node> {
        let mut map = Map::new();
        let mut merged: Vec<Value> = Vec::new();
        let mut size = 1;
        while let Some(key) = self.node(depth + 1)? {
            let line = self.line;
            let value =
                self.node(depth + 1)?.unwrap_or(Node { value: Value::Null, size: 1, merge_key: false });
            size += key.size + value.size;
            if key.merge_key {
                merged.push(value.value);
                continue;
            }
            let key = scalar::key(key.value).ok_or(YamlError::Unsupported {
                line,
                what: "a key must be a string, a number or a boolean",
            })?;
            if map.contains_key(&key) {
                self.duplicates.push(format!("line {line}: key {key:?} already set in map"));
            }
            map.insert(key, value.value);
        }
        for value in merged {
            self.merge(&mut map, value)?;
        }
        Ok(Node { value: Value::Object(map), size, merge_key: false })
    }

    /// Adds what a merge key brings and the mapping does not say itself; earlier sources win.
    fn merge(&self, map: &mut Map<String, Value>, source: Value) -> Result<()> {
        match source {
            Value::Object(source) => {
                for (key, value) in source {
                    map.entry(key).or_insert(value);
                }
                Ok(())
            }
            Value::Array(sources) if sources.iter().all(Value::is_object) => {
                sources.into_iter().try_for_each(|source| self.merge(map, source))
            }
            _ => Err(YamlError::Unsupported {
                line: self.line,
                what: "map merge requires map or sequence of maps as the value",
            }),
        }
    }

    fn syntax(&self, error: &ScanError) -> YamlError {
        // At the end of a text the parser is one line too far.
        let line = error.marker().line().min(self.lines.max(1));
        let message = error.info().trim_start_matches("while parsing a node, ").to_owned();
        YamlError::Syntax { line, message }
    }
}
