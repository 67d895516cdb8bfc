//! The router's decisions.
//!
//! This crate may not do I/O, read a clock or a random source, spawn, await or log. Time comes in as an argument; what is to
//! be done goes out as [effects](effect::Effect).

pub mod slab;
pub mod time;
pub mod wheel;
