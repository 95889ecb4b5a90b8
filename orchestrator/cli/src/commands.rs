//! The user's commands, one file each.

pub mod apply;
pub mod delete;
pub mod describe;
pub mod events;
pub mod exec;
pub mod explain;
pub mod get;
pub mod logs;
pub mod rollout;
pub mod scale;
pub mod top;

use anyhow::{Context, Result};
use http::Request;
use serde_json::Value;

pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const MANAGER: &str = "loadline";

/// `?a=b&c=d`, escaped; nothing for no pairs.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(k, v)| {
            let escaped = percent_encoding::utf8_percent_encode(v, percent_encoding::NON_ALPHANUMERIC);
            format!("{k}={escaped}")
        })
        .collect();
    format!("?{}", pairs.join("&"))
}

pub(crate) async fn get_json(client: &kube::Client, path: &str) -> Result<Value> {
    Ok(client.request(Request::get(path).body(Vec::new())?).await?)
}

pub(crate) async fn patch(client: &kube::Client, path: &str, kind: &str, body: &Value) -> Result<Value> {
    let path = format!("{path}?fieldManager={MANAGER}");
    let request = Request::patch(path)
        .header("Content-Type", format!("application/{kind}"))
        .body(serde_json::to_vec(body).context("writing the patch")?)?;
    Ok(client.request(request).await?)
}
