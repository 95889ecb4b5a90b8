//! The query parameters of each verb, checked as Kubernetes checks them.

use loadline_api::field::FieldError;
use loadline_api::selector::{FieldSelector, Selector};
use loadline_api::status::ApiError;
use serde_json::Value;

use crate::request::Query;
use crate::respond::{Failure, Result};

/// An error about the options themselves.
pub(crate) fn invalid(kind: &str, errors: &[FieldError]) -> Failure {
    ApiError::invalid("meta.k8s.io", kind, "", errors).into()
}

/// Which state a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The most recent.
    Latest,
    Any,
    NotOlderThan(u64),
    Exact(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
    pub(crate) at: At,
    pub(crate) limit: usize,
    pub(crate) cursor: Option<String>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self> {
        let version = query.text("resourceVersion");
        let matching = query.text("resourceVersionMatch");
        let cursor = query.text("continue");
        let limit = number(query, "limit")?.unwrap_or(0);
        let (labels, fields) = selectors(query)?;
        let errors = check_list(version, matching, cursor, query.text("sendInitialEvents").is_some());
        if !errors.is_empty() {
            return Err(invalid("ListOptions", &errors));
        }
        let at = match (version, matching) {
            // A token holds its revision; `resourceVersion` beside it must be 0 or absent.
            _ if cursor.is_some() => At::Latest,
            (None, _) => At::Latest,
            (Some(text), matching) => match (revision(text)?, matching) {
                (0, _) => At::Any,
                (n, Some("Exact")) => At::Exact(n),
                // Without a match, a limit asks for exactly the revision.
                (n, None) if limit > 0 => At::Exact(n),
                (n, _) => At::NotOlderThan(n),
            },
        };
        if cursor.is_some() && version.is_some_and(|v| v != "0") {
            let message = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(message).into());
        }
        let limit = usize::try_from(limit).unwrap_or(0);
        // Reads that take any state are answered whole.
        let limit = if at == At::Any && cursor.is_none() { 0 } else { limit };
        Ok(Self { labels, fields, at, limit, cursor: cursor.map(str::to_owned) })
    }
}

fn check_list(
    version: Option<&str>,
    matching: Option<&str>,
    cursor: Option<&str>,
    send_initial_events: bool,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = "resourceVersionMatch";
    if let Some(matching) = matching {
        if version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(field, why));
        }
        if cursor.is_some() {
            errors.push(FieldError::forbidden(
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            let supported = &["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(field, &Value::from(matching), supported));
        }
        if matching == "Exact" && version == Some("0") {
            let why = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            errors.push(FieldError::forbidden(field, why));
        }
    }
    if send_initial_events {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

#[derive(Clone, Debug)]
pub(crate) struct WatchOptions {
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
    /// `None` where there is none in the query.
    pub(crate) version: Option<u64>,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) bookmarks: bool,
    pub(crate) timeout_seconds: Option<u64>,
}

impl WatchOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self> {
        let timeout = number(query, "timeoutSeconds")?;
        let (labels, fields) = selectors(query)?;
        let matching = query.text("resourceVersionMatch");
        let send = query.text("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let field = "resourceVersionMatch";
        let mut errors = Vec::new();
        if send.is_some() && matching != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(field, why));
        }
        if let Some(matching) = matching {
            if send.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(field, why));
            }
            if matching != "NotOlderThan" {
                errors.push(FieldError::not_supported(field, &Value::from(matching), &["NotOlderThan"]));
            }
            if query.text("continue").is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(field, why));
            }
        }
        if !errors.is_empty() {
            return Err(invalid("ListOptions", &errors));
        }
        let version = match query.text("resourceVersion") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Failure::Bare(bad_revision(text)))?),
        };
        Ok(Self {
            labels,
            fields,
            version,
            send_initial_events: send,
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout_seconds: timeout.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0),
        })
    }
}

fn selectors(query: &Query) -> Result<(Selector, FieldSelector)> {
    let bad = |e: loadline_api::selector::SelectorError| Failure::Api(ApiError::bad_request(e.to_string()));
    let labels = query.text("labelSelector").map_or_else(|| Ok(Selector::everything()), Selector::parse);
    let fields =
        query.text("fieldSelector").map_or_else(|| Ok(FieldSelector::default()), FieldSelector::parse);
    Ok((labels.map_err(bad)?, fields.map_err(bad)?))
}

