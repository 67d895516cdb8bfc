//! A record as it lies in a segment, and how to tell that it is whole and in its place.
//!
//! ```text
//!    0  magic "\xF5rec"
//!    4  length of the body, u32
//!    8  position, u64
//!   16  group, u64
//!   24  checksum of the body, u32
//!   28  checksum of the 28 bytes above, u32
//!   32  body
//! ```
//!
//! Numbers are little-endian, checksums CRC-32 (IEEE 802.3). The header has one of its own, so that a flipped bit in a body
//! leaves the length to be trusted, and one in a header ends nothing: whoever reads looks for the next header. Store, lane,
//! segment and offset go into the header's checksum without being written down, so a record that lies elsewhere, or an image
//! of one inside a body, is none.

use crate::Group;
use crc32fast::Hasher;

/// Bytes of a record before its body.
pub(super) const HEADER_BYTES: usize = 32;
/// The longest body that any store may be set to take.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"\xF5rec";

/// What is known of a record from where it lies: part of its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

/// A record's header, found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the body, in bytes.
    pub length: usize,
    pub position: u64,
    pub group: Group,
    checksum: u32,
}

impl Place {
    /// The records of one segment.
    pub(super) fn new(store: &[u8; 16], lane: u16, segment: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(store);
        hasher.update(&lane.to_le_bytes());
        hasher.update(&segment.to_le_bytes());
        Self(hasher.finalize())
    }

    /// Appends a record that will lie at `offset`.
    pub(super) fn encode(self, offset: u64, position: u64, group: Group, body: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let length = u32::try_from(body.len()).expect("bodies are at most BODY_BYTES_MAX");
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&position.to_le_bytes());
        out.extend_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        let checksum = self.checksum(offset, &out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(body);
    }

    /// The header that `bytes` begin with, if it is one and belongs at `offset`.
    pub(super) fn decode(self, offset: u64, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if bytes[..4] != MAGIC || self.checksum(offset, &bytes[..28]) != u32_at(bytes, 28) {
            return None;
        }
        let length = usize::try_from(u32_at(bytes, 4)).ok().filter(|length| *length <= BODY_BYTES_MAX)?;
        Some(Header {
            length,
            position: u64_at(bytes, 8),
            group: Group(u64_at(bytes, 16)),
            checksum: u32_at(bytes, 24),
        })
    }

    /// Of bytes that belong `at` there: a header at its offset, or a note at its position.
    pub(super) fn checksum(self, at: u64, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.update(&at.to_le_bytes());
        hasher.finalize()
    }
}

impl Header {
    /// Whether this is its body, undamaged.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.length && crc32fast::hash(body) == self.checksum
    }

    /// Bytes from here to the next record.
    pub(super) fn bytes(&self) -> u64 {
        (HEADER_BYTES + self.length) as u64
    }
}

/// Where in `bytes` the next header could begin, at `from` or behind.
pub(super) fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    Some(from + found)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place(7);

    fn record() -> Vec<u8> {
        let mut out = Vec::new();
        PLACE.encode(96, 12, Group(5), b"body", &mut out);
        out
    }

    #[test]
    fn a_record_is_read_back() {
        let record = record();
        let header = PLACE.decode(96, &record).unwrap();
        assert_eq!((header.length, header.position, header.group), (4, 12, Group(5)));
        assert_eq!(header.bytes(), record.len() as u64);
        assert!(header.fits(&record[HEADER_BYTES..]));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        for bit in 0..record().len() * 8 {
            let mut record = record();
            record[bit / 8] ^= 1 << (bit % 8);
            let whole = PLACE.decode(96, &record).is_some_and(|header| header.fits(&record[HEADER_BYTES..]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn elsewhere_it_is_no_record() {
        assert_eq!(PLACE.decode(97, &record()), None);
        assert_eq!(Place(8).decode(96, &record()), None);
        let places = [([1; 16], 0, 0), ([0; 16], 1, 0), ([0; 16], 0, 1)];
        assert!(
            places
                .iter()
                .all(|(store, lane, segment)| Place::new(store, *lane, *segment) != Place::new(&[0; 16], 0, 0))
        );
    }

    #[test]
    fn the_next_header_is_looked_for_behind() {
        let twice = [record(), record()].concat();
        assert_eq!((next_magic(&twice, 0), next_magic(&twice, 1), next_magic(&twice, 37)), (Some(0), Some(36), None));
    }
}
