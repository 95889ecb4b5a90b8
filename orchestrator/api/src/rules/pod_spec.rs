//! The spec of a pod, as a Pod and as a workload's template has it.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, invalid_each, required_one_of};
use crate::rules::containers::{self, Surroundings};
use crate::rules::path::Path;
use crate::rules::value::{get, has, list, opt_flag, opt_int, text, texts};
use crate::rules::{meta, names, resources, scheduling, security, volumes};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const DNS_NAMESERVERS_MAX: usize = 3;
const DNS_SEARCHES_MAX: usize = 32;
const DNS_SEARCH_CHARS_MAX: usize = 2048;

type NameCheck = fn(&str) -> Vec<String>;

/// Where a pod spec stands. Some rules came too late to bind templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Pod,
    Template,
}

/// Checks a defaulted pod spec at `path`.
pub fn validate(errs: &mut Errors, spec: &Value, scope: Scope, path: &Path<'_>) {
    let grace = opt_int(spec, "terminationGracePeriodSeconds");
    if grace.is_none() {
        errs.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let pod = Surroundings {
        volumes: volumes::volumes(errs, spec, scope, path),
        claims: list(spec, "resourceClaims").iter().map(|c| text(c, "name")).collect(),
        grace,
        restart_policy: text(spec, "restartPolicy"),
        host_users: opt_flag(spec, "hostUsers").unwrap_or(true),
    };
    resource_claims(errs, spec, &path.child("resourceClaims"));
    containers::regular(errs, spec, &pod, path);
    containers::init(errs, spec, &pod, path);
    containers::ephemeral(errs, spec, &pod, path);
    resources::pod(errs, spec, path);
    required_one_of(errs, pod.restart_policy, RESTART_POLICIES, path.child("restartPolicy"));
    required_one_of(errs, text(spec, "dnsPolicy"), DNS_POLICIES, path.child("dnsPolicy"));
    meta::labels(errs, spec, "nodeSelector", path);
    security::pod(errs, spec, path);
    security::host(errs, spec, scope == Scope::Pod, path);
    scheduling::affinity(errs, spec, path);
    dns_config(errs, spec, &path.child("dnsConfig"));
    gates(errs, spec, path);
    scheduling::topology_spread(errs, spec, path);
    identity(errs, spec, path);
    scheduling::tolerations(errs, spec, path);
    host_aliases(errs, spec, &path.child("hostAliases"));
    classes(errs, spec, path);
}

fn resource_claims(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let mut seen = Vec::new();
    for (i, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path.child("name"), ""));
        } else if seen.contains(&name) {
            errs.push(FieldError::duplicate(path.child("name"), &json!(name)));
        } else {
            invalid_each(errs, path.child("name"), name, names::dns1123_label(name));
            seen.push(name);
        }
        let why = match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => continue,
        };
        errs.push(FieldError::invalid(path, claim, why));
    }
}

/// Readiness gates and scheduling gates.
fn gates(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let readiness = path.child("readinessGates");
    for (i, gate) in list(spec, "readinessGates").iter().enumerate() {
        meta::label_name(errs, text(gate, "conditionType"), readiness.index(i).child("conditionType"));
    }
    let scheduling = path.child("schedulingGates");
    let mut seen = Vec::new();
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        meta::label_name(errs, name, scheduling.index(i));
        if seen.contains(&name) {
            errs.push(FieldError::duplicate(scheduling.index(i), &json!(name)));
        }
        seen.push(name);
    }
}

fn identity(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let named: [(&str, NameCheck); 5] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("hostnameOverride", names::dns1123_subdomain),
    ];
    for (key, check) in named {
        let value = text(spec, key);
        if !value.is_empty() {
            invalid_each(errs, path.child(key), value, check(value));
        }
    }
    let range = 1..=i64::from(i32::MAX);
    if let Some(seconds) = opt_int(spec, "activeDeadlineSeconds").filter(|s| !range.contains(s)) {
        let why = "must be between 1 and 2147483647, inclusive";
        errs.push(FieldError::invalid(path.child("activeDeadlineSeconds"), &json!(seconds), why));
    }
}

fn classes(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    for key in ["priorityClassName", "runtimeClassName"] {
        let name = text(spec, key);
        if !name.is_empty() {
            invalid_each(errs, path.child(key), name, names::dns1123_subdomain(name));
        }
    }
    checks::optional_one_of(errs, spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path);
    if let Some(overhead) = get(spec, "overhead") {
        resources::overhead(errs, overhead, &path.child("overhead"));
    }
    if let Some(os) = get(spec, "os") {
        let name = text(os, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path.child("os").child("name"), "cannot be empty"));
        } else {
            checks::one_of(errs, name, &["linux", "windows"], path.child("os"));
        }
    }
}

fn host_aliases(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = path.index(i);
        checks::ip(errs, text(alias, "ip"), path.child("ip"));
        for (j, name) in texts(alias, "hostnames").enumerate() {
            invalid_each(errs, path.child("hostnames").index(j), name, names::dns1123_subdomain(name));
        }
    }
}

fn dns_config(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let config = get(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        let Some(config) = config else {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            errs.push(FieldError::required(path, why));
            return;
        };
        if list(config, "nameservers").is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errs.push(FieldError::required(path.child("nameservers"), why));
            return;
        }
    }
    let Some(config) = config else { return };
    let servers = path.child("nameservers");
    if list(config, "nameservers").len() > DNS_NAMESERVERS_MAX {
        let why = format!("must not have more than {DNS_NAMESERVERS_MAX} nameservers");
        errs.push(FieldError::invalid(servers, &config["nameservers"], &why));
    }
    for (i, server) in texts(config, "nameservers").enumerate() {
        checks::ip(errs, server, servers.index(i));
    }
    dns_searches(errs, config, &path.child("searches"));
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errs.push(FieldError::required(path.child("options").index(i), "must not be empty"));
        }
    }
}

fn dns_searches(errs: &mut Errors, config: &Value, path: &Path<'_>) {
    let searches: Vec<&str> = texts(config, "searches").collect();
    if searches.len() > DNS_SEARCHES_MAX {
        let why = format!("must not have more than {DNS_SEARCHES_MAX} search paths");
        errs.push(FieldError::invalid(path, &config["searches"], &why));
    }
    if searches.join(" ").len() > DNS_SEARCH_CHARS_MAX {
        let max = DNS_SEARCH_CHARS_MAX;
        let why = format!("must not have more than {max} characters (including spaces) in the search list");
        errs.push(FieldError::invalid(path, &config["searches"], &why));
    }
    for (i, search) in searches.into_iter().enumerate().filter(|(_, s)| *s != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores are common in search domains and allowed since 1.34.
        let complaints = names::dns1123_subdomain(&name.replace('_', "0"));
        invalid_each(errs, path.index(i), name, complaints);
    }
}