/// A decimal revision, or the error that Kubernetes answers.
pub(crate) fn revision(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!("invalid resource version: {}", bad_revision(text))).into()
    })
}

fn bad_revision(text: &str) -> String {
    format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax")
}

fn number(query: &Query, name: &str) -> Result<Option<i64>> {
    let Some(text) = query.text(name) else { return Ok(None) };
    let parsed = text.parse::<i64>();
    parsed.map(Some).map_err(|_| {
        ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")).into()
    })
}

/// Which state a get asks for.
pub(crate) fn get_at(query: &Query) -> Result<At> {
    Ok(match query.text("resourceVersion") {
        None => At::Latest,
        Some(text) => match revision(text)? {
            0 => At::Any,
            n => At::NotOlderThan(n),
        },
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What create, update and patch share.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    pub(crate) manager: String,
    pub(crate) force: bool,
}

impl WriteOptions {
    /// `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`; `apply` for a server-side apply patch.
    pub(crate) fn parse(query: &Query, kind: &str, apply: bool, user_agent: &str) -> Result<Self> {
        let mut errors = check_dry_run(&query.all("dryRun").map(str::to_owned).collect::<Vec<_>>());
        let named = query.text("fieldManager");
        let force = query.get("force").map(|_| query.flag("force"));
        if kind == "PatchOptions" {
            if apply && named.is_none() {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            if !apply && force.is_some() {
                errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
        }
        if let Some(manager) = named {
            errors.extend(check_manager(manager));
        }
        let validation = match query.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = &["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", &Value::from(other), supported));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(invalid(kind, &errors));
        }
        Ok(Self {
            dry_run: query.text("dryRun").is_some(),
            validation,
            manager: named.map_or_else(|| manager_from(user_agent), str::to_owned),
            force: force.unwrap_or(false),
        })
    }
}

/// The default field manager: the user agent up to the first `/`, as Kubernetes cuts it.
fn manager_from(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let clean: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    if clean.is_empty() { "unknown".to_owned() } else { clean }
}

fn check_manager(manager: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.chars().count() > 128 {
        let kind = loadline_api::field::FieldErrorKind::TooLong;
        errors.push(FieldError::new(kind, "fieldManager", "Too long: may not be more than 128 bytes"));
    }
    if manager.chars().any(char::is_control) {
        let why = "should only contain printable characters";
        errors.push(FieldError::invalid("fieldManager", &Value::from(manager), why));
    }
    errors
}

fn check_dry_run(values: &[String]) -> Vec<FieldError> {
    let given: Vec<&String> = values.iter().filter(|v| !v.is_empty()).collect();
    if given.iter().all(|v| *v == "All") {
        return Vec::new();
    }
    let value = Value::from(given.into_iter().cloned().collect::<Vec<_>>());
    vec![FieldError::not_supported("dryRun", &value, &["All"])]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) orphan: Option<bool>,
}

impl DeleteOptions {
    /// From the query, or from a body where there is one.
    pub(crate) fn parse(query: &Query, body: Option<&Value>) -> Result<Self> {
        let body = body.filter(|b| b.is_object());
        let field = |name: &str| body.and_then(|b| b.get(name)).filter(|v| !v.is_null());
        let (dry_run, propagation, grace, orphan) = match body {
            Some(_) => (
                field("dryRun")
                    .and_then(Value::as_array)
                    .map(|l| l.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
                field("propagationPolicy").and_then(Value::as_str).map(str::to_owned),
                field("gracePeriodSeconds").and_then(Value::as_i64),
                field("orphanDependents").and_then(Value::as_bool),
            ),
            None => (
                query.all("dryRun").map(str::to_owned).collect::<Vec<_>>(),
                query.text("propagationPolicy").map(str::to_owned),
                number(query, "gracePeriodSeconds")?,
                query.text("orphanDependents").map(|_| query.flag("orphanDependents")),
            ),
        };
        let mut errors = Vec::new();
        if let (Some(policy), Some(_)) = (&propagation, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", &Value::from(policy.as_str()), why));
        }
        let parsed = match propagation.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = &["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported("propagationPolicy", &Value::from(other), supported));
                None
            }
        };
        errors.extend(check_dry_run(&dry_run));
        if !errors.is_empty() {
            return Err(invalid("DeleteOptions", &errors));
        }
        let condition = |name: &str| {
            field("preconditions").and_then(|p| p.get(name)).and_then(Value::as_str).map(str::to_owned)
        };
        Ok(Self {
            dry_run: dry_run.iter().any(|d| !d.is_empty()),
            grace,
            uid: condition("uid"),
            version: condition("resourceVersion"),
            propagation: parsed,
            orphan,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListOptions, String> {
        ListOptions::parse(&Query::parse(Some(query))).map_err(|e| e.to_string())
    }

    #[test]
    fn list_options() {
        assert_eq!(list("").unwrap().at, At::Latest);
        assert_eq!(list("resourceVersion=0&limit=5").unwrap().limit, 0);
        assert_eq!(list("resourceVersion=7").unwrap().at, At::NotOlderThan(7));
        assert_eq!(list("resourceVersion=7&limit=1").unwrap().at, At::Exact(7));
        assert_eq!(list("resourceVersion=7&resourceVersionMatch=Exact").unwrap().at, At::Exact(7));
        assert_eq!(list("limit=-1").unwrap().limit, 0);
        for (query, text) in [
            ("resourceVersionMatch=Exact", "forbidden unless resourceVersion"),
            ("resourceVersion=0&resourceVersionMatch=Exact", r#""exact" is forbidden"#),
            ("resourceVersion=1&resourceVersionMatch=No", "Unsupported value"),
            ("resourceVersion=x", "invalid resource version"),
            ("limit=x", "strconv.ParseInt"),
            ("sendInitialEvents=true", "forbidden for list"),
            ("continue=abc&resourceVersion=3", "not allowed when using continue"),
            ("labelSelector=a+b", "unable to parse requirement"),
        ] {
            let error = list(query).unwrap_err();
            assert!(error.contains(text), "{query}: {error}");
        }
    }

    #[test]
    fn write_options() {
        let parse = |q: &str, kind: &str, apply| {
            WriteOptions::parse(&Query::parse(Some(q)), kind, apply, "kubectl/v1.36 (linux)")
                .map_err(|e| e.to_string())
        };
        let plain = parse("", "CreateOptions", false).unwrap();
        assert_eq!((plain.manager.as_str(), plain.dry_run), ("kubectl", false));
        assert!(parse("dryRun=All", "CreateOptions", false).unwrap().dry_run);
        assert!(
            parse("dryRun=Some", "CreateOptions", false).unwrap_err().contains(r#"supported values: "All""#)
        );
        assert!(parse("", "PatchOptions", true).unwrap_err().contains("is required for apply patch"));
        assert!(parse("force=true", "PatchOptions", false).unwrap_err().contains("non-apply"));
        assert!(parse("fieldManager=m&force=true", "PatchOptions", true).unwrap().force);
        assert!(parse("fieldValidation=Bogus", "CreateOptions", false).is_err());
    }

    #[test]
    fn delete_options() {
        let parse = |q: &str, body: Option<Value>| {
            DeleteOptions::parse(&Query::parse(Some(q)), body.as_ref()).map_err(|e| e.to_string())
        };
        assert_eq!(parse("gracePeriodSeconds=5", None).unwrap().grace, Some(5));
        let body = serde_json::json!({"preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
        let options = parse("", Some(body)).unwrap();
        assert_eq!((options.uid.as_deref(), options.propagation), (Some("u"), Some(Propagation::Foreground)));
        assert!(parse("propagationPolicy=Bogus", None).unwrap_err().contains(r#""nil""#));
        let both = serde_json::json!({"propagationPolicy": "Background", "orphanDependents": true});
        assert!(parse("", Some(both)).unwrap_err().contains("cannot be both set"));
    }
}
