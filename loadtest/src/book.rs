//! The generator's own account of its activations: who is out, who came back, who came back twice. Kept by id, so that nobody
//! else's counts have to be believed.

use crate::result::{Latency, Quantile, Stage, Stages};
use bytes::Bytes;
use hdrhistogram::Histogram;
use proto::v1;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Activations of one controller.
///
/// An id is the controller's number, the slot the activation takes here, the slot's generation and the run: an answer is accounted
/// for with one look, and a router that remembers the ids of an earlier run takes none of this one for a repetition.
#[derive(Debug)]
pub(crate) struct Book {
    controller: u32,
    /// Drawn at random.
    run: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    pub(crate) counts: Counts,
    /// The most there were out at a time.
    pub(crate) out_max: u64,
    /// Pushed within the window.
    pub(crate) offered: u64,
    /// Answers outside of it are not recorded.
    window: Option<(Instant, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: u32,
    out: bool,
    /// Intended for an open loop, actual for a closed one.
    sent: Instant,
    time_left: Duration,
}

/// What became of all activations of a run, warm-up included: submitted is the sum of the others but `duplicates`. Part of the
/// result file.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) expired: u64,
    pub(crate) rejected: u64,
    pub(crate) lost: u64,
    /// Out, as long as the run lasts.
    pub(crate) unanswered: u64,
    pub(crate) duplicates: u64,
}

impl Counts {
    /// Adds another controller's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.failed += other.failed;
        self.expired += other.expired;
        self.rejected += other.rejected;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.duplicates += other.duplicates;
    }
}

/// What all controllers of a process measured within the window. One for all: a hundred sets of histograms do not fit in the cache, and
/// the generator must not become what is measured.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) answered: u64,
    /// Nanoseconds.
    latency: Histogram<u64>,
    /// Nanoseconds from the deadline to the answer, of those expired.
    lateness: Histogram<u64>,
    /// Microseconds: queue, dispatch, run.
    stages: [Histogram<u64>; 3],
}

/// Stage times are recorded for one answer of this many, for the same reason.
const STAGES_SAMPLED: u64 = 8;

/// What is longer counts as an hour.
const HOUR_NANOS: u64 = 3_600_000_000_000;

impl Record {
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, HOUR_NANOS, 3).expect("valid bounds");
        let stage = Histogram::new_with_bounds(1, HOUR_NANOS / 1000, 3).expect("valid bounds");
        let lateness = latency.clone();
        Self { answered: 0, latency, lateness, stages: [stage.clone(), stage.clone(), stage] }
    }

    fn note(&mut self, answer: &v1::Answer, sent: Instant, time_left: Duration, now: Instant) {
        let nanos_since = |then| u64::try_from(now.saturating_duration_since(then).as_nanos()).unwrap_or(u64::MAX);
        if answer.outcome() == v1::Outcome::Expired {
            return self.lateness.saturating_record(nanos_since(sent + time_left));
        }
        self.answered += 1;
        self.latency.saturating_record(nanos_since(sent));
        if self.answered.is_multiple_of(STAGES_SAMPLED) {
            let stages = [answer.queue_us, answer.dispatch_us, answer.run_us];
            self.stages.iter_mut().zip(stages).for_each(|(stage, us)| stage.saturating_record(us.into()));
        }
    }

    pub(crate) fn latency(&self) -> Latency {
        quantiles(&self.latency)
    }

    /// The latency at each of `CURVE`.
    pub(crate) fn curve(&self) -> Vec<Quantile> {
        let at = |quantile| Quantile { quantile, us: micros(self.latency.value_at_quantile(quantile)) };
        CURVE.map(at).to_vec()
    }

    pub(crate) fn lateness(&self) -> Latency {
        quantiles(&self.lateness)
    }

    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn stages(&self) -> Stages {
        let [queue, dispatch, run] = self.stages.each_ref().map(|stage| {
            let at = |quantile| stage.value_at_quantile(quantile) as f64;
            Stage { p50: at(0.5), p99: at(0.99) }
        });
        Stages { queue, dispatch, run }
    }
}

/// Where a latency curve is taken: evenly at first, then ever closer to 1.
const CURVE: [f64; 20] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 0.99999,
    1.0,
];

fn quantiles(nanos: &Histogram<u64>) -> Latency {
    let at = |quantile| micros(nanos.value_at_quantile(quantile));
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: micros(nanos.max()) }
}

#[allow(clippy::cast_precision_loss)]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

