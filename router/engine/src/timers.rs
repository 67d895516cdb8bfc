//! All timers of the engine: deadlines of queued activations, the moments to look whether an action is still of use, and the
//! watches of containers.
//! Spread over a few wheels, so that threads that arm and cancel seldom meet.

use crate::container::ContainerKey;
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

/// A container to look at. On wheels of their own: as a third kind of timer they would make all the others larger.
#[derive(Debug)]
pub(crate) struct Watch(pub(crate) Arc<Action>, pub(crate) ContainerKey);

const _: () = assert!(size_of::<Timer>() == 16 && size_of::<Watch>() == 16);

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) timers: Vec<Timer>,
    pub(crate) watches: Vec<Watch>,
}

/// The wheels, and the point at which the driver means to look at them next.
#[derive(Debug)]
pub(crate) struct Timers {
    wheels: Box<[Mutex<Wheel<Timer>>]>,
    watches: Box<[Mutex<Wheel<Watch>>]>,
    wake_at: AtomicU64,
}

impl Timers {
    pub(crate) fn new(wheels: usize, now: Timestamp) -> Self {
        let count = wheels.max(1);
        let wheels = (0..count).map(|_| Mutex::new(Wheel::new(now))).collect();
        let watches = (0..count).map(|_| Mutex::new(Wheel::new(now))).collect();
        Self { wheels, watches, wake_at: AtomicU64::new(u64::MAX) }
    }

    /// Arms a timer of the action with that number. True if the driver must be told, as it means to look later than that.
    pub(crate) fn arm(&self, action: u32, at: Timestamp, timer: Timer) -> (Armed, bool) {
        let armed = of(&self.wheels, action).lock().arm(at, timer);
        (armed, self.is_sooner(at))
    }

    /// Arms a watch of one of the action's containers, likewise.
    pub(crate) fn arm_watch(&self, action: &Arc<Action>, at: Timestamp, container: ContainerKey) -> (Armed, bool) {
        let watch = Watch(action.clone(), container);
        let armed = of(&self.watches, action.number()).lock().arm(at, watch);
        (armed, self.is_sooner(at))
    }

    fn is_sooner(&self, at: Timestamp) -> bool {
        // SeqCst with the driver's store in `next_wake`: either it sees the timer on the wheel or this sees its store.
        self.wake_at.fetch_min(at.as_micros(), Ordering::SeqCst) > at.as_micros()
    }

    pub(crate) fn cancel_watch(&self, action: u32, armed: Armed) {
        let watch = of(&self.watches, action).lock().cancel(armed);
        drop(watch);
    }

    pub(crate) fn cancel(&self, action: u32, armed: Armed) {
        let timer = of(&self.wheels, action).lock().cancel(armed);
        // Dropped after the lock is free: it may hold the last reference to an action.
        drop(timer);
    }

    /// Takes up to `most` due timers off each wheel. True if there may be more.
    pub(crate) fn advance(&self, now: Timestamp, most: usize, due: &mut Due) -> bool {
        let mut more = false;
        for wheel in &self.wheels {
            more |= wheel.lock().advance(now, most, &mut due.timers);
        }
        for wheel in &self.watches {
            more |= wheel.lock().advance(now, most, &mut due.watches);
        }
        more
    }

    /// When to advance next. The driver sleeps until then, or until it is told of something sooner.
    pub(crate) fn next_wake(&self) -> Option<Timestamp> {
        // First forget the old plan: who arms a timer while the wheels are looked at must not trust it.
        self.wake_at.store(u64::MAX, Ordering::SeqCst);
        let timers = self.wheels.iter().filter_map(|wheel| wheel.lock().next_expiry());
        let watches = self.watches.iter().filter_map(|wheel| wheel.lock().next_expiry());
        let next = timers.chain(watches).min();
        if let Some(at) = next {
            self.wake_at.fetch_min(at.as_micros(), Ordering::SeqCst);
        }
        next
    }
}

/// The wheel of the action with that number.
fn of<T>(wheels: &[Mutex<Wheel<T>>], action: u32) -> &Mutex<Wheel<T>> {
    &wheels[action as usize % wheels.len()]
}
