//! The router's decisions.
//!
//! This crate may not do I/O, read a clock or a random source, spawn, await or log. Time comes in as an argument; what is to
//! be done goes out as [effects](effect::Effect).
//!
//! Start reading at [`hub`] (all actions), then `matcher` (one action), then [`intake`] (how threads share one).

pub mod audit;
pub mod backlog;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod container;
pub mod cutoff;
pub mod effect;
pub mod extents;
mod flight;
mod guard;
pub mod hub;
pub mod id;
pub mod input;
pub mod intake;
pub mod lanes;
mod ledger;
pub mod limits;
mod list;
pub mod mailbox;
mod matcher;
#[cfg(all(test, router_loom))]
mod models;
#[doc(hidden)]
pub mod mutant;
mod nodes;
pub mod numbered;
pub mod outcome;
mod overdue;
mod pace;
mod queue;
mod recent;
mod rejoin;
pub mod roster;
pub mod sessions;
pub mod slab;
mod spill;
pub mod stored_time;
mod succession;
#[cfg(not(any(router_loom, router_shuttle)))]
mod sync;
#[cfg(any(router_loom, router_shuttle))]
pub mod sync;
#[cfg(test)]
mod tables;
pub mod tally;
pub mod time;
mod timers;
mod turn;
mod way;
pub mod wheel;
mod withheld;
