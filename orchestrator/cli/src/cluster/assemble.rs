//! A control plane in this process: store, API server, and whichever roles were asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use loadline_client::Scope;
use loadline_server::pki::{Issued, Pki};
use loadline_server::{Identity, Server};
use loadline_store::{Embedded, EmbeddedOptions, Etcd, EtcdConfig, EtcdTls, Store, compact_periodically};
use tokio_util::sync::CancellationToken;

use crate::cluster::{ControlPlaneArgs, Profile, StoreChoice, kubeconfig};

/// Kubernetes compacts every five minutes.
const KEEP_HISTORY: Duration = Duration::from_secs(300);
/// Each node gets a /24: 254 pods.
const NODE_PREFIX: u8 = 24;
/// The user that the gatherer shows to kubelets.
const METRICS_USER: &str = "system:loadline-metrics";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    Api,
    Controllers,
    Scheduler,
    Metrics,
    Autoscaler,
}

impl Role {
    pub const ALL: [Self; 5] =
        [Self::Api, Self::Controllers, Self::Scheduler, Self::Metrics, Self::Autoscaler];
}

pub struct ControlPlane {
    pub server: Server,
    pub pki: Arc<Pki>,
    pub scope: Scope,
    embedded: Option<Arc<Embedded>>,
    compactor: CancellationToken,
}

impl ControlPlane {
    /// Everything is up when this returns; the kubeconfig is written.
    pub async fn start(args: &ControlPlaneArgs, roles: &BTreeSet<Role>) -> Result<Self> {
        std::fs::create_dir_all(&args.data_dir)
            .with_context(|| format!("making {}", args.data_dir.display()))?;
        let (store, embedded) = open_store(args).await?;
        let compactor = CancellationToken::new();
        tokio::spawn(compact_periodically(store.clone(), KEEP_HISTORY, compactor.clone()));
        let scope = Scope::new();

        let metrics = roles.contains(&Role::Metrics).then(loadline_metrics::Metrics::new);
        let autoscaler = roles.contains(&Role::Autoscaler).then(loadline_autoscaler::Autoscaler::new);
        let mut config = loadline_server::Config::new(args.listen, &args.data_dir);
        config.token_auth_file.clone_from(&args.token_auth_file);
        config.service_cidr = (args.service_cidr.network(), args.service_cidr.prefix_len());
        config.advertise = advertised(args.listen.ip());
        config.extra_sans = vec![super::primary_address().to_string()];
        config.delegates.extend(metrics.iter().flat_map(|m| m.delegates()).map(delegate));
        config.delegates.extend(autoscaler.iter().flat_map(|a| a.delegates()).map(delegate));
        let server = Server::start(config, store).await.context("starting the API server")?;
        let pki = server.pki().clone();

        let local = |user: &str| client(&server, user);
        if roles.contains(&Role::Controllers) {
            let config = loadline_controllers::Config {
                profile: match args.profile {
                    Profile::Fast => loadline_controllers::Profile::Fast,
                    Profile::Compatible => loadline_controllers::Profile::Compatible,
                },
                pod_cidrs: loadline_controllers::PodCidrs::new(&args.cluster_cidr.to_string(), NODE_PREFIX)?,
                ca_certificate: Some(pki.ca_pem().to_owned()),
                ..loadline_controllers::Config::default()
            };
            loadline_controllers::start(&scope, local("system:kube-controller-manager"), config);
        }
        if roles.contains(&Role::Scheduler) {
            let config = loadline_scheduler::Config::default();
            loadline_scheduler::start(&scope, local("system:kube-scheduler"), config);
        }
        if let Some(metrics) = metrics {
            let tls = kubelet_client_tls(&pki)?;
            metrics.start(&scope, local(METRICS_USER), tls);
        }
        if let Some(autoscaler) = autoscaler {
            autoscaler.start(&scope, local("system:loadline-autoscaler"));
        }
        let plane = Self { server, pki, scope, embedded, compactor };
        plane.write_kubeconfig(&args.data_dir)?;
        Ok(plane)
    }

