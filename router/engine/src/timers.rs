//! All timers of the engine: deadlines of queued activations, and the moments to look whether an action is still of use.
//! Spread over a few wheels, so that threads that arm and cancel seldom meet.

use crate::hub::Action;
use crate::slab::Key;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::time::Timestamp;
use crate::wheel::{Armed, Wheel};
use std::sync::Arc;

/// What to do when its time comes.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Expire the activation in that slot.
    Deadline(Arc<Action>, Key),
    /// Forget the action unless it is of use.
    Idle(Arc<Action>),
}

/// The wheels, and the point at which the driver means to look at them next.
#[derive(Debug)]
pub(crate) struct Timers {
    wheels: Box<[Mutex<Wheel<Timer>>]>,
    wake_at: AtomicU64,
}

impl Timers {
    pub(crate) fn new(wheels: usize, now: Timestamp) -> Self {
        let wheels = (0..wheels.max(1)).map(|_| Mutex::new(Wheel::new(now))).collect();
        Self { wheels, wake_at: AtomicU64::new(u64::MAX) }
    }

    /// Arms a timer of the action with that number. True if the driver must be told, as it means to look later than that.
    pub(crate) fn arm(&self, action: u32, at: Timestamp, timer: Timer) -> (Armed, bool) {
        let armed = self.wheel(action).lock().arm(at, timer);
        // SeqCst with the driver's store in `next_wake`: either it sees the timer on the wheel or this sees its store.
        let sooner = self.wake_at.fetch_min(at.as_micros(), Ordering::SeqCst) > at.as_micros();
        (armed, sooner)
    }

    pub(crate) fn cancel(&self, action: u32, armed: Armed) {
        let timer = self.wheel(action).lock().cancel(armed);
        // Dropped after the lock is free: it may hold the last reference to an action.
        drop(timer);
    }

    /// Takes up to `most` due timers off each wheel. True if there may be more.
    pub(crate) fn advance(&self, now: Timestamp, most: usize, due: &mut Vec<Timer>) -> bool {
        let mut more = false;
        for wheel in &self.wheels {
            more |= wheel.lock().advance(now, most, due);
        }
        more
    }

    /// When to advance next. The driver sleeps until then, or until it is told of something sooner.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        // First forget the old plan: who arms a timer while the wheels are looked at must not trust it.
        self.wake_at.store(u64::MAX, Ordering::SeqCst);
        let next = self.wheels.iter().filter_map(|wheel| wheel.lock().next_expiry()).min();
        if let Some(at) = next {
            self.wake_at.fetch_min(at.as_micros(), Ordering::SeqCst);
        }
        next
    }

    fn wheel(&self, action: u32) -> &Mutex<Wheel<Timer>> {
        &self.wheels[action as usize % self.wheels.len()]
    }
}
