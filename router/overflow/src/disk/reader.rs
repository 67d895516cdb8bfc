//! The front of a lane: reads records in their order, over segments and damage.
//!
//! It remembers where the last read began and ended, so that reading on, or once more, looks for nothing. Any other position
//! is found by walking over the headers of its segment.

use super::errors::unread;
use super::files::{Access, File};
use super::lane::Shared;
use super::log::Segment;
use super::record::HEADER_BYTES;
use super::segment;
use super::walk::{Found, Tail, Walk};
use crate::{Batch, Group, Most, ReadError, Record};
use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::Arc;

/// The reading end of a lane.
#[derive(Debug, Default)]
pub(super) struct Reader {
    file: Option<(u64, Arc<dyn File>)>,
    /// Where records begin whose positions are known: of the last read's first and of the one to come.
    spots: [Option<Spot>; 2],
}

/// Where a record begins.
#[derive(Debug, Clone, Copy)]
struct Spot {
    segment: u64,
    position: u64,
    offset: u64,
}

/// A read in the making.
#[derive(Debug)]
struct Take<'a> {
    shared: &'a Shared,
    batch: Batch,
    most: Most,
    bytes: usize,
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

impl Reader {
    /// See [`crate::Overflow::read`].
    pub(super) fn read(
        &mut self,
        shared: &Shared,
        from: u64,
        _only: Option<Group>,
        most: Most,
    ) -> Result<Batch, ReadError> {
        let from = from.max(shared.log.lock().mark);
        let mut take = Take { shared, batch: Batch { next: from, ..Batch::default() }, most, bytes: 0 };
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
            let why = format!("what lay before {} is missing", path.display());
            return Err(ReadError::Gone { first: segment.first, why });
        }
        let file = match self.file(shared, &segment) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ReadError::Gone { first: segment.next, why: format!("{} is missing", path.display()) });
            }
            Err(error) => return Err(unread("open", &path, &error)),
        };
        self.walk(&*file, segment, take).map_err(|error| unread("read", &path, &error))
    }

    fn walk(&mut self, file: &dyn File, segment: Segment, take: &mut Take<'_>) -> std::io::Result<Left> {
        let from = take.batch.next.max(segment.first);
        let begin = self.spot(&segment, from);
        let mut walk = Walk::new(file, segment.place, begin.offset, segment.valid, take.step());
        // Of the record that has to come next, if none is lost.
        let mut due = from;
        self.spots = [Some(begin), None];
        loop {
            if take.is_full() {
                self.spots[1] = Some(Spot::new(&segment, due, walk.offset()));
                return Ok(Left::Sated);
            }
            let room = take.room();
            let mut too_long = false;
            let before = walk.offset();
            let found = walk.next(|header| {
                too_long = header.position >= from && header.length > room;
                header.position >= from && !too_long
            })?;
            match found {
                _ if too_long => {
                    self.spots[1] = Some(Spot::new(&segment, due, before));
                    return Ok(Left::Sated);
                }
                Found::Record { position, body } if position >= due => {
                    take.damaged(due, position);
                    take.push(position, body);
                    due = position + 1;
                }
                Found::Record { .. } | Found::Header { .. } => {}
                Found::End(tail) => {
                    self.spots[1] = (tail == Tail::Clean).then(|| Spot::new(&segment, due, before));
                    break;
                }
            }
        }
        take.damaged(due, segment.next);
        Ok(Left::Ended)
    }

    /// Where to begin for what lies at `from` and behind: as near as is known.
    fn spot(&self, segment: &Segment, from: u64) -> Spot {
        let start = Spot::new(segment, segment.first, segment::HEADER_BYTES as u64);
        let known = self.spots.iter().flatten().filter(|spot| spot.segment == segment.number && spot.position <= from);
        known.copied().fold(start, |best, spot| if spot.position > best.position { spot } else { best })
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
        let records = self.batch.records.len();
        records > 0 && (records >= self.most.records || self.bytes >= self.most.bytes)
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
    fn push(&mut self, position: u64, body: &[u8]) {
        self.bytes += body.len();
        self.batch.records.push(Record { position, group: Group(0), body: Bytes::copy_from_slice(body) });
        self.batch.next = position + 1;
    }

    /// Passes over the records `from..to`: they are lost.
    fn damaged(&mut self, from: u64, to: u64) {
        self.batch.damaged += self.shared.count_damaged(from, to);
        self.batch.next = self.batch.next.max(to);
    }
}
