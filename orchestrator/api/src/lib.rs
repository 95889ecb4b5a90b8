//! What Kubernetes objects are: kinds, schemas, defaults, validation, selectors, quantities, patches and
//! Status errors. Pure: no IO, no clock, no randomness, and no HTTP.

pub mod field;
pub mod kinds;
pub mod schema;
pub mod status;
