//! The node's network: addresses and links for pods, Services as nftables rules, and cluster DNS. It is ours, not
//! Docker's: a sandbox starts without a network and gets its veth here.

pub mod bridge;
pub mod dns;
pub mod ipam;
mod link;
pub mod pod_network;
pub mod proxy;
pub mod services;
pub mod sim;

pub use bridge::BridgeNetwork;
pub use pod_network::{NetworkError, PodNetwork, PodRef};
pub use services::Services;
pub use sim::SimNetwork;
