//! Opening a lane: which segments it has, how far each is valid, and where it goes on.
//!
//! Nothing is written to a segment that an earlier run has made, and none is deleted but those that are consumed. The header
//! of each segment says how far the one before is valid, so only the last one is read through, and those whose successor
//! cannot be read. What is lost in between is counted when a read passes over it.

use super::errors::OpenError;
use super::files::{Access, File, Files};
use super::log::{Log, Segment};
use super::marks::Mark;
use super::record::{self, Place};
use super::segment::{self, Before, Gap, Header, Opening};
use super::walk::{Found, STEP_BYTES, Tail, Walk};
use super::writer::Start;
use crate::consumed::Consumed;
use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};

/// What was found of a lane.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub log: Log,
    pub start: Start,
    /// Bytes of its files.
    pub bytes: u64,
    /// Records that will not be read and that no read passes over, as far as is known.
    pub damaged: u64,
    /// There is no mark: one has to be set here before anything else.
    pub mark_lost: bool,
}

/// The way to a lane's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finder<'a> {
    pub files: &'a dyn Files,
    pub dir: &'a Path,
    pub store: &'a [u8; 16],
    pub lane: u16,
}

/// A segment file as it was found.
#[derive(Debug)]
struct Piece {
    number: u64,
    bytes: u64,
    header: Option<Header>,
}

/// What is left of a segment, or of several that were given back.
#[derive(Debug)]
enum Left {
    Whole(Piece),
    Gap(Gap, Piece),
}

impl Left {
    fn piece(&self) -> &Piece {
        match self {
            Self::Whole(piece) | Self::Gap(_, piece) => piece,
        }
    }
}

/// What reading through a segment tells.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// Position and offset of the first whole header.
    first: Option<(u64, u64)>,
    /// Behind the last.
    next: u64,
    records: u64,
    /// Where the last one ends.
    valid: u64,
    tail: Tail,
}

