//! Writes entries straight into a frame: no message is made of them first, and each length is reckoned once.
//!
//! Byte for byte it is what prost writes for the same entry; a test holds it to that. Entries of different lists stand in the order
//! in which they came, which protobuf leaves free.

use super::super::convert;
use bytes::BufMut;
use engine::effect::Dispatch;
use engine::id::ActivationId;
use engine::outcome::{Answer, Outcome, Stages};
use prost::encoding::message;
use proto::v1;

/// Writes an answer as that field of a frame.
pub(crate) fn answer(field: u8, answer: &Answer, to: &mut impl BufMut) {
    let Answer { id, outcome, stages: Stages { queue_us, dispatch_us, run_us } } = answer;
    let (outcome, result): (v1::Outcome, &[u8]) = match outcome {
        Outcome::Completed(result) => (v1::Outcome::Completed, result),
        Outcome::ActionFailed(result) => (v1::Outcome::ActionFailed, result),
        Outcome::PlatformFailed(result) => (v1::Outcome::PlatformFailed, result),
        Outcome::Expired => (v1::Outcome::Expired, &[]),
        Outcome::Lost => (v1::Outcome::Lost, &[]),
        Outcome::TimedOut => (v1::Outcome::TimedOut, &[]),
        // They have more to say, and no hurry.
        Outcome::Rejected(_) | Outcome::Accepted(_) => {
            return message::encode(field.into(), &convert::answer(answer.clone()), to);
        }
    };
    let (before, behind) = ([(2, outcome as u32)], [(4, *queue_us), (5, *dispatch_us), (6, *run_us)]);
    let len = id_len() + numbers_len(&before) + bytes_len(result) + numbers_len(&behind);
    let mut fields = Fields::new();
    fields.head(field, len);
    fields.id(1, id);
    fields.numbers(&before);
    fields.write_around(3, result, &behind, to);
}

/// Writes a dispatch as that field of a frame.
pub(crate) fn dispatch(field: u8, dispatch: &Dispatch, to: &mut impl BufMut) {
    let Dispatch { container, epoch, id, time_left_ms, payload, attempt } = dispatch;
    let (first, before, behind) = ([(1, *container)], [(3, *time_left_ms)], [(5, *attempt), (6, *epoch)]);
    let len = numbers_len(&first) + id_len() + numbers_len(&before) + bytes_len(payload) + numbers_len(&behind);
    let mut fields = Fields::new();
    fields.head(field, len);
    fields.numbers(&first);
    fields.id(2, id);
    fields.numbers(&before);
    fields.write_around(4, payload, &behind, to);
}

/// A few fields on their way into the frame, so that the frame's buffer is asked once and not for every byte.
struct Fields {
    bytes: [u8; Fields::MAX],
    len: usize,
}

impl Fields {
    /// More than all fields of an entry but its payload take: keys, an id and seven numbers of at most five bytes.
    const MAX: usize = 64;

    fn new() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }

    /// Writes these, then the payload, then the fields behind it.
    #[inline]
    fn write_around(mut self, field: u8, payload: &[u8], behind: &[(u8, u32)], to: &mut impl BufMut) {
        if !payload.is_empty() {
            self.head(field, payload.len());
            to.put_slice(&self.bytes[..self.len]);
            to.put_slice(payload);
            self.len = 0;
        }
        self.numbers(behind);
        to.put_slice(&self.bytes[..self.len]);
    }

    /// The key and length of bytes or a message that follow.
    #[inline]
    fn head(&mut self, field: u8, len: usize) {
        self.byte(field << 3 | 2);
        self.varint(short(len));
    }

    #[inline]
    fn id(&mut self, field: u8, id: &ActivationId) {
        self.head(field, ActivationId::LEN);
        self.bytes[self.len..self.len + ActivationId::LEN].copy_from_slice(&id.0);
        self.len += ActivationId::LEN;
    }

    /// Numbers, each left out if it is 0.
    #[inline]
    fn numbers(&mut self, numbers: &[(u8, u32)]) {
        for &(field, number) in numbers.iter().filter(|(_, number)| *number != 0) {
            self.byte(field << 3);
            self.varint(number);
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // Seven bits at a time.
    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

const fn id_len() -> usize {
    2 + ActivationId::LEN
}

#[inline]
fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(short(bytes.len())) + bytes.len() }
}

#[inline]
fn numbers_len(numbers: &[(u8, u32)]) -> usize {
    numbers.iter().map(|(_, number)| if *number == 0 { 0 } else { 1 + varint_len(*number) }).sum()
}

/// Bytes of a varint: seven bits to each, one for 0.
#[inline]
const fn varint_len(value: u32) -> usize {
    ((38 - (value | 1).leading_zeros()) / 7) as usize
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("limits keep payloads far below 4 GiB")
}
