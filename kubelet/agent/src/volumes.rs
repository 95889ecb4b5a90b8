//! Volumes of pods: what each one holds (pure), and the shell that puts it under `<data_dir>/pods/<uid>/volumes` and
//! takes it away again. Owns the pod directories; never looks at containers.

mod subpath;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume, VolumeMount,
};
use loadline_runtime::Mount;

use crate::env::{self, Objects};
use crate::fields::{self, Facts};
use crate::names;
use crate::resources;

/// Why a volume cannot be mounted; the text of the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    pub(crate) message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
}

/// File by path inside the volume.
pub(crate) type Files = BTreeMap<String, File>;

/// What a volume holds, resolved as far as can be done without touching the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    EmptyDir { memory: bool, size_limit: Option<i64> },
    HostPath { path: PathBuf, kind: String },
    Files(Files),
}

const DEFAULT_MODE: i32 = 0o644;

pub(crate) fn content(
    pod: &Pod,
    volume: &Volume,
    facts: &Facts<'_>,
    objects: &dyn Objects,
) -> Result<Content, VolumeError> {
    let error = |message: String| VolumeError { volume: volume.name.clone(), message };
    if let Some(source) = &volume.empty_dir {
        return Ok(Content::EmptyDir {
            memory: source.medium.as_deref() == Some("Memory"),
            size_limit: source.size_limit.as_ref().map(|q| resources::parse(q).value()),
        });
    }
    if let Some(source) = &volume.host_path {
        let kind = source.type_.clone().unwrap_or_default();
        return Ok(Content::HostPath { path: PathBuf::from(&source.path), kind });
    }
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let part = Part {
            items: source.items.as_deref(),
            optional: source.optional,
            default_mode: source.default_mode,
        };
        config_map(&source.name, &part, objects, &mut files).map_err(error)?;
    } else if let Some(source) = &volume.secret {
        let part = Part {
            items: source.items.as_deref(),
            optional: source.optional,
            default_mode: source.default_mode,
        };
        secret(source.secret_name.as_deref().unwrap_or_default(), &part, objects, &mut files)
            .map_err(error)?;
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        downward(pod, items, source.default_mode, facts, &mut files).map_err(error)?;
    } else if let Some(source) = &volume.projected {
        projected(pod, source, facts, objects, &mut files).map_err(error)?;
    } else {
        return Err(error("this volume type is not supported by this node".to_owned()));
    }
    Ok(Content::Files(files))
}

/// What ConfigMap and Secret sources have in common.
struct Part<'a> {
    items: Option<&'a [KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
}

fn config_map(name: &str, part: &Part<'_>, objects: &dyn Objects, files: &mut Files) -> Result<(), String> {
    let Some(map) = objects.config_map(name) else {
        return if part.optional == Some(true) {
            Ok(())
        } else {
            Err(format!("configmap {name:?} not found"))
        };
    };
    let mut data: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    data.extend(map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.clone().into_bytes())));
    data.extend(map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone())));
    select(data, part, "configmap", name, files)
}

fn secret(name: &str, part: &Part<'_>, objects: &dyn Objects, files: &mut Files) -> Result<(), String> {
    let Some(secret) = objects.secret(name) else {
        return if part.optional == Some(true) { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone())).collect();
    select(data, part, "secret", name, files)
}

fn select(
    mut data: BTreeMap<&str, Vec<u8>>,
    part: &Part<'_>,
    _kind: &str,
    _name: &str,
    files: &mut Files,
) -> Result<(), String> {
    let default = part.default_mode.unwrap_or(DEFAULT_MODE);
    let Some(items) = part.items.filter(|i| !i.is_empty()) else {
        for (key, value) in data {
            files.insert(key.to_owned(), File { data: value, mode: mode(default) });
        }
        return Ok(());
    };
    for item in items {
        match data.remove(item.key.as_str()) {
            Some(value) => {
                let path = checked(&item.path)?;
                files.insert(path, File { data: value, mode: mode(item.mode.unwrap_or(default)) });
            }
            None if part.optional == Some(true) => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn mode(bits: i32) -> u32 {
    bits.unsigned_abs() & 0o777
}

/// The API server refuses such paths; a node does not rely on it.
fn checked(path: &str) -> Result<String, String> {
    let bad = path.is_empty() || path.starts_with('/') || path.split('/').any(|c| c == ".." || c.is_empty());
    if bad || path.starts_with("..") { Err(format!("invalid path: {path}")) } else { Ok(path.to_owned()) }
}

fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    facts: &Facts<'_>,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(f), _) => fields::field(pod, facts, &f.field_path)?,
            (None, Some(r)) => fields::resource(pod, None, facts, r)?,
            (None, None) => continue,
        };
        let mode = mode(item.mode.or(default_mode).unwrap_or(DEFAULT_MODE));
        files.insert(checked(&item.path)?, File { data: text.into_bytes(), mode });
    }
    Ok(())
}

