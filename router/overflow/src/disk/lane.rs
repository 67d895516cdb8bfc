//! One lane: who may touch what of it.
//!
//! Three locks, taken in this order and never two of a kind by one thread but by `append`, in the order of lanes: the writer's,
//! over write and sync; the reader's, over a read; the log's, for moments, or for as long as it takes to remove a file.

use super::files::Files;
use super::log::Log;
use super::notes;
use super::reader::Reader;
use super::space::Space;
use super::trim;
use super::writer::Writer;
use crate::consumed::Consumed;
use crate::{Batch, Group, Most, Note, ReadError, Span};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub shared: Arc<Shared>,
    pub writer: Mutex<Writer>,
    reader: Mutex<Reader>,
}

/// What writer and reader of a lane share.
#[derive(Debug)]
pub(super) struct Shared {
    pub number: u16,
    pub store: [u8; 16],
    pub dir: PathBuf,
    pub files: Arc<dyn Files>,
    pub space: Arc<Space>,
    pub damaged: Arc<AtomicU64>,
    /// Notes could not be kept, which was said.
    pub notes_failed: Arc<AtomicBool>,
    pub log: Mutex<Log>,
}

/// Where a mark is set, the segment being written is given up once it is consumed and so long: below that it is cheaper to go on
/// with it.
const SPENT_BYTES: u64 = 1 << 20;

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self { shared, writer: Mutex::new(writer), reader: Mutex::default() }
    }

    /// See [`crate::Overflow::read`].
    pub(super) fn read(&self, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        self.reader.lock().read(&self.shared, from, only, most)
    }

    /// See [`crate::Overflow::note`].
    pub(super) fn note(&self, position: u64) -> Option<Note> {
        let segment = self.shared.log.lock().segment_at(position)?;
        let [cell] = notes::read(&self.shared, &segment, position, position.checked_add(1)?)?.try_into().ok()?;
        cell.map(|(_, note)| note)
    }

    /// See [`crate::Overflow::group_marks`].
    pub(super) fn group_marks(&self) -> Vec<(Group, u64)> {
        self.shared.log.lock().consumed.groups().to_vec()
    }

    /// See [`crate::Overflow::span`].
    pub(super) fn span(&self) -> Span {
        self.shared.log.lock().span()
    }

    /// The marks have moved, durably: gives back the segments that are consumed.
    pub(super) fn pass(&self, consumed: &Consumed) {
        self.shared.log.lock().pass(consumed);
        // Not while it is being written: an append may take its time.
        if let Some(mut writer) = self.writer.try_lock() {
            self.retire_spent(&mut writer, SPENT_BYTES);
        }
        self.trim();
    }

    /// Gives back all that is consumed, however little. For an append that found no room; the caller holds no lock.
    pub(super) fn reclaim(&self) {
        self.retire_spent(&mut self.writer.lock(), 0);
        self.trim();
    }

    /// Gives back the segments that are consumed and that nobody writes.
    pub(super) fn trim(&self) {
        if trim::trim(&self.shared) {
            // A file that is removed takes up its space until nobody has it open.
            self.reader.lock().let_go(&self.shared);
        }
    }

    /// Lets go of the segment being written if all of it is consumed and it is so long.
    fn retire_spent(&self, writer: &mut Writer, least: u64) {
        let last = self.shared.log.lock().written();
        if last.is_some_and(|last| last.bytes >= least && trim::is_spent(&self.shared, last.number)) {
            writer.retire();
        }
    }

    /// Lets go of all files.
    pub(super) fn close(&self) {
        self.writer.lock().close();
        *self.reader.lock() = Reader::default();
    }
}

impl Shared {
    /// Counts records that could not be read and lie at `from..to`, unless they were counted before.
    pub(super) fn count_damaged(&self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let fresh = self.log.lock().count(from, to);
        if fresh > 0 {
            self.damaged.fetch_add(fresh, Ordering::Relaxed);
            tracing::warn!(lane = self.number, from, to, records = fresh, "damaged records are passed over");
        }
        fresh
    }
}
