//! For the tests and examples that need a real broker.

pub(crate) mod broker;
pub(crate) mod cycles;
pub(crate) mod topic;
