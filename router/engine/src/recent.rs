//! Ids that ended a short while ago: one that comes again is a repetition, and is refused. Fixed memory, atomics only.
//!
//! ```text
//!   id ─ keyed hash ─▶ set: one cache line      [next | print 0 | print 1 | ... | print 6]
//!      └ another ───▶ print, 63 bits and a mark  the oldest of the seven goes first
//! ```
//!
//! The time an id is remembered depends on how many end: 65,536 sets hold 458,752, a fifth of a
//! second at the highest rate. An id that
//! never was is taken for a repetition about once in 10^18 looks, as prints have 63 bits and a mark.

use crate::id::ActivationId;
use crate::limits::RECENT_IDS_PER_SET;
use crate::sync::{AtomicU64, Ordering};
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::hint::black_box;

/// The ids.
#[derive(Debug)]
pub(crate) struct Recent {
    /// A power of two of them, or none.
    sets: Box<[Set]>,
    /// 0 until the first id: as long as nothing was remembered, no set has to be waited for.
    used: AtomicU64,
    places: FixedState,
    prints: FixedState,
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    /// Insertions so far.
    next: AtomicU64,
    /// 0: vacant.
    prints: [AtomicU64; PRINTS],
}

const PRINTS: usize = RECENT_IDS_PER_SET;
/// The bit of a print that is a mark.
const MARK: u64 = 1;
/// Sets fetched at a time.
const TOGETHER: usize = 32;
#[cfg(not(any(router_loom, router_shuttle)))]
const _: () = assert!(size_of::<Set>() == 64);

impl Recent {
    /// Empty, with that many sets, rounded up to a power of two; with none it remembers nothing. The seed keeps those who choose
    /// ids from filling one set.
    pub(crate) fn new(sets: usize, seed: u64) -> Self {
        let sets = if sets == 0 { 0 } else { sets.next_power_of_two() };
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            used: AtomicU64::new(0),
            places: FixedState::with_seed(seed),
            prints: FixedState::with_seed(!seed),
        }
    }

    /// Remembers an id. To be called before the ledger frees it: whoever finds it free there must find it here.
    pub(crate) fn insert(&self, id: &ActivationId) {
        self.insert_with(id, false);
    }

    /// As [`insert`](Self::insert), with a mark on it.
    pub(crate) fn insert_with(&self, id: &ActivationId, marked: bool) {
        let Some((set, print)) = self.find(id) else { return };
        let print = print | u64::from(marked);
        // Looked at first: all threads read its line, and one that is written each time would go to and fro.
        if self.is_unused() {
            self.used.store(1, Ordering::Relaxed);
        }
        // Relaxed, here and below: the ledger's lock, which each id goes through after this and before it is looked for, orders them.
        let place = set.next.fetch_add(1, Ordering::Relaxed) % PRINTS as u64;
        set.prints[usize::try_from(place).expect("below 7")].store(print, Ordering::Relaxed);
    }

    /// Whether that id was remembered lately.
    pub(crate) fn contains(&self, id: &ActivationId) -> bool {
        self.mark(id).is_some()
    }

    /// Whether that id has a mark on it; None: it was not remembered lately.
    pub(crate) fn mark(&self, id: &ActivationId) -> Option<bool> {
        if self.is_unused() {
            return None;
        }
        let (set, print) = self.find(id)?;
        // Prints differ from that one in nothing but the mark, or are others'.
        let mut marks = set.prints.iter().map(|seen| seen.load(Ordering::Relaxed) ^ print);
        marks.find(|mark| *mark <= MARK).map(|mark| mark == MARK)
    }

    /// Fetches the sets of these ids from memory, many at a time; on its way an activation would wait for each by itself.
    pub(crate) fn fetch(&self, mut ids: impl Iterator<Item = ActivationId>) {
        if self.is_unused() {
            return;
        }
        let mut places = [0; TOGETHER];
        loop {
            let mut found = 0;
            for place in ids.by_ref().take(TOGETHER).filter_map(|id| self.place(&id)) {
                places[found] = place;
                found += 1;
            }
            if found == 0 {
                return;
            }
            // Nothing between the loads: a processor waits for as many at once as it finds close together. Relaxed: nothing depends
            // on them, they must only not be left out.
            let next = places[..found].iter().map(|place| self.sets[*place].next.load(Ordering::Relaxed));
            black_box(next.fold(0, u64::wrapping_add));
        }
    }

    fn is_unused(&self) -> bool {
        self.used.load(Ordering::Relaxed) == 0
    }

    fn place(&self, id: &ActivationId) -> Option<usize> {
        let mask = self.sets.len().checked_sub(1)?;
        Some(usize::try_from(self.places.hash_one(id) & mask as u64).expect("masked"))
    }

    fn find(&self, id: &ActivationId) -> Option<(&Set, u64)> {
        // Never 0, which is vacant, and with room for the mark.
        Some((&self.sets[self.place(id)?], self.prints.hash_one(id).max(MARK << 1) & !MARK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> ActivationId {
        ActivationId(n.to_le_bytes())
    }

    #[test]
    fn the_latest_seven_of_a_set_are_remembered() {
        let recent = Recent::new(1, 7);
        for n in 0..100 {
            assert!(!recent.contains(&id(n)));
            recent.insert(&id(n));
            let known: Vec<u128> = (0..=n).filter(|n| recent.contains(&id(*n))).collect();
            assert_eq!(known, ((n + 1).saturating_sub(7)..=n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn none_is_mistaken_for_another() {
        let recent = Recent::new(100, 7);
        assert_eq!(recent.sets.len(), 128);
        (0..896).for_each(|n| recent.insert(&id(n)));
        assert!((0..896).filter(|n| recent.contains(&id(*n))).count() > 700, "sets are filled evenly");
        assert!(!(1000..101_000).any(|n| recent.contains(&id(n))));
    }

    #[test]
    fn without_sets_it_remembers_nothing() {
        let recent = Recent::new(0, 7);
        recent.insert(&id(1));
        assert!(!recent.contains(&id(1)));
    }

    #[test]
    fn threads_that_meet_in_a_set_take_a_place_each() {
        let recent = Recent::new(1, 7);
        std::thread::scope(|scope| {
            for n in 0..PRINTS as u128 {
                let recent = &recent;
                scope.spawn(move || recent.insert(&id(n)));
            }
        });
        assert!((0..PRINTS as u128).all(|n| recent.contains(&id(n))));
    }
}
