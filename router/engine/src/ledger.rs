//! Where each accepted activation is: the one place that knows all ids, and so the one that keeps an id from being taken twice.
//!
//! ```text
//!   id ─ keyed hash ─▶ part, behind a lock of its own:   table [ . 3 . 0 . . 1 2 ]     hash ─▶ place
//!                                                        ids   [ a b c d ]             one behind the other; the last fills a gap
//! ```
//!
//! Ids lie dense and the table is small, so the ids of a frame meet in memory that is in the cache: an id of its own place in a wide
//! table was waited for when it was taken and when it was freed.

use crate::id::ActivationId;
use crate::slab::Key;
use crate::sync::Mutex;
use foldhash::fast::FixedState;
use indexmap::IndexMap;
use indexmap::map::raw_entry_v1::{RawEntryApiV1, RawEntryMut};
use std::hash::BuildHasher;

/// The action and slot an activation lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// Number of the action.
    pub(crate) action: u32,
    /// Its slot there.
    pub(crate) slot: Key,
}

/// Ids of all activations that are queued or in flight. Each operation holds one of many small locks for a few instructions.
#[derive(Debug)]
pub(crate) struct Ledger {
    parts: Box<[Part]>,
    hasher: FixedState,
}

/// Its lines are its own, for threads that take different ones.
#[derive(Debug)]
#[repr(align(128))]
struct Part(Mutex<Ids>);

type Ids = IndexMap<ActivationId, Whereabouts, FixedState>;

/// Many, so that a growing part is moved quickly (a million ids: 4,000 in each) and threads seldom meet. A power of two. Under a
/// checker one is enough: two ids of one part wait for each other, and those of two parts share nothing.
const PARTS: usize = if cfg!(any(router_loom, router_shuttle)) { 1 } else { 256 };
/// Below this many places a part is not worth shrinking.
const CAPACITY_KEPT: usize = 256;

impl Ledger {
    /// Empty. The seed keeps those who choose ids from choosing where they fall.
    pub(crate) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { parts: (0..PARTS).map(|_| Part(Mutex::new(Ids::with_hasher(hasher.clone())))).collect(), hasher }
    }

    /// Takes an id; false if it is taken already.
    pub(crate) fn take(&self, id: ActivationId, at: Whereabouts) -> bool {
        let (part, hash) = self.part(&id);
        match part.0.lock().raw_entry_mut_v1().from_hash(hash, |known| *known == id) {
            RawEntryMut::Occupied(_) => false,
            RawEntryMut::Vacant(vacant) => {
                vacant.insert_hashed_nocheck(hash, id, at);
                true
            }
        }
    }

    /// Notes where an id that stayed taken has come to.
    pub(crate) fn moved(&self, id: ActivationId, to: Whereabouts) {
        self.part(&id).0.0.lock().insert(id, to);
    }

    /// Frees an id if it lies where `expected` says, and tells where it lay.
    pub(crate) fn free_if(
        &self,
        id: &ActivationId,
        expected: impl FnOnce(&Whereabouts) -> bool,
    ) -> Option<Whereabouts> {
        let (part, hash) = self.part(id);
        match part.0.lock().raw_entry_mut_v1().from_hash(hash, |known| known == id) {
            RawEntryMut::Occupied(known) if expected(known.get()) => Some(known.swap_remove()),
            _ => None,
        }
    }

    /// Frees an id.
    pub(crate) fn free(&self, id: &ActivationId) {
        self.free_if(id, |_| true);
    }

    /// Where an id lies.
    pub(crate) fn find(&self, id: &ActivationId) -> Option<Whereabouts> {
        let (part, hash) = self.part(id);
        part.0.lock().raw_entry_v1().from_hash(hash, |known| known == id).map(|(_, at)| *at)
    }

    /// Number of ids.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.0.lock().len()).sum()
    }

    /// Gives memory back after a flood, once so little is left in a part that moving it takes no time.
    pub(crate) fn shrink(&self) {
        for part in &self.parts {
            let mut ids = part.0.lock();
            if ids.capacity() > CAPACITY_KEPT && ids.len() < ids.capacity() / 64 {
                ids.shrink_to_fit();
            }
        }
    }

    /// The part that an id belongs to, and its hash. Tables look at the lowest and the highest bits, so parts go by some between.
    fn part(&self, id: &ActivationId) -> (&Part, u64) {
        let hash = self.hasher.hash_one(id);
        let place = usize::try_from(hash >> 32 & (PARTS as u64 - 1)).expect("below 256");
        (&self.parts[place], hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(action: u32) -> Whereabouts {
        Whereabouts { action, slot: Key::from_bits(1 << 32).expect("of the first generation") }
    }

    proptest! {
        /// Against an ordered map; few ids, so that each is taken, moved and freed many times.
        #[test]
        fn it_knows_what_was_taken_and_not_freed(steps in vec((0..4_u8, 0..200_u8, any::<u32>()), 0..2000)) {
            let (ledger, mut known) = (Ledger::new(7), BTreeMap::new());
            for (step, n, action) in steps {
                let id = ActivationId([n; 16]);
                match step {
                    0 => prop_assert_eq!(ledger.take(id, at(action)), !known.contains_key(&n)),
                    1 if known.contains_key(&n) => ledger.moved(id, at(action)),
                    1 => continue,
                    _ => {
                        let expected = known.get(&n).copied().filter(|known| step == 2 || known % 2 == 0);
                        let freed = ledger.free_if(&id, |whereabouts| step == 2 || whereabouts.action % 2 == 0);
                        prop_assert_eq!(freed, expected.map(at));
                        if expected.is_some() {
                            known.remove(&n);
                        }
                        ledger.shrink();
                        continue;
                    }
                }
                if step == 1 { known.insert(n, action) } else { Some(*known.entry(n).or_insert(action)) };
            }
            prop_assert_eq!(ledger.len(), known.len());
            for n in 0..200 {
                prop_assert_eq!(ledger.find(&ActivationId([n; 16])), known.get(&n).copied().map(at));
            }
        }
    }
}
