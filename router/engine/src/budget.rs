//! How much a group of actions may queue together: all of them, or those of one tenant. Reserved before an activation is queued,
//! released exactly once when it leaves.

use crate::limits::Limits;
use crate::outcome::{Reason, Rejection};
use crate::pace::SharedPace;
use crate::sync::{AtomicU64, Ordering};
use crate::time::Timestamp;

/// Counts and bytes of the queued activations of a group, within their limits at any moment.
#[derive(Debug)]
pub struct Budget {
    queued: AtomicU64,
    queued_bytes: AtomicU64,
    queued_max: u64,
    queued_bytes_max: u64,
    /// What a refusal names: the reason, and the limits of count and bytes.
    reason: Reason,
    fields: [&'static str; 2],
    pace: SharedPace,
}

impl Budget {
    /// Nothing reserved, for all actions together.
    pub fn of_router(limits: &Limits) -> Self {
        let fields = ["router_queued_max", "router_queued_bytes_max"];
        Self::new(limits.router_queued_max, limits.router_queued_bytes_max, Reason::RouterFull, fields)
    }

    /// Nothing reserved, for the actions of one namespace.
    pub fn of_tenant(limits: &Limits) -> Self {
        let fields = ["tenant_queued_max", "tenant_queued_bytes_max"];
        Self::new(limits.tenant_queued_max, limits.tenant_queued_bytes_max, Reason::TenantFull, fields)
    }

    fn new(queued_max: u64, queued_bytes_max: u64, reason: Reason, fields: [&'static str; 2]) -> Self {
        Self {
            queued: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            queued_max,
            queued_bytes_max,
            reason,
            fields,
            pace: SharedPace::default(),
        }
    }

    /// Reserves room for one activation of that many bytes.
    ///
    /// # Errors
    /// Names the limit and when to try again. Nothing is reserved then.
    pub fn reserve(&self, bytes: u64, now: Timestamp) -> Result<(), Rejection> {
        if !add_within(&self.queued, 1, self.queued_max) {
            return Err(self.full(0, self.queued_max, now));
        }
        if !add_within(&self.queued_bytes, bytes, self.queued_bytes_max) {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return Err(self.full(1, self.queued_bytes_max, now));
        }
        Ok(())
    }

    /// Reserves room for an activation that was accepted before: it left its room a moment ago, and is not refused now.
    pub fn reserve_anyway(&self, bytes: u64) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was reserved for one activation that leaves.
    pub fn release(&self, bytes: u64) {
        self.take_back(bytes);
        self.pace.left();
    }

    /// Gives back what was reserved for one activation that was not queued after all.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Activations queued.
    pub fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Their payload bytes, and [`Limits::queued_overhead_bytes`] for each.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn full(&self, field: usize, limit: u64, now: Timestamp) -> Rejection {
        let retry_after_ms = self.pace.retry_after_ms(self.queued(), now);
        Rejection { retry_after_ms, ..Rejection::new(self.reason, self.fields[field], limit) }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    #[test]
    fn a_refused_reservation_leaves_nothing_behind() {
        let limits = Limits { router_queued_max: 2, router_queued_bytes_max: 100, ..Limits::default() };
        let budget = Budget::of_router(&limits);
        budget.reserve(60, NOW).unwrap();
        assert_eq!(budget.reserve(41, NOW).unwrap_err().field, "router_queued_bytes_max");
        assert_eq!((budget.queued(), budget.queued_bytes()), (1, 60));
        budget.reserve(40, NOW).unwrap();
        assert_eq!(budget.reserve(0, NOW).unwrap_err().field, "router_queued_max");
        budget.release(60);
        budget.release(40);
        assert_eq!((budget.queued(), budget.queued_bytes()), (0, 0));
    }
}
