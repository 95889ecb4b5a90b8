//! TLS for the load generator's HTTP client, which cannot be built without: it trusts nobody, because load goes over
//! plain HTTP only (`load::run` says so to whoever asks for more), and the system's certificate store is not read.

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore};

pub fn client_config() -> Result<ClientConfig> {
    Ok(ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
