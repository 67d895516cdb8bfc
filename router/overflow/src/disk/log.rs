//! What a lane consists of, in memory: its segments, oldest first, and its consume mark. No I/O.

use super::record::Place;
use super::segment::Gap;
use crate::consumed::{Consumed, Counted};
use crate::{Group, Span};
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
    /// Bytes of the notes beside it; `None`: there is no such file.
    pub notes: Option<u64>,
    /// It stands for all segments from this number to its own, which were given back; nothing is to be read in it.
    pub gap_from: Option<u64>,
    pub seen: Seen,
    /// Positions below this one that are in no segment before are lost: a file is missing.
    pub gone_below: u64,
}

/// How far into a segment everything is consumed, as was seen when it was looked at last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Where it has to be looked on: offset and position of a record. `None`: from the begin.
    pub at: Option<(u64, u64)>,
    /// Whose record that is; `None`: not known, as none was there yet.
    pub group: Option<Group>,
    /// Records could not be told there. The segment is kept until the lane's mark has passed it.
    pub damaged: bool,
}

impl Segment {
    /// The segment `number`, with no record yet, which begins at position `first`.
    pub(super) fn new(number: u64, place: Place, first: u64) -> Self {
        Self {
            number,
            place,
            first,
            next: first,
            valid: 0,
            bytes: 0,
            notes: None,
            gap_from: None,
            seen: Seen::default(),
            gone_below: 0,
        }
    }

    /// What its files take up.
    pub(super) fn space(&self) -> u64 {
        self.bytes + self.notes.unwrap_or(0)
    }

    /// The file name, if it stands for segments that were given back.
    pub(super) fn gap(&self) -> Option<Gap> {
        self.gap_from.map(|from| Gap { from, to: self.number, next: self.next })
    }
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
    pub(super) fn extend(&mut self, valid: u64, bytes: u64, notes: Option<u64>, next: u64) {
        if let Some(last) = self.segments.back_mut() {
            last.valid = valid;
            last.bytes = bytes;
            last.notes = notes;
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

    /// The marks have moved up. Two that were set at the same time may come in any order.
    pub(super) fn pass(&mut self, consumed: &Consumed) {
        self.consumed = self.consumed.joined(consumed);
        self.counted.forget_below(self.consumed.before);
    }

    /// Forgets the oldest segment.
    pub(super) fn pop(&mut self) {
        self.segments.pop_front();
    }

    /// The segment that is being written.
    pub(super) fn written(&self) -> Option<Segment> {
        self.segments.back().filter(|last| self.writing == Some(last.number)).copied()
    }

    /// Whether a segment has a file of its own.
    pub(super) fn has(&self, number: u64) -> bool {
        self.index_of(number).is_some_and(|index| self.segments[index].gap_from.is_none())
    }

    /// A segment by its number.
    pub(super) fn find(&mut self, number: u64) -> Option<&mut Segment> {
        let index = self.index_of(number)?;
        self.segments.get_mut(index)
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&number, |segment| segment.number).ok()
    }

    /// Segments that the marks of groups may have consumed though the lane's mark has not passed them: by their numbers.
    pub(super) fn perhaps_spent(&self) -> Vec<u64> {
        let (before, far) = (self.consumed.before, self.consumed.furthest());
        let begin = self.segments.partition_point(|segment| segment.next <= before);
        let end = self.segments.partition_point(|segment| segment.next <= far);
        let own = |segment: &&Segment| segment.gap_from.is_none() && self.writing != Some(segment.number);
        self.segments.range(begin..end).filter(own).map(|segment| segment.number).collect()
    }

    /// A segment with what lies right before and right behind it, if nothing is missing in between.
    pub(super) fn between(&self, number: u64) -> Option<(Option<Segment>, Segment, Option<Segment>)> {
        let index = self.index_of(number)?;
        let segment = self.segments[index];
        let before = index.checked_sub(1).and_then(|index| self.segments.get(index)).copied();
        let behind = self.segments.get(index + 1).filter(|behind| behind.gone_below == 0).copied();
        Some((before.filter(|_| segment.gone_below == 0), segment, behind))
    }

    /// Forgets a segment in which nothing is.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(index) = self.index_of(number) {
            self.segments.remove(index);
        }
    }

    /// Puts one entry in place of all from `first` to `last`.
    pub(super) fn replace(&mut self, first: u64, last: u64, by: Segment) {
        let (Some(begin), Some(end)) = (self.index_of(first), self.index_of(last)) else { return };
        self.segments.drain(begin..=end);
        self.segments.insert(begin, by);
    }

    /// How many of the lost positions `from..to` nobody has counted so far; from now on they are.
    pub(super) fn count(&mut self, from: u64, to: u64) -> u64 {
        self.counted.count(from, to)
    }
}
