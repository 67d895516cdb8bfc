//! What is kept beside each record, so that its controller can be told when the record is damaged: whose it is, in 24 bytes.
//!
//! ```text
//!   id 16 | controller 8, and in its lowest bit whether the controller only wants to hear that the activation is taken
//! ```
//!
//! A note means something only to the life of the router that wrote it: no other knows its controllers.

use bytes::{Buf, BufMut};
use engine::backlog::Whose;
use engine::effect::Spilled;
use engine::id::{ActivationId, StreamId};
use engine::outcome::Reply;
use overflow::Note;

/// The note of a record.
pub(super) fn write(record: &Spilled) -> Note {
    let mut note = [0; Note::BYTES];
    let mut to = &mut note[..];
    to.put_slice(&record.id.0);
    // Streams are counted from 0 on, so the highest bit is free.
    to.put_u64_le(record.controller.0 << 1 | u64::from(record.reply == Reply::Accepted));
    Note(note)
}

/// Whose record it was.
pub(super) fn read(note: &Note) -> Whose {
    let mut from = &note.0[..];
    let mut id = [0; ActivationId::LEN];
    from.copy_to_slice(&mut id);
    let number = from.get_u64_le();
    let reply = if number & 1 == 0 { Reply::Outcome } else { Reply::Accepted };
    Whose { id: ActivationId(id), controller: StreamId(number >> 1), reply }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use engine::time::Timestamp;

    #[test]
    fn a_note_says_whose_record_it_was() {
        for (controller, reply) in [(0, Reply::Outcome), (u64::MAX >> 1, Reply::Accepted)] {
            let (id, controller) = (ActivationId([7; ActivationId::LEN]), StreamId(controller));
            let (accepted_at, deadline, payload) = (Timestamp::ZERO, Timestamp::NEVER, Bytes::new());
            let record =
                Spilled { id, controller, reply, attempt: 1, sequence: Some(3), accepted_at, deadline, payload };
            assert_eq!(read(&write(&record)), Whose { id, controller, reply });
        }
    }
}
