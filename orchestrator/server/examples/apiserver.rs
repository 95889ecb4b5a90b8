//! The API server alone on an embedded store: how an assembly starts one, and what wire tests run against.
//!
//! `apiserver --data-dir DIR [--listen ADDR:PORT] [--token-auth-file FILE] [--bootstrap]`

use std::path::PathBuf;
use std::sync::Arc;

use loadline_server::{Config, Server};
use loadline_store::{Embedded, EmbeddedOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut data_dir = PathBuf::from("data");
    let mut config = Config::new("127.0.0.1:6443".parse()?, &data_dir);
    config.bootstrap = false;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--data-dir" => data_dir = value()?.into(),
            "--listen" => config.listen = value()?.parse()?,
            "--token-auth-file" => config.token_auth_file = Some(value()?.into()),
            "--bootstrap" => config.bootstrap = true,
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    config.data_dir = data_dir.clone();
    let store = Arc::new(Embedded::open(data_dir.join("store"), EmbeddedOptions::default())?);
    let server = Server::start(config, store.clone()).await?;
    println!("ready https://{}", server.addr());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    server.shutdown().await;
    store.close().await;
    Ok(())
}
