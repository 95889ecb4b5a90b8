//! The end of a namespace: deletes everything in it, whatever the kind, and lets it go when it is empty.

pub(crate) mod plan;
pub(crate) mod run;
