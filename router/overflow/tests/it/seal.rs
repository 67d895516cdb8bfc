//! The layer that seals, over a store in memory: the same contract, and what is kept is neither readable nor to be changed.

use overflow::contract::{ALL, Place, append, bodies, entry, read_all};
use overflow::memory::{self, Limits};
use overflow::seal::{Keys, OVERHEAD_BYTES, Sealed, Unsealed};
use overflow::{Entry, Overflow, ReadError};
use std::io::Write;

const LIMITS: Limits = Limits { record_bytes_max: 64 << 10, store_bytes_max: 64 << 20 };

struct Kept(memory::Place);

impl Kept {
    fn new() -> Self {
        Self(memory::Place::new(4))
    }

    fn sealed(&self, keys: &[(u32, u8)]) -> Sealed<memory::Memory> {
        Sealed::new(self.0.open(LIMITS), self::keys(keys))
    }
}

impl Place for Kept {
    fn open(&self) -> Box<dyn Overflow> {
        Box::new(self.sealed(&[(1, 1)]))
    }

    fn open_small(&self) -> Box<dyn Overflow> {
        Box::new(Sealed::new(self.0.open(Limits { store_bytes_max: 1 << 20, ..LIMITS }), keys(&[(1, 1)])))
    }

    fn record_bytes_max(&self) -> usize {
        LIMITS.record_bytes_max - OVERHEAD_BYTES
    }

    fn spoil(&self, lane: u16, position: u64) -> bool {
        self.0.spoil(lane, position);
        true
    }
}

overflow::contract_tests!(Kept::new);

fn keys(keys: &[(u32, u8)]) -> Keys {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for (id, byte) in keys {
        writeln!(file, "{id} {}", format!("{byte:02x}").repeat(32)).unwrap();
    }
    Keys::read(file.path()).unwrap()
}

/// What the store below has.
fn kept(place: &Kept, lane: u16) -> Vec<Vec<u8>> {
    bodies(&place.0.open(LIMITS), lane).into_iter().map(|body| body.to_vec()).collect()
}

/// Puts bodies into the store below as they are.
fn forge(place: &Kept, lane: u16, bodies: impl IntoIterator<Item = Vec<u8>>) {
    append(&place.0.open(LIMITS), lane, bodies);
}

#[test]
fn nothing_of_a_body_is_kept_in_clear() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["secret secret secret", "secret secret secret"]);
    let kept = kept(&place, 0);
    assert!(
        kept.iter().all(|body| body.len() == 20 + OVERHEAD_BYTES && !body.windows(6).any(|window| window == b"secret"))
    );
    assert_ne!(kept[0], kept[1]);
}

#[test]
fn keys_change_and_old_records_stay_readable() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["one"]);
    append(&place.sealed(&[(1, 1), (2, 2)]), 0, ["two"]);
    assert_eq!(bodies(&place.sealed(&[(2, 2), (1, 1)]), 0), ["one", "two"]);

    // The first key is gone: the lane stands still at what it sealed, and behind that nothing is lost either.
    let store = place.sealed(&[(2, 2)]);
    assert_eq!(store.read(0, 0, None, ALL), Err(ReadError::NoKey { position: 0, key: 1 }));
    assert_eq!(store.usage().damaged, 0);
    assert_eq!(bodies(&place.sealed(&[(1, 1), (2, 2)]), 0), ["one", "two"]);
}

#[test]
fn what_lies_before_an_unknown_key_is_read() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["a", "b"]);
    append(&place.sealed(&[(9, 9)]), 0, ["c", "d"]);
    let store = place.sealed(&[(1, 1)]);
    let batch = store.read(0, 0, None, ALL).unwrap();
    assert_eq!((batch.records.len(), batch.next), (2, 2));
    assert_eq!(store.read(0, 2, None, ALL), Err(ReadError::NoKey { position: 2, key: 9 }));
}

#[test]
fn a_wrong_key_of_the_right_id_opens_nothing() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["a", "b"]);
    let store = place.sealed(&[(1, 2)]);
    for fresh in [2, 0] {
        let batch = read_all(&store, 0, 0, ALL);
        assert_eq!((batch.records.len(), batch.damaged, store.usage().damaged), (0, fresh, 2));
    }
    assert_eq!(bodies(&place.sealed(&[(1, 1)]), 0), ["a", "b"], "nothing was deleted");
}

#[test]
fn any_flipped_bit_is_noticed_and_the_rest_is_read() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["before", "this one", "behind"]);
    let sealed = kept(&place, 0);
    // The first 8 bytes say whether and by which key it is sealed.
    for bit in 64..sealed[1].len() * 8 {
        let place = Kept::new();
        let mut bodies = sealed.clone();
        bodies[1][bit / 8] ^= 1 << (bit % 8);
        forge(&place, 0, bodies);
        let batch = read_all(&place.sealed(&[(1, 1)]), 0, 0, ALL);
        let read: Vec<&[u8]> = batch.records.iter().map(|record| &record.body[..]).collect();
        assert_eq!((read, batch.damaged), (vec![&b"before"[..], b"behind"], 1), "bit {bit}");
    }
    for bit in 0..64 {
        let place = Kept::new();
        let mut body = sealed[1].clone();
        body[bit / 8] ^= 1 << (bit % 8);
        forge(&place, 0, [body]);
        let refused = place.sealed(&[(1, 1)]).read(0, 0, None, ALL);
        assert!(matches!(refused, Err(ReadError::NotSealed { .. } | ReadError::NoKey { .. })), "bit {bit}");
    }
    for length in 0..sealed[1].len() {
        let place = Kept::new();
        forge(&place, 0, [sealed[1][..length].to_vec()]);
        let read = place.sealed(&[(1, 1)]).read(0, 0, None, ALL);
        assert!(read.is_err() || read.is_ok_and(|batch| batch.records.is_empty() && batch.damaged == 1));
    }
}

#[test]
fn a_record_cannot_be_moved_to_another_lane() {
    let place = Kept::new();
    append(&place.sealed(&[(1, 1)]), 0, ["a"]);
    forge(&place, 1, kept(&place, 0));
    let batch = read_all(&place.sealed(&[(1, 1)]), 1, 0, ALL);
    assert_eq!((batch.records.len(), batch.damaged), (0, 1));
}

#[test]
fn sealed_and_unsealed_are_not_mixed_up() {
    let place = Kept::new();
    let plain = Unsealed(place.0.open(LIMITS));
    append(&plain, 0, ["plain"]);
    assert_eq!(bodies(&plain, 0), ["plain"]);
    assert_eq!(place.sealed(&[(1, 1)]).read(0, 0, None, ALL), Err(ReadError::NotSealed { position: 0 }));
    append(&place.sealed(&[(5, 1)]), 0, ["sealed"]);
    assert_eq!(plain.read(0, 0, None, ALL).unwrap().records.len(), 1);
    assert_eq!(plain.read(0, 1, None, ALL), Err(ReadError::NoKey { position: 1, key: 5 }));
    let entries: [Entry; 0] = [];
    assert_eq!(plain.append(&entries), []);
    assert!(plain.append(&[entry(0, "more")])[0].is_ok());
}
