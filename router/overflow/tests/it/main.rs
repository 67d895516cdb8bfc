//! The stores through their front door.

#![allow(clippy::unwrap_used, reason = "in a test the place that fails says enough")]

mod contract;
mod damage;
mod faults;
mod forgetful;
mod limits;
mod mounts;
mod notes;
mod power;
mod seal;
mod small;
mod space;