    /// Where clients on this machine reach the API.
    pub fn url(&self) -> String {
        let addr = self.server.addr();
        if addr.ip().is_unspecified() {
            format!("https://127.0.0.1:{}", addr.port())
        } else {
            format!("https://{addr}")
        }
    }

    /// A client in this process, allowed everything under the name `user`.
    pub fn client(&self, user: &str) -> kube::Client {
        client(&self.server, user)
    }

    fn write_kubeconfig(&self, data_dir: &Path) -> Result<()> {
        let admin: Issued = self.pki.client("admin", "kubernetes-admin", &["system:masters"])?;
        kubeconfig::write(&data_dir.join("kubeconfig"), &self.url(), self.pki.ca_pem(), &admin)
    }

    /// Components first, then the server with the requests that are under way, then the store.
    pub async fn shutdown(self) {
        self.scope.shutdown().await;
        self.compactor.cancel();
        self.server.shutdown().await;
        if let Some(store) = self.embedded {
            store.close().await;
        }
    }
}

fn client(server: &Server, user: &str) -> kube::Client {
    kube::Client::new(server.local(Identity::component(user)), "default")
}

fn delegate(of: loadline_client::Delegated) -> loadline_server::Delegate {
    loadline_server::Delegate {
        group: of.group.to_owned(),
        version: of.version.to_owned(),
        kind: of.kind.to_owned(),
        resource: of.resource.to_owned(),
        singular: of.singular.to_owned(),
        short_names: Vec::new(),
        subresource: of.subresource.map(str::to_owned),
        namespaced: of.namespaced,
        verbs: of.verbs.iter().map(|v| (*v).to_owned()).collect(),
        service: tower::util::BoxCloneSyncService::new(of.router.into_service()),
    }
}

/// What kubelets ask of whoever wants their metrics: a certificate of the cluster's CA.
fn kubelet_client_tls(pki: &Pki) -> Result<rustls::ClientConfig> {
    let issued = pki.client("metrics", METRICS_USER, &["system:masters"])?;
    let (chain, key) = issued.rustls().map_err(|e| anyhow!("the gatherer's certificate: {e}"))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pki_types::pem::PemObject::pem_slice_iter(pki.ca_pem().as_bytes()) {
        roots.add(certificate.map_err(|e| anyhow!("the cluster's CA: {e}"))?)?;
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// The address that pods are sent to, where it is another than the one that is listened on: a server that listens on a
/// certain address is reached there and nowhere else.
fn advertised(listen: IpAddr) -> Option<IpAddr> {
    listen.is_unspecified().then(super::primary_address)
}

async fn open_store(args: &ControlPlaneArgs) -> Result<(Arc<dyn Store>, Option<Arc<Embedded>>)> {
    match &args.store {
        StoreChoice::Embedded => {
            let dir = args.data_dir.join("store");
            let store = tokio::task::spawn_blocking(move || Embedded::open(dir, EmbeddedOptions::default()))
                .await??;
            let store = Arc::new(store);
            Ok((store.clone(), Some(store)))
        }
        StoreChoice::Etcd(endpoints) => {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
            };
            let tls = match &args.etcd_cafile {
                None => None,
                Some(ca) => Some(EtcdTls {
                    ca: read(ca)?,
                    client: match (&args.etcd_certfile, &args.etcd_keyfile) {
                        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
                        _ => None,
                    },
                    server_name: None,
                }),
            };
            let user = match &args.etcd_user {
                None => None,
                Some(name) => {
                    let password = std::env::var("LOADLINE_ETCD_PASSWORD")
                        .context("--etcd-user needs its password in $LOADLINE_ETCD_PASSWORD")?;
                    Some((name.clone(), password))
                }
            };
            let config = EtcdConfig { endpoints: endpoints.clone(), tls, user, prefix: String::new() };
            Ok((Arc::new(Etcd::connect(config).await?), None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_is_listened_on_is_advertised() {
        for listen in ["127.0.0.1", "::1", "10.1.2.3"] {
            assert_eq!(advertised(listen.parse().unwrap()), None, "{listen}");
        }
        assert_eq!(advertised("0.0.0.0".parse().unwrap()), Some(crate::cluster::primary_address()));
    }
}
