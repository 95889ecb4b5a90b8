//! The contract on the simulator.

use std::sync::Arc;

use loadline_runtime::{Sim, SimConfig};

use crate::cases::{self, MISSING_IMAGE};
use crate::support::Subject;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sim_keeps_the_contract() {
    let sim = Sim::new(SimConfig::default());
    sim.declare_unpullable(MISSING_IMAGE, "connection refused");
    let runtime = Arc::new(sim);
    let subject = Subject { runtime, image: "anything:1".into(), real: false, cluster: "sim".into() };
    cases::suite(&subject).await;
}
