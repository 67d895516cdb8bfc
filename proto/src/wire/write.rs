//! Writes entries straight into a frame: no message is made of them first, and each length is reckoned once.
//!
//! Byte for byte it is what prost writes for the same entry; tests of those who use it hold it to that. Entries of different lists stand
//! in the order in which they came, which protobuf leaves free.

use bytes::BufMut;

/// An entry, as those of which there are many look: numbers, an id, numbers, a payload, numbers. Fields are below 16, numbers that are
/// 0 and an empty payload are left out.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a, const FIRST: usize, const BEFORE: usize, const BEHIND: usize> {
    /// Before the id.
    pub first: [(u8, u32); FIRST],
    /// Up to [`ID_BYTES_MAX`] bytes, at least one.
    pub id: (u8, &'a [u8]),
    /// Between id and payload.
    pub before: [(u8, u32); BEFORE],
    /// Below 4 GiB.
    pub payload: (u8, &'a [u8]),
    /// Behind the payload; all numbers together are at most six.
    pub behind: [(u8, u32); BEHIND],
}

/// Most bytes of an id that is written here.
pub const ID_BYTES_MAX: usize = 16;

impl<const FIRST: usize, const BEFORE: usize, const BEHIND: usize> Entry<'_, FIRST, BEFORE, BEHIND> {
    /// Bytes that it takes at most, besides its payload.
    pub const OVERHEAD: usize = Head::MAX + 6;

    /// Writes it as that field of a frame.
    ///
    /// # Panics
    /// If its id is longer than [`ID_BYTES_MAX`] or its payload 4 GiB.
    #[inline]
    pub fn write(&self, field: u8, to: &mut impl BufMut) {
        let Self { first, id, before, payload, behind } = self;
        let numbers = numbers_len(first) + numbers_len(before) + numbers_len(behind);
        let len = numbers + bytes_len(id.1) + bytes_len(payload.1);
        let mut head = Head::new();
        head.key(field, len);
        head.numbers(first);
        head.id(*id);
        head.numbers(before);
        head.write_around(*payload, behind, to);
    }
}

/// A few fields on their way into the frame, so that the frame's buffer is asked once and not for every byte.
struct Head {
    bytes: [u8; Head::MAX],
    len: usize,
}

impl Head {
    /// More than all fields of an entry but its payload take: keys, lengths, an id and six numbers of at most five bytes.
    const MAX: usize = 72;

    #[inline]
    fn new() -> Self {
        Self { bytes: [0; Self::MAX], len: 0 }
    }

    /// Writes these, then the payload, then the fields behind it.
    #[inline]
    fn write_around(&mut self, (field, payload): (u8, &[u8]), behind: &[(u8, u32)], to: &mut impl BufMut) {
        if !payload.is_empty() {
            self.key(field, payload.len());
            to.put_slice(&self.bytes[..self.len]);
            to.put_slice(payload);
            self.len = 0;
        }
        self.numbers(behind);
        to.put_slice(&self.bytes[..self.len]);
    }

    /// The key and length of bytes or a message that follow.
    #[inline]
    fn key(&mut self, field: u8, len: usize) {
        self.byte(field << 3 | 2);
        self.varint(short(len));
    }

    #[inline]
    fn id(&mut self, (field, id): (u8, &[u8])) {
        self.key(field, id.len());
        self.bytes[self.len..self.len + id.len()].copy_from_slice(id);
        self.len += id.len();
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
    u32::try_from(len).expect("payloads are far below 4 GiB")
}
