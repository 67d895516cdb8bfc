//! The store on disk: a log of its own, made for lanes that are written at the end and read at the front.
//!
//! ```text
//!   DIR/lock                  locked while the store is open
//!   DIR/store, store.copy     who it is: format, a random name, how many lanes (`identity`)
//!   DIR/marks                 the consume marks of all lanes (`marks`)
//!   DIR/lane-00000/           one directory for each lane (`lane`)
//!       0000000000000000.log      segments: a header (`segment`), then records (`record`)
//!       0000000000000000.notes    whose the records of that segment are; of this run only (`notes`)
//!       0000000000000001-….gap    segments that were given back though older ones are still needed (`trim`)
//!       0000000000000005.aside    set aside when the lane's mark was lost; never read, never deleted
//! ```
//!
//! What survives: an append is synced (`fdatasync`) before it is acknowledged, so is a consume mark, so both survive the end of
//! the process, of the system and of power, as far as the device keeps what it says it has. What a kill or a failed write
//! leaves half-done is found by checksum and never read. Files belong to their owner alone (0600, directories 0700).
//!
//! All files count towards the limit of the store: the segments with their notes, the marks, and those set aside, which are for
//! the operator to look at and to remove. An append that finds no room has all lanes give back what is consumed, and is refused
//! only if that does not help.
//!
//! `writer` and `reader` are the two ends of a lane, `log` what they share, `trim` how consumed segments go, `recover` how a lane
//! is found again, `files` the only way to the file system.

mod config;
mod errors;
pub mod files;
mod identity;
mod lane;
mod log;
mod marks;
mod notes;
mod open;
mod reader;
mod record;
mod recover;
mod segment;
mod space;
mod sync;
mod trim;
mod walk;
mod writer;

pub use config::Config;
pub use errors::OpenError;

use crate::{AppendError, Batch, ConsumeError, Entry, Group, Marks, Most, Note, Overflow, ReadError, Span, Usage};
use files::{Files, Lock, Real};
use lane::Lane;
use marks::MarksFile;
use parking_lot::Mutex;
use space::Space;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use sync::Pending;

/// A store in a directory of its own.
///
/// Dropping it without [`close`](Overflow::close) is what a crash is: the next opening reports what may be lost.
#[derive(Debug)]
pub struct Disk {
    lanes: Vec<Lane>,
    marks: MarksFile,
    record_bytes_max: usize,
    space: Arc<Space>,
    damaged: Arc<AtomicU64>,
    lost_in_crash_max: u64,
    closed: AtomicBool,
    /// Holds the lock as long as it is open.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Disk {
    /// Opens the store in a directory, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`]. Damaged records are none; they are counted when they are passed over.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Real), config)
    }

    /// As [`open`](Self::open), on a file system of one's own.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open_on(files: Arc<dyn Files>, config: &Config) -> Result<Self, OpenError> {
        open::open(files, config)
    }

    fn lane(&self, lane: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(lane))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Writes and syncs what an append brings to these lanes.
    fn append_to(
        &self,
        lanes: impl IntoIterator<Item = usize>,
        entries: &[Entry],
        by_lane: &ByLane,
        results: &mut [Result<u64, AppendError>],
    ) {
        let mut written = self.write(lanes, entries, by_lane, results);
        sync::sync(&mut written);
        for lane in written {
            fill(results, lane.order, lane.outcome);
        }
    }

    /// Gives back what is consumed in all lanes, one after the other. Whether that was anything.
    fn reclaim(&self) -> bool {
        let before = self.space.taken();
        self.lanes.iter().for_each(Lane::reclaim);
        self.space.taken() < before
    }

    /// Writes what an append brings, lane by lane, in their order. What cannot be written is refused.
    fn write<'a>(
        &'a self,
        lanes: impl IntoIterator<Item = usize>,
        entries: &[Entry],
        by_lane: &'a ByLane,
        results: &mut [Result<u64, AppendError>],
    ) -> Vec<Pending<'a>> {
        let (mut written, mut own) = (Vec::new(), Vec::with_capacity(entries.len()));
        for (number, lane) in lanes.into_iter().filter_map(|number| Some((number, self.lanes.get(number)?))) {
            let order = by_lane.of(number);
            let order = &order[..self.refuse_long(entries, order, results)];
            if order.is_empty() {
                continue;
            }
            own.clear();
            own.extend(order.iter().map(|index| &entries[*index as usize]));
            // Held until it is synced: nobody else's records get in between. In the order of lanes, so no two calls wait
            // for each other.
            let mut writer = lane.writer.lock();
            match writer.write(&own) {
                Ok(records) => written.push(Pending { writer, order, records, outcome: None }),
                Err(error) => fill(results, order, Some(Err(error))),
            }
        }
        written
    }

    /// Refuses a body that is too long, and all of its lane behind it; how many before it may be taken.
    fn refuse_long(&self, entries: &[Entry], order: &[u32], results: &mut [Result<u64, AppendError>]) -> usize {
        let limit = self.record_bytes_max;
        let long = |index: &u32| entries[*index as usize].body.len() > limit;
        let Some(cut) = order.iter().position(long) else { return order.len() };
        let bytes = entries[order[cut] as usize].body.len();
        results[order[cut] as usize] = Err(AppendError::TooLarge { bytes, limit });
        for index in &order[cut + 1..] {
            let why = "an entry before it, of the same lane and append, was not taken".to_owned();
            results[*index as usize] = Err(AppendError::Unavailable(why));
        }
        cut
    }

    fn no_such_lane(&self, lane: u16) -> AppendError {
        AppendError::NoSuchLane { lane, lanes: self.lanes() }
    }
}

