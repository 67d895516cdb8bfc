//! What matchers leave for the store's threads. They never wait: each leaves what it has under a lock that is held for a moment.

use engine::effect::{Refill, Spill};
use engine::extents::Extent;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

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
    /// Of their payloads.
    bytes: usize,
    /// The writer has some in hand.
    writing: bool,
    stopped: bool,
}

impl Spills {
    /// With so much waiting the writer does not rest: well below what the engine lets wait.
    fn are_enough(&self) -> bool {
        self.waiting.len() >= ENOUGH || self.bytes >= BYTES_ENOUGH
    }
}

const ENOUGH: usize = 1024;
const BYTES_ENOUGH: usize = 1 << 20;

/// What the reader has to know.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// What actions want.
    pub(crate) refills: Vec<Refill>,
    /// What was stored.
    pub(crate) extents: Vec<Extent>,
    /// The router ends: nothing comes back any more, and controllers are to be told what stays.
    pub(crate) parting: bool,
    /// They were told.
    parted: bool,
    /// Nothing is to be read any more.
    pub(crate) stopped: bool,
}

impl Handoff {
    /// Leaves an activation for the writer.
    pub(crate) fn spill(&self, spill: Spill) {
        let mut spills = self.spills.lock();
        let were_enough = spills.are_enough();
        spills.bytes += spill.record.payload.len();
        spills.waiting.push_back(spill);
        // The writer takes all there is: only of the first does it have to be told, and when it need not rest any longer.
        if spills.waiting.len() == 1 || spills.are_enough() && !were_enough {
            self.spilled.notify_one();
        }
    }

    /// Leaves for the reader what an action wants.
    pub(crate) fn refill(&self, refill: Refill) {
        self.tell_reader(|reads| reads.refills.push(refill));
    }

    /// Tells the reader what was stored.
    pub(crate) fn extend(&self, extents: Vec<Extent>) {
        if !extents.is_empty() {
            self.tell_reader(|reads| reads.extents.extend(extents));
        }
    }

    /// Tells the reader that the router ends: it tells controllers which of their activations stay in the store.
    pub(crate) fn part(&self) {
        self.tell_reader(|reads| reads.parting = true);
    }

    /// For the reader: all that it knows of is told.
    pub(crate) fn has_parted(&self) {
        let written = {
            let spills = self.spills.lock();
            spills.waiting.is_empty() && !spills.writing
        };
        let mut reads = self.reads.lock();
        // What was written meanwhile it learns of only now.
        reads.parted = reads.parting && written && reads.extents.is_empty();
    }

    /// Whether all was told that stays in the store.
    pub(crate) fn is_parted(&self) -> bool {
        self.reads.lock().parted
    }

