//! The volumes of a pod, and the sources that PersistentVolumes have too.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::rules::checks::{self, Errors, OneSource, invalid_each, required_text};
use crate::rules::env;
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::persistent_volume_claim;
use crate::rules::pod_spec::Scope;
use crate::rules::value::{at, get, has, int, list, opt_int, text};

const MODE_WHY: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const PARTITION_WHY: &str = "must be a number between 0 and 255, inclusive";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

/// Volumes by name, for the mounts to look up. A broken volume is not there.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// The sources of a pod's volume in the order in which they are looked at: field, and what a second source is called.
const SOURCES: &[(&str, Check)] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", gce_disk),
    ("awsElasticBlockStore", aws_disk),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", glusterfs),
    ("flocker", flocker),
    ("persistentVolumeClaim", claim),
    ("rbd", rbd),
    ("cinder", cinder),
    ("cephfs", cephfs),
    ("quobyte", quobyte),
    ("downwardAPI", downward_api),
    ("fc", fibre_channel),
    ("flexVolume", flex),
    ("configMap", config_map),
    ("azureFile", azure_file),
    ("vsphereVolume", vsphere),
    ("photonPersistentDisk", photon),
    ("portworxVolume", portworx),
    ("azureDisk", azure_disk),
    ("storageos", storage_os),
    ("projected", projected),
    ("scaleIO", scale_io),
    ("csi", csi),
];

/// The sources of a PersistentVolume that a pod has too.
const SHARED_SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "storageos",
];

type Check = fn(&mut Errors, &Value, &Path<'_>);

/// Checks all volumes and returns the good ones.
pub(super) fn volumes<'a>(errs: &mut Errors, spec: &'a Value, scope: Scope, path: &Path<'_>) -> Volumes<'a> {
    let mut good = Volumes::new();
    let path = path.child("volumes");
    for (i, v) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let mut found = Errors::new();
        source(&mut found, v, scope, &path);
        let name = text(v, "name");
        let name_path = path.child("name");
        if name.is_empty() {
            found.push(FieldError::required(name_path, ""));
        } else {
            invalid_each(&mut found, name_path, name, names::dns1123_label(name));
        }
        if good.contains_key(name) {
            found.push(FieldError::duplicate(name_path, &json!(name)));
        }
        if found.is_empty() {
            good.insert(name, v);
        }
        errs.append(&mut found);
    }
    good
}

fn source(errs: &mut Errors, v: &Value, scope: Scope, path: &Path<'_>) {
    let mut one = OneSource::default();
    for (key, check) in SOURCES {
        if one.take(errs, has(v, key), path.child(key)) {
            check(errs, at(v, key), &path.child(key));
        }
    }
    if one.take(errs, has(v, "ephemeral"), path.child("ephemeral")) {
        ephemeral(errs, at(v, "ephemeral"), &path.child("ephemeral"));
    }
    if one.take(errs, has(v, "image"), path.child("image")) {
        image(errs, at(v, "image"), scope, &path.child("image"));
    }
    one.finish(errs, path);
}

/// The source of a PersistentVolume. Returns whether it is a local one, which needs a node affinity.
pub(super) fn persistent(errs: &mut Errors, spec: &Value, path: &Path<'_>) -> bool {
    let mut one = OneSource::default();
    for (key, check) in SOURCES.iter().filter(|(key, _)| SHARED_SOURCES.contains(key)) {
        if one.take(errs, has(spec, key), path.child(key)) {
            check(errs, at(spec, key), &path.child(key));
        }
    }
    let local = one.take(errs, has(spec, "local"), path.child("local"));
    if local {
        let target = text(at(spec, "local"), "path");
        required_text(errs, at(spec, "local"), "path", &path.child("local"));
        checks::no_backsteps(errs, target, path.child("local").child("path"));
    }
    if one.take(errs, has(spec, "csi"), path.child("csi")) {
        let csi = at(spec, "csi");
        required_text(errs, csi, "driver", &path.child("csi"));
        required_text(errs, csi, "volumeHandle", &path.child("csi"));
    }
    one.finish(errs, path);
    local
}

/// The fields of a PersistentVolume's spec that are its source.
pub(super) fn is_persistent_source(key: &str) -> bool {
    SHARED_SOURCES.contains(&key) || matches!(key, "local" | "csi")
}

fn empty_dir(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    if get(s, "sizeLimit").is_some_and(|q| checks::quantity(q).is_negative()) {
        let why = "SizeLimit field must be a valid resource quantity";
        errs.push(FieldError::forbidden(path.child("sizeLimit"), why));
    }
}

fn host_path(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    if text(s, "path").is_empty() {
        errs.push(FieldError::required(path.child("path"), ""));
        return;
    }
    checks::no_backsteps(errs, text(s, "path"), path.child("path"));
    checks::optional_one_of(errs, s, "type", HOST_PATH_TYPES, path);
}

