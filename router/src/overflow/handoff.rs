//! What matchers leave for the store's threads. They never wait: each leaves what it has under a lock that is held for a moment.

use engine::effect::{Refill, Spill};
use engine::lanes::Lane;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;

/// Between matchers, writer and reader. Bounded by the engine: spills by the bytes it reserves for them, refills by one for each action
/// that overflows, extents by the lanes.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    spills: Mutex<Spills>,
    spilled: Condvar,
    reads: Mutex<Reads>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct Spills {
    waiting: VecDeque<Spill>,
    stopped: bool,
}

/// What the reader has to know.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// What actions want.
    pub(crate) refills: Vec<Refill>,
    /// How far lanes may be read.
    pub(crate) extents: Vec<(Lane, u64)>,
    /// Nothing is to be read any more.
    pub(crate) stopped: bool,
}

impl Handoff {
    /// Leaves an activation for the writer.
    pub(crate) fn spill(&self, spill: Spill) {
        let mut spills = self.spills.lock();
        spills.waiting.push_back(spill);
        // The writer takes all there is: only for the first does it have to be told.
        if spills.waiting.len() == 1 {
            self.spilled.notify_one();
        }
    }

    /// Leaves for the reader what an action wants.
    pub(crate) fn refill(&self, refill: Refill) {
        self.tell_reader(|reads| reads.refills.push(refill));
    }

    /// Tells the reader how far lanes may be read.
    pub(crate) fn extend(&self, extents: impl IntoIterator<Item = (Lane, u64)>) {
        self.tell_reader(|reads| reads.extents.extend(extents));
    }

    /// Ends both threads: the writer once it has written what was left for it, the reader at once.
    pub(crate) fn stop(&self) {
        self.spills.lock().stopped = true;
        self.spilled.notify_one();
        self.tell_reader(|reads| reads.stopped = true);
    }

    /// What is waiting to be written, at most that many. Waits for the first, for so long at the most. None: it is over.
    pub(crate) fn take_spills(&self, most: usize, timeout: Duration) -> Option<Vec<Spill>> {
        let mut spills = self.spills.lock();
        if spills.waiting.is_empty() {
            if spills.stopped {
                return None;
            }
            self.spilled.wait_for(&mut spills, timeout);
        }
        let most = most.min(spills.waiting.len());
        Some(spills.waiting.drain(..most).collect())
    }

    /// What the reader was told since. Waits for it, for so long at the most.
    pub(crate) fn take_reads(&self, timeout: Duration) -> Reads {
        let mut reads = self.reads.lock();
        if reads.refills.is_empty() && reads.extents.is_empty() && !reads.stopped {
            self.asked.wait_for(&mut reads, timeout);
        }
        let stopped = reads.stopped;
        Reads { stopped, ..std::mem::replace(&mut *reads, Reads { stopped, ..Reads::default() }) }
    }

    fn tell_reader(&self, say: impl FnOnce(&mut Reads)) {
        say(&mut self.reads.lock());
        self.asked.notify_one();
    }
}
