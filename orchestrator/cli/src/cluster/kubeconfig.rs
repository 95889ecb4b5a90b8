//! The kubeconfig of the cluster's administrator.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use loadline_server::pki::{Issued, write_atomic};
use serde_json::json;

/// Writes `path`, readable by its owner only.
pub fn write(path: &Path, server: &str, ca_pem: &str, admin: &Issued) -> Result<()> {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let name = "loadline";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": encode(ca_pem)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": encode(&admin.cert_pem), "client-key-data": encode(&admin.key_pem)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin", "namespace": "default"}}],
    });
    write_atomic(path, &loadline_api::yaml::to_yaml(&config), 0o600)
        .with_context(|| format!("writing {}", path.display()))
}
