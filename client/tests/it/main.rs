//! The client through its front door, against a router that says what the test tells it to. Nothing leaves the process: the
//! wire is a pipe in memory, so that time can stand still while bytes travel.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod controller;
mod desk;
mod invoker;
mod rejoin;
mod resume;
mod router;
mod streams;