fn git_repo(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "repository", path);
    checks::descending_path(errs, text(s, "directory"), path.child("directory"));
}

fn gce_disk(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "pdName", path);
    byte(errs, s, "partition", path, PARTITION_WHY);
}

fn aws_disk(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "volumeID", path);
    byte(errs, s, "partition", path, PARTITION_WHY);
}

fn byte(errs: &mut Errors, s: &Value, key: &str, path: &Path<'_>, why: &str) {
    if !(0..=255).contains(&int(s, key)) {
        errs.push(FieldError::invalid(path.child(key), &json!(int(s, key)), why));
    }
}

fn secret(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "secretName", path);
    mode(errs, s, "defaultMode", path);
    key_paths(errs, s, path);
}

fn config_map(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "name", path);
    mode(errs, s, "defaultMode", path);
    key_paths(errs, s, path);
}

fn key_paths(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let path = path.child("items");
    for (i, item) in list(s, "items").iter().enumerate() {
        let path = path.index(i);
        required_text(errs, item, "key", &path);
        required_text(errs, item, "path", &path);
        checks::non_reserved_path(errs, text(item, "path"), path.child("path"));
        mode(errs, item, "mode", &path);
    }
}

fn mode(errs: &mut Errors, s: &Value, key: &str, path: &Path<'_>) {
    if let Some(mode) = opt_int(s, key).filter(|m| !(0..=0o777).contains(m)) {
        errs.push(FieldError::invalid(path.child(key), &json!(mode), MODE_WHY));
    }
}

fn nfs(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "server", path);
    required_text(errs, s, "path", path);
    if !text(s, "path").starts_with('/') {
        let shown = json!(text(s, "path"));
        errs.push(FieldError::invalid(path.child("path"), &shown, "must be an absolute path"));
    }
}

fn iscsi(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "targetPortal", path);
    let iqn = text(s, "iqn");
    if iqn.is_empty() {
        errs.push(FieldError::required(path.child("iqn"), ""));
    } else if !["iqn", "eui", "naa"].iter().any(|p| iqn.starts_with(p)) {
        let why = "must be valid format starting with iqn, eui, or naa";
        errs.push(FieldError::invalid(path.child("iqn"), &json!(iqn), why));
    }
    byte(errs, s, "lun", path, "must be between 0 and 255, inclusive");
    let chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|k| at(s, k) == &json!(true));
    if chap && !has(s, "secretRef") {
        errs.push(FieldError::required(path.child("secretRef"), ""));
    }
}

fn glusterfs(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "endpoints", path);
    required_text(errs, s, "path", path);
}

fn flocker(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let (name, uuid) = (text(s, "datasetName"), text(s, "datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errs.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errs.push(FieldError::invalid(path, &json!("resource"), why));
    }
    if name.contains('/') {
        errs.push(FieldError::invalid(path.child("datasetName"), &json!(name), "must not contain '/'"));
    }
}

fn claim(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "claimName", path);
}

fn rbd(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    monitors(errs, s, path);
    required_text(errs, s, "image", path);
}

fn cephfs(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    monitors(errs, s, path);
}

fn monitors(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    if list(s, "monitors").is_empty() {
        errs.push(FieldError::required(path.child("monitors"), ""));
    }
}

fn cinder(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "volumeID", path);
    if let Some(r) = get(s, "secretRef") {
        required_text(errs, r, "name", &path.child("secretRef"));
    }
}

fn quobyte(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    if text(s, "registry").is_empty() {
        let why = "must be a host:port pair or multiple pairs separated by commas";
        errs.push(FieldError::required(path.child("registry"), why));
    }
    required_text(errs, s, "volume", path);
}

fn downward_api(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    mode(errs, s, "defaultMode", path);
    for file in list(s, "items") {
        env::downward_file(errs, file, path);
        mode(errs, file, "mode", path);
    }
}

fn fibre_channel(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let (targets, wwids) = (list(s, "targetWWNs"), list(s, "wwids"));
    if targets.is_empty() && wwids.is_empty() {
        let why = "must specify either targetWWNs or wwids, but not both";
        errs.push(FieldError::required(path.child("targetWWNs"), why));
    }
    if !targets.is_empty() && !wwids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errs.push(FieldError::invalid(path.child("targetWWNs"), &s["targetWWNs"], why));
    }
    if !targets.is_empty() {
        if has(s, "lun") {
            byte(errs, s, "lun", path, "must be between 0 and 255, inclusive");
        } else {
            errs.push(FieldError::required(path.child("lun"), "lun is required if targetWWNs is specified"));
        }
    }
}

fn flex(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "driver", path);
}

fn azure_file(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "secretName", path);
    required_text(errs, s, "shareName", path);
}

fn vsphere(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "volumePath", path);
}

fn photon(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "pdID", path);
}

fn portworx(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "volumeID", path);
}

