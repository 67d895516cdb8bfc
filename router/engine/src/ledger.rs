//! Where each accepted activation is: the one place that knows all ids, and so the one that keeps an id from being taken twice.
//!
//! ```text
//!   id ─ keyed hash ─▶ part, behind a lock of its own:   table [ . 3 . 0 . . 1 2 ]     hash ─▶ place
//!                                                        ids   [ a b c d ]             the place freed last is taken first
//! ```
//!
//! Ids lie close and the table is small, so the ids of a frame meet in memory that is in the cache: an id of its own place in a wide
//! table was waited for when it was taken and when it was freed.

use crate::id::ActivationId;
use crate::slab::Key;
use crate::sync::Mutex;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;
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

/// The ids of one part. A map of a library (indexmap) keeps each hash, too, and its places take 8 bytes: 17 bytes more an id.
#[derive(Debug, Default)]
struct Ids {
    /// Places in `known`, by hash of the id there.
    table: HashTable<u32>,
    known: Slab<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    id: ActivationId,
    at: Whereabouts,
}

const _: () = assert!(size_of::<Known>() == 32);

/// Many, so that a growing part is moved quickly (a million ids: 4,000 in each) and threads seldom meet. A power of two. Under a
/// checker one is enough: two ids of one part wait for each other, and those of two parts share nothing.
const PARTS: usize = if cfg!(any(router_loom, router_shuttle)) { 1 } else { 256 };
/// Below this many places a part is not worth shrinking.
const CAPACITY_KEPT: usize = 64;

impl Ledger {
    /// Empty. The seed keeps those who choose ids from choosing where they fall.
    pub(crate) fn new(seed: u64) -> Self {
        Self { parts: (0..PARTS).map(|_| Part(Mutex::default())).collect(), hasher: FixedState::with_seed(seed) }
    }

    /// Takes an id; false if it is taken already. Panics at 2^32 ids in a part, far beyond any limit on memory.
    pub(crate) fn take(&self, id: ActivationId, at: Whereabouts) -> bool {
        let hash = self.hash(&id);
        self.part(hash).lock().add(hash, Known { id, at }, &self.hasher)
    }

    /// Notes where an id that stayed taken has come to.
    pub(crate) fn moved(&self, id: ActivationId, to: Whereabouts) {
        let hash = self.hash(&id);
        let mut ids = self.part(hash).lock();
        if let Some(place) = ids.place(hash, &id) {
            ids.known[place].at = to;
        }
    }

    /// Frees an id if it lies where `expected` says, and tells where it lay.
    pub(crate) fn free_if(
        &self,
        id: &ActivationId,
        expected: impl FnOnce(&Whereabouts) -> bool,
    ) -> Option<Whereabouts> {
        let hash = self.hash(id);
        self.part(hash).lock().remove_if(hash, id, expected)
    }

    /// Frees an id.
    pub(crate) fn free(&self, id: &ActivationId) {
        self.free_if(id, |_| true);
    }

    /// Where an id lies.
    pub(crate) fn find(&self, id: &ActivationId) -> Option<Whereabouts> {
        let hash = self.hash(id);
        let ids = self.part(hash).lock();
        ids.place(hash, id).map(|place| ids.known[place].at)
    }

    /// Number of ids.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.0.lock().known.len()).sum()
    }

    /// Gives memory back after a flood, once so little is left in a part that moving it takes no time.
    pub(crate) fn shrink(&self) {
        for part in &self.parts {
            part.0.lock().shrink(&self.hasher);
        }
    }

    fn hash(&self, id: &ActivationId) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The part that ids of this hash belong to. Tables look at the lowest and the highest bits, so parts go by some between.
    fn part(&self, hash: u64) -> &Mutex<Ids> {
        let place = usize::try_from(hash >> 32 & (PARTS as u64 - 1)).expect("below 256");
        &self.parts[place].0
    }
}

impl Ids {
    fn place(&self, hash: u64, id: &ActivationId) -> Option<usize> {
        self.table.find(hash, |place| self.known[*place as usize].id == *id).map(|place| *place as usize)
    }

    /// False if that id is there already.
    fn add(&mut self, hash: u64, new: Known, hasher: &FixedState) -> bool {
        let Self { table, known } = self;
        let id_at = |place: &u32| known[*place as usize].id;
        let Entry::Vacant(vacant) =
            table.entry(hash, |place| id_at(place) == new.id, |place| hasher.hash_one(id_at(place)))
        else {
            return false;
        };
        vacant.insert(u32::try_from(known.vacant_key()).expect("fewer than 2^32 ids"));
        known.insert(new);
        true
    }

    fn remove_if(
        &mut self,
        hash: u64,
        id: &ActivationId,
        expected: impl FnOnce(&Whereabouts) -> bool,
    ) -> Option<Whereabouts> {
        let found = self.table.find_entry(hash, |place| self.known[*place as usize].id == *id).ok()?;
        let place = *found.get() as usize;
        if !expected(&self.known[place].at) {
            return None;
        }
        found.remove();
        Some(self.known.remove(place).at)
    }

    fn shrink(&mut self, hasher: &FixedState) {
        let Self { table, known } = self;
        if known.capacity() > CAPACITY_KEPT && known.len() < known.capacity() / 64 {
            known.compact(|known, from, to| {
                let place = table.find_mut(hasher.hash_one(known.id), |place| *place as usize == from);
                *place.expect("each id is in the table") = u32::try_from(to).expect("below its place before");
                true
            });
            known.shrink_to_fit();
            table.shrink_to_fit(|place| hasher.hash_one(known[*place as usize].id));
        }
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
