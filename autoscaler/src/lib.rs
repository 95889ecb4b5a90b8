//! Keeps workloads at their load line: decides how many replicas the demand needs, explains it, and makes it so.
//!
//! The heart is [`decide`], a pure function of a policy, a record of everything that was seen, and the history. Live
//! operation and replay both call it. The controller around it reads metrics only through the API, acts only through
//! the `/scale` subresource, and keeps no state that it cannot rebuild.

mod amount;
mod api;
pub mod behavior;
mod controller;
mod decide;
pub mod decision;
pub mod fast;
pub mod policy;
pub mod record;
pub mod ring;
pub mod state;
pub mod strict;
mod telemetry;

use std::sync::Arc;

use loadline_client::{Delegated, Scope};

pub use decide::decide;
pub use decision::Decision;
pub use policy::Policy;
pub use record::Record;
pub use state::State;

/// The autoscaler component. Its API can be handed to the server before it has a client itself.
#[derive(Clone, Default)]
pub struct Autoscaler {
    ring: Arc<ring::Ring>,
}

impl Autoscaler {
    pub fn new() -> Self {
        Self::default()
    }

    /// `decisions` of ScalingPolicies and of HorizontalPodAutoscalers.
    pub fn delegates(&self) -> Vec<Delegated> {
        api::delegates(&self.ring)
    }

    /// Runs until the scope ends.
    pub fn start(&self, scope: &Scope, client: kube::Client) {
        controller::start(scope, client, self.ring.clone());
    }
}
