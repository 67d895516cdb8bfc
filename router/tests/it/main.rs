//! The router as its peers and operators see it: each test starts one on free ports and speaks to it over sockets.
//!
//! `router` starts and stops it, `peers` speaks the streams, `scene` is what most tests begin with. The others are the
//! tests, by what they are about. Nothing here sleeps and hopes: what is to come is awaited, and fails with its name after 10 s. Two tests
//! take their time, one that reads slowly and one in which nothing may come for a while.

#![allow(clippy::unwrap_used, reason = "in a test the place that fails says enough")]

mod bad_input;
mod breakers;
mod calls;
mod drain;
mod operating;
mod overflow;
mod parts;
mod peers;
mod process;
mod proxy;
mod round_trip;
mod router;
mod scene;
mod sessions;
mod settings;
mod slow_reader;