fn projected(
    pod: &Pod,
    source: &ProjectedVolumeSource,
    facts: &Facts<'_>,
    objects: &dyn Objects,
    files: &mut Files,
) -> Result<(), String> {
    for source_part in source.sources.iter().flatten() {
        let part = |items, optional| Part { items, optional, default_mode: source.default_mode };
        if let Some(s) = &source_part.config_map {
            // Every pod's token volume refers to the CA map; where nobody publishes one, its absence is not an error.
            let optional = s.optional.or((s.name == "kube-root-ca.crt").then_some(true));
            config_map(&s.name, &part(s.items.as_deref(), optional), objects, files)?;
        }
        if let Some(s) = &source_part.secret {
            secret(&s.name, &part(s.items.as_deref(), s.optional), objects, files)?;
        }
        if let Some(s) = &source_part.downward_api {
            downward(pod, s.items.as_deref().unwrap_or_default(), source.default_mode, facts, files)?;
        }
        // Tokens are issued by the API server's TokenRequest, which it does not serve yet: the file stays away.
    }
    Ok(())
}

/// Where the volumes of the pods of this node are.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    simulated: bool,
}

/// Host paths by volume name.
pub(crate) type Mounted = BTreeMap<String, PathBuf>;

impl Volumes {
    pub(crate) fn new(data_dir: &Path, simulated: bool) -> Self {
        Self { root: data_dir.join("pods"), simulated }
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join(uid)
    }

    /// Puts all volumes of a pod in place; what is there already is brought up to date.
    pub(crate) async fn set_up(
        &self,
        pod: &Pod,
        contents: Vec<(String, Content)>,
    ) -> Result<Mounted, VolumeError> {
        let dir = self.pod_dir(names::uid(pod)).join("volumes");
        if self.simulated {
            return Ok(contents
                .into_iter()
                .map(|(name, c)| (name.clone(), place(&dir, &name, &c)))
                .collect());
        }
        let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let group = context.and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok());
        let work = move || {
            let mut mounted = Mounted::new();
            for (name, content) in contents {
                let path = place(&dir, &name, &content);
                materialise(&path, &content, group)
                    .map_err(|e| VolumeError { volume: name.clone(), message: e.to_string() })?;
                mounted.insert(name, path);
            }
            Ok(mounted)
        };
        blocking(work).await.unwrap_or_else(|e| Err(VolumeError { volume: String::new(), message: e }))
    }

    /// The mounts of one container.
    pub(crate) async fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        mounted: &Mounted,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let Some(base) = mounted.get(&mount.name) else {
                return Err(format!(
                    "cannot find volume {:?} to mount into container {:?}",
                    mount.name, container.name
                ));
            };
            let host_path = match sub_path(mount, env)? {
                None => base.clone(),
                Some(sub) if self.simulated => base.join(sub),
                Some(sub) => {
                    let target = self.pod_dir(names::uid(pod)).join("volume-subpaths").join(&mount.name);
                    let target = target.join(&container.name).join(index.to_string());
                    let base = base.clone();
                    blocking(move || subpath::bind(&base, &sub, &target)).await?.map_err(|e| {
                        format!(
                            "failed to prepare subPath for volumeMount {:?} of container {:?}: {e}",
                            mount.name, container.name
                        )
                    })?
                }
            };
            let read_only = mount.read_only == Some(true) || is_read_only(pod, &mount.name);
            mounts.push(Mount { host_path, container_path: mount.mount_path.clone(), read_only });
        }
        Ok(mounts)
    }

    /// Writes a file of the kubelet's own into the pod directory and returns its path.
    pub(crate) async fn write_own(
        &self,
        uid: &str,
        name: &str,
        text: String,
        mode: u32,
    ) -> Result<PathBuf, String> {
        let path = self.pod_dir(uid).join(name);
        if self.simulated {
            return Ok(path);
        }
        let target = path.clone();
        let work = move || -> io::Result<()> {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            // In place: the file may be mounted into containers, which see the inode.
            std::fs::write(&target, text)?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))
        };
        blocking(work).await?.map_err(|e| format!("write {}: {e}", path.display()))?;
        Ok(path)
    }

    /// Removes everything of a pod. Refuses to delete below a mount that could not be taken away.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), String> {
        if self.simulated || uid.is_empty() {
            return Ok(());
        }
        let dir = self.pod_dir(uid);
        blocking(move || subpath::remove_tree(&dir)).await?.map_err(|e| e.to_string())
    }

    /// Uids that have a directory.
    pub(crate) async fn known(&self) -> Vec<String> {
        let root = self.root.clone();
        let list = move || -> Vec<String> {
            let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
        };
        blocking(list).await.unwrap_or_default()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())
}

