//! One lane: who may touch what of it, and the way of a consumed segment out.
//!
//! Three locks, taken in this order and never two of a kind by one thread but by `append`, in the order of lanes: the writer's,
//! over write and sync; the reader's, over a read; the log's, for moments, or for as long as it takes to remove a file.

use super::files::Files;
use super::log::Log;
use super::reader::Reader;
use super::segment;
use super::space::Space;
use super::writer::Writer;
use crate::consumed::Consumed;
use crate::{Batch, Group, Most, ReadError, Span};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    pub log: Mutex<Log>,
}

/// The segment being written is given up once it is consumed and so long: below that it is cheaper to go on with it.
const SPENT_BYTES: u64 = 1 << 20;

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self { shared, writer: Mutex::new(writer), reader: Mutex::default() }
    }

    /// See [`crate::Overflow::read`].
    pub(super) fn read(&self, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError> {
        self.reader.lock().read(&self.shared, from, only, most)
    }

    /// See [`crate::Overflow::span`].
    pub(super) fn span(&self) -> Span {
        self.shared.log.lock().span()
    }

    /// The marks have moved, durably: gives back the segments that lie below.
    pub(super) fn trim(&self, consumed: Consumed) {
        self.shared.log.lock().pass(consumed);
        self.retire_spent();
        self.shared.trim();
    }

    /// Lets go of the segment being written if all of it is consumed and it is worth it. Not while it is being written.
    fn retire_spent(&self) {
        let Some(mut writer) = self.writer.try_lock() else { return };
        let spent = {
            let log = self.shared.log.lock();
            log.next <= log.consumed.before && log.last().is_some_and(|last| last.bytes >= SPENT_BYTES)
        };
        if spent {
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
    /// Removes segments that are consumed. One that cannot be removed stays, and is tried again with the next mark.
    pub(super) fn trim(&self) {
        let mut log = self.log.lock();
        while let Some(spent) = log.spent() {
            let path = self.dir.join(segment::name(spent.number));
            match self.files.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a consumed segment");
                    return;
                }
                _ => {}
            }
            self.space.give_back(spent.bytes);
            log.pop();
        }
    }

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
