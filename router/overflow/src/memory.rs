//! A store in memory, for tests: the contract in its plainest form. It survives being dropped as long as its place is kept.

use crate::consumed::{Consumed, Counted};
use crate::{
    AppendError, Batch, ConsumeError, Entry, Group, Lost, Marks, Most, Note, Overflow, ReadError, Record, Span, Usage,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a store in memory keeps; as a directory is to one on disk.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<Vec<Kept>>>);

/// A store in memory.
#[derive(Debug)]
pub struct Memory {
    place: Place,
    lanes: u16,
    limits: Limits,
    /// By lane.
    counted: Mutex<Vec<Counted>>,
    damaged: AtomicU64,
    lost_in_crash_max: u64,
    closed: AtomicBool,
}

/// How much it takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest body, in bytes.
    pub record_bytes_max: usize,
    /// All bodies together, in bytes.
    pub store_bytes_max: usize,
}

/// How many groups may have a mark of their own in one lane.
const GROUP_MARKS_MAX: usize = 100;

#[derive(Debug, Default)]
struct Kept {
    /// From the mark on. `None`: consumed.
    records: VecDeque<Option<One>>,
    consumed: Consumed,
    handed: u64,
}

#[derive(Debug, Clone)]
struct One {
    group: Group,
    note: Note,
    /// `None`: damaged.
    body: Option<Bytes>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.records.iter().flatten().filter_map(|one| one.body.as_ref()).map(Bytes::len).sum()
    }

    fn span(&self) -> Span {
        let first = self.consumed.before;
        Span { first, next: first + self.records.len() as u64 }
    }

    fn at(&mut self, position: u64) -> Option<&mut One> {
        let index = usize::try_from(position.checked_sub(self.consumed.before)?).ok()?;
        self.records.get_mut(index)?.as_mut()
    }

    fn consume(&mut self, consumed: Consumed, handed: u64) {
        let below = usize::try_from(consumed.before - self.consumed.before).unwrap_or(usize::MAX);
        self.records.drain(..below);
        for (position, record) in (consumed.before..).zip(&mut self.records) {
            record.take_if(|one| consumed.covers(one.group, position));
        }
        (self.consumed, self.handed) = (consumed, handed);
    }
}

impl Place {
    /// A place with so many lanes.
    pub fn new(lanes: u16) -> Self {
        Self(Arc::new(Mutex::new((0..lanes).map(|_| Kept::default()).collect())))
    }

