//! What every namespace is born with: the ServiceAccount `default` and the ConfigMap with the cluster's CA.

pub(crate) mod plan;
pub(crate) mod run;
