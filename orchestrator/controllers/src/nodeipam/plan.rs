//! Arithmetic on ranges, and which one is free. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::meta::name;

/// How many ranges one cluster may be cut into; more would be a slip of the pen.
const MOST_BITS: u8 = 16;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("{0:?} is not a CIDR: want an address and a prefix length, such as 10.244.0.0/16")]
    Syntax(String),
    #[error(
        "the node mask /{node} must be at least as long as that of {cluster}, by at most {MOST_BITS} bits"
    )]
    Mask { cluster: String, node: u8 },
}

/// The addresses of all pods, cut into one range per node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCidrs {
    base: u128,
    prefix: u8,
    node_prefix: u8,
    /// 32 or 128.
    width: u8,
}

impl PodCidrs {
    /// For example `("10.244.0.0/16", 24)`: 256 nodes with 254 pods each.
    pub fn new(cluster: &str, node_prefix: u8) -> Result<Self, CidrError> {
        let (base, prefix, width) = parse(cluster).ok_or_else(|| CidrError::Syntax(cluster.to_owned()))?;
        if node_prefix < prefix || node_prefix > width || node_prefix - prefix > MOST_BITS {
            return Err(CidrError::Mask { cluster: cluster.to_owned(), node: node_prefix });
        }
        Ok(Self { base, prefix, node_prefix, width })
    }

    fn count(&self) -> usize {
        1 << (self.node_prefix - self.prefix)
    }

    fn size_bits(&self) -> u32 {
        u32::from(self.width - self.node_prefix)
    }

    pub(crate) fn range(&self, index: usize) -> String {
        let address = self.base + ((index as u128) << self.size_bits());
        let ip = if self.width == 32 {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(address).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(address))
        };
        format!("{ip}/{}", self.node_prefix)
    }

    /// Every index whose range shares an address with `cidr`; none for what is not of this cluster.
    fn overlapping(&self, cidr: &str) -> std::ops::Range<usize> {
        let Some((start, prefix, width)) = parse(cidr).filter(|(_, _, w)| *w == self.width) else {
            return 0..0;
        };
        let last = |base: u128, prefix: u8, width: u8| {
            base + ((1u128.checked_shl(u32::from(width - prefix)).unwrap_or(0)).wrapping_sub(1))
        };
        let (end, own_end) = (last(start, prefix, width), last(self.base, self.prefix, self.width));
        if end < self.base || start > own_end {
            return 0..0;
        }
        let index =
            |address: u128| usize::try_from((address - self.base) >> self.size_bits()).unwrap_or(usize::MAX);
        index(start.max(self.base))..index(end.min(own_end)) + 1
    }
}

impl Default for PodCidrs {
    /// 10.244.0.0/16 in /24s.
    fn default() -> Self {
        Self {
            base: u128::from(Ipv4Addr::new(10, 244, 0, 0).to_bits()),
            prefix: 16,
            node_prefix: 24,
            width: 32,
        }
    }
}

/// The network address, the prefix length and the width in bits.
fn parse(cidr: &str) -> Option<(u128, u8, u8)> {
    let (ip, prefix) = cidr.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    let (bits, width) = match ip.parse().ok()? {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    if prefix > width {
        return None;
    }
    let host = u32::from(width - prefix);
    let base = bits.checked_shr(host).unwrap_or(0).checked_shl(host).unwrap_or(0);
    Some((base, prefix, width))
}

/// What was handed out and is not yet visible on the nodes, and where the search goes on: a range that was just
/// given back is the last to be used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) pending: BTreeMap<String, usize>,
    cursor: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Assign { node: String, cidr: String },
    Exhausted { node: String },
}

/// What `node` needs, given all nodes. An assignment stays reserved in `memory` until the node shows it or is gone.
pub(crate) fn plan(cidrs: &PodCidrs, memory: &mut Memory, nodes: &[Arc<Node>], node: &str) -> Option<Action> {
    memory
        .pending
        .retain(|pending, _| nodes.iter().any(|n| name(&n.metadata) == pending && ranges_of(n).is_empty()));
    let wanting = nodes.iter().find(|n| name(&n.metadata) == node)?;
    if !ranges_of(wanting).is_empty() {
        return None;
    }
    if let Some(index) = memory.pending.get(node) {
        return Some(Action::Assign { node: node.to_owned(), cidr: cidrs.range(*index) });
    }
    let mut used: BTreeSet<usize> = memory.pending.values().copied().collect();
    for range in nodes.iter().flat_map(|n| ranges_of(n)) {
        used.extend(cidrs.overlapping(range));
    }
    let count = cidrs.count();
    let Some(free) = (0..count).map(|i| (memory.cursor + i) % count).find(|i| !used.contains(i)) else {
        return Some(Action::Exhausted { node: node.to_owned() });
    };
    memory.cursor = (free + 1) % count;
    memory.pending.insert(node.to_owned(), free);
    Some(Action::Assign { node: node.to_owned(), cidr: cidrs.range(free) })
}

fn ranges_of(node: &Node) -> Vec<&str> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let mut ranges: Vec<&str> = spec.pod_cidrs.iter().flatten().map(String::as_str).collect();
    if ranges.is_empty() {
        ranges.extend(spec.pod_cidr.as_deref().filter(|c| !c.is_empty()));
    }
    ranges
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
