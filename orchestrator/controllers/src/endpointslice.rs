//! EndpointSlice and Endpoints: tells for every Service with a selector which pods answer for it, on which ports and
//! in which state. Owns the slices that carry its label and the Endpoints of such Services; touches no others.

pub(crate) mod legacy;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod run;
