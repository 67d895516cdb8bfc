//! (to be written)

pub mod cli;
pub mod config;
pub mod listener;
