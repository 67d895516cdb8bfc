//! The lanes of overflow, as all actions share them: which are free, how much is on its way into them, whether they can be written.
//!
//! An action that overflows gets a lane to itself while there is one, so that no backlog stands in front of another's. Only when more
//! actions overflow than there are lanes do they share.

use crate::limits::OverflowLimits;
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// A lane of the store, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u16);

/// All lanes.
#[derive(Debug)]
pub struct Lanes {
    limits: OverflowLimits,
    /// How many use each. Locked when an action begins or ends to overflow.
    users: Mutex<Vec<u32>>,
    /// Bytes that are handed to the store and of which nothing was heard yet.
    pending_bytes: AtomicU64,
    /// The store takes records.
    open: AtomicBool,
    /// What is stored may come back.
    refilling: AtomicBool,
}

/// What it is worth waiting for a store that cannot be written, in milliseconds.
const STORE_RETRY_AFTER_MS: u32 = 1000;
/// What it is worth waiting for a store that is behind, in milliseconds: a few writes.
const PENDING_RETRY_AFTER_MS: u32 = 50;

impl Lanes {
    /// None in use, and closed until the store is known to work.
    pub(crate) fn new(limits: OverflowLimits) -> Self {
        Self {
            users: Mutex::new(vec![0; usize::from(limits.lanes.max(1))]),
            limits,
            pending_bytes: AtomicU64::new(0),
            open: AtomicBool::new(false),
            refilling: AtomicBool::new(true),
        }
    }

    /// Whether the store takes records: what overflows is refused otherwise.
    pub fn set_open(&self, open: bool) {
        // Relaxed, as all here: flags and quantities, which guard no other memory.
        self.open.store(open, Ordering::Relaxed);
    }

    /// Whether the store takes records.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Nothing that is stored comes back from now on: it is left for the next start.
    pub fn stop_refilling(&self) {
        self.refilling.store(false, Ordering::Relaxed);
    }

    /// A lane that holds records of an earlier life is in use until it is [left](Self::leave).
    pub fn occupy(&self, lane: Lane) {
        if let Some(users) = self.users.lock().get_mut(usize::from(lane.0)) {
            *users += 1;
        }
    }

    /// One user of a lane less.
    pub fn leave(&self, lane: Lane) {
        if let Some(users) = self.users.lock().get_mut(usize::from(lane.0)) {
            *users = users.saturating_sub(1);
        }
    }

    /// Lanes in use.
    pub fn in_use(&self) -> usize {
        self.users.lock().iter().filter(|users| **users > 0).count()
    }

    /// Bytes on their way into the store.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn limits(&self) -> &OverflowLimits {
        &self.limits
    }

    /// Whether what is stored may come back.
    pub fn is_refilling(&self) -> bool {
        self.refilling.load(Ordering::Relaxed)
    }

    /// The lane with the fewest users, the first of them.
    pub(crate) fn take(&self) -> Lane {
        let mut users = self.users.lock();
        let fewest = (0..users.len()).min_by_key(|lane| users[*lane]).expect("there is one at least");
        users[fewest] += 1;
        Lane(u16::try_from(fewest).expect("lanes are counted in 16 bits"))
    }

    /// Reserves room on the way into the store.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), Rejection> {
        if !self.is_open() {
            return Err(unavailable("overflow", 0, STORE_RETRY_AFTER_MS));
        }
        let max = self.limits.pending_bytes_max;
        if self.pending_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > max {
            self.release(bytes);
            return Err(unavailable("overflow.pending_bytes_max", max, PENDING_RETRY_AFTER_MS));
        }
        Ok(())
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What the store did not take.
pub(crate) fn refused() -> Rejection {
    unavailable("overflow", 0, STORE_RETRY_AFTER_MS)
}

fn unavailable(field: &'static str, limit: u64, retry_after_ms: u32) -> Rejection {
    Rejection { retry_after_ms, ..Rejection::new(Reason::OverflowUnavailable, field, limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(lanes: u16) -> Lanes {
        Lanes::new(OverflowLimits { lanes, pending_bytes_max: 100, ..OverflowLimits::default() })
    }

    #[test]
    fn lanes_are_shared_only_when_none_is_free() {
        let lanes = lanes(3);
        lanes.occupy(Lane(1));
        assert_eq!([lanes.take(), lanes.take(), lanes.take()], [Lane(0), Lane(2), Lane(0)]);
        assert_eq!(lanes.in_use(), 3);
        lanes.leave(Lane(2));
        assert_eq!(lanes.take(), Lane(2));
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let lanes = lanes(1);
        assert_eq!(lanes.reserve(1).unwrap_err().field, "overflow", "closed until the store is known to work");
        lanes.set_open(true);
        lanes.reserve(60).unwrap();
        assert_eq!(lanes.reserve(41).unwrap_err().field, "overflow.pending_bytes_max");
        lanes.release(60);
        lanes.reserve(100).unwrap();
        assert_eq!(lanes.pending_bytes(), 100);
    }
}
