//! The stores through their front door.

#![allow(clippy::unwrap_used, reason = "in a test the place that fails says enough")]

mod contract;
mod damage;
mod faults;
mod mounts;
mod seal;
mod small;
