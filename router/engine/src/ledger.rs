//! Where each accepted activation is: the one place that knows all ids, and so the one that keeps an id from being taken twice.

use crate::id::ActivationId;
use crate::slab::Key;
use crate::sync::{DashMap, Entry};
use foldhash::fast::FixedState;

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
    known: DashMap<ActivationId, Whereabouts, FixedState>,
}

/// Many, so that a growing part is rehashed quickly (a million ids: 4,000 in each) and threads seldom meet.
const PARTS: usize = 256;
/// Below this many places a ledger is not worth shrinking.
const CAPACITY_KEPT: usize = 64 * 1024;

impl Ledger {
    /// Empty. The seed keeps those who choose ids from choosing where they fall.
    pub(crate) fn new(seed: u64) -> Self {
        Self { known: DashMap::with_hasher_and_shard_amount(FixedState::with_seed(seed), PARTS) }
    }

    /// Takes an id; false if it is taken already.
    pub(crate) fn take(&self, id: ActivationId, at: Whereabouts) -> bool {
        match self.known.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(at);
                true
            }
        }
    }

    /// Notes where an id that stayed taken has come to.
    pub(crate) fn moved(&self, id: ActivationId, to: Whereabouts) {
        self.known.insert(id, to);
    }

    /// Frees an id if it lies where `expected` says, and tells where it lay.
    pub(crate) fn free_if(
        &self,
        id: &ActivationId,
        expected: impl FnOnce(&Whereabouts) -> bool,
    ) -> Option<Whereabouts> {
        self.known.remove_if(id, |_, whereabouts| expected(whereabouts)).map(|(_, whereabouts)| whereabouts)
    }

    /// Frees an id.
    pub(crate) fn free(&self, id: &ActivationId) {
        self.known.remove(id);
    }

    /// Where an id lies.
    pub(crate) fn find(&self, id: &ActivationId) -> Option<Whereabouts> {
        self.known.get(id).map(|found| *found)
    }

    /// Number of ids.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Gives memory back after a flood, once so little is left that moving it takes no time: a million ids took 38 ms at an
    /// eighth.
    pub(crate) fn shrink(&self) {
        let capacity = self.known.capacity();
        if capacity > CAPACITY_KEPT && self.known.len() < capacity / 64 {
            self.known.shrink_to_fit();
        }
    }
}