impl Overflow for Disk {
    fn lanes(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// All lanes are written first and then synced, several at a time.
    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>> {
        let mut results = vec![Err(AppendError::Closed); entries.len()];
        if self.is_closed() {
            return results;
        }
        let by_lane = ByLane::new(entries, self.lanes.len());
        for index in by_lane.of(self.lanes.len()) {
            results[*index as usize] = Err(self.no_such_lane(entries[*index as usize].lane));
        }
        let lanes = 0..self.lanes.len();
        self.append_to(lanes.clone(), entries, &by_lane, &mut results);
        let is_full = |lane: &usize| {
            by_lane.of(*lane).iter().any(|index| matches!(results[*index as usize], Err(AppendError::Full(_))))
        };
        let full: Vec<usize> = lanes.filter(is_full).collect();
        if !full.is_empty() && self.reclaim() {
            self.append_to(full, entries, &by_lane, &mut results);
        }
        results
    }

    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        let found = self.lane(lane).ok_or(ReadError::NoSuchLane { lane, lanes: self.lanes() })?;
        found.read(from, only, most)
    }

    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
        if self.is_closed() {
            return Err(ConsumeError::Closed);
        }
        let found = self.lane(lane).ok_or(ConsumeError::NoSuchLane { lane, lanes: self.lanes() })?;
        if let Some(consumed) = self.marks.set(lane, marks, found.span().next, handed)? {
            found.pass(&consumed);
        }
        Ok(())
    }

    fn group_marks_max(&self) -> usize {
        marks::GROUPS_MAX
    }

    fn note(&self, lane: u16, position: u64) -> Option<Note> {
        self.lane(lane)?.note(position)
    }

    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)> {
        self.lane(lane).map(Lane::group_marks).unwrap_or_default()
    }

    fn span(&self, lane: u16) -> Span {
        self.lane(lane).map(Lane::span).unwrap_or_default()
    }

    fn usage(&self) -> Usage {
        Usage {
            bytes: self.space.taken(),
            damaged: self.damaged.load(Ordering::Relaxed),
            lost_in_crash_max: self.lost_in_crash_max,
        }
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        // Waits for the calls that are under way.
        self.lanes.iter().for_each(Lane::close);
        let clean: Vec<(u16, u64)> = (0..self.lanes()).filter_map(|lane| self.clean_mark(lane)).collect();
        if let Err(error) = self.marks.settle(&clean) {
            tracing::error!(%error, "closed without saying so: what was handed out last will be reported as perhaps lost");
        }
        self.marks.close();
        *self.lock.lock() = None;
    }
}

impl Disk {
    /// The lane's number and end, if its mark does not say already that all is settled up to there.
    fn clean_mark(&self, lane: u16) -> Option<(u16, u64)> {
        let (mark, next) = (self.marks.mark(lane), self.span(lane).next);
        (mark.handed > 0 || mark.end < next).then_some((lane, next))
    }
}

/// Entries by lane, in their order; those of no lane at the end.
#[derive(Debug)]
struct ByLane {
    order: Vec<u32>,
    ends: Vec<u32>,
}

impl ByLane {
    fn new(entries: &[Entry], lanes: usize) -> Self {
        let lane = |entry: &Entry| usize::from(entry.lane).min(lanes);
        // Counted, summed up, and filled in: each end moves from its lane's begin to its end.
        let mut ends = vec![0; lanes + 2];
        entries.iter().for_each(|entry| ends[lane(entry) + 1] += 1);
        (1..ends.len()).for_each(|at| ends[at] += ends[at - 1]);
        let mut order = vec![0; entries.len()];
        for (index, entry) in (0..).zip(entries) {
            let place = &mut ends[lane(entry)];
            order[*place as usize] = index;
            *place += 1;
        }
        Self { order, ends }
    }

    /// Indices of the entries of a lane.
    fn of(&self, lane: usize) -> &[u32] {
        let begin = lane.checked_sub(1).map_or(0, |before| self.ends[before]);
        let range: Range<usize> = begin as usize..self.ends[lane] as usize;
        &self.order[range]
    }
}

/// One outcome for all entries of a lane: their positions follow each other.
fn fill(results: &mut [Result<u64, AppendError>], order: &[u32], outcome: Option<Result<u64, AppendError>>) {
    let Some(outcome) = outcome else { return };
    for (index, offset) in order.iter().zip(0..) {
        results[*index as usize] = outcome.clone().map(|first| first + offset);
    }
}
