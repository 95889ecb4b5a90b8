//! The real pod network of one node: a bridge with the podCIDR's first address, a veth for each pod.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use rtnetlink::Handle;
use tokio::process::Command;
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use crate::ipam::Ipam;
use crate::link;
use crate::pod_network::{NetworkError, PodNetwork, PodRef, Result};

#[derive(Clone, Debug)]
pub struct Config {
    /// Tells the links of this cluster from those of others on the same machine.
    pub cluster_id: String,
    pub node: String,
    /// Where allocated addresses are kept.
    pub data_dir: PathBuf,
    /// Reached through the bridge by the host itself.
    pub service_cidr: Ipv4Net,
}

pub struct BridgeNetwork {
    config: Config,
    bridge: String,
    veth_prefix: String,
    handle: Handle,
    state: Mutex<Option<State>>,
}

struct State {
    ipam: Ipam,
    bridge_index: u32,
}

impl BridgeNetwork {
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self {
            bridge: format!("{}br{}", prefix(&config.cluster_id), &digest(&config.node)[..5]),
            veth_prefix: format!("{}v{}", prefix(&config.cluster_id), &digest(&config.node)[..2]),
            handle: link::open()?,
            config,
            state: Mutex::new(None),
        })
    }

    /// The host's end of a pod's link: at most 15 characters.
    fn veth(&self, uid: &str) -> String {
        format!("{}{}", self.veth_prefix, &digest(uid)[..6])
    }
}

#[async_trait]
impl PodNetwork for BridgeNetwork {
    async fn set_pod_cidr(&self, cidr: Ipv4Net) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.as_ref().is_some_and(|s| s.ipam.cidr() == cidr) {
            return Ok(());
        }
        let ipam = Ipam::open(&self.config.data_dir.join("addresses"), cidr)?;
        let gateway = ipam.gateway();
        let bridge_index =
            link::ensure_bridge(&self.handle, &self.bridge, gateway, cidr.prefix_len()).await?;
        forwarding(&self.bridge)?;
        allow_forwarding(&format!("{}+", prefix(&self.config.cluster_id))).await?;
        link::route_through(&self.handle, self.config.service_cidr, bridge_index, gateway).await?;
        info!(bridge = self.bridge, %cidr, "pod network ready");
        *state = Some(State { ipam, bridge_index });
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.state.lock().await.as_ref().map(|_| ()).ok_or(NetworkError::NotConfigured)
    }

    async fn add(&self, pod: &PodRef, netns: Option<&Path>) -> Result<Vec<IpAddr>> {
        let netns =
            netns.ok_or_else(|| NetworkError::at("add pod")("the sandbox has no network namespace"))?;
        let (address, gateway, bridge_index) = {
            let mut state = self.state.lock().await;
            let state = state.as_mut().ok_or(NetworkError::NotConfigured)?;
            (state.ipam.allocate(&pod.uid)?, state.ipam.gateway(), state.bridge_index)
        };
        let name = self.veth(&pod.uid);
        let peer = format!("p{name}");
        let peer = peer[..peer.len().min(15)].to_owned();
        match link::add_veth(&self.handle, &name, &peer, bridge_index, netns).await {
            Ok(()) => {}
            Err(error) => {
                // It was there already: complete in the pod, or half made, or left from a sandbox that is gone.
                debug!(%error, pod = pod.name, "link exists or failed, checking");
                if link::attach_existing(&self.handle, &name, bridge_index).await.is_ok()
                    && configure(netns, &peer, address, gateway).await.is_ok()
                {
                    return Ok(vec![IpAddr::V4(address)]);
                }
                link::delete(&self.handle, &name).await?;
                link::delete(&self.handle, &peer).await?;
                link::add_veth(&self.handle, &name, &peer, bridge_index, netns).await?;
            }
        }
        configure(netns, &peer, address, gateway).await?;
        Ok(vec![IpAddr::V4(address)])
    }

    async fn remove(&self, pod_uid: &str) -> Result<()> {
        link::delete(&self.handle, &self.veth(pod_uid)).await?;
        match self.state.lock().await.as_mut() {
            Some(state) => state.ipam.release(pod_uid),
            None => Ok(()),
        }
    }

    async fn retain(&self, pod_uids: &[String]) -> Result<()> {
        let strangers = {
            let state = self.state.lock().await;
            state.as_ref().ok_or(NetworkError::NotConfigured)?.ipam.strangers(pod_uids)
        };
        for uid in strangers {
            self.remove(&uid).await?;
        }
        let live: Vec<String> = pod_uids.iter().map(|uid| self.veth(uid)).collect();
        for name in link::names(&self.handle, &self.veth_prefix).await? {
            if !live.contains(&name) {
                link::delete(&self.handle, &name).await?;
            }
        }
        Ok(())
    }
}

