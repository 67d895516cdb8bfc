//! The end of a lane: puts the records of an append into a segment with one write, and makes them durable with one sync.
//!
//! ```text
//!   no segment ──write──▶ new, unsynced ──sync──▶ open ──write──▶ open, unsynced ──sync──▶ open
//!        ▲                     │                    │                   │
//!        └── a failed write that could not be taken back, a failed sync, full, spent: retired
//! ```
//!
//! What a failed sync has left on the device nobody knows, and a second one may say "done" for what is lost. So that segment is
//! never written again, and the next one says how many of its bytes are valid. A position is given out twice only if what was
//! written under it is certainly gone.

use super::errors::{self, is_full, refused, unknown};
use super::files::File;
use super::lane::Shared;
use super::log::Segment;
use super::notes::{self, CELL_BYTES, Notes};
use super::record::{self, Place};
use super::segment::{self, Before, Header};
use crate::{AppendError, Entry};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The writing end of a lane.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    open: Option<Open>,
    /// For the next record.
    position: u64,
    /// For the next segment.
    number: u64,
    /// What the next segment says of the one before.
    before: Before,
    closed: bool,
}

/// The segment that is written.
#[derive(Debug)]
struct Open {
    file: Box<dyn File>,
    path: PathBuf,
    number: u64,
    place: Place,
    /// Durable bytes; none if the file is new.
    valid: u64,
    /// Bytes written. More than is valid between write and sync.
    end: u64,
    /// Of the first record in it.
    first: u64,
    notes: Notes,
}

/// Where a lane goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Start {
    /// Of the next record.
    pub position: u64,
    /// Of the next segment.
    pub number: u64,
    /// What that says of the one before.
    pub before: Before,
}