/// `subPath`, or `subPathExpr` expanded with the container's environment.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<PathBuf>, String> {
    let text = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(p), _) if !p.is_empty() => p.clone(),
        (_, Some(e)) if !e.is_empty() => {
            let lookup = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
            let expanded = env::expand(e, lookup);
            if expanded.contains("$(") {
                return Err(format!("missing value for {expanded:?}"));
            }
            expanded
        }
        _ => return Ok(None),
    };
    let path = PathBuf::from(&text);
    if path.is_absolute() || path.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        return Err(format!("subPath {text:?} must be a relative path without '..'"));
    }
    Ok(Some(path))
}

/// Volumes made from API objects cannot be written by containers.
fn is_read_only(pod: &Pod, volume: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().find(|v| v.name == volume).is_some_and(|v| {
        v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
    })
}

fn place(dir: &Path, name: &str, content: &Content) -> PathBuf {
    match content {
        Content::EmptyDir { .. } => dir.join("kubernetes.io~empty-dir").join(name),
        Content::HostPath { path, .. } => path.clone(),
        Content::Files(_) => dir.join("kubernetes.io~files").join(name),
    }
}

fn materialise(path: &Path, content: &Content, group: Option<u32>) -> io::Result<()> {
    match content {
        Content::EmptyDir { memory, size_limit } => {
            let fresh = !path.exists();
            std::fs::create_dir_all(path)?;
            if *memory && !subpath::is_mount(path)? {
                subpath::mount_tmpfs(path, *size_limit)?;
            }
            if fresh {
                let mode = if group.is_some() { 0o2777 } else { 0o777 };
                std::os::unix::fs::chown(path, None, group)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            }
            Ok(())
        }
        Content::HostPath { path, kind } => host_path(path, kind),
        Content::Files(files) => writer::write(path, files, group),
    }
}

