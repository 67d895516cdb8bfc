//! A store in memory, for tests: the contract in its plainest form. It survives being dropped as long as its place is kept.

use crate::{AppendError, Batch, ConsumeError, Entry, Most, Overflow, ReadError, Span, Usage};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a store in memory keeps; as a directory is to one on disk.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<Vec<Kept>>>);

/// A store in memory.
#[derive(Debug)]
pub struct Memory {
    place: Place,
    lanes: u16,
    limits: Limits,
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

#[derive(Debug, Default)]
struct Kept {
    /// From the mark on.
    bodies: VecDeque<Bytes>,
    mark: u64,
    handed: u32,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }

    fn span(&self) -> Span {
        Span { first: self.mark, next: self.mark + self.bodies.len() as u64 }
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
        let lanes = u16::try_from(kept.len()).unwrap_or(u16::MAX);
        let lost_in_crash_max = kept.iter().map(|lane| u64::from(lane.handed)).sum();
        Memory { place: self.clone(), lanes, limits, lost_in_crash_max, closed: AtomicBool::new(false) }
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
        kept.bodies.push_back(entry.body.clone());
        Ok(kept.span().next - 1)
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

    fn read(&self, lane: u16, from: u64, most: Most) -> Result<Batch, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        let kept = self.place.0.lock();
        let kept = kept.get(usize::from(lane)).ok_or(ReadError::NoSuchLane { lane, lanes: self.lanes })?;
        let from = from.max(kept.mark);
        let skip = usize::try_from(from - kept.mark).unwrap_or(usize::MAX);
        let (mut batch, mut bytes) = (Batch { next: from, ..Batch::default() }, 0);
        for (position, body) in (from..).zip(kept.bodies.iter().skip(skip)) {
            bytes += body.len();
            let fits = batch.records.len() < most.records && bytes <= most.bytes;
            if !fits && !batch.records.is_empty() {
                break;
            }
            batch.records.push((position, body.clone()));
            batch.next = position + 1;
        }
        Ok(batch)
    }

    fn consume(&self, lane: u16, before: u64, handed: u32) -> Result<(), ConsumeError> {
        if self.is_closed() {
            return Err(ConsumeError::Closed);
        }
        let mut kept = self.place.0.lock();
        let kept = kept.get_mut(usize::from(lane)).ok_or(ConsumeError::NoSuchLane { lane, lanes: self.lanes })?;
        let before = before.min(kept.span().next);
        if before > kept.mark {
            let consumed = usize::try_from(before - kept.mark).unwrap_or(usize::MAX);
            kept.bodies.drain(..consumed);
            (kept.mark, kept.handed) = (before, handed);
        }
        Ok(())
    }

    fn span(&self, lane: u16) -> Span {
        self.place.0.lock().get(usize::from(lane)).map(Kept::span).unwrap_or_default()
    }

    fn usage(&self) -> Usage {
        let bytes: usize = self.place.0.lock().iter().map(Kept::bytes).sum();
        Usage { bytes: bytes as u64, damaged: 0, lost_in_crash_max: self.lost_in_crash_max }
    }

    fn close(&self) {
        let mut kept = self.place.0.lock();
        if !self.closed.swap(true, Ordering::AcqRel) {
            kept.iter_mut().for_each(|lane| lane.handed = 0);
        }
    }
}
