//! The front of a lane: reads records in their order, over segments and damage.
//!
//! It remembers where the last reads began and ended, so that reading on, or once more, looks for nothing, for as many groups as
//! read in turn. Any other position is found by walking over the headers of its segment.

use super::errors::unread;
use super::files::{Access, File};
use super::lane::Shared;
use super::log::Segment;
use super::notes::{self, Cell};
use super::record::{HEADER_BYTES, Header};
use super::segment;
use super::walk::{Found, Tail, Walk};
use crate::consumed::Consumed;
use crate::{Batch, Group, Lost, Most, ReadError, Record};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;

/// The reading end of a lane.
#[derive(Debug, Default)]
pub(super) struct Reader {
    file: Option<(u64, Arc<dyn File>)>,
    /// Where records begin whose positions are known, of each read the first one and the one to come. The last at the end.
    spots: VecDeque<Spot>,
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    segment: u64,
    position: u64,
    offset: u64,
}

/// A read in the making.
#[derive(Debug)]
struct Take<'a> {
    shared: &'a Shared,
    consumed: Consumed,
    only: Option<Group>,
    batch: Batch,
    most: Most,
    /// Of the bodies taken.
    bytes: usize,
    /// Bytes of records passed over.
    passed: u64,
}

/// Why a segment was left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// All of it is read.
    Ended,
    /// The read has what it wants.
    Sated,
}

/// Records that are only passed over are passed over in such steps at least.
const STEP_BYTES_MIN: usize = 16 << 10;
/// A read passes over so many bytes of records that are not asked for, about 1 ms from memory; then it says where it is.
const PASS_BYTES_MAX: u64 = 4 << 20;
/// Notes that are read at a time, where there is a hole.
const CELLS_AT_ONCE: u64 = 1024;
/// Spots that are remembered: of 64 groups that read in turn.
const SPOTS_MAX: usize = 128;

impl Reader {
    /// See [`crate::Overflow::read`].
    pub(super) fn read(
        &mut self,
        shared: &Shared,
        from: u64,
        only: Option<Group>,
        most: Most,
    ) -> Result<Batch, ReadError> {
        let consumed = shared.log.lock().consumed.clone();
        let from = from.max(only.map_or(consumed.before, |group| consumed.of(group)));
        let batch = Batch { next: from, ..Batch::default() };
        let mut take = Take { shared, consumed, only, batch, most, bytes: 0, passed: 0 };
        loop {
            let segment = shared.log.lock().segment_at(take.batch.next);
            let Some(segment) = segment.filter(|_| !take.is_full()) else { break };
            match self.read_segment(shared, segment, &mut take) {
                Ok(Left::Ended) => {}
                Ok(Left::Sated) => break,
                // What is there already is handed out first; the next read runs into it again.
                Err(_) if take.batch.next > from => break,
                Err(error) => return Err(error),
            }
        }
        Ok(take.batch)
    }

    /// Takes from a segment what lies at `take.batch.next` and behind.
    fn read_segment(&mut self, shared: &Shared, segment: Segment, take: &mut Take<'_>) -> Result<Left, ReadError> {
        let path = shared.dir.join(segment::name(segment.number));
        if take.batch.next < segment.gone_below {
            take.count(take.batch.next, segment.gone_below);
            take.batch.next = segment.gone_below;
        }
        if segment.gap_from.is_some() {
            take.batch.next = take.batch.next.max(segment.next);
            return Ok(Left::Ended);
        }
        match self.file(shared, &segment) {
            Ok(file) => self.walk(&*file, segment, take).map_err(|error| unread("read", &path, &error)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // It may have been given back just now, and then all of it was consumed.
                if shared.log.lock().has(segment.number) {
                    let counted = take.batch.damaged;
                    take.batch.next = take.batch.next.max(segment.first);
                    let left = take.lose(&segment, segment.next);
                    if take.batch.damaged > counted {
                        tracing::error!(path = %path.display(), "a segment of overflow is missing");
                    }
                    return Ok(left);
                }
                take.batch.next = take.batch.next.max(segment.next);
                Ok(Left::Ended)
            }
            Err(error) => Err(unread("open", &path, &error)),
        }
    }