/// The `type` of a hostPath volume: what must be there, or is made.
fn host_path(path: &Path, kind: &str) -> io::Result<()> {
    let found = std::fs::metadata(path);
    let refuse = |what: &str| {
        io::Error::other(format!("hostPath type check failed: {} is not {what}", path.display()))
    };
    match (kind, found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", Err(e)) if e.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(path),
        ("FileOrCreate", Err(e)) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::OpenOptions::new().create_new(true).write(true).open(path).map(drop)
        }
        ("Directory" | "DirectoryOrCreate", Ok(m)) if m.is_dir() => Ok(()),
        ("File" | "FileOrCreate", Ok(m)) if m.is_file() => Ok(()),
        ("Socket", Ok(m)) if m.file_type().is_socket() => Ok(()),
        ("CharDevice", Ok(m)) if m.file_type().is_char_device() => Ok(()),
        ("BlockDevice", Ok(m)) if m.file_type().is_block_device() => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) => Err(refuse("a directory")),
        ("File" | "FileOrCreate", _) => Err(refuse("a file")),
        ("Socket", _) => Err(refuse("a socket file")),
        ("CharDevice", _) => Err(refuse("a character device")),
        ("BlockDevice", _) => Err(refuse("a block device")),
        (other, _) => Err(io::Error::other(format!("unknown hostPath type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::tests::Fixed;
    use crate::resources::Amounts;
    use serde_json::{Value, json};

    fn resolve(volume: Value) -> Result<Content, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "volumes": [volume]}}))
        .unwrap();
        let objects = Fixed {
            config_maps: [(
                "cm".to_owned(),
                json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}),
            )]
            .into(),
            secrets: [("s".to_owned(), json!({"data": {"k": "c2VjcmV0"}}))].into(),
            services: Vec::new(),
        };
        let allocatable = Amounts::new();
        let facts = Facts {
            node_name: "n",
            host_ip: "192.0.2.1".parse().unwrap(),
            pod_ips: &[],
            allocatable: &allocatable,
        };
        let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
        content(&pod, volume, &facts, &objects).map_err(|e| e.to_string())
    }

    fn listing(content: &Content) -> Vec<(String, String, u32)> {
        let Content::Files(files) = content else { panic!("{content:?}") };
        files
            .iter()
            .map(|(k, f)| (k.clone(), String::from_utf8_lossy(&f.data).into_owned(), f.mode))
            .collect()
    }

    #[test]
    fn contents_of_each_kind() {
        let all = resolve(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 256}})).unwrap();
        assert_eq!(listing(&all)[0], ("a".to_owned(), "1".to_owned(), 0o400));
        assert_eq!(listing(&all).len(), 3);
        let some = resolve(json!({"name": "v", "secret": {"secretName": "s",
            "items": [{"key": "k", "path": "x/y", "mode": 511}]}}))
        .unwrap();
        assert_eq!(listing(&some), [("x/y".to_owned(), "secret".to_owned(), 0o777)]);
        let projected = resolve(json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token"}},
        ]}}))
        .unwrap();
        assert_eq!(listing(&projected).len(), 2, "the token is left out, the rest is there");
        let empty =
            resolve(json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})).unwrap();
        assert_eq!(empty, Content::EmptyDir { memory: true, size_limit: Some(1 << 20) });
    }

    #[test]
    fn what_cannot_be_mounted_says_why() {
        let cases = [
            (json!({"name": "v", "configMap": {"name": "none"}}), "configmap \"none\" not found"),
            (json!({"name": "v", "secret": {"secretName": "none"}}), "secret \"none\" not found"),
            (
                json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent config key: z",
            ),
            (
                json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}}),
                "invalid path: ../z",
            ),
            (
                json!({"name": "v", "nfs": {"server": "s", "path": "/"}}),
                "this volume type is not supported by this node",
            ),
        ];
        for (volume, message) in cases {
            let error = resolve(volume).unwrap_err();
            assert_eq!(error, format!("MountVolume.SetUp failed for volume \"v\" : {message}"));
        }
        let optional =
            resolve(json!({"name": "v", "configMap": {"name": "none", "optional": true}})).unwrap();
        assert_eq!(listing(&optional), []);
    }

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let cases = [
            (dir.path().to_owned(), "Directory", true),
            (file.clone(), "Directory", false),
            (file.clone(), "File", true),
            (dir.path().join("none"), "File", false),
            (dir.path().join("new-file"), "FileOrCreate", true),
            (dir.path().join("new/dir"), "DirectoryOrCreate", true),
            (dir.path().join("anything"), "", true),
            (PathBuf::from("/dev/null"), "CharDevice", true),
            (file.clone(), "Socket", false),
            (file, "Nonsense", false),
        ];
        for (path, kind, ok) in cases {
            assert_eq!(host_path(&path, kind).is_ok(), ok, "{kind} {}", path.display());
        }
        assert!(dir.path().join("new/dir").is_dir() && dir.path().join("new-file").is_file());
    }

    #[test]
    fn sub_paths_are_checked() {
        let mount = |sub: &str, expr: &str| VolumeMount {
            sub_path: Some(sub.to_owned()),
            sub_path_expr: Some(expr.to_owned()),
            ..VolumeMount::default()
        };
        let env = [("POD".to_owned(), "web-1".to_owned())];
        assert_eq!(sub_path(&mount("a/b", ""), &env), Ok(Some(PathBuf::from("a/b"))));
        assert_eq!(sub_path(&mount("", "logs/$(POD)"), &env), Ok(Some(PathBuf::from("logs/web-1"))));
        assert_eq!(sub_path(&mount("", ""), &env), Ok(None));
        for (sub, expr) in [("../x", ""), ("/x", ""), ("a/../../x", ""), ("", "$(NONE)")] {
            assert!(sub_path(&mount(sub, expr), &env).is_err(), "{sub} {expr}");
        }
    }
}
