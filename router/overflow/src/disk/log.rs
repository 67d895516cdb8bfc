//! What a lane consists of, in memory: its segments, oldest first, and its consume mark. No I/O.

use super::record::Place;
use crate::Span;
use crate::consumed::{Consumed, Counted};
use std::collections::VecDeque;

/// A lane's segments and mark.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// By number, and so by position.
    segments: VecDeque<Segment>,
    pub consumed: Consumed,
    /// Above every record that is durable.
    pub next: u64,
    /// The segment that appends go to.
    pub writing: Option<u64>,
    counted: Counted,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u64,
    pub place: Place,
    /// Of its first record.
    pub first: u64,
    /// Behind its last record, found or lost.
    pub next: u64,
    /// Nothing beyond is to be read.
    pub valid: u64,
    /// Length of its file.
    pub bytes: u64,
    /// Positions below this one that are in no segment before are gone: a file is missing.
    pub gone_below: u64,
}

impl Log {
    /// An empty lane that goes on at `next`.
    pub(super) fn new(consumed: Consumed, next: u64) -> Self {
        Self { consumed, next, ..Self::default() }
    }

    /// Durable and not consumed.
    pub(super) fn span(&self) -> Span {
        let first = self.consumed.before;
        Span { first, next: self.next.max(first) }
    }

    /// The segment in which whatever lies at or above `from` begins.
    pub(super) fn segment_at(&self, from: u64) -> Option<Segment> {
        let index = self.segments.partition_point(|segment| segment.next <= from);
        self.segments.get(index).copied()
    }

    /// Puts a segment behind all others. Where their positions overlap, which takes damage, its own count.
    pub(super) fn push(&mut self, segment: Segment) {
        if let Some(last) = self.segments.back_mut() {
            last.next = last.next.min(segment.first.max(last.first));
        }
        self.segments.push_back(segment);
    }

    /// The last segment has become longer: by durable records up to `next`, if that is more than before.
    pub(super) fn extend(&mut self, valid: u64, bytes: u64, next: u64) {
        if let Some(last) = self.segments.back_mut() {
            last.valid = valid;
            last.bytes = bytes;
            last.next = last.next.max(next);
        }
        self.next = self.next.max(next);
    }

    /// The oldest segment, if all of it is consumed and nobody writes it.
    pub(super) fn spent(&self) -> Option<Segment> {
        self.segments
            .front()
            .filter(|oldest| oldest.next <= self.consumed.before && self.writing != Some(oldest.number))
            .copied()
    }

    /// The marks have moved up.
    pub(super) fn pass(&mut self, consumed: Consumed) {
        self.counted.forget_below(consumed.before);
        self.consumed = consumed;
    }

    /// Forgets the oldest segment.
    pub(super) fn pop(&mut self) {
        self.segments.pop_front();
    }

    /// The segment that was written last.
    pub(super) fn last(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// How many of the lost positions `from..to` nobody has counted so far; from now on they are.
    pub(super) fn count(&mut self, from: u64, to: u64) -> u64 {
        self.counted.count(from, to)
    }
}
