//! The server through its own front door: in process, and over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers as well")]

mod bad_input;
mod components;
mod lists;
mod objects;
mod outage;
mod support;
mod tls;
mod watches;
