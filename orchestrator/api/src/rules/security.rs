//! Security contexts of pods and containers.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, descending_path, id, optional_one_of};
use crate::rules::path::Path;
use crate::rules::value::{at, flag, get, has, int, list, opt_flag, text, texts};

const SYSCTL_MAX: usize = 253;

/// `spec.securityContext`
pub(super) fn pod(errs: &mut Errors, spec: &Value, path: &Path<'_>) {
    let context = at(spec, "securityContext");
    let path = path.child("securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errs, context, key, &path);
    }
    for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
        let groups = path.child("supplementalGroups");
        checks::id_value(errs, group.as_i64().unwrap_or_default(), groups.index(i));
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errs.push(FieldError::invalid(path.child("shareProcessNamespace"), &json!(true), why));
    }
    sysctls(errs, spec, context, &path.child("sysctls"));
    optional_one_of(errs, context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], &path);
    seccomp(errs, context, &path);
    app_armor(errs, context, &path);
    optional_one_of(errs, context, "supplementalGroupsPolicy", &["Merge", "Strict"], &path);
    optional_one_of(errs, context, "seLinuxChangePolicy", &["MountOption", "Recursive"], &path);
}

fn sysctls(errs: &mut Errors, spec: &Value, context: &Value, path: &Path<'_>) {
    let mut seen = Vec::new();
    for (i, sysctl) in list(context, "sysctls").iter().enumerate() {
        let path = path.index(i);
        let path = path.child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errs.push(FieldError::required(path, ""));
        } else if !is_sysctl(name) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let why = format!(
                "must have at most {SYSCTL_MAX} characters and match regex ^({segment}[\\./])*{segment}$"
            );
            errs.push(FieldError::invalid(path, &json!(name), &why));
        } else if seen.contains(&name) {
            errs.push(FieldError::duplicate(path, &json!(name)));
        }
        if flag(spec, "hostNetwork") && name.starts_with("net.") {
            let why = "may not be specified when 'hostNetwork' is true";
            errs.push(FieldError::invalid(path, &json!(name), why));
        } else if flag(spec, "hostIPC") && is_ipc_sysctl(name) {
            let why = "may not be specified when 'hostIPC' is true";
            errs.push(FieldError::invalid(path, &json!(name), why));
        }
        seen.push(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let segment = |s: &str| {
        edge(s.chars().next())
            && edge(s.chars().last())
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

fn is_ipc_sysctl(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
}

/// A container's `securityContext`. `host_users` is whether the pod shares the host's user namespace.
pub(super) fn container(errs: &mut Errors, c: &Value, host_users: bool, path: &Path<'_>) {
    let Some(context) = get(c, "securityContext") else { return };
    let path = path.child("securityContext");
    id(errs, context, "runAsUser", &path);
    id(errs, context, "runAsGroup", &path);
    optional_one_of(errs, context, "procMount", &["Default", "Unmasked"], &path);
    if host_users && text(context, "procMount") == "Unmasked" {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errs.push(FieldError::invalid(path.child("procMount"), &json!("Unmasked"), why));
    }
    seccomp(errs, context, &path);
    if opt_flag(context, "allowPrivilegeEscalation") == Some(false) {
        if flag(context, "privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errs.push(FieldError::invalid(path, context, why));
        }
        if texts(at(context, "capabilities"), "add").any(|c| c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errs.push(FieldError::invalid(path, context, why));
        }
    }
    app_armor(errs, context, &path);
}

fn seccomp(errs: &mut Errors, context: &Value, path: &Path<'_>) {
    let Some(profile) = get(context, "seccompProfile") else { return };
    let path = path.child("seccompProfile");
    profile_type(errs, profile, "seccompProfile", &path);
    let local = path.child("localhostProfile");
    if text(profile, "type") != "Localhost" {
        if has(profile, "localhostProfile") {
            let why = "can only be set when seccomp type is Localhost";
            errs.push(FieldError::invalid(local, profile, why));
        }
    } else if has(profile, "localhostProfile") {
        descending_path(errs, text(profile, "localhostProfile"), local);
    } else {
        errs.push(FieldError::required(local, "must be set when seccomp type is Localhost"));
    }
}

fn app_armor(errs: &mut Errors, context: &Value, path: &Path<'_>) {
    let Some(profile) = get(context, "appArmorProfile") else { return };
    let path = path.child("appArmorProfile");
    profile_type(errs, profile, "appArmorProfile", &path);
    let local = path.child("localhostProfile");
    let name = text(profile, "localhostProfile");
    match text(profile, "type") {
        "Localhost" if name.trim() != name => {
            errs.push(FieldError::invalid(local, &json!(name), "must not be padded with whitespace"));
        }
        "Localhost" if name.is_empty() => {
            errs.push(FieldError::required(local, "must be set when AppArmor type is Localhost"));
        }
        "RuntimeDefault" | "Unconfined" if has(profile, "localhostProfile") => {
            let why = "can only be set when AppArmor type is Localhost";
            errs.push(FieldError::invalid(local, &json!(name), why));
        }
        _ => {}
    }
}

fn profile_type(errs: &mut Errors, profile: &Value, field: &str, path: &Path<'_>) {
    let kind = text(profile, "type");
    if kind.is_empty() {
        errs.push(FieldError::required(path.child("type"), &format!("type is required when {field} is set")));
    } else {
        checks::one_of(errs, kind, &["Localhost", "RuntimeDefault", "Unconfined"], path.child("type"));
    }
}

/// Host namespaces that a pod with users of its own may not share, and host ports on the host's network.
pub(super) fn host(errs: &mut Errors, spec: &Value, is_pod: bool, path: &Path<'_>) {
    if flag(spec, "hostNetwork") {
        host_ports(errs, spec, is_pod, path);
    }
    if opt_flag(spec, "hostUsers") != Some(false) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, key) {
            errs.push(FieldError::forbidden(path.child(shown), "when `pod.Spec.HostUsers` is false"));
        }
    }
}

fn host_ports(errs: &mut Errors, spec: &Value, is_pod: bool, path: &Path<'_>) {
    let containers = path.child("containers");
    for (i, c) in list(spec, "containers").iter().enumerate() {
        let path = containers.index(i);
        let ports = path.child("ports");
        for (j, port) in list(c, "ports").iter().enumerate() {
            let (host, own) = (int(port, "hostPort"), int(port, "containerPort"));
            if (is_pod || host != 0) && host != own {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errs.push(FieldError::invalid(ports.index(j).child("hostPort"), &json!(host), why));
            }
        }
    }
}
