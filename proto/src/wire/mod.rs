//! Frames without the messages that prost makes of them, for the entries of which there are many: read in place, written straight
//! into a buffer. The bytes are the same. What is saved is an allocation, two reference counts and some moves for each.
//!
//! It may not judge what it reads beyond the encoding.

pub mod message;
pub mod read;
pub mod write;

/// For how many entries room is made before a frame of that many bytes is read, so that their list seldom grows. Large frames are large
/// because of a payload, not because of a million entries: those get no more room than the longest that are sent.
pub fn room(frame_bytes: usize) -> usize {
    (frame_bytes / ENTRY_BYTES).min(ROOM_MAX)
}

/// What an entry with a short payload takes.
const ENTRY_BYTES: usize = 64;
/// Routers and clients put no more into a frame by themselves.
const ROOM_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_payload_reserves_no_more_than_many_entries_do() {
        assert_eq!([0, 63, 64, 64 << 10, 1 << 20].map(room), [0, 0, 1, 1024, 1024]);
    }
}
