//! What a worker does when it has nothing to do: where that has paid of late, it looks for more for a while before it sleeps. Waking a
//! thread whose core halted takes 50 us and more, longer than anything else on an activation's way.
//!
//! Decides by times and counts that it is told ([`Lookout`]); below that, what drives it with a runtime's own hook for idleness. It may
//! not keep awake a worker that is spoken to now and then only: what a sleep costs there is less than the core.

use parking_lot::Mutex;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A single-threaded runtime that looks for more for so long, where it pays, before it sleeps; zero: never.
///
/// # Errors
/// If its driver cannot be made.
pub(crate) fn runtime(most: Duration) -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    if most.is_zero() {
        return builder.build();
    }
    let (lookout, awake) = (Mutex::new(Lookout::new(most)), Arc::new(Awake::default()));
    let told = awake.clone();
    builder.on_thread_park(move || {
        if lookout.lock().looks(Instant::now(), PASSED.get()) {
            told.wake();
        }
    });
    let runtime = builder.build()?;
    runtime.spawn(poll_fn(move |cx| awake.poll(cx)));
    Ok(runtime)
}

/// Notes that something passed between this thread and a peer.
pub(crate) fn note() {
    PASSED.set(PASSED.get().wrapping_add(1));
}

thread_local! {
    static PASSED: Cell<u64> = const { Cell::new(0) };
}

/// Whether to look or to sleep, by what came of the last looks.
#[derive(Debug)]
struct Lookout {
    /// The longest look.
    most: Duration,
    /// What had passed when there was nothing to do for the first time since.
    passed: u64,
    /// The look that goes on.
    since: Option<Instant>,
    /// The last 32 looks, the newest lowest: a bit for each that saw nothing.
    missed: u32,
    /// Sleeps since the last look.
    slept: u32,
}

impl Lookout {
    fn new(most: Duration) -> Self {
        Self { most, passed: 0, since: None, missed: 0, slept: 0 }
    }

    /// There is nothing to do, and so much has passed: whether to look on. If not, the thread sleeps.
    fn looks(&mut self, now: Instant, passed: u64) -> bool {
        if self.passed == passed {
            return self.goes_on(now);
        }
        self.passed = passed;
        if self.since.is_some() {
            self.missed <<= 1;
        }
        self.since = self.pays().then_some(now);
        self.since.is_some()
    }

    fn goes_on(&mut self, now: Instant) -> bool {
        if self.since.is_some_and(|since| now.duration_since(since) < self.most) {
            return true;
        }
        if self.since.take().is_some() {
            self.missed = self.missed << 1 | 1;
        }
        false
    }

    /// Few of the last looks missed, or it is time for a trial.
    fn pays(&mut self) -> bool {
        let pays = self.missed.count_ones() <= MISSED_MAX || self.slept == SLEPT_MAX;
        self.slept = if pays { 0 } else { self.slept + 1 };
        pays
    }
}

/// Of 32 looks so many may miss. Where callers ask anew at once few do. Where they come one by one and answers take 80 us, enough do up to
/// some 6,000 a second.
const MISSED_MAX: u32 = 4;
/// After so many sleeps a look is tried: at worst 120 us in 64 gaps.
const SLEPT_MAX: u32 = 63;

/// A task that has nothing to do but to be woken: a runtime with a task to run looks at its sockets and does not sleep.
#[derive(Debug, Default)]
struct Awake(Mutex<Option<Waker>>);

impl Awake {
    fn wake(&self) {
        if let Some(waker) = &*self.0.lock() {
            waker.wake_by_ref();
        }
    }

    /// Never over. A task's waker stays the same.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().get_or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(120);

    /// Time by hand, and how long was looked.
    struct Worker {
        lookout: Lookout,
        now: Instant,
        passed: u64,
        looked: Duration,
        slept: u32,
    }

    impl Worker {
        fn new() -> Self {
            Self { lookout: Lookout::new(MOST), now: Instant::now(), passed: 0, looked: Duration::ZERO, slept: 0 }
        }

        /// Something to do, then nothing for so long; it looks once in a microsecond.
        fn gap(&mut self, micros: u64) {
            self.passed += 1;
            let end = self.now + Duration::from_micros(micros);
            while self.now < end && self.lookout.looks(self.now, self.passed) {
                self.now += Duration::from_micros(1);
                self.looked += Duration::from_micros(1);
            }
            self.slept += u32::from(self.now < end);
            self.now = end;
        }
    }

    #[test]
    fn it_looks_while_something_comes_soon() {
        let mut worker = Worker::new();
        (0..1000).for_each(|n| worker.gap(20 + n % 90));
        assert_eq!(worker.slept, 0);
        assert!(worker.looked > Duration::from_millis(60), "{:?}", worker.looked);
    }

    #[test]
    fn it_sleeps_where_little_comes_and_tries_now_and_then() {
        let mut worker = Worker::new();
        (0..6400).for_each(|_| worker.gap(5_000));
        // Five looks until it has learned, and then one in 64 gaps, 120 us each.
        assert_eq!((worker.slept, worker.looked), (6400, MOST * (5 + 99)));
    }

    #[test]
    fn half_of_the_gaps_short_is_not_enough() {
        let mut worker = Worker::new();
        // 5,000 a second that come one by one: to the answer, and to the next.
        (0..6400).for_each(|n| worker.gap(if n % 2 == 0 { 75 } else { 125 }));
        assert!(worker.slept > 6200, "{}", worker.slept);
    }

    #[test]
    fn it_learns_that_times_have_changed() {
        let mut worker = Worker::new();
        (0..10_000).for_each(|_| worker.gap(5_000));
        worker.slept = 0;
        (0..10_000).for_each(|_| worker.gap(100));
        assert!(worker.slept < 32 * 64, "{}", worker.slept);
        worker.slept = 0;
        (0..1000).for_each(|_| worker.gap(100));
        assert_eq!(worker.slept, 0);
    }

    #[test]
    fn a_look_that_saw_nothing_ends_in_sleep() {
        let mut lookout = Lookout::new(MOST);
        let start = Instant::now();
        assert!(lookout.looks(start, 1));
        assert!(lookout.looks(start + MOST / 2, 1));
        assert!(!lookout.looks(start + MOST, 1));
        // A timer, or a waker without a peer: nothing passed.
        assert!(!lookout.looks(start + MOST * 2, 1));
    }
}