impl Book {
    /// An empty book with room for so many at a time. The memory is touched now: where a machine gives a new page in
    /// 100 us, growing in the middle of a run stops it for 100 ms.
    pub(crate) fn new(controller: u32, at_once: usize) -> Self {
        let never = Slot { generation: 0, out: false, sent: Instant::now(), time_left: Duration::ZERO };
        let (mut slots, mut free) = (vec![never; at_once], vec![u32::MAX; at_once]);
        slots.clear();
        free.clear();
        let (run, counts) = (rand::random(), Counts::default());
        Self { controller, run, slots, free, counts, out_max: 0, offered: 0, window: None }
    }

    /// Records answers from `start` to `end` only.
    pub(crate) fn measure(&mut self, start: Instant, end: Instant) {
        self.window = Some((start, end));
    }

    /// Notes an activation that is sent now, or was to be, with that time left, and makes its id.
    pub(crate) fn submit(&mut self, sent: Instant, time_left: Duration) -> Bytes {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, out: false, sent, time_left });
            u32::try_from(self.slots.len() - 1).expect("bounded by what is out at a time")
        });
        let entry = &mut self.slots[slot as usize];
        *entry = Slot { generation: entry.generation.wrapping_add(1), out: true, sent, time_left };
        let mut id = [0; 16];
        id[0..4].copy_from_slice(&self.controller.to_be_bytes());
        id[4..8].copy_from_slice(&slot.to_be_bytes());
        id[8..12].copy_from_slice(&entry.generation.to_be_bytes());
        id[12..16].copy_from_slice(&self.run.to_be_bytes());
        self.counts.submitted += 1;
        self.counts.unanswered += 1;
        self.out_max = self.out_max.max(self.counts.unanswered);
        if self.window.is_some_and(|(start, end)| (start..end).contains(&sent)) {
            self.offered += 1;
        }
        Bytes::copy_from_slice(&id)
    }

    /// Accounts for an answer, and records it within the window. False if its activation had one before, or never was.
    pub(crate) fn answer(&mut self, answer: &v1::Answer, now: Instant, record: &mut Record) -> bool {
        let Some((sent, time_left)) = self.settle(&answer.id) else {
            self.counts.duplicates += 1;
            return false;
        };
        let counts = &mut self.counts;
        let place = match answer.outcome() {
            v1::Outcome::Completed => &mut counts.completed,
            v1::Outcome::Expired => &mut counts.expired,
            v1::Outcome::Rejected => &mut counts.rejected,
            v1::Outcome::Lost => &mut counts.lost,
            _ => &mut counts.failed,
        };
        *place += 1;
        if self.window.is_some_and(|(start, end)| (start..end).contains(&now)) {
            record.note(answer, sent, time_left, now);
        }
        true
    }

    /// Frees the slot that the id names, if it is out.
    fn settle(&mut self, id: &[u8]) -> Option<(Instant, Duration)> {
        let part = |at: usize| id.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (controller, slot, generation, run) = (part(0)?, part(4)?, part(8)?, part(12)?);
        let entry = self.slots.get_mut(slot as usize)?;
        let here = (controller, run) == (self.controller, self.run);
        if !here || entry.generation != generation || !entry.out {
            return None;
        }
        entry.out = false;
        self.free.push(slot);
        self.counts.unanswered -= 1;
        Some((entry.sent, entry.time_left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn completed(id: Bytes) -> v1::Answer {
        v1::Answer { id, outcome: v1::Outcome::Completed as i32, ..Default::default() }
    }

    #[test]
    fn a_second_answer_is_a_duplicate_even_when_the_slot_is_taken_again() {
        let (mut book, mut record, now) = (Book::new(7, 0), Record::new(), Instant::now());
        let first = book.submit(now, MINUTE);
        assert!(book.answer(&completed(first.clone()), now, &mut record));
        let second = book.submit(now, MINUTE);
        assert!(!book.answer(&completed(first), now, &mut record));
        assert!(book.answer(&completed(second), now, &mut record));
        assert_eq!((book.counts.completed, book.counts.duplicates, book.counts.unanswered), (2, 1, 0));
    }

    #[test]
    fn an_answer_nobody_asked_for_is_counted_and_harmless() {
        let (mut book, mut record, now) = (Book::new(7, 0), Record::new(), Instant::now());
        for id in [vec![], vec![0; 16], vec![9; 40]] {
            assert!(!book.answer(&completed(id.into()), now, &mut record));
        }
        assert_eq!(book.counts.duplicates, 3);
    }

    #[test]
    fn only_answers_within_the_window_are_recorded() {
        let (mut book, mut record, start) = (Book::new(0, 0), Record::new(), Instant::now());
        let second = Duration::from_secs(1);
        book.measure(start + second, start + 2 * second);
        for at in [start, start + second, start + 3 * second] {
            let id = book.submit(start, MINUTE);
            book.answer(&completed(id), at, &mut record);
        }
        assert_eq!((record.answered, book.counts.completed), (1, 3));
    }
}
