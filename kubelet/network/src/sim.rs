//! Addresses without links, for pods of the sim runtime.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::pod_network::{NetworkError, PodNetwork, PodRef, Result};

#[derive(Default)]
pub struct SimNetwork {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cidr: Option<Ipv4Net>,
    taken: HashMap<String, Ipv4Addr>,
    next: u32,
}

#[async_trait]
impl PodNetwork for SimNetwork {
    async fn set_pod_cidr(&self, cidr: Ipv4Net) -> Result<()> {
        self.state.lock().await.cidr = Some(cidr);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.state.lock().await.cidr.map(|_| ()).ok_or(NetworkError::NotConfigured)
    }

    async fn add(&self, pod: &PodRef, _netns: Option<&Path>) -> Result<Vec<IpAddr>> {
        let mut state = self.state.lock().await;
        let cidr = state.cidr.ok_or(NetworkError::NotConfigured)?;
        if let Some(address) = state.taken.get(&pod.uid) {
            return Ok(vec![IpAddr::V4(*address)]);
        }
        let size = u32::from(cidr.broadcast()) - u32::from(cidr.network());
        for _ in 0..size {
            state.next = (state.next + 1) % size;
            let address = Ipv4Addr::from(u32::from(cidr.network()) + state.next);
            if state.next >= 2 && !state.taken.values().any(|a| *a == address) {
                state.taken.insert(pod.uid.clone(), address);
                return Ok(vec![IpAddr::V4(address)]);
            }
        }
        Err(NetworkError::Exhausted(cidr))
    }

    async fn remove(&self, pod_uid: &str) -> Result<()> {
        self.state.lock().await.taken.remove(pod_uid);
        Ok(())
    }

    async fn retain(&self, pod_uids: &[String]) -> Result<()> {
        self.state.lock().await.taken.retain(|uid, _| pod_uids.contains(uid));
        Ok(())
    }
}
