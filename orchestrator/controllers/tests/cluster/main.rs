//! The controllers on a real API server in this process. Scheduler and kubelets are played by a few lines: pods get a
//! node and an address, become ready, and end when told to.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod faults;
mod hollow;
mod nodes;
mod ownership;
mod workloads;
