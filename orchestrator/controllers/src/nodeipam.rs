//! Node IPAM: gives every node its own range of pod addresses, for the node's life, and no range twice. Owns
//! `spec.podCIDR` and `spec.podCIDRs`; never changes one that is there.

pub(crate) mod plan;
pub(crate) mod run;
