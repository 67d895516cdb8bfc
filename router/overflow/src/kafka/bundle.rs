//! Bundles: what one append has for a lane goes in few messages, and what that makes of positions. It talks to nobody.
//!
//! ```text
//!   a message:   0  version 0xB2
//!                1  group u64, length u32, little-endian both, then the body; again for each further one
//!   a position:  offset of the message, 48 bits | 65,536 less how many bodies of the message come from this one on, 16 bits
//! ```
//!
//! A message costs the client and the broker microseconds of CPU whatever its length, and what overflows is short. Bodies are counted from
//! the end so that the position behind the last of a message is that of the next message, and a mark there is its plain offset. What
//! different groups append at a time goes in one message, for messages are what costs: a reader of one group skips the others' bodies.

use crate::{Entry, Group, Record};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Entries of one lane on their way in one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) lane: u16,
    /// Which entries of the append they are, in their order.
    pub(super) entries: Vec<usize>,
    pub(super) message: Vec<u8>,
}

/// Puts entries into bundles, those of a lane in their order. One is longer than `most` bytes only if it has a single entry.
pub(super) fn pack<'a>(entries: impl Iterator<Item = (usize, &'a Entry)>, most: usize) -> Vec<Bundle> {
    let mut bundles: Vec<Bundle> = Vec::new();
    let mut open = HashMap::new();
    for (index, entry) in entries {
        let Entry { lane, body, .. } = entry;
        let has_room = |at: &usize| bundles[*at].message.len() + HEADER_BYTES + body.len() <= most.min(BUNDLE_BYTES);
        let at = open.get(lane).copied().filter(has_room).unwrap_or_else(|| {
            bundles.push(Bundle { lane: *lane, entries: Vec::new(), message: vec![VERSION] });
            bundles.len() - 1
        });
        open.insert(*lane, at);
        bundles[at].push(index, entry);
    }
    bundles
}

impl Bundle {
    /// The entries with their positions, once the message has an offset.
    pub(super) fn positions(&self, offset: u64) -> impl Iterator<Item = (usize, u64)> {
        self.entries.iter().copied().zip(first(offset, self.entries.len())..)
    }

    fn push(&mut self, index: usize, entry: &Entry) {
        let length = u32::try_from(entry.body.len()).expect("a body is checked to be far shorter");
        self.message.extend_from_slice(&entry.group.0.to_le_bytes());
        self.message.extend_from_slice(&length.to_le_bytes());
        self.message.extend_from_slice(&entry.body);
        self.entries.push(index);
    }
}

