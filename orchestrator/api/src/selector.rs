//! Label selectors and field selectors: the query-string grammars, the selectors inside objects, and matching.
//! Owns their error texts; knows nothing of where labels are stored or which fields a kind can be selected by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod field;
mod parse;

pub use field::{FieldRequirement, FieldSelector};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Map, Value};

use crate::rules::names;

/// Why a selector was refused, worded as apimachinery does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// Anything that labels can be read from.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|l| l.label(key))
    }
}

impl<T: Labels + ?Sized> Labels for &T {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        let mut errors: Vec<String> = Vec::new();
        if let Some(why) = key_problem(key) {
            errors.push(format!("key: Invalid value: {key:?}: {why}"));
        }
        let count = values.len();
        let wrong = match operator {
            Operator::In | Operator::NotIn if count == 0 => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if count != 1 => {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if count != 0 => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if count != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            errors.push(format!("values: Invalid value: {}: {wrong}", go_strings(&values)));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(format!("values[{i}]: Invalid value: {value:?}: {why}"));
            }
            if let Some(why) = value_problem(value) {
                errors.push(format!("values[{i}][{key}]: Invalid value: {value:?}: {why}"));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values: values.into_iter().collect() }),
            [one] => Err(SelectorError(one.clone())),
            many => Err(SelectorError(format!("[{}]", many.join(", ")))),
        }
    }

    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let found = labels.label(&self.key);
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => found.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan => self.compares(found, |a, b| a > b),
            Operator::LessThan => self.compares(found, |a, b| a < b),
        }
    }

    fn compares(&self, found: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let left = found.and_then(|v| v.parse().ok());
        let right = self.values.first().and_then(|v| v.parse().ok());
        matches!((left, right), (Some(a), Some(b)) if holds(a, b))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// What an absent `LabelSelector` selects.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// The grammar of the query parameter `labelSelector` and of a scale's `status.selector`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::requirements(text).map(Self::new)
    }

    /// Exactly these labels (a Service's or ReplicationController's selector). An empty set selects everything; nothing
    /// is checked.
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let one = |(k, v): (&str, &str)| Requirement {
            key: k.to_owned(),
            operator: Operator::Equals,
            values: vec![v.to_owned()],
        };
        Self::new(labels.into_iter().map(one).collect())
    }

    /// `metav1.LabelSelector` as k8s-openapi has it: `None` selects nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut all = Vec::new();
        for (k, v) in selector.match_labels.iter().flatten() {
            all.push(Requirement::new(k, Operator::Equals, BTreeSet::from([v.clone()]))?);
        }
        for e in selector.match_expressions.iter().flatten() {
            let values = e.values.iter().flatten().cloned().collect();
            all.push(Requirement::new(&e.key, set_operator(&e.operator)?, values)?);
        }
        Ok(Self::new(all))
    }

    /// The same from JSON; what is not of the right type counts as absent, as decoding has refused it before.
    pub fn from_value(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|v| !v.is_null()) else { return Ok(Self::nothing()) };
        let mut all = Vec::new();
        for (k, v) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = v.as_str().unwrap_or_default().to_owned();
            all.push(Requirement::new(k, Operator::Equals, BTreeSet::from([value]))?);
        }
        for e in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| e.get(name).and_then(Value::as_str).unwrap_or_default();
            let values = e.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            all.push(Requirement::new(text("key"), set_operator(text("operator"))?, values)?);
        }
        Ok(Self::new(all))
    }

    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            write!(f, "{}{r}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn set_operator(name: &str) -> Result<Operator, SelectorError> {
    match name {
        "In" => Ok(Operator::In),
        "NotIn" => Ok(Operator::NotIn),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        _ => Err(SelectorError(format!("{name:?} is not a valid label selector operator"))),
    }
}

fn go_strings(values: &BTreeSet<String>) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", quoted.join(","))
}

/// Why a label key is not a qualified name.
fn key_problem(key: &str) -> Option<String> {
    let problems = names::qualified_name(key);
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn value_problem(value: &str) -> Option<String> {
    let problems = names::label_value(value);
    (!problems.is_empty()).then(|| problems.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn parsing_and_matching() {
        let labels = set(&[("app", "web"), ("tier", "2"), ("example.com/x", ""), ("in", "notin")]);
        let cases = [
            ("", true, ""),
            ("app=web", true, "app=web"),
            ("app==web", true, "app==web"),
            ("app!=web", false, "app!=web"),
            ("other!=web", true, "other!=web"),
            ("app in (web, db)", true, "app in (db,web)"),
            ("app notin (web)", false, "app notin (web)"),
            ("other notin (a)", true, "other notin (a)"),
            ("other in (a)", false, "other in (a)"),
            ("app", true, "app"),
            ("!app", false, "!app"),
            ("!other", true, "!other"),
            ("tier>1", true, "tier>1"),
            ("tier<1", false, "tier<1"),
            ("app>1", false, "app>1"),
            ("app in ()", false, "app in ()"),
            ("example.com/x in (,a)", true, "example.com/x in (,a)"),
            ("example.com/x=", true, "example.com/x="),
            ("in in (notin)", true, "in in (notin)"),
            (" tier = 2 , app=web ", true, "app=web,tier=2"),
        ];
        for (text, want, shown) in cases {
            let s = Selector::parse(text).unwrap();
            assert_eq!(s.matches(&labels), want, "{text}");
            assert_eq!(s.to_string(), shown);
        }
        let none: Option<&Value> = None;
        assert!(Selector::parse("!a").unwrap().matches(&none));
        assert!(Selector::parse("a=1").unwrap().matches(&json!({"a": "1"})));
    }

    #[test]
    fn bad_label_selectors() {
        let cases = [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("i=x y", "found 'y', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
            ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ];
        for (text, want) in cases {
            assert_eq!(Selector::parse(text).unwrap_err().to_string(), want, "{text}");
        }
        let starts = [
            (
                "a=-b",
                "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be",
            ),
            ("-a", "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"),
            (
                "/a",
                "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be non-empty",
            ),
            (
                "a/b/c",
                "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of",
            ),
        ];
        for (text, want) in starts {
            let got = Selector::parse(text).unwrap_err().to_string();
            assert!(got.starts_with(want), "{text}: {got}");
        }
    }

    #[test]
    fn selectors_in_objects() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
        let from_json = Selector::from_value(Some(&selector)).unwrap();
        assert_eq!(from_json, Selector::from_label_selector(Some(&typed)).unwrap());
        assert_eq!(from_json.to_string(), "a=1,b in (x,y),!c");
        assert!(from_json.matches(&json!({"a": "1", "b": "y"})));
        assert!(!from_json.matches(&json!({"a": "1", "b": "y", "c": ""})));
        assert!(!Selector::from_value(None).unwrap().matches(&json!({})));
        assert!(Selector::from_value(Some(&json!({}))).unwrap().is_everything());
        let bad = json!({"matchExpressions": [{"key": "b", "operator": "Near"}]});
        let message = Selector::from_value(Some(&bad)).unwrap_err().to_string();
        assert_eq!(message, "\"Near\" is not a valid label selector operator");
        let empty = json!({"matchExpressions": [{"key": "b", "operator": "In"}]});
        let message = Selector::from_value(Some(&empty)).unwrap_err().to_string();
        assert_eq!(
            message,
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        );
    }
}
