//! (to be written)

pub mod admin;
pub mod cli;
pub mod config;
pub mod listener;
