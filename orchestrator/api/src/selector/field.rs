//! Field selectors: `metadata.name=a,status.phase!=Running`.

use std::borrow::Cow;
use std::fmt;

use super::SelectorError;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    /// `!=`
    pub negated: bool,
    pub value: String,
}

impl fmt::Display for FieldRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.field, if self.negated { "!=" } else { "=" })?;
        for c in self.value.chars() {
            if matches!(c, '\\' | ',' | '=') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

/// A field selector: all terms must hold. Which fields exist is for the kind to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// The grammar of the query parameter `fieldSelector`: `a=b,c!=d`, with `\` before a literal `\`, `,` or `=`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = split_terms(text);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|t| !t.is_empty()) {
            let Some((field, negated, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            requirements.push(FieldRequirement { field: field.to_owned(), negated, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `value_of` gives a field's value as text, empty where the object has none.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.requirements.iter().all(|r| (value_of(&r.field) == r.value.as_str()) != r.negated)
    }

    /// The value that a field must have, where the selector names one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let found = self.requirements.iter().find(|r| r.field == field && !r.negated);
        found.map(|r| r.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            write!(f, "{}{r}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let (field, rest) = term.split_at(i);
        if let Some(value) = rest.strip_prefix("!=") {
            return Some((field, true, value));
        }
        if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            return Some((field, false, value));
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let bad = |sequence: &str| {
        SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}"))
    };
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return Err(bad(&format!("\\{e}"))),
                None => return Err(bad("\\")),
            },
            // Kubernetes prints the character's number.
            ',' | '=' => {
                let number = u32::from(c);
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {number}"
                )));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors() {
        let s = FieldSelector::parse("spec.nodeName=n1,metadata.name!=a\\,b\\=c,,x==").unwrap();
        assert_eq!(s.to_string(), "metadata.name!=a\\,b\\=c,spec.nodeName=n1,x=");
        assert_eq!(s.exact("spec.nodeName"), Some("n1"));
        assert_eq!(s.exact("metadata.name"), None);
        let value = |f: &str| Cow::Borrowed(if f == "spec.nodeName" { "n1" } else { "" });
        assert!(s.matches(value));
        assert!(FieldSelector::parse("").unwrap().is_everything());
        let bad = [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
            ("a=x\\", "invalid field selector: invalid escape sequence: \\"),
        ];
        for (text, want) in bad {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), want);
        }
    }
}
