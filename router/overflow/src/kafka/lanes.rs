//! What is known of each lane: how far it goes, how far it is consumed. It talks to nobody.

use crate::{Span, Usage};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};

/// One lane. Positions are Kafka's offsets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// Everything below is consumed, durably.
    pub(super) mark: u64,
    /// Above every record that is known to be durable.
    pub(super) next: u64,
    /// The broker was told to drop everything below.
    pub(super) trimmed: u64,
    /// How many records the mark handed out; 0 once it is known that they were.
    pub(super) handed: u32,
    /// A commit of this lane that was not answered yet, by its number.
    pub(super) pending: Option<u64>,
    /// A commit of this lane was not acknowledged, so which mark stands has to be read back after the next one.
    pub(super) unsure: bool,
}

/// All lanes, each behind a lock of its own, and what is counted for all of them.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Mutex<Lane>>,
    /// Held while a mark is being written, so that an earlier one never overtakes a later one.
    turns: Vec<Mutex<()>>,
    records: AtomicU64,
    bytes: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) lost_in_crash: AtomicU64,
}

impl Lanes {
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Mutex::default()).collect(),
            turns: (0..lanes).map(|_| Mutex::default()).collect(),
            records: AtomicU64::new(0),
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
        self.lanes.iter().map(|lane| *lane.lock()).collect()
    }

    pub(super) fn span(&self, lane: u16) -> Span {
        let lane = self.lane(lane).map(|lane| *lane).unwrap_or_default();
        Span { first: lane.mark, next: lane.next.max(lane.mark) }
    }

    /// A record is durable at `position`.
    pub(super) fn appended(&self, lane: u16, position: u64, bytes: usize) {
        if let Some(mut lane) = self.lane(lane) {
            lane.next = lane.next.max(position + 1);
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes by estimate: what is not consumed times the mean body appended since opening, for a broker does not tell.
    pub(super) fn usage(&self) -> Usage {
        let waiting: u64 = self.all().iter().map(|lane| lane.next.saturating_sub(lane.mark)).sum();
        let mean = self.bytes.load(Ordering::Relaxed).checked_div(self.records.load(Ordering::Relaxed));
        Usage {
            bytes: waiting.saturating_mul(mean.unwrap_or(0)),
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
        assert_eq!(lanes.span(1), Span { first: 0, next: 2 });
        assert_eq!(lanes.usage().bytes, 400);
        lanes.lane(1).unwrap().mark = 1;
        assert_eq!(lanes.usage().bytes, 200);
        assert_eq!(lanes.span(2), Span::default());
    }
}