    /// Opens the store that is kept here.
    pub fn open(&self, limits: Limits) -> Memory {
        let kept = self.0.lock();
        Memory {
            place: self.clone(),
            lanes: u16::try_from(kept.len()).unwrap_or(u16::MAX),
            limits,
            counted: Mutex::new(kept.iter().map(|_| Counted::default()).collect()),
            damaged: AtomicU64::new(0),
            lost_in_crash_max: kept.iter().map(|lane| lane.handed).max().unwrap_or(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Damages a record that is not consumed.
    pub fn spoil(&self, lane: u16, position: u64) {
        if let Some(one) = self.0.lock().get_mut(usize::from(lane)).and_then(|kept| kept.at(position)) {
            one.body = None;
        }
    }
}

impl Memory {
    fn take(&self, kept: &mut [Kept], entry: &Entry) -> Result<u64, AppendError> {
        let (lane, lanes) = (entry.lane, self.lanes);
        let (bytes, limit) = (entry.body.len(), self.limits.record_bytes_max);
        let all: usize = kept.iter().map(Kept::bytes).sum();
        let kept = kept.get_mut(usize::from(lane)).ok_or(AppendError::NoSuchLane { lane, lanes })?;
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        if all + bytes > self.limits.store_bytes_max {
            return Err(AppendError::Full(format!("it may take up {} B", self.limits.store_bytes_max)));
        }
        kept.records.push_back(Some(One { group: entry.group, note: entry.note, body: Some(entry.body.clone()) }));
        Ok(kept.span().next - 1)
    }

    /// Passes over a damaged record.
    fn lost(&self, lane: u16, position: u64, one: &One, batch: &mut Batch) {
        let fresh = self.counted.lock()[usize::from(lane)].count(position, position + 1);
        self.damaged.fetch_add(fresh, Ordering::Relaxed);
        batch.damaged += fresh;
        batch.lost.push(Lost { position, group: one.group, note: one.note });
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Overflow for Memory {
    fn lanes(&self) -> u16 {
        self.lanes
    }

    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>> {
        let mut kept = self.place.0.lock();
        let mut failed = vec![false; kept.len()];
        let one = |entry: &Entry| {
            if self.is_closed() {
                return Err(AppendError::Closed);
            }
            if failed.get(usize::from(entry.lane)) == Some(&true) {
                return Err(AppendError::Unavailable("an entry before it was not taken".to_owned()));
            }
            let taken = self.take(&mut kept, entry);
            if let (Err(_), Some(failed)) = (&taken, failed.get_mut(usize::from(entry.lane))) {
                *failed = true;
            }
            taken
        };
        entries.iter().map(one).collect()
    }

    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        let kept = self.place.0.lock();
        let kept = kept.get(usize::from(lane)).ok_or(ReadError::NoSuchLane { lane, lanes: self.lanes })?;
        let from = from.max(kept.consumed.before);
        let skip = usize::try_from(from - kept.consumed.before).unwrap_or(usize::MAX);
        let (mut batch, mut bytes) = (Batch { next: from, ..Batch::default() }, 0);
        for (position, one) in (from..).zip(kept.records.iter().skip(skip)) {
            if let Some(one) = one.as_ref().filter(|one| only.is_none_or(|only| one.group == only)) {
                let taken = batch.records.len() + batch.lost.len();
                bytes += one.body.as_ref().map_or(0, Bytes::len);
                if taken > 0 && (taken >= most.records || bytes > most.bytes) {
                    break;
                }
                match &one.body {
                    Some(body) => batch.records.push(Record { position, group: one.group, body: body.clone() }),
                    None => self.lost(lane, position, one, &mut batch),
                }
            }
            batch.next = position + 1;
        }
        Ok(batch)
    }

    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError> {
        if self.is_closed() {
            return Err(ConsumeError::Closed);
        }
        let mut kept = self.place.0.lock();
        let kept = kept.get_mut(usize::from(lane)).ok_or(ConsumeError::NoSuchLane { lane, lanes: self.lanes })?;
        if let Some(up) = kept.consumed.up(marks, kept.span().next, GROUP_MARKS_MAX)? {
            kept.consume(up, handed);
        }
        Ok(())
    }

    fn group_marks_max(&self) -> usize {
        GROUP_MARKS_MAX
    }

    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)> {
        let place = self.place.0.lock();
        place.get(usize::from(lane)).map(|kept| kept.consumed.groups().to_vec()).unwrap_or_default()
    }

    fn note(&self, lane: u16, position: u64) -> Option<Note> {
        Some(self.place.0.lock().get_mut(usize::from(lane))?.at(position)?.note)
    }

    fn span(&self, lane: u16) -> Span {
        self.place.0.lock().get(usize::from(lane)).map(Kept::span).unwrap_or_default()
    }

    fn usage(&self) -> Usage {
        let bytes: usize = self.place.0.lock().iter().map(Kept::bytes).sum();
        let damaged = self.damaged.load(Ordering::Relaxed);
        Usage { bytes: bytes as u64, damaged, lost_in_crash_max: self.lost_in_crash_max }
    }

    fn close(&self) {
        let mut kept = self.place.0.lock();
        if !self.closed.swap(true, Ordering::AcqRel) {
            kept.iter_mut().for_each(|lane| lane.handed = 0);
        }
    }
}
