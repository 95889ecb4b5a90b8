//! Pod garbage collection: removes pods that nobody else will: those of nodes that are gone, terminating ones that
//! never had a node, those on nodes declared out of service, and finished ones beyond a number.

pub(crate) mod plan;
pub(crate) mod run;
