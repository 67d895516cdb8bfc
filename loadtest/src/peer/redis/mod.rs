//! Redis, used in two ways: `lists` and `streams`. `resp` has the words that both say to it.

pub(crate) mod lists;
mod resp;
pub(crate) mod streams;
