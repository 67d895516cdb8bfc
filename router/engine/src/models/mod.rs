//! Models for loom: every order of a few steps of two or three threads, and every value that weak memory lets a load see.
//! Each asks one question. Where a model has a planted fault beside it, that shows that it would notice.
//!
//! ```text
//! RUSTFLAGS="--cfg router_loom" cargo test -p activation-engine --lib models::
//! ```

#![allow(clippy::unwrap_used)]

mod budget;
mod intake;
mod recent;
mod room;
mod timers;

/// Runs a model in all its orders, with at most three switches of a thread that could have gone on; `LOOM_MAX_PREEMPTIONS`
/// says otherwise.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 10_000;
    builder.check(model);
}
