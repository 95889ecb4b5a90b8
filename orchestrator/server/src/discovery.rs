//! The documents that say what this server serves.

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use loadline_api::kinds::Snapshot;
use serde_json::json;

use crate::config::Delegate;
use crate::negotiate::{Offer, accept};
use crate::respond::{Failure, HttpResponse, Result, encoded};

pub(crate) struct Discovery {
    api: Bytes,
}

impl Discovery {
    pub(crate) fn new(_kinds: &Snapshot, _delegates: &[Delegate], (address, port): (IpAddr, u16)) -> Self {
        let api = json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{address}:{port}")}]});
        Self { api: api.to_string().into() }
    }

    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Result<HttpResponse> {
        let accepted = accept(headers, Offer::Discovery)?;
        match path {
            "/api" => Ok(encoded(StatusCode::OK, self.api.clone(), accepted.encoding)),
            _ => Err(Failure::NoPage),
        }
    }
}
