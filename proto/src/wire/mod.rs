//! Frames without the messages that prost makes of them, for the entries of which there are many: read in place, written straight
//! into a buffer. The bytes are the same. What is saved is an allocation, two reference counts and some moves for each.
//!
//! It may not judge what it reads beyond the encoding.

pub mod message;
pub mod read;
pub mod write;