impl Finder<'_> {
    /// Opens a lane whose mark is known.
    pub(super) fn recover(self, mark: &Mark) -> Result<Recovered, OpenError> {
        let mut found = Recovered::default();
        let mut left = Vec::new();
        self.remove_notes()?;
        let (numbers, aside) = (self.numbers(segment::number)?, self.numbers(segment::number_aside)?);
        let gaps = self.gaps()?;
        let last = numbers.iter().chain(&aside).chain(gaps.iter().map(|gap| &gap.to)).max();
        found.start.number = last.map_or(0, |number| number + 1);
        for number in aside {
            found.bytes += self.open(&self.dir.join(segment::name_aside(number)), Access::Read)?.1;
        }
        for gap in &gaps {
            left.push(Left::Gap(*gap, self.gap(*gap, &mut found)?));
        }
        for number in numbers {
            let covered = gaps.iter().any(|gap| (gap.from..=gap.to).contains(&number));
            left.extend(self.piece(number, covered, &mut found)?.map(Left::Whole));
        }
        left.sort_unstable_by_key(|left| left.piece().number);
        self.join(&left, mark, &mut found)?;
        Ok(found)
    }

    /// Opens a lane whose mark is lost. What has been handed out of it is not known, so nothing is: its segments are set aside.
    pub(super) fn set_aside(self) -> Result<Recovered, OpenError> {
        for number in self.numbers(segment::number)? {
            let (from, to) = (self.path(number), self.dir.join(segment::name_aside(number)));
            tracing::error!(path = %to.display(), "the lane's consume mark is lost: kept aside and never read again");
            self.files.rename(&from, &to).map_err(OpenError::io("rename", &from))?;
        }
        self.files.sync_dir(self.dir).map_err(OpenError::io("sync", self.dir))?;
        self.remove_notes()?;

        let mut found = Recovered { mark_lost: true, ..Recovered::default() };
        let mut next = 0;
        for gap in self.gaps()? {
            // Nothing is in them.
            (next, found.start.number) = (next.max(gap.next), found.start.number.max(gap.to + 1));
            self.remove(&self.dir.join(gap.name()))?;
        }
        for number in self.numbers(segment::number_aside)? {
            let path = self.dir.join(segment::name_aside(number));
            let (file, bytes) = self.open(&path, Access::Read)?;
            let scan = self.scan(&*file, number, 0, bytes).map_err(OpenError::io("read", &path))?;
            next = next.max(scan.beyond());
            found.damaged += scan.records + u64::from(matches!(scan.tail, Tail::Broken(_)));
            found.bytes += bytes;
            found.start.number = found.start.number.max(number + 1);
        }
        found.log = Log::new(Consumed::up_to(next), next);
        found.go_on(next, next);
        Ok(found)
    }

    /// The numbers of the lane's segment files, ascending. Other files are none of its business.
    fn numbers(self, number: fn(&str) -> Option<u64>) -> Result<Vec<u64>, OpenError> {
        let names = self.files.list(self.dir).map_err(OpenError::io("list", self.dir))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What is left of segments that were given back, in their order. Where a crash came in between, two name the same: the longer
    /// one counts.
    fn gaps(self) -> Result<Vec<Gap>, OpenError> {
        let names = self.files.list(self.dir).map_err(OpenError::io("list", self.dir))?;
        let mut gaps: Vec<Gap> = names.iter().filter_map(|name| Gap::parse(name)).collect();
        gaps.sort_unstable_by_key(|gap| (gap.from, std::cmp::Reverse(gap.to)));
        let mut kept: Vec<Gap> = Vec::new();
        for gap in gaps {
            match kept.last().is_some_and(|last| gap.to <= last.to) {
                true => self.remove(&self.dir.join(gap.name()))?,
                false => kept.push(gap),
            }
        }
        Ok(kept)
    }

    /// The header that is left of a gap's first segment.
    fn gap(self, gap: Gap, found: &mut Recovered) -> Result<Piece, OpenError> {
        let path = self.dir.join(gap.name());
        let (file, mut bytes) = self.open(&path, Access::Write)?;
        if bytes > segment::HEADER_BYTES as u64 {
            bytes = segment::HEADER_BYTES as u64;
            file.set_len(bytes).map_err(OpenError::io("cut", &path))?;
        }
        found.bytes += bytes;
        let header = match self.header(&*file, &path)? {
            Opening::Valid(header)
                if (header.store, header.lane, header.number) == (*self.store, self.lane, gap.from) =>
            {
                Some(header)
            }
            _ => None,
        };
        Ok(Piece { number: gap.to, bytes, header })
    }

    /// Removes the notes of earlier runs: nobody asks for them any more.
    fn remove_notes(self) -> Result<(), OpenError> {
        let stale = self.numbers(segment::number_notes)?;
        stale.into_iter().try_for_each(|number| self.remove(&self.dir.join(segment::name_notes(number))))
    }

    fn remove(self, path: &Path) -> Result<(), OpenError> {
        match self.files.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    fn header(self, file: &dyn File, path: &Path) -> Result<Opening, OpenError> {
        let mut head = [0; segment::HEADER_BYTES];
        let read = file.read_at(&mut head, 0).map_err(OpenError::io("read", path))?;
        match Header::decode(&head[..read]) {
            Opening::Other(version) => {
                Err(OpenError::OtherFormat { path: path.to_owned(), version, known: segment::VERSION })
            }
            opening => Ok(opening),
        }
    }

    /// A file and its length.
    fn open(self, path: &Path, access: Access) -> Result<(Box<dyn File>, u64), OpenError> {
        let file = self.files.open(path, access).map_err(OpenError::io("open", path))?;
        let bytes = file.bytes().map_err(OpenError::io("read", path))?;
        Ok((file, bytes))
    }

    fn path(self, number: u64) -> PathBuf {
        self.dir.join(segment::name(number))
    }

    /// A segment file, unless it is another's. One that a gap names already was about to be removed, and is now.
    fn piece(self, number: u64, covered: bool, found: &mut Recovered) -> Result<Option<Piece>, OpenError> {
        let path = self.path(number);
        let (file, bytes) = self.open(&path, Access::Read)?;
        let header = match self.header(&*file, &path)? {
            Opening::Valid(header)
                if (header.store, header.lane, header.number) != (*self.store, self.lane, number) =>
            {
                tracing::error!(path = %path.display(), "a segment of another store, lane or place: left alone and not read");
                found.damaged += 1;
                found.bytes += bytes;
                return Ok(None);
            }
            Opening::Valid(header) => Some(header),
            _ => None,
        };
        if covered {
            return self.remove(&path).map(|()| None);
        }
        found.bytes += bytes;
        Ok(Some(Piece { number, bytes, header }))
    }

    /// Joins segments: each to the one before.
    fn join(self, left: &[Left], mark: &Mark, found: &mut Recovered) -> Result<(), OpenError> {
        let before = mark.consumed.before;
        let mut log = Log::new(mark.consumed.clone(), before);
        // All positions below are in a segment before, or consumed.
        let mut known = before;
        let mut beyond = before.max(mark.end);
        for (index, one) in left.iter().enumerate() {
            let piece = one.piece();
            let (mut segment, above) = match one {
                Left::Whole(_) => self.segment(piece, said(piece.number, &left[index + 1..], known), known)?,
                Left::Gap(gap, _) => (self.gap_segment(gap, piece, known), gap.next),
            };
            if index + 1 == left.len() {
                // Given out, and not there any more: lost with the end of the file, or with one that is missing.
                match segment.gap_from {
                    None => segment.next = segment.next.max(mark.end),
                    Some(_) => found.damaged += mark.end.saturating_sub(segment.next),
                }
            }
            let missing = piece.header.map(|header| header.before.next).filter(|before| *before > known);
            if let (Some(next), Some(header)) = (missing, piece.header) {
                let path = self.path(header.before.number);
                tracing::error!(path = %path.display(), from = known, to = next, "a segment of overflow is missing");
            }
            segment.gone_below = missing.unwrap_or(0);
            known = known.max(segment.next);
            beyond = beyond.max(above).max(segment.next);
            found.start.before = Before { number: piece.number, valid: segment.valid, next: segment.next };
            log.push(segment);
        }
        if left.is_empty() {
            found.damaged += mark.end.saturating_sub(before);
        }
        found.log = log;
        found.go_on(known, beyond);
        Ok(())
    }

    fn gap_segment(self, gap: &Gap, piece: &Piece, known: u64) -> Segment {
        let first = piece.header.map_or(known, |header| header.first).min(gap.next);
        let place = Place::new(self.store, self.lane, gap.to);
        let new = Segment::new(gap.to, place, first);
        Segment { next: gap.next, bytes: piece.bytes, gap_from: Some(gap.from), ..new }
    }

    /// One segment, and a position above all that were ever in it. `said` is what the one behind says of it.
    fn segment(self, piece: &Piece, said: Option<Before>, known: u64) -> Result<(Segment, u64), OpenError> {
        let Piece { number, bytes, header } = *piece;
        let place = Place::new(self.store, self.lane, number);
        let segment = |first, next, valid| Segment { next, valid, bytes, ..Segment::new(number, place, first) };
        if let (Some(header), Some(said)) = (header, said) {
            return Ok((segment(header.first.min(said.next), said.next, said.valid), said.next));
        }
        let path = self.path(number);
        let (file, _) = self.open(&path, Access::Read)?;
        let first = header.map_or(known, |header| header.first);
        let end = said.map_or(bytes, |said| said.valid.min(bytes));
        let scan = self.scan(&*file, number, first, end).map_err(OpenError::io("read", &path))?;
        // With its own header gone, the first record tells, if nothing can be missing before it.
        let told =
            scan.first.filter(|(_, offset)| *offset == segment::HEADER_BYTES as u64).map(|(position, _)| position);
        let first = header.map_or(told.unwrap_or(first), |header| header.first);
        // Damage at the end hides how many records; they count as one, unless the segment behind knows.
        let broken = u64::from(matches!(scan.tail, Tail::Broken(_)));
        let next = said.map_or(scan.next + broken, |said| said.next);
        Ok((segment(first, next, scan.valid), scan.beyond().max(next)))
    }

    /// Reads through the headers of a segment.
    fn scan(self, file: &dyn File, number: u64, first: u64, end: u64) -> io::Result<Scan> {
        let start = (segment::HEADER_BYTES as u64).min(end);
        let place = Place::new(self.store, self.lane, number);
        let mut walk = Walk::new(file, place, start, end, STEP_BYTES);
        let mut scan = Scan { first: None, next: first, records: 0, valid: start, tail: Tail::Clean };
        loop {
            match walk.next(|_| false)? {
                Found::Record { header, .. } | Found::Header(header) | Found::Damaged(header) => {
                    scan.first.get_or_insert((header.position, walk.offset() - header.bytes()));
                    scan.next = scan.next.max(header.position + 1);
                    scan.records += 1;
                }
                Found::End(tail) => return Ok(Scan { tail, ..scan }),
            }
            scan.valid = walk.offset();
        }
    }
}

/// What those behind a segment say of it: how far it is valid, or that it is void. Nothing, if the next header is of one that does
/// not know it.
fn said(number: u64, behind: &[Left], known: u64) -> Option<Before> {
    let before = behind.iter().find_map(|left| left.piece().header)?.before;
    match before.number.cmp(&number) {
        Ordering::Equal => Some(before),
        Ordering::Less => Some(Before { number, valid: 0, next: known }),
        Ordering::Greater => None,
    }
}

impl Scan {
    /// Above every position that may ever have been given out here: damage at the end may hide many short records.
    fn beyond(&self) -> u64 {
        match self.tail {
            Tail::Clean | Tail::Torn(None) => self.next,
            Tail::Torn(Some(position)) => self.next.max(position.saturating_add(1)),
            Tail::Broken(bytes) => self.next + bytes / record::HEADER_BYTES as u64 + 1,
        }
    }
}

impl Recovered {
    /// What there is ends at `next`; new records are given positions from `position` on.
    fn go_on(&mut self, next: u64, position: u64) {
        self.log.next = next;
        self.start.position = position;
        self.start.before.next = self.start.before.next.max(next);
    }
}
