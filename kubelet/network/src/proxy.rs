//! The service proxy: Services and their ready endpoints become nftables maps and chains. One process programs one
//! network namespace; the table carries the cluster's id, so clusters on one machine do not meet.

pub mod plan;
mod run;

pub use run::{Config, remove_all, start};