/// Records that are written and not yet durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// Of the first one; the others follow without gaps.
    pub first: u64,
    /// Behind the last.
    next: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, segment_bytes: u64, start: Start) -> Self {
        let Start { position, number, before } = start;
        Self { shared, segment_bytes, open: None, position, number, before, closed: false }
    }

    /// Writes records, all or none. [`sync`](Self::sync) has to follow before anything else.
    pub(super) fn write(&mut self, entries: &[&Entry]) -> Result<Written, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let bytes: usize = entries.iter().map(|entry| record::HEADER_BYTES + entry.body.len()).sum();
        self.rotate(bytes as u64);
        let new = self.open.is_none();
        let own = (bytes + if new { segment::HEADER_BYTES } else { 0 }) as u64;
        let notes = (entries.len() * CELL_BYTES) as u64;
        if !self.shared.space.take(own + notes) {
            return Err(AppendError::Full(format!("it may take up {} B", self.shared.space.limit())));
        }
        let written = if new { self.write_new(entries, own) } else { self.write_on(entries, bytes) };
        // A new file that could not be removed keeps its bytes.
        let kept = new && matches!(written, Err(AppendError::Unknown(_)));
        if written.is_err() && !kept {
            self.shared.space.give_back(own);
        }
        let noted = written.as_ref().map_or(0, |written| self.note(entries, written.first));
        self.shared.space.give_back(notes - noted);
        written
    }

    /// Writes the notes of records that were just written. How many bytes that took.
    fn note(&mut self, entries: &[&Entry], first: u64) -> u64 {
        let Some(open) = &mut self.open else { return 0 };
        let before = open.notes.bytes.unwrap_or(0);
        open.notes.write(&self.shared, open.number, open.place, first, first - open.first, entries);
        open.notes.bytes.unwrap_or(0) - before
    }

    /// Makes durable what was just written, and lets it be read.
    pub(super) fn sync(&mut self, written: Written) -> Result<(), AppendError> {
        let Some(open) = &mut self.open else { return Err(AppendError::Closed) };
        match open.sync(&self.shared) {
            Ok(()) => {
                let new = open.valid == 0;
                open.valid = open.end;
                self.publish(new, written.next);
                Ok(())
            }
            Err(error) => {
                // A device may notice only now that it is full, and then what is cut off is gone for certain.
                if is_full(&error) && open.take_back(&self.shared).is_ok() {
                    let error = refused("sync", &open.path, &error);
                    self.give_up_clean(written.first);
                    return Err(error);
                }
                let error = unknown("sync", &open.path, &error);
                self.fail(written.first);
                Err(error)
            }
        }
    }

    /// Lets go of the segment; the next append begins a new one.
    pub(super) fn retire(&mut self) {
        if let Some(open) = self.open.take() {
            self.before = Before { number: open.number, valid: open.valid, next: self.position };
            self.shared.log.lock().writing = None;
        }
    }

    /// Refuses everything from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.open = None;
    }

    /// Retires a segment that would become too long. It becomes longer than set only by what one append brings.
    fn rotate(&mut self, bytes: u64) {
        if self.open.as_ref().is_some_and(|open| open.end + bytes > self.segment_bytes) {
            self.retire();
        }
    }

    fn write_on(&mut self, entries: &[&Entry], bytes: usize) -> Result<Written, AppendError> {
        let Some(open) = &mut self.open else { return Err(AppendError::Closed) };
        let mut out = Vec::with_capacity(bytes);
        let written = encode(open.place, open.end, self.position, entries, &mut out);
        match open.file.write_at(&out, open.end) {
            Ok(()) => {
                open.end += out.len() as u64;
                self.position = written.next;
                Ok(written)
            }
            Err(error) => Err(self.take_back(written, &error)),
        }
    }

    /// A part may be written. If it is taken away again, durably, nothing has happened.
    fn take_back(&mut self, written: Written, error: &io::Error) -> AppendError {
        let Some(open) = &self.open else { return AppendError::Closed };
        let what = "write to";
        match open.take_back(&self.shared) {
            Ok(()) => {
                let error = refused(what, &open.path, error);
                self.open.take_if(|open| open.valid == 0);
                error
            }
            Err(_) => {
                let error = unknown(what, &open.path, error);
                self.position = written.next;
                self.fail(written.first);
                error
            }
        }
    }

    fn write_new(&mut self, entries: &[&Entry], bytes: u64) -> Result<Written, AppendError> {
        let shared = &self.shared;
        let number = self.number;
        let path = shared.dir.join(segment::name(number));
        // A number is used once, whatever becomes of its file.
        self.number += 1;
        let file = shared.files.create(&path).map_err(|error| refused("create", &path, &error))?;

        let mut out = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        let first = self.position;
        Header { store: shared.store, lane: shared.number, number, first, before: self.before }.encode(&mut out);
        let place = Place::new(&shared.store, shared.number, number);
        let written = encode(place, segment::HEADER_BYTES as u64, first, entries, &mut out);
        let wrote = file.write_at(&out, 0);
        let end = out.len() as u64;
        self.open = Some(Open { file, path, number, place, valid: 0, end, first, notes: Notes::default() });
        match wrote {
            Ok(()) => {
                if let Some(open) = &mut self.open {
                    open.notes = Notes::create(&self.shared, number);
                }
                self.position = written.next;
                Ok(written)
            }
            Err(error) => Err(self.take_back(written, &error)),
        }
    }

    /// Gives the segment up for good; nothing from position `lost` on counts.
    fn fail(&mut self, lost: u64) {
        let Some(open) = self.open.take() else { return };
        tracing::error!(path = %open.path.display(), valid = open.valid, "a segment has failed; a new one will be begun");
        let mut log = self.shared.log.lock();
        log.writing = None;
        if open.valid == 0 {
            // It holds nothing, so the next one says the same as this one did, and by that makes this one void. It is known by its
            // length only, until the mark has passed what lies before it.
            let empty = log.next;
            log.push(Segment { first: empty, ..open.segment(empty) });
        } else {
            log.extend(open.valid, open.end, open.notes.bytes, lost);
            self.before = Before { number: open.number, valid: open.valid, next: lost };
        }
    }

    /// Gives the segment up, from which what failed has been taken away again. It is not written on all the same: what a sync
    /// says that comes behind one that failed is not relied on.
    fn give_up_clean(&mut self, lost: u64) {
        let Some(mut open) = self.open.take() else { return };
        let mut log = self.shared.log.lock();
        log.writing = None;
        if open.valid == 0 {
            self.shared.space.give_back(open.end + open.notes.bytes.unwrap_or(0));
        } else {
            let noted = open.notes.take_back(lost.saturating_sub(open.first));
            self.shared.space.give_back(open.end - open.valid + noted);
            log.extend(open.valid, open.valid, open.notes.bytes, lost);
            self.before = Before { number: open.number, valid: open.valid, next: lost };
        }
    }

    fn publish(&self, new: bool, next: u64) {
        let Some(open) = &self.open else { return };
        let mut log = self.shared.log.lock();
        if new {
            log.push(open.segment(open.first));
            log.writing = Some(open.number);
        }
        log.extend(open.valid, open.end, open.notes.bytes, next);
    }
}

impl Open {
    /// Durable on return, and still there.
    fn sync(&self, shared: &Shared) -> io::Result<()> {
        if self.valid == 0 {
            self.file.sync_new()?;
            shared.files.sync_dir(&shared.dir)?;
        } else {
            self.file.sync()?;
        }
        if self.file.is_linked()? { Ok(()) } else { Err(errors::deleted()) }
    }

    /// Takes away what is not known to be durable: of a new segment, all of it.
    fn take_back(&self, shared: &Shared) -> io::Result<()> {
        if self.valid == 0 {
            shared.files.remove(&self.path)?;
            notes::remove(&*shared.files, &shared.dir, self.number)?;
            return shared.files.sync_dir(&shared.dir);
        }
        self.file.set_len(self.valid)?;
        self.file.sync()
    }

    /// As the log sees it, ending at `next`.
    fn segment(&self, next: u64) -> Segment {
        let Self { number, place, first, valid, end, .. } = *self;
        Segment { next, valid, bytes: end, notes: self.notes.bytes, ..Segment::new(number, place, first) }
    }
}

/// Encodes records that begin at `offset` with position `first`.
fn encode(place: Place, offset: u64, first: u64, entries: &[&Entry], out: &mut Vec<u8>) -> Written {
    let start = out.len();
    let mut position = first;
    for Entry { group, body, .. } in entries {
        place.encode(offset + (out.len() - start) as u64, position, *group, body, out);
        position += 1;
    }
    Written { first, next: position }
}
