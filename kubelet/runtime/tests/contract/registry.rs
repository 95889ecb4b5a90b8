//! A registry of one image, just enough of the distribution protocol for Docker to pull from this machine.

use loadline_runtime::tar::Archive;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `user:p?>~ss`, whose credentials need both odd characters of the common base64 alphabet.
const AUTHORIZATION: &str = "Basic dXNlcjpwPz5+c3M=";
pub(crate) const USER: &str = "user";
pub(crate) const PASSWORD: &str = "p?>~ss";

pub(crate) struct Registry {
    /// `127.0.0.1:port/web`
    pub(crate) repository: String,
    pub(crate) digest: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Content {
    manifest: Vec<u8>,
    blobs: Vec<(String, Vec<u8>)>,
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn content() -> Content {
    let mut archive = Archive::new();
    archive.file("hello", 0o644, b"hello").unwrap();
    let layer = archive.finish().to_vec();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(), "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "size": layer.len(), "digest": digest(&layer),
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    Content { manifest, blobs: vec![(digest(&config), config), (digest(&layer), layer)] }
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let content = std::sync::Arc::new(content());
        let digest = digest(&content.manifest);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let content = content.clone();
                tokio::spawn(async move { serve(stream, &content).await });
            }
        });
        Self { repository: format!("127.0.0.1:{port}/web"), digest, task }
    }
}

/// One request per connection; whatever is not HTTP (Docker tries TLS first) is hung up on.
async fn serve(mut stream: TcpStream, content: &Content) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        if head[0] == 0x16 {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let mut words = head.split_whitespace();
    let (method, path) = (words.next()?, words.next()?);
    let allowed = head.lines().any(|line| {
        line.split_once(": ")
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("authorization") && value == AUTHORIZATION)
    });
    let manifest = digest(&content.manifest);
    let blob = content.blobs.iter().find(|(digest, _)| path.ends_with(&format!("/blobs/{digest}")));
    let (status, kind, body) = if !allowed {
        ("401 Unauthorized", "application/json", &br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#[..])
    } else if path == "/v2/" {
        ("200 OK", "application/json", &b"{}"[..])
    } else if path.ends_with("/manifests/1") || path.ends_with(&format!("/manifests/{manifest}")) {
        ("200 OK", MANIFEST_TYPE, content.manifest.as_slice())
    } else if let Some((_, blob)) = blob {
        ("200 OK", "application/octet-stream", blob.as_slice())
    } else {
        let body = &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#[..];
        ("404 Not Found", "application/json", body)
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nWWW-Authenticate: Basic realm=\"test\"\r\n\
         Docker-Content-Digest: {}\r\n\r\n",
        body.len(),
        digest(body),
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    if method != "HEAD" {
        stream.write_all(body).await.ok()?;
    }
    stream.shutdown().await.ok()
}
