//! How the user's commands reach a cluster: the kubeconfig that kubectl would use.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};

#[derive(Args, Clone, Debug, Default)]
pub struct ConnectArgs {
    /// The kubeconfig to use; by default $KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// The namespace; by default the context's
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub namespace: Option<String>,
}

/// A cluster and the namespace that commands mean.
pub struct Connection {
    pub client: kube::Client,
    pub namespace: String,
}

impl ConnectArgs {
    pub async fn connect(&self) -> Result<Connection> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
                kube::Config::from_custom_kubeconfig(file, &options).await
            }
            None => kube::Config::from_kubeconfig(&options).await,
        };
        let config = config.map_err(|e| {
            anyhow!("no usable kubeconfig: {e}\nname one with --kubeconfig or $KUBECONFIG; `loadline up` writes DATA-DIR/kubeconfig")
        })?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Connection { client: kube::Client::try_from(config)?, namespace })
    }
}
