//! The lock-free intake of an action and its single-file matcher: a flag and a queue, nothing of what they are for.
//!
//! Whoever finds the state free works on it; whoever finds it taken leaves its items in the intake and goes. Nobody waits,
//! and the code that runs on the state is plain and sequential.
//!
//! ```text
//!   enter(items) ── free ──▶ drain the intake, then work on items ──▶ free it ──▶ intake empty? ── yes ─▶ done
//!        │                                                              ▲               │ no: try again
//!        └─ taken ─▶ leave items in the intake ─────────────────────────┴───────────────┘ (taken: its holder will look)
//! ```
//!
//! No item is left behind: the one who leaves items and the one who frees the state both look at the other's side
//! afterwards, with a sequentially consistent fence between their write and their look, so at least one of them sees.
//! Items of one thread keep their order: it leaves them in order, and the intake is drained before newer items are worked on.

use crate::sync::{Mutex, MutexGuard, OnceLock, Ordering, SegQueue, fence};

/// From this many items on, a caller waits for its turn instead of leaving more: the intake's bound. It takes a holder that
/// was put off the processor for long to get there.
const INTAKE_ITEMS_MAX: usize = 65_536;

/// State that is worked on by one thread at a time, and an intake for the others.
#[derive(Debug)]
pub struct SingleFile<S, T> {
    /// Only ever tried, except by [`wait`](Self::wait).
    state: Mutex<S>,
    /// Made at the first collision. Most actions of many never see one, and a queue's first block is half a kilobyte.
    intake: OnceLock<Box<SegQueue<T>>>,
}

impl<S, T> SingleFile<S, T> {
    /// Free, with an empty intake.
    pub fn new(state: S) -> Self {
        Self { state: Mutex::new(state), intake: OnceLock::new() }
    }

    /// Hands in `items` and leaves it empty. They, and what others left, are passed to `work` on this thread or on the one
    /// that holds the state now, in batches. `work` must take all of each batch.
    pub fn enter(&self, items: &mut Vec<T>, mut work: impl FnMut(&mut S, &mut Vec<T>)) {
        match self.state.try_lock() {
            Some(state) => self.run(state, items, &mut work),
            None => self.leave(items, &mut work),
        }
        self.look_again(&mut work);
    }

    /// Waits for the state, works on what was left in the intake, then lets `f` use the state. For rare calls that need a
    /// result: registering a container, looking at a queue.
    pub fn wait<R>(&self, mut work: impl FnMut(&mut S, &mut Vec<T>), f: impl FnOnce(&mut S) -> R) -> R {
        let mut state = self.state.lock();
        self.drain(&mut state, &mut work);
        let result = f(&mut state);
        drop(state);
        self.look_again(&mut work);
        result
    }

    fn run(&self, mut state: MutexGuard<'_, S>, items: &mut Vec<T>, work: &mut impl FnMut(&mut S, &mut Vec<T>)) {
        self.drain(&mut state, work);
        if !items.is_empty() {
            work(&mut state, items);
            debug_assert!(items.is_empty(), "work takes all");
        }
    }

    fn drain(&self, state: &mut S, work: &mut impl FnMut(&mut S, &mut Vec<T>)) {
        let Some(intake) = self.intake.get() else { return };
        // All that is there now: what this thread left is among it, and what comes while it works is looked at again.
        let mut left: Vec<T> = std::iter::from_fn(|| intake.pop()).take(intake.len()).collect();
        if !left.is_empty() {
            work(state, &mut left);
        }
    }

    fn leave(&self, items: &mut Vec<T>, work: &mut impl FnMut(&mut S, &mut Vec<T>)) {
        let intake = self.intake.get_or_init(Box::default);
        if intake.len() + items.len() > INTAKE_ITEMS_MAX {
            return self.run(self.state.lock(), items, work);
        }
        items.drain(..).for_each(|item| intake.push(item));
    }

    fn look_again(&self, work: &mut impl FnMut(&mut S, &mut Vec<T>)) {
        loop {
            // Between freeing the state (or leaving items) and looking at the intake (or the state): see above.
            fence(Ordering::SeqCst);
            if self.intake.get().is_none_or(|intake| intake.is_empty()) {
                return;
            }
            let Some(mut state) = self.state.try_lock() else { return };
            self.drain(&mut state, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work that keeps what it is given.
    fn keep(state: &mut Vec<u64>, items: &mut Vec<u64>) {
        state.append(items);
    }

    #[test]
    fn items_are_worked_on_in_order() {
        let file = SingleFile::new(Vec::new());
        file.enter(&mut vec![1, 2], keep);
        file.enter(&mut vec![3], keep);
        assert_eq!(file.wait(keep, |kept| kept.clone()), [1, 2, 3]);
    }

    #[test]
    fn what_is_left_while_the_state_is_taken_is_worked_on_by_its_holder() {
        let file = SingleFile::new(Vec::new());
        let mut nested = false;
        file.enter(&mut vec![1], |kept: &mut Vec<u64>, items| {
            kept.append(items);
            if !std::mem::replace(&mut nested, true) {
                // As another thread would: the state is taken, so these are left and this call returns at once.
                file.enter(&mut vec![2, 3], |_: &mut Vec<u64>, _| unreachable!("the state is taken"));
            }
        });
        assert_eq!(file.wait(keep, |kept| kept.clone()), [1, 2, 3]);
    }

    #[test]
    fn no_item_is_lost_and_each_thread_keeps_its_order() {
        const THREADS: u64 = 4;
        const EACH: u64 = 20_000;
        let file = SingleFile::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let file = &file;
                scope.spawn(move || (0..EACH).for_each(|n| file.enter(&mut vec![thread * EACH + n], keep)));
            }
        });
        // Looking without working on anything: nobody may have left an item behind.
        let kept = file.wait(|_, left| panic!("{} items were left behind", left.len()), |kept| kept.clone());
        assert_eq!(kept.len() as u64, THREADS * EACH);
        for thread in 0..THREADS {
            let own: Vec<u64> = kept.iter().copied().filter(|item| item / EACH == thread).collect();
            assert!(own.is_sorted(), "items of thread {thread} changed order");
        }
    }
}
