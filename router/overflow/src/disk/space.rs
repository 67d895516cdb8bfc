//! How many bytes the store's files take up, and may.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes taken and the limit. Relaxed throughout: it orders nothing else.
#[derive(Debug)]
pub(super) struct Space {
    taken: AtomicU64,
    limit: u64,
}

impl Space {
    /// So much is taken already.
    pub(super) fn new(taken: u64, limit: u64) -> Self {
        Self { taken: AtomicU64::new(taken), limit }
    }

    /// Takes bytes, unless that would pass the limit.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives bytes back.
    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The most there may be.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }
}
