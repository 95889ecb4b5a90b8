//! Protection of storage in use (`pvc-protection` and `pv-protection`): the API puts a finalizer on every claim and
//! volume; these two take it off what is being deleted once no pod uses the claim and no claim is bound to the volume.
//! They never delete anything and never bind.

pub(crate) mod plan;
pub(crate) mod run;
