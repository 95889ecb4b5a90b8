//! What Kubernetes objects are: kinds, schemas, defaults, validation, selectors, quantities, patches and
//! Status errors. Pure: no IO, no clock, no randomness, and no HTTP.

pub mod decode;
pub mod discovery;
pub mod field;
pub mod kinds;
pub mod openapi;
pub mod own;
pub mod patch;
pub mod printers;
pub mod protobuf;
pub mod quantity;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod status;
pub mod yaml;
