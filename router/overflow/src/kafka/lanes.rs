//! What is known of each lane: how far it goes, how far it is consumed. It talks to nobody.

use super::bundle;
use crate::consumed::{Consumed, Counted};
use crate::{Span, Usage};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};

/// One lane. Positions are those of [`bundle`](super::bundle).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// How far it is consumed, durably.
    pub(super) consumed: Consumed,
    /// Above every record that is known to be durable.
    pub(super) next: u64,
    /// The broker was told to drop everything below.
    pub(super) trimmed: u64,
    /// Of the messages below it nobody knows how long they are: they were there at opening.
    pub(super) unsized_below: u64,
    /// Bytes of the others, as far as they are not consumed. An estimate where some are.
    pub(super) bytes: u64,
    /// How many records its last mark says are in hand, in all lanes.
    pub(super) handed: u64,
    /// A commit of this lane that was not answered yet, by its number.
    pub(super) pending: Option<u64>,
    /// A commit of this lane was not acknowledged, so which mark stands has to be read back after the next one.
    pub(super) unsure: bool,
}

impl Lane {
    /// So much is consumed. Messages are taken to be as long as the others that wait.
    pub(super) fn consume(&mut self, consumed: Consumed) {
        let before = consumed.before.max(self.consumed.before);
        let waiting = |from: u64| u128::from(bundle::messages(from.max(self.unsized_below), self.next));
        let left = (u128::from(self.bytes) * waiting(before)).checked_div(waiting(self.consumed.before));
        self.bytes = left.and_then(|left| u64::try_from(left).ok()).unwrap_or(0);
        self.consumed = consumed;
    }

    /// Messages that wait and of which it is not known how long they are.
    fn unsized_messages(&self) -> u64 {
        bundle::messages(self.consumed.before, self.unsized_below)
    }
}

/// All lanes, each behind a lock of its own, and what is counted for all of them.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Mutex<Lane>>,
    /// Held while a mark is being written, so that an earlier one never overtakes a later one.
    turns: Vec<Mutex<()>>,
    /// Messages by their offsets.
    counted: Vec<Mutex<Counted>>,
    /// Appended since opening, and the bytes of all of them.
    messages: AtomicU64,
    bytes: AtomicU64,
    damaged: AtomicU64,
    pub(super) lost_in_crash: AtomicU64,
}

impl Lanes {
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Mutex::default()).collect(),
            turns: (0..lanes).map(|_| Mutex::default()).collect(),
            counted: (0..lanes).map(|_| Mutex::default()).collect(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            lost_in_crash: AtomicU64::new(0),
        }
    }

    pub(super) fn lane(&self, lane: u16) -> Option<MutexGuard<'_, Lane>> {
        self.lanes.get(usize::from(lane)).map(|lane| lane.lock())
    }

    pub(super) fn turn(&self, lane: u16) -> Option<MutexGuard<'_, ()>> {
        self.turns.get(usize::from(lane)).map(|turn| turn.lock())
    }

    /// A copy of each.
    pub(super) fn all(&self) -> Vec<Lane> {
        self.lanes.iter().map(|lane| lane.lock().clone()).collect()
    }

    pub(super) fn span(&self, lane: u16) -> Span {
        let Some(lane) = self.lane(lane) else { return Span::default() };
        let first = lane.consumed.before;
        Span { first, next: lane.next.max(first) }
    }

    /// How many messages that could not be read lie between two positions and were not counted before.
    pub(super) fn count_damaged(&self, lane: u16, from: u64, to: u64) -> u64 {
        let Some(counted) = self.counted.get(usize::from(lane)) else { return 0 };
        let fresh = counted.lock().count(bundle::offset(from), bundle::offset(to));
        self.damaged.fetch_add(fresh, Ordering::Relaxed);
        fresh
    }

    /// A message is durable at that offset.
    pub(super) fn appended(&self, lane: u16, offset: u64, bytes: usize) {
        if let Some(mut lane) = self.lane(lane) {
            lane.next = lane.next.max(bundle::start(offset + 1));
            lane.bytes += bytes as u64;
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes by estimate, for a broker does not tell. What was there at opening counts with the mean message appended since.
    pub(super) fn usage(&self) -> Usage {
        let mean = self.bytes.load(Ordering::Relaxed).checked_div(self.messages.load(Ordering::Relaxed)).unwrap_or(0);
        let of_lane = |lane: &Lane| lane.bytes.saturating_add(lane.unsized_messages().saturating_mul(mean));
        Usage {
            bytes: self.all().iter().map(of_lane).fold(0, u64::saturating_add),
            damaged: self.damaged.load(Ordering::Relaxed),
            lost_in_crash_max: self.lost_in_crash.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_what_is_not_consumed() {
        let lanes = Lanes::new(2);
        assert_eq!(lanes.usage(), Usage::default());
        lanes.appended(1, 0, 100);
        lanes.appended(1, 1, 300);
        assert_eq!(lanes.span(1), Span { first: 0, next: bundle::start(2) });
        assert_eq!(lanes.usage().bytes, 400);
        lanes.lane(1).unwrap().consume(Consumed::up_to(bundle::start(1)));
        assert_eq!(lanes.usage().bytes, 200);
        lanes.lane(1).unwrap().consume(Consumed::up_to(bundle::start(1) + 9));
        assert_eq!(lanes.usage().bytes, 200, "a message that is not consumed to its end is there");
        lanes.lane(1).unwrap().consume(Consumed::up_to(bundle::start(2)));
        assert_eq!(lanes.usage().bytes, 0);
        assert_eq!(lanes.span(2), Span::default());
    }

    #[test]
    fn what_was_there_at_opening_counts_like_what_came_since() {
        let lanes = Lanes::new(2);
        let [next, mark] = [5, 2].map(bundle::start);
        *lanes.lane(0).unwrap() =
            Lane { consumed: Consumed::up_to(mark), next, unsized_below: next, ..Lane::default() };
        assert_eq!(lanes.usage().bytes, 0, "nothing came yet");
        lanes.appended(1, 0, 100);
        assert_eq!(lanes.usage().bytes, 400);
        lanes.appended(0, 5, 300);
        assert_eq!(lanes.usage().bytes, 1000);
        lanes.lane(0).unwrap().consume(Consumed::up_to(bundle::start(4)));
        assert_eq!(lanes.usage().bytes, 600);
        lanes.lane(0).unwrap().consume(Consumed::up_to(next));
        assert_eq!(lanes.usage().bytes, 400);
    }
}