    /// Whether both threads are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.reads.lock().stopped
    }

    /// Ends both threads: the writer once it has written what was left for it, the reader at once.
    pub(crate) fn stop(&self) {
        self.spills.lock().stopped = true;
        self.spilled.notify_one();
        self.tell_reader(|reads| reads.stopped = true);
    }

    /// What is waiting to be written, at most that many. Rests until `rest` unless much comes before, then waits for the first, for so
    /// long at the most. None: it is over.
    pub(crate) fn take_spills(&self, most: usize, rest: Instant, timeout: Duration) -> Option<Vec<Spill>> {
        let mut spills = self.spills.lock();
        spills.writing = false;
        while !spills.are_enough() && !spills.stopped {
            if self.spilled.wait_until(&mut spills, rest).timed_out() {
                break;
            }
        }
        if spills.waiting.is_empty() {
            if spills.stopped {
                return None;
            }
            self.spilled.wait_for(&mut spills, timeout);
        }
        let most = most.min(spills.waiting.len());
        let taken: Vec<Spill> = spills.waiting.drain(..most).collect();
        spills.bytes -= taken.iter().map(|spill| spill.record.payload.len()).sum::<usize>();
        spills.writing = !taken.is_empty();
        Some(taken)
    }

    /// What the reader was told since. Waits for it, for so long at the most.
    pub(crate) fn take_reads(&self, timeout: Duration) -> Reads {
        let mut reads = self.reads.lock();
        if reads.refills.is_empty() && reads.extents.is_empty() && !reads.stopped {
            self.asked.wait_for(&mut reads, timeout);
        }
        let Reads { parting, parted, stopped, .. } = *reads;
        std::mem::replace(&mut *reads, Reads { parting, parted, stopped, ..Reads::default() })
    }

    fn tell_reader(&self, say: impl FnOnce(&mut Reads)) {
        say(&mut self.reads.lock());
        self.asked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::effect::{Effect, Perform, Spilled};
    use engine::hub::{Hub, Pass};
    use engine::id::{ActionKey, ActivationId, StreamId};
    use engine::lanes::Lane;
    use engine::limits::Limits;
    use engine::outcome::Reply;
    use engine::slab::Key;
    use engine::time::Timestamp;

    #[derive(Debug)]
    struct Nobody;

    impl Perform for Nobody {
        fn perform(&mut self, effects: &mut Vec<Effect>) {
            effects.clear();
        }
    }

    fn spills(count: usize, payload_bytes: usize) -> impl Iterator<Item = Spill> {
        let hub = Hub::new(Limits::default(), 1, 1, Timestamp::ZERO);
        let action = hub.declare(&ActionKey::new("tenant", "action", "1"), &mut Pass::new(Nobody)).unwrap();
        std::iter::repeat_with(move || Spill {
            lane: Lane(0),
            action: action.clone(),
            slot: Key::from_bits(1 << 32).unwrap(),
            record: Spilled {
                id: ActivationId([1; ActivationId::LEN]),
                controller: StreamId(1),
                reply: Reply::Outcome,
                attempt: 1,
                sequence: None,
                accepted_at: Timestamp::ZERO,
                deadline: Timestamp::NEVER,
                payload: vec![0; payload_bytes].into(),
            },
        })
        .take(count)
    }

    /// What the writer takes. It would rest far longer than any test runs.
    fn taken(handoff: &Handoff, most: usize) -> Option<usize> {
        let hour = Duration::from_secs(3600);
        handoff.take_spills(most, Instant::now() + hour, hour).map(|spills| spills.len())
    }

    #[test]
    fn with_much_waiting_the_writer_does_not_rest() {
        let handoff = Handoff::default();
        std::thread::scope(|scope| {
            scope.spawn(|| spills(ENOUGH + 1, 0).for_each(|spill| handoff.spill(spill)));
            assert!(taken(&handoff, ENOUGH) == Some(ENOUGH));
        });
    }

    #[test]
    fn with_few_large_ones_waiting_it_does_not_rest_either() {
        let handoff = Handoff::default();
        std::thread::scope(|scope| {
            scope.spawn(|| spills(8, BYTES_ENOUGH / 4).for_each(|spill| handoff.spill(spill)));
            // What was taken does not count any more.
            assert_eq!((taken(&handoff, 4), taken(&handoff, 4)), (Some(4), Some(4)));
        });
    }

    #[test]
    fn a_rested_writer_takes_the_first_at_once_and_no_more_than_it_asked_for() {
        let handoff = Handoff::default();
        let take = || handoff.take_spills(2, Instant::now(), Duration::from_secs(3600)).unwrap().len();
        std::thread::scope(|scope| {
            scope.spawn(|| spills(1, 100).for_each(|spill| handoff.spill(spill)));
            assert_eq!(take(), 1);
        });
        spills(3, 100).for_each(|spill| handoff.spill(spill));
        assert_eq!((take(), take()), (2, 1));
    }

    #[test]
    fn what_is_left_at_the_end_is_written_without_a_rest() {
        let handoff = Handoff::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                spills(3, 100).for_each(|spill| handoff.spill(spill));
                handoff.stop();
            });
            assert_eq!((taken(&handoff, 4), taken(&handoff, 4)), (Some(3), None));
        });
    }
}
