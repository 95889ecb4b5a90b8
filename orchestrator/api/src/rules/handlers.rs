//! Probes and life-cycle hooks of containers.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, invalid_each};
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{at, get, has, int, list, opt_int, text};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const PROBE_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// Hooks and probes of a container that may have them. `grace` is the pod's `terminationGracePeriodSeconds`.
pub(super) fn container(errs: &mut Errors, c: &Value, grace: Option<i64>, path: &Path<'_>) {
    if let Some(lifecycle) = get(c, "lifecycle") {
        let path = path.child("lifecycle");
        for key in ["postStart", "preStop"] {
            if let Some(hook) = get(lifecycle, key) {
                handler(errs, hook, HOOK_HANDLERS, grace, &path.child(key));
            }
        }
    }
    for key in PROBES {
        if let Some(p) = get(c, key) {
            probe(errs, key, p, &path.child(key));
        }
    }
}

/// Refuses hooks and probes of an init container that ends.
pub(super) fn forbid(errs: &mut Errors, c: &Value, path: &Path<'_>) {
    for key in ["lifecycle"].iter().chain(&PROBES) {
        if has(c, key) {
            let why = "may not be set for init containers without restartPolicy=Always";
            errs.push(FieldError::forbidden(path.child(key), why));
        }
    }
}

fn probe(errs: &mut Errors, kind: &str, p: &Value, path: &Path<'_>) {
    handler(errs, p, PROBE_HANDLERS, None, path);
    let counts =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    checks::nonnegative_all(errs, p, &counts, path);
    if let Some(grace) = opt_int(p, "terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if grace <= 0 {
            errs.push(FieldError::invalid(path, &json!(grace), "must be greater than 0"));
        }
        if kind == "readinessProbe" {
            errs.push(FieldError::invalid(path, &json!(grace), "must not be set for readinessProbes"));
        }
    }
    if kind != "readinessProbe" && int(p, "successThreshold") != 1 {
        let shown = json!(int(p, "successThreshold"));
        errs.push(FieldError::invalid(path.child("successThreshold"), &shown, "must be 1"));
    }
}

fn handler(errs: &mut Errors, h: &Value, kinds: &[&str], grace: Option<i64>, path: &Path<'_>) {
    let mut found = false;
    for key in kinds.iter().filter(|k| has(h, k)) {
        if found {
            errs.push(FieldError::forbidden(path.child(key), "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        action(errs, key, at(h, key), grace, &path.child(key));
    }
    if !found {
        errs.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn action(errs: &mut Errors, kind: &str, a: &Value, grace: Option<i64>, path: &Path<'_>) {
    match kind {
        "exec" => {
            if list(a, "command").is_empty() {
                errs.push(FieldError::required(path.child("command"), ""));
            }
        }
        "httpGet" => http_get(errs, a, path),
        "sleep" => sleep(errs, a, grace, path),
        _ => checks::port_number_or_name(errs, get(a, "port"), path.child("port")),
    }
}

fn http_get(errs: &mut Errors, a: &Value, path: &Path<'_>) {
    checks::required_text(errs, a, "path", path);
    checks::port_number_or_name(errs, get(a, "port"), path.child("port"));
    checks::one_of(errs, text(a, "scheme"), &["HTTP", "HTTPS"], path.child("scheme"));
    for header in list(a, "httpHeaders") {
        let name = text(header, "name");
        invalid_each(errs, path.child("httpHeaders"), name, names::http_header(name));
    }
}

fn sleep(errs: &mut Errors, a: &Value, grace: Option<i64>, path: &Path<'_>) {
    let seconds = int(a, "seconds");
    if let Some(grace) = grace.filter(|g| seconds < 0 || seconds > *g) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errs.push(FieldError::invalid(path, &json!(seconds), &why));
    }
}
