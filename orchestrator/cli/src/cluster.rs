//! Assembly: the one place that wires components together. Each submodule is a way to run some of them.

pub mod agent;
pub mod assemble;
pub mod down;
pub mod kubeconfig;
pub mod server;
pub mod up;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// Kubernetes' usual range for Services.
pub const DEFAULT_SERVICE_CIDR: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12);

/// What every way of running a control plane has in common.
#[derive(Args, Clone, Debug)]
pub struct ControlPlaneArgs {
    /// Where state is kept: the store, certificates, the kubeconfig, pods' volumes
    #[arg(long, value_name = "DIR", default_value = "/var/lib/loadline")]
    pub data_dir: PathBuf,
    /// Where the API is served; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// `embedded`, or `etcd=URL[,URL...]`
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    pub store: StoreChoice,
    /// The CA of etcd's certificates (PEM)
    #[arg(long, value_name = "FILE", help_heading = "etcd")]
    pub etcd_cafile: Option<PathBuf>,
    /// Our certificate for etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile", help_heading = "etcd")]
    pub etcd_certfile: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certfile", help_heading = "etcd")]
    pub etcd_keyfile: Option<PathBuf>,
    /// The user name for etcd; its password comes from $LOADLINE_ETCD_PASSWORD
    #[arg(long, value_name = "NAME", help_heading = "etcd")]
    pub etcd_user: Option<String>,
    /// Lines of `token,user,uid,"group1,group2"`, as for kube-apiserver
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// How soon a silent node is given up: after 5 s, or as Kubernetes does after 50 s and more
    #[arg(long, value_enum, default_value = "fast")]
    pub profile: Profile,
    /// Addresses of pods
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16", help_heading = "Network")]
    pub cluster_cidr: ipnet::Ipv4Net,
    /// Addresses of Services; the tenth is the cluster's DNS server
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12", help_heading = "Network")]
    pub service_cidr: ipnet::Ipv4Net,
}

impl ControlPlaneArgs {
    /// The tenth address of the service range, as kubeadm has it.
    pub fn cluster_dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()) + 10)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    Fast,
    Compatible,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    Docker,
    /// Containers that exist in memory only
    Sim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    Embedded,
    Etcd(Vec<String>),
}

impl std::str::FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no store; write embedded, or etcd=http://HOST:2379[,URL...]");
        match text.split_once('=') {
            None if text == "embedded" => Ok(Self::Embedded),
            Some(("etcd", urls)) => {
                let urls: Vec<String> = urls.split(',').map(|u| u.trim().to_owned()).collect();
                let good = |u: &String| u.starts_with("http://") || u.starts_with("https://");
                if urls.iter().all(good) { Ok(Self::Etcd(urls)) } else { Err(wrong()) }
            }
            _ => Err(wrong()),
        }
    }
}

/// A few letters that tell this cluster's containers and links from those of others; made once, kept in the directory.
pub fn cluster_id(data_dir: &Path) -> Result<String> {
    let path = data_dir.join("cluster-id");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let id = text.trim().to_owned();
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
            bail!(
                "{} holds no cluster id; restore it from a backup, or remove the directory to start anew",
                path.display()
            );
        }
        return Ok(id);
    }
    std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
    loadline_server::pki::write_atomic(&path, &format!("{id}\n"), 0o644)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(id)
}

/// The address under which other machines know this one: the source of its default route, else the loopback.
pub fn primary_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // Connecting a UDP socket sends nothing; it only asks the routing table. TEST-NET-1 is never on a link.
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Returns at SIGTERM or Ctrl-C.
pub async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_parse_or_say_how_to_mend_them() {
        assert_eq!("embedded".parse(), Ok(StoreChoice::Embedded));
        assert_eq!(
            "etcd=http://a:2379, https://b:2379".parse(),
            Ok(StoreChoice::Etcd(vec!["http://a:2379".into(), "https://b:2379".into()]))
        );
        for wrong in ["", "redb", "etcd", "etcd=", "etcd=a:2379", "embedded=x"] {
            assert!(wrong.parse::<StoreChoice>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_cluster_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let id = cluster_id(dir.path()).unwrap();
        assert_eq!(cluster_id(dir.path()).unwrap(), id);
        std::fs::write(dir.path().join("cluster-id"), "../x").unwrap();
        assert!(cluster_id(dir.path()).is_err());
    }
}
