//! The one function that decides. Live operation, dry run, replay and tests all call it: no clock, no randomness, no IO.

use crate::decision::Decision;
use crate::policy::Policy;
use crate::record::Record;
use crate::state::State;
use crate::{fast, strict};

/// What to do, given what is asked for, what is seen and what went before. The same inputs give the same decision, bit
/// by bit.
pub fn decide(policy: &Policy, record: &Record, state: &State) -> Decision {
    match policy {
        Policy::Strict(policy) => strict::decide(policy, record, state),
        Policy::Fast(policy) => fast::decide(policy, record, state),
    }
}
