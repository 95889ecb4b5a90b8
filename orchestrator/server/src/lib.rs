//! The Kubernetes API server: one generic pipeline for every kind of the table, over one store.
//!
//! Owns who may do what, the order of a request's steps, the watch caches, and everything that is HTTP. Never knows
//! what a kind means (that is `loadline-api`) nor how it is stored (that is `loadline-store`).

pub mod config;
pub mod identity;
pub mod pki;

mod alloc;
mod app;
mod authz;
mod body;
mod bootstrap;
mod cache;
mod codec;
mod discovery;
mod expiry;
mod feed;
mod filter;
mod health;
mod metrics;
mod negotiate;
mod object;
mod openapi;
mod options;
mod owners;
mod proxy;
mod read;
mod request;
mod respond;
mod server;
mod shape;
mod sub;
mod table;
mod watch;
mod write;

pub use config::{Config, Delegate, DelegateService, Limits};
pub use identity::Identity;
pub use pki::{Issued, Pki};
pub use server::{LocalService, Server, StartError};