async fn configure(netns: &Path, peer: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<()> {
    let peer = peer.to_owned();
    link::inside(netns, move |handle| link::configure_pod(handle, peer, address, gateway)).await
}

/// Removes every link of a cluster from this machine, whatever node it belonged to, and its forwarding rules.
pub async fn remove_all(cluster_id: &str) -> Result<()> {
    let handle = link::open()?;
    for name in link::names(&handle, &prefix(cluster_id)).await? {
        link::delete(&handle, &name).await?;
    }
    let pattern = format!("{}+", prefix(cluster_id));
    for direction in ["-i", "-o"] {
        while iptables(&["-D", "FORWARD", direction, &pattern, "-j", "ACCEPT"]).await? {}
    }
    Ok(())
}

/// All links of a cluster start with this: `ll` and four characters.
fn prefix(cluster_id: &str) -> String {
    format!("ll{}", &digest(cluster_id)[..4])
}

/// Twelve letters and digits that stand for `text` (FNV-1a, stable over versions and machines).
fn digest(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // The last step of FNV mixes its low bits badly into the high ones.
    let hash = hash ^ (hash >> 29);
    (0..12).map(|i| char::from(ALPHABET[(hash >> (i * 5)) as usize & 31])).collect()
}

/// Pods are routed, and neighbours on the bridge must keep going through the gateway.
fn forwarding(bridge: &str) -> Result<()> {
    write_sysctl("net/ipv4/ip_forward", "1")?;
    write_sysctl(&format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    write_sysctl("net/ipv4/conf/all/send_redirects", "0")
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    let now = std::fs::read_to_string(&path).map_err(NetworkError::at("read a kernel setting"))?;
    if now.trim() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(NetworkError::at("change a kernel setting"))
}

/// Docker sets the policy of the FORWARD chain to DROP; an accept in a table of ours would not overrule that.
async fn allow_forwarding(pattern: &str) -> Result<()> {
    for direction in ["-i", "-o"] {
        if !iptables(&["-C", "FORWARD", direction, pattern, "-j", "ACCEPT"]).await?
            && !iptables(&["-I", "FORWARD", direction, pattern, "-j", "ACCEPT"]).await?
        {
            warn!(pattern, "no accept rule in the FORWARD chain; a policy of DROP there would cut pods off");
        }
    }
    Ok(())
}

/// Whether the rule command succeeded. A machine without iptables has no policy of Docker's to work around.
async fn iptables(arguments: &[&str]) -> Result<bool> {
    match Command::new("iptables").arg("-w").args(arguments).output().await {
        Ok(output) => Ok(output.status.success()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(NetworkError::at("run iptables")(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ() {
        let veth = |cluster: &str, node: &str, uid: &str| {
            format!("{}v{}{}", prefix(cluster), &digest(node)[..2], &digest(uid)[..6])
        };
        let names: std::collections::HashSet<String> =
            (0..500).map(|i| veth("c", "node-1", &format!("uid-{i}"))).collect();
        assert_eq!(names.len(), 500);
        assert!(names.iter().all(|n| n.len() <= 15));
        assert_ne!(prefix("a"), prefix("b"));
        assert_ne!(digest("node-1")[..5], digest("node-2")[..5]);
    }
}