fn azure_disk(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    required_text(errs, s, "diskName", path);
    required_text(errs, s, "diskURI", path);
    checks::optional_one_of(errs, s, "cachingMode", &["None", "ReadOnly", "ReadWrite"], path);
    checks::optional_one_of(errs, s, "kind", &["Dedicated", "Managed", "Shared"], path);
}

fn storage_os(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let name = text(s, "volumeName");
    if name.is_empty() {
        errs.push(FieldError::required(path.child("volumeName"), ""));
    } else {
        invalid_each(errs, path.child("volumeName"), name, names::dns1123_label(name));
    }
}

fn scale_io(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    for key in ["gateway", "system", "volumeName"] {
        required_text(errs, s, key, path);
    }
}

fn csi(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let driver = text(s, "driver");
    if driver.is_empty() {
        errs.push(FieldError::required(path.child("driver"), ""));
    } else {
        let lower = driver.to_lowercase();
        invalid_each(errs, path.child("driver"), driver, names::dns1123_subdomain(&lower));
    }
    if let Some(r) = get(s, "nodePublishSecretRef") {
        required_text(errs, r, "name", &path.child("nodePublishSecretRef"));
    }
}

fn ephemeral(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    let path = path.child("volumeClaimTemplate");
    match get(s, "volumeClaimTemplate") {
        None => errs.push(FieldError::required(path, "")),
        Some(t) => persistent_volume_claim::spec(errs, at(t, "spec"), &path.child("spec")),
    }
}

fn image(errs: &mut Errors, s: &Value, scope: Scope, path: &Path<'_>) {
    if scope == Scope::Pod {
        required_text(errs, s, "reference", path);
    }
    let policies = &["Always", "IfNotPresent", "Never"];
    checks::required_one_of(errs, text(s, "pullPolicy"), policies, path.child("pullPolicy"));
}

fn projected(errs: &mut Errors, s: &Value, path: &Path<'_>) {
    mode(errs, s, "defaultMode", path);
    let mut paths: Vec<&str> = Vec::new();
    let sources = path.child("sources");
    for (i, source) in list(s, "sources").iter().enumerate() {
        let here = sources.index(i);
        let mut count = 0;
        for key in ["secret", "configMap"] {
            let Some(p) = get(source, key) else { continue };
            count += 1;
            required_text(errs, p, "name", &here.child(key));
            key_paths(errs, p, &here.child(key));
            for item in list(p, "items") {
                unique_path(errs, &mut paths, text(item, "path"), path);
            }
        }
        if let Some(p) = get(source, "downwardAPI") {
            count += 1;
            for file in list(p, "items") {
                env::downward_file(errs, file, &here.child("downwardAPI"));
                unique_path(errs, &mut paths, text(file, "path"), path);
            }
        }
        if let Some(token) = get(source, "serviceAccountToken") {
            count += 1;
            service_account_token(errs, token, path, &here.child("serviceAccountToken"));
        }
        if let Some(bundle) = get(source, "clusterTrustBundle") {
            count += 1;
            trust_bundle(errs, bundle, &here.child("clusterTrustBundle"));
        }
        if count > 1 {
            let why = "may not specify more than 1 volume type per source";
            errs.push(FieldError::forbidden(here, why));
        }
    }
}

fn unique_path<'a>(errs: &mut Errors, paths: &mut Vec<&'a str>, target: &'a str, path: &Path<'_>) {
    if target.is_empty() {
        return;
    }
    if paths.contains(&target) {
        errs.push(FieldError::invalid(path, &json!(target), "conflicting duplicate paths"));
    }
    paths.push(target);
}

fn service_account_token(errs: &mut Errors, token: &Value, volume: &Path<'_>, path: &Path<'_>) {
    let seconds = int(token, "expirationSeconds");
    let shown = json!(seconds);
    if seconds < MIN_TOKEN_SECONDS {
        let why = "may not specify a duration less than 10 minutes";
        errs.push(FieldError::invalid(path.child("expirationSeconds"), &shown, why));
    }
    if seconds > MAX_TOKEN_SECONDS {
        let why = "may not specify a duration larger than 2^32 seconds";
        errs.push(FieldError::invalid(path.child("expirationSeconds"), &shown, why));
    }
    required_text(errs, token, "path", volume);
    checks::non_reserved_path(errs, text(token, "path"), volume.child("path"));
}

fn trust_bundle(errs: &mut Errors, bundle: &Value, path: &Path<'_>) {
    match (has(bundle, "name"), has(bundle, "signerName")) {
        (true, true) => {
            errs.push(FieldError::invalid(path, bundle, "only one of name and signerName may be used"));
        }
        (false, false) => {
            errs.push(FieldError::required(path, "either name or signerName must be specified"));
        }
        _ => {}
    }
    required_text(errs, bundle, "path", path);
    checks::non_reserved_path(errs, text(bundle, "path"), path.child("path"));
}
