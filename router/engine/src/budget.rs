//! How much all actions together may queue. Reserved before an activation is queued, released exactly once when it leaves.

use crate::limits::{Limits, RETRY_AFTER_MS};
use crate::outcome::{Reason, Rejection};
use crate::sync::{AtomicU64, Ordering};

/// Counts and bytes of all queued activations, within their limits at any moment.
#[derive(Debug)]
pub struct Budget {
    queued: AtomicU64,
    queued_bytes: AtomicU64,
    queued_max: u64,
    queued_bytes_max: u64,
}

impl Budget {
    /// Nothing reserved.
    pub fn new(limits: &Limits) -> Self {
        Self {
            queued: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            queued_max: limits.router_queued_max,
            queued_bytes_max: limits.router_queued_bytes_max,
        }
    }

    /// Reserves room for one activation of that many payload bytes.
    pub fn reserve(&self, bytes: u64) -> Result<(), Rejection> {
        if !add_within(&self.queued, 1, self.queued_max) {
            return Err(router_full("router_queued_max", self.queued_max));
        }
        if !add_within(&self.queued_bytes, bytes, self.queued_bytes_max) {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(router_full("router_queued_bytes_max", self.queued_bytes_max));
        }
        Ok(())
    }

    /// Reserves room for an activation that was accepted before: it left its room a moment ago, and is not refused now.
    pub fn reserve_anyway(&self, bytes: u64) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was reserved for one activation.
    pub fn release(&self, bytes: u64) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Activations queued.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Their payload bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }
}

/// Adds `n` and takes it back where that passes `max`: two threads may both fail at the last place, but never both get it.
fn add_within(counter: &AtomicU64, n: u64, max: u64) -> bool {
    // Relaxed: the counter guards a quantity, not other memory.
    if counter.fetch_add(n, Ordering::Relaxed) + n <= max {
        return true;
    }
    counter.fetch_sub(n, Ordering::Relaxed);
    false
}

fn router_full(field: &'static str, limit: u64) -> Rejection {
    Rejection { retry_after_ms: RETRY_AFTER_MS, ..Rejection::new(Reason::RouterFull, field, limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reservation_leaves_nothing_behind() {
        let limits = Limits { router_queued_max: 2, router_queued_bytes_max: 100, ..Limits::default() };
        let budget = Budget::new(&limits);
        budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).unwrap_err().field, "router_queued_bytes_max");
        assert_eq!((budget.queued(), budget.queued_bytes()), (1, 60));
        budget.reserve(40).unwrap();
        assert_eq!(budget.reserve(0).unwrap_err().field, "router_queued_max");
        budget.release(60);
        budget.release(40);
        assert_eq!((budget.queued(), budget.queued_bytes()), (0, 0));
    }
}
