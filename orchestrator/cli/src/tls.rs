//! TLS for the CLI's own requests to services: the system's certificate store is not needed for plain HTTP, and a
//! service with a private certificate is named by `--cacert`.

use anyhow::Result;
use rustls::{ClientConfig, RootCertStore};

pub fn client_config() -> Result<ClientConfig> {
    Ok(ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
