//! The notes of a segment's records, in a file beside it: read only where the log has a hole.
//!
//! ```text
//!   a cell, of 36 B, at 36 B times (position less the segment's first):
//!    0  group, u64
//!    8  note, 24 bytes
//!   32  checksum of store, lane, segment, position and the 32 bytes above, u32
//! ```
//!
//! A note is of use to the process that wrote it and to no other, for whoever it could tell is gone with that process. So the
//! file is written with the records but never synced, what cannot be written of it is left out, and whoever opens the store
//! removes those that were there. A cell that was never written, or is damaged, says nothing.

use super::files::{Access, File, Files};
use super::lane::Shared;
use super::log::Segment;
use super::record::{Place, u32_at, u64_at};
use super::segment;
use crate::{Entry, Group, Note};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Bytes that one record takes up in the file.
pub(super) const CELL_BYTES: usize = 8 + Note::BYTES + 4;

/// What a hole is known to have held.
pub(super) type Cell = Option<(Group, Note)>;

/// The notes of the segment that is being written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// `None`: it could not be made.
    file: Option<Box<dyn File>>,
    /// Bytes that were written; `None` as long as there is no file.
    pub bytes: Option<u64>,
    /// Bytes that the last append wrote.
    last: u64,
}

impl Notes {
    /// Makes the file of a new segment.
    pub(super) fn create(shared: &Shared, number: u64) -> Self {
        let path = shared.dir.join(segment::name_notes(number));
        match shared.files.create(&path) {
            Ok(file) => Self { file: Some(file), bytes: Some(0), last: 0 },
            Err(error) => {
                complain(shared, "make", &path, &error);
                Self::default()
            }
        }
    }

    /// Writes the notes of the records of an append, which begin `at` so many behind the segment's first.
    pub(super) fn write(&mut self, shared: &Shared, number: u64, place: Place, first: u64, at: u64, all: &[&Entry]) {
        self.last = 0;
        let Some(file) = &self.file else { return };
        let mut cells = Vec::with_capacity(all.len() * CELL_BYTES);
        for (position, entry) in (first..).zip(all) {
            encode(place, position, entry.group, entry.note, &mut cells);
        }
        match file.write_at(&cells, at * CELL_BYTES as u64) {
            Ok(()) => self.last = cells.len() as u64,
            Err(error) => complain(shared, "write", &shared.dir.join(segment::name_notes(number)), &error),
        }
        self.bytes = self.bytes.map(|bytes| bytes + self.last);
    }

    /// Takes away what the last append wrote, which began `at` so many behind the segment's first. How many bytes that was.
    pub(super) fn take_back(&mut self, at: u64) -> u64 {
        let cut = self.file.as_ref().map(|file| file.set_len(at * CELL_BYTES as u64));
        let freed = if matches!(cut, Some(Ok(()))) { std::mem::take(&mut self.last) } else { 0 };
        self.bytes = self.bytes.map(|bytes| bytes - freed);
        freed
    }
}

/// What is known of the records `from..to` of a segment, one for each. `None`: the segment has no notes.
pub(super) fn read(shared: &Shared, segment: &Segment, from: u64, to: u64) -> Option<Vec<Cell>> {
    segment.notes?;
    let path = shared.dir.join(segment::name_notes(segment.number));
    let cells = usize::try_from(to.checked_sub(from)?).ok()?;
    let mut bytes = vec![0; cells * CELL_BYTES];
    let at = from.checked_sub(segment.first)? * CELL_BYTES as u64;
    let file = shared.files.open(&path, Access::Read);
    let read = match file.and_then(|file| file.read_at(&mut bytes, at)) {
        Ok(read) => read,
        Err(error) => {
            complain(shared, "read", &path, &error);
            return None;
        }
    };
    bytes[read..].fill(0);
    let cells = (from..).zip(bytes.chunks_exact(CELL_BYTES));
    Some(cells.map(|(position, cell)| decode(segment.place, position, cell)).collect())
}

/// Says once what the store does without from now on.
fn complain(shared: &Shared, what: &str, path: &Path, error: &io::Error) {
    if !shared.notes_failed.swap(true, Ordering::Relaxed) {
        let path = path.display();
        tracing::warn!(%path, %error, "cannot {what} notes: if records are lost, their callers may not be told. Said once");
    }
}

fn encode(place: Place, position: u64, group: Group, note: Note, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&group.0.to_le_bytes());
    out.extend_from_slice(&note.0);
    let checksum = place.checksum(position, &out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

fn decode(place: Place, position: u64, cell: &[u8]) -> Cell {
    let (said, _) = cell.split_at_checked(CELL_BYTES - 4)?;
    if place.checksum(position, said) != u32_at(cell, CELL_BYTES - 4) {
        return None;
    }
    Some((Group(u64_at(said, 0)), Note(said[8..].try_into().ok()?)))
}

/// Removes the file of a segment; one that is not there is fine.
pub(super) fn remove(files: &dyn Files, dir: &Path, number: u64) -> io::Result<()> {
    match files.remove(&dir.join(segment::name_notes(number))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_back_whole_in_its_place_or_not_at_all() {
        let place = |segment| Place::new(&[3; 16], 1, segment);
        let (group, note) = (Group(9), Note([7; Note::BYTES]));
        let mut cell = Vec::new();
        encode(place(4), 12, group, note, &mut cell);
        assert_eq!((cell.len(), decode(place(4), 12, &cell)), (CELL_BYTES, Some((group, note))));
        assert_eq!([decode(place(4), 13, &cell), decode(place(5), 12, &cell)], [None; 2]);
        for bit in 0..CELL_BYTES * 8 {
            let mut cell = cell.clone();
            cell[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(place(4), 12, &cell), None, "bit {bit}");
        }
        assert_eq!(decode(place(4), 12, &[0; CELL_BYTES]), None, "one that was never written");
    }
}