/// The records of a message. None: no bundle.
pub(super) fn unpack(offset: u64, message: &[u8]) -> Option<VecDeque<Record>> {
    let (&VERSION, mut rest) = message.split_first()? else { return None };
    let mut bodies = Vec::new();
    while let Some((group, behind)) = rest.split_first_chunk() {
        let (length, behind) = behind.split_first_chunk()?;
        let (body, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        // Copied, so that none of them keeps the others in memory.
        bodies.push((Group(u64::from_le_bytes(*group)), Bytes::copy_from_slice(body)));
        rest = behind;
    }
    let is_bundle = rest.is_empty() && (1..=PLACES).contains(&bodies.len());
    is_bundle.then(|| {
        let placed = (first(offset, bodies.len())..).zip(bodies);
        placed.map(|(position, (group, body))| Record { position, group, body }).collect()
    })
}

/// Where the first of so many bodies lies; there is a place for each.
fn first(offset: u64, bodies: usize) -> u64 {
    start(offset + 1) - bodies as u64
}

/// Below the first body of the message at that offset, and above all before.
pub(super) fn start(offset: u64) -> u64 {
    offset << PLACE_BITS
}

/// The message that holds a position, or the next one.
pub(super) fn offset(position: u64) -> u64 {
    position >> PLACE_BITS
}

/// Messages from the one that holds `from`, it among them, to below the one that holds `to`. None, if that is not above.
pub(super) fn messages(from: u64, to: u64) -> u64 {
    offset(to).saturating_sub(offset(from))
}

/// How far into its message a position is; 0 at the start.
pub(super) fn place(position: u64) -> u64 {
    position % PLACES as u64
}

const VERSION: u8 = 0xB2;
const HEADER_BYTES: usize = size_of::<u64>() + size_of::<u32>();
const PLACE_BITS: u32 = 16;
const PLACES: usize = 1 << PLACE_BITS;
/// What a bundle with more than one entry has at most: the message itself costs next to nothing then.
const BUNDLE_BYTES: usize = 64 << 10;
// However short they are, there is a place for each.
const _: () = assert!(BUNDLE_BYTES / HEADER_BYTES <= PLACES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(lane: u16, body: Vec<u8>) -> Entry {
        Entry { lane, group: Group(3), note: crate::Note::default(), body: body.into() }
    }

    fn pack_all(entries: &[Entry], most: usize) -> Vec<Bundle> {
        pack(entries.iter().enumerate(), most)
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(
            entries in prop::collection::vec((0..3u16, 0..3u64, prop::collection::vec(any::<u8>(), 0..60)), 0..50),
            most in 0..400usize,
        ) {
            let entries: Vec<Entry> =
                entries.into_iter().map(|(lane, group, body)| Entry { group: Group(group), ..entry(lane, body) }).collect();
            let mut found = vec![Vec::new(); 3];
            for (offset, bundle) in (7..).zip(pack_all(&entries, most)) {
                prop_assert!(bundle.message.len() <= most || bundle.entries.len() == 1);
                let bodies = unpack(offset, &bundle.message).unwrap();
                prop_assert!(bodies.iter().all(|record| super::offset(record.position) == offset));
                prop_assert_eq!(bodies.back().unwrap().position + 1, start(offset + 1));
                prop_assert!(bodies.iter().zip(bodies.iter().skip(1)).all(|(one, next)| one.position + 1 == next.position));
                found[usize::from(bundle.lane)].extend(bundle.entries.into_iter().zip(bodies));
            }
            for (lane, found) in (0..).zip(found) {
                let own = entries.iter().enumerate().filter(|(_, entry)| entry.lane == lane);
                prop_assert!(found.into_iter().map(|(at, one)| (at, one.group, one.body)).eq(own.map(|(at, entry)| (at, entry.group, entry.body.clone()))));
            }
        }

        #[test]
        fn other_bytes_do_no_harm(mut bytes: Vec<u8>, is_version: bool) {
            if let Some(first) = bytes.first_mut().filter(|_| is_version) {
                *first = VERSION;
            }
            prop_assert!(unpack(0, &bytes).is_none_or(|bodies| !bodies.is_empty()));
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_no_bundle() {
        let entry = |length| entry(0, vec![1; length]);
        let [bundle] = &pack_all(&[entry(3), entry(5)], 1000)[..] else { panic!("both have room in one") };
        for length in [0, 2, 4, 7, 9, 12, 15, 17, 20, 28, 32] {
            assert_eq!(unpack(0, &bundle.message[..length]), None, "{length}");
        }
        assert_eq!(
            unpack(0, &bundle.message[..16]).map(|bodies| bodies.len()),
            Some(1),
            "which the broker's sum tells"
        );
    }

    #[test]
    fn as_many_as_have_places_are_taken() {
        let empty = vec![entry(0, Vec::new()); 10_000];
        let bundles = pack_all(&empty, usize::MAX);
        assert_eq!(bundles.iter().map(|bundle| bundle.entries.len()).sum::<usize>(), empty.len());
        assert!(bundles.iter().all(|bundle| bundle.message.len() <= BUNDLE_BYTES));
        let mut message = vec![0; 1 + (PLACES + 1) * HEADER_BYTES];
        message[0] = VERSION;
        assert_eq!([0, 3].map(|offset| unpack(offset, &message)), [None, None], "one too many");
        message.truncate(1 + PLACES * HEADER_BYTES);
        assert_eq!([0, 3].map(|offset| unpack(offset, &message).unwrap()[0].position), [0, 3].map(start));
    }
}
