//! A segment file: its name and its header.
//!
//! ```text
//!    0  magic "overflow"
//!    8  version, u32
//!   12  lane, u16, and two zeros
//!   16  store, 16 bytes
//!   32  number, u64
//!   40  position of its first record, u64
//!   48  number of the segment before, u64
//!   56  how many bytes of that one are valid, u64
//!   64  position behind its last record, u64
//!   72  checksum of the 72 bytes above, u32
//! ```
//!
//! A segment is written by one run of the store and never after it. What it says of the one before makes void whatever an
//! append that failed, or was torn, left at the end of that one. If that is not the one with the number before, those between the
//! two failed with their first append, and all that may be in them is void. Positions are dense within a segment; some may be left
//! out between two. A header that is damaged loses no record: records tell by themselves where they belong.

use super::record::{u32_at, u64_at};

/// Bytes of a segment before its first record.
pub(super) const HEADER_BYTES: usize = 76;

const MAGIC: [u8; 8] = *b"overflow";
/// Of the format: of segments, marks and identity together.
pub(super) const VERSION: u32 = 2;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub store: [u8; 16],
    pub lane: u16,
    pub number: u64,
    pub first: u64,
    pub before: Before,
}

/// What a segment says of the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    pub number: u64,
    /// Valid bytes.
    pub valid: u64,
    /// Behind its last record.
    pub next: u64,
}

/// Segments that were given back although older ones are still needed, one behind the other. What is left of them is a file
/// whose name says this, with the header of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Number of the first.
    pub from: u64,
    /// Number of the last.
    pub to: u64,
    /// Position behind the last record of the last.
    pub next: u64,
}

impl Gap {
    pub(super) fn name(&self) -> String {
        format!("{:016x}-{:016x}-{:016x}{GAP}", self.from, self.to, self.next)
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_suffix(GAP)?.split('-').map(digits);
        let gap = Self { from: numbers.next()??, to: numbers.next()??, next: numbers.next()?? };
        (numbers.next().is_none() && gap.from <= gap.to).then_some(gap)
    }
}

/// What the first bytes of a segment file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Valid(Header),
    /// Too short, or damaged.
    Unreadable,
    /// Undamaged, of a version that this program does not know.
    Other(u32),
}

impl Header {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::from(self.lane).to_le_bytes());
        out.extend_from_slice(&self.store);
        for number in [self.number, self.first, self.before.number, self.before.valid, self.before.next] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Opening {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else { return Opening::Unreadable };
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..72]) != u32_at(bytes, 72) {
            return Opening::Unreadable;
        }
        if u32_at(bytes, 8) != VERSION {
            return Opening::Other(u32_at(bytes, 8));
        }
        Opening::Valid(Self {
            store: bytes[16..32].try_into().expect("16 bytes"),
            lane: u16::from_le_bytes([bytes[12], bytes[13]]),
            number: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            before: Before { number: u64_at(bytes, 48), valid: u64_at(bytes, 56), next: u64_at(bytes, 64) },
        })
    }
}

/// A segment's file name.
pub(super) fn name(number: u64) -> String {
    format!("{number:016x}{LIVE}")
}

/// The name of a segment that is kept for somebody to look at, and never read.
pub(super) fn name_aside(number: u64) -> String {
    format!("{number:016x}{ASIDE}")
}

/// The name of the file with a segment's notes.
pub(super) fn name_notes(number: u64) -> String {
    format!("{number:016x}{NOTES}")
}

/// The number of a segment, by the name of the file with its notes.
pub(super) fn number_notes(name: &str) -> Option<u64> {
    digits(name.strip_suffix(NOTES)?)
}

/// The number of a segment, by its file's name.
pub(super) fn number(name: &str) -> Option<u64> {
    digits(name.strip_suffix(LIVE)?)
}

/// The number of a segment that was set aside, by its file's name.
pub(super) fn number_aside(name: &str) -> Option<u64> {
    digits(name.strip_suffix(ASIDE)?)
}

const LIVE: &str = ".log";
const ASIDE: &str = ".aside";
const NOTES: &str = ".notes";
const GAP: &str = ".gap";

fn digits(name: &str) -> Option<u64> {
    let plain = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { store: [9; 16], lane: 3, number: 5, first: 70, before: Before { number: 4, valid: 4096, next: 68 } };

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        HEADER.encode(&mut out);
        out
    }

    #[test]
    fn a_header_is_read_back_whole_or_not_at_all() {
        assert_eq!(encoded().len(), HEADER_BYTES);
        assert_eq!(Header::decode(&encoded()), Opening::Valid(HEADER));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = encoded();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Opening::Unreadable, "bit {bit}");
        }
        for end in 0..HEADER_BYTES {
            assert_eq!(Header::decode(&encoded()[..end]), Opening::Unreadable);
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        for version in [VERSION - 1, VERSION + 1] {
            let mut bytes = encoded();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let checksum = crc32fast::hash(&bytes[..72]).to_le_bytes();
            bytes[72..].copy_from_slice(&checksum);
            assert_eq!(Header::decode(&bytes), Opening::Other(version));
        }
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(name(0x1f), "000000000000001f.log");
        assert_eq!((number(&name(u64::MAX)), number_aside(&name_aside(7))), (Some(u64::MAX), Some(7)));
        for foreign in ["1f.log", "000000000000001F.log", "000000000000001f", "+00000000000001f.log", ".log", ""] {
            assert_eq!((number(foreign), number_aside(foreign)), (None, None), "{foreign}");
        }
        assert_eq!(number_notes(&name_notes(3)), Some(3));
        let gap = Gap { from: 2, to: 0xff, next: u64::MAX };
        assert_eq!(gap.name(), "0000000000000002-00000000000000ff-ffffffffffffffff.gap");
        assert_eq!(Gap::parse(&gap.name()), Some(gap));
        for foreign in
            [Gap { from: 3, to: 2, next: 9 }.name(), "2-ff-0.gap".into(), gap.name().replace(".gap", "-1.gap")]
        {
            assert_eq!(Gap::parse(&foreign), None, "{foreign}");
        }
    }
}