    fn walk(&mut self, file: &dyn File, segment: Segment, take: &mut Take<'_>) -> std::io::Result<Left> {
        let from = take.batch.next.max(segment.first);
        let begin = self.spot(&segment, from);
        let mut walk = Walk::new(file, segment.place, begin.offset, segment.valid, take.step());
        self.remember(begin);
        // The record that has to come next, if none is lost, is `take.batch.next`.
        take.batch.next = from;
        loop {
            let before = walk.offset();
            if take.is_full() {
                self.remember(Spot::new(&segment, take.batch.next, before));
                return Ok(Left::Sated);
            }
            let mut too_long = false;
            let found = walk.next(|header| {
                let wanted = header.position >= take.batch.next && take.wants(header.group, header.position);
                too_long = wanted && header.length > take.room();
                wanted && !too_long
            })?;
            let sated = |reader: &mut Self, take: &Take<'_>| {
                reader.remember(Spot::new(&segment, take.batch.next, before));
                Ok(Left::Sated)
            };
            let (behind, ended) = match &found {
                _ if too_long => return sated(self, take),
                // Where positions overlap, which takes damage, those of the segment behind count.
                Found::Record { header, .. } | Found::Header(header) | Found::Damaged(header)
                    if header.position >= segment.next =>
                {
                    (segment.next, Some(Tail::Broken(header.bytes())))
                }
                Found::Record { header, .. } | Found::Header(header) => (header.position, None),
                Found::Damaged(header) => (header.position + 1, None),
                Found::End(tail) => (segment.next, Some(*tail)),
            };
            if ended == Some(Tail::Clean) {
                self.remember(Spot::new(&segment, take.batch.next, before));
            }
            if take.batch.next < behind && take.lose(&segment, behind) == Left::Sated {
                return if ended.is_some() { Ok(Left::Sated) } else { sated(self, take) };
            }
            match found {
                _ if ended.is_some() => return Ok(Left::Ended),
                Found::Record { header, body } if header.position == take.batch.next => take.push(&header, body),
                Found::Header(header) if header.position == take.batch.next => take.pass(&header),
                _ => {}
            }
        }
    }

    /// Closes a file that was given back meanwhile.
    pub(super) fn let_go(&mut self, shared: &Shared) {
        self.file.take_if(|(number, _)| !shared.log.lock().has(*number));
    }

    /// Where to begin for what lies at `from` and behind: as near as is known.
    fn spot(&self, segment: &Segment, from: u64) -> Spot {
        let start = Spot::new(segment, segment.first, segment::HEADER_BYTES as u64);
        let known = self.spots.iter().filter(|spot| spot.segment == segment.number && spot.position <= from);
        known.copied().fold(start, |best, spot| if spot.position > best.position { spot } else { best })
    }

    fn remember(&mut self, spot: Spot) {
        self.spots.retain(|other| *other != spot);
        self.spots.push_back(spot);
        if self.spots.len() > SPOTS_MAX {
            self.spots.pop_front();
        }
    }

    fn file(&mut self, shared: &Shared, segment: &Segment) -> std::io::Result<Arc<dyn File>> {
        if let Some((number, file)) = &self.file
            && *number == segment.number
        {
            return Ok(Arc::clone(file));
        }
        let path = shared.dir.join(segment::name(segment.number));
        let file: Arc<dyn File> = Arc::from(shared.files.open(&path, Access::Read)?);
        self.file = Some((segment.number, Arc::clone(&file)));
        Ok(file)
    }
}

impl Spot {
    fn new(segment: &Segment, position: u64, offset: u64) -> Self {
        Self { segment: segment.number, position, offset }
    }
}

impl Take<'_> {
    fn is_full(&self) -> bool {
        let taken = self.batch.records.len() + self.batch.lost.len();
        let enough = taken > 0 && (taken >= self.most.records || self.bytes >= self.most.bytes);
        enough || self.passed >= PASS_BYTES_MAX
    }

    /// Whether a record is asked for.
    fn wants(&self, group: Group, position: u64) -> bool {
        self.only.is_none_or(|only| only == group) && !self.consumed.covers(group, position)
    }

    /// The longest body that may follow. The first may be of any length.
    fn room(&self) -> usize {
        if self.batch.records.is_empty() { usize::MAX } else { self.most.bytes - self.bytes }
    }

    /// Bytes worth reading at a time.
    fn step(&self) -> usize {
        self.most.bytes.saturating_add(self.most.records.saturating_mul(HEADER_BYTES)).max(STEP_BYTES_MIN)
    }

    /// Copies the body: a slice would keep all alive that was read along with it.
    fn push(&mut self, header: &Header, body: &[u8]) {
        let Header { position, group, .. } = *header;
        self.bytes += body.len();
        self.batch.records.push(Record { position, group, body: Bytes::copy_from_slice(body) });
        self.batch.next = position + 1;
    }

    /// Passes over a record that is not asked for.
    fn pass(&mut self, header: &Header) {
        self.passed += header.bytes();
        self.batch.next = header.position + 1;
    }

    /// Passes over the records below `to`, which are damaged or missing, and tells of those whose notes are there. Sated: the
    /// read has what it wants, perhaps before it is through.
    fn lose(&mut self, segment: &Segment, to: u64) -> Left {
        while self.batch.next < to && !self.is_full() {
            let from = self.batch.next;
            match notes::read(self.shared, segment, from, to.min(from + CELLS_AT_ONCE)) {
                Some(cells) => self.lose_known(cells),
                None => {
                    self.count(from, to);
                    self.batch.next = to;
                }
            }
        }
        if self.batch.next < to || self.is_full() { Left::Sated } else { Left::Ended }
    }

    /// Those of other groups, and those that are consumed, are none of this read's business.
    fn lose_known(&mut self, cells: Vec<Cell>) {
        let mut uncounted = self.batch.next;
        for (position, cell) in (self.batch.next..).zip(cells) {
            if self.is_full() {
                break;
            }
            self.batch.next = position + 1;
            match cell {
                Some((group, _)) if !self.wants(group, position) => {
                    self.count(uncounted, position);
                    uncounted = position + 1;
                }
                Some((group, note)) => self.batch.lost.push(Lost { position, group, note }),
                None => {}
            }
        }
        self.count(uncounted, self.batch.next);
    }

    fn count(&mut self, from: u64, to: u64) {
        self.batch.damaged += self.shared.count_damaged(from, to);
    }
}
