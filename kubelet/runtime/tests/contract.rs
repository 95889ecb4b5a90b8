//! One contract, every runtime: the cases of `cases.rs` on Docker and on the simulator, and beside them what only
//! one of the two can show. The Docker part needs a daemon and root; without them it says so and passes.

#![allow(clippy::unwrap_used)]

#[path = "contract/cases.rs"]
mod cases;
#[path = "contract/docker.rs"]
mod docker;
#[path = "contract/registry.rs"]
mod registry;
#[path = "contract/sim.rs"]
mod sim;
#[path = "contract/support.rs"]
mod support;
