//! The consume marks of all lanes, in one file that never grows.
//!
//! ```text
//!   a lane's four slots, 4,096 B each:   even, copy 0 │ even, copy 1 │ odd, copy 0 │ odd, copy 1
//!   a slot:    0  magic "consumed"           40  everything below this position is consumed, u64
//!              8  store, 16 bytes            48  positions that had been given out, up to this one, u64
//!             24  lane, u16, and six zeros   56  records handed out on the strength of it, u32
//!             32  generation, u64            60  checksum of the 60 bytes above, u32
//! ```
//!
//! A mark overwrites the older generation, both copies, and is synced; the newest valid slot counts. So a torn write falls back
//! on the mark before, which is the last one that was acknowledged, and one flipped bit takes none back. Where both copies of
//! a generation are damaged and the older one is valid, that looks like a torn write and is taken for one: two separate
//! damages within 8 KiB can take a mark back by one batch. No write shortens the file, so if it is too short, a lane of which
//! one generation is all that is left has lost its mark. A slot fills a page, so that writing one rewrites no other.
//!
//! A failed sync leaves the file in doubt, and a second one would say "done". So all marks go into a new file then, which
//! takes the place of the old one, before any other mark is acknowledged.

use super::errors::{OpenError, deleted, unmarked};
use super::files::{Access, File, Files};
use super::record::{u32_at, u64_at};
use crate::ConsumeError;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The marks of a store, and their file. One lock: a mark waits for the sync of another at most.
#[derive(Debug)]
pub(super) struct Marks {
    files: Arc<dyn Files>,
    dir: PathBuf,
    store: [u8; 16],
    book: Mutex<Book>,
}

/// A lane's mark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    generation: u64,
    /// Everything below is consumed.
    pub before: u64,
    /// Positions below had been given out when it was set.
    pub end: u64,
    /// How many records were handed out on its strength.
    pub handed: u32,
}

#[derive(Debug)]
struct Book {
    /// None: it has failed, or is closed.
    file: Option<Box<dyn File>>,
    /// By lane, as acknowledged.
    marks: Vec<Mark>,
    closed: bool,
}

/// The file's name.
pub(super) const NAME: &str = "marks";
/// Its name until it is whole.
pub(super) const NAME_NEW: &str = "marks.new";

const MAGIC: [u8; 8] = *b"consumed";
const SLOT_BYTES: usize = 4096;
const USED_BYTES: usize = 64;
const SLOTS: u64 = 4;

impl Marks {
    /// Opens the file, and tells of each lane its mark, or `None` where none can be read. `None` for a missing file is the
    /// same for all lanes.
    pub(super) fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        store: [u8; 16],
        lanes: u16,
    ) -> Result<(Self, Vec<Option<Mark>>), OpenError> {
        let path = dir.join(NAME);
        let marks = match files.open(&path, Access::Write) {
            Ok(file) => {
                let found = read_all(&*file, &store, lanes).map_err(OpenError::io("read", &path))?;
                Some((file, found))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(OpenError::Io { what: "open", path, source }),
        };
        let (file, found) =
            marks.map_or((None, vec![Slot::Nothing; usize::from(lanes)]), |(file, found)| (Some(file), found));
        let ours = found.iter().any(|slot| slot.mark().is_some());
        if !ours && found.contains(&Slot::Foreign) {
            return Err(OpenError::OtherStore { path });
        }
        let found: Vec<Option<Mark>> = found.into_iter().map(Slot::mark).collect();
        let book = Book { file, marks: found.iter().map(|mark| mark.unwrap_or_default()).collect(), closed: false };
        Ok((Self { files, dir: dir.to_owned(), store, book: Mutex::new(book) }, found))
    }

    /// Makes the file of a new store, durable but for its name.
    pub(super) fn create(files: &dyn Files, dir: &Path, store: [u8; 16], lanes: u16) -> Result<(), OpenError> {
        let path = dir.join(NAME);
        let marks = vec![Mark { generation: 1, ..Mark::default() }; usize::from(lanes)];
        write_all(files, &path, &store, &marks).map(drop).map_err(OpenError::io("write", &path))
    }

    /// Moves a lane's mark up, durably. False if it is there already.
    pub(super) fn set(&self, lane: u16, before: u64, end: u64, handed: u32) -> Result<bool, ConsumeError> {
        let mut book = self.book.lock();
        let old = book.marks[usize::from(lane)];
        if before <= old.before {
            return Ok(false);
        }
        let mark = Mark { generation: old.generation + 1, before, end, handed };
        self.write(&mut book, &[(lane, mark)])?;
        Ok(true)
    }

    /// Says that nothing is being handed out, with marks where they are: `(lane, before, end)`.
    pub(super) fn settle(&self, marks: &[(u16, u64, u64)]) -> Result<(), ConsumeError> {
        let mut book = self.book.lock();
        let old = |lane: u16| book.marks[usize::from(lane)].generation;
        let mark = |&(lane, before, end)| (lane, Mark { generation: old(lane) + 1, before, end, handed: 0 });
        let marks: Vec<(u16, Mark)> = marks.iter().map(mark).collect();
        self.write(&mut book, &marks)
    }

    /// Sets marks in place of lost ones, `(lane, before, end)`, and writes a new file of all: the old one is damaged.
    pub(super) fn restore(&self, lost: &[(u16, u64, u64)]) -> io::Result<()> {
        let mut book = self.book.lock();
        for &(lane, before, end) in lost {
            book.marks[usize::from(lane)] = Mark { generation: 1, before, end, handed: 0 };
        }
        book.file = Some(self.renew(&book.marks)?);
        Ok(())
    }

    /// A lane's mark, as acknowledged.
    pub(super) fn mark(&self, lane: u16) -> Mark {
        self.book.lock().marks[usize::from(lane)]
    }

    /// Lets go of the file and refuses everything from now on.
    pub(super) fn close(&self) {
        let mut book = self.book.lock();
        book.closed = true;
        book.file = None;
    }

    /// Bytes the file takes up for so many lanes.
    pub(super) fn bytes(lanes: u16) -> u64 {
        u64::from(lanes) * SLOTS * SLOT_BYTES as u64
    }

    fn write(&self, book: &mut Book, marks: &[(u16, Mark)]) -> Result<(), ConsumeError> {
        if book.closed {
            return Err(ConsumeError::Closed);
        }
        let path = self.dir.join(NAME);
        self.write_in(book, marks).map_err(|error| unmarked("write", &path, &error))?;
        marks.iter().for_each(|(lane, mark)| book.marks[usize::from(*lane)] = *mark);
        Ok(())
    }

    fn write_in(&self, book: &mut Book, marks: &[(u16, Mark)]) -> io::Result<()> {
        if book.file.is_none() {
            book.file = Some(self.renew(&book.marks)?);
        }
        let Some(file) = &book.file else { return Ok(()) };
        let written = marks.iter().try_for_each(|(lane, mark)| mark.write(&**file, &self.store, *lane));
        let synced = written.and_then(|()| file.sync()).and_then(|()| file.is_linked());
        let result = synced.and_then(|linked| if linked { Ok(()) } else { Err(deleted()) });
        if result.is_err() {
            book.file = None;
        }
        result
    }

    /// A new file in place of the failed one, with the marks that were acknowledged.
    fn renew(&self, marks: &[Mark]) -> io::Result<Box<dyn File>> {
        let (new, path) = (self.dir.join(NAME_NEW), self.dir.join(NAME));
        match self.files.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = write_all(&*self.files, &new, &self.store, marks)?;
        self.files.rename(&new, &path)?;
        self.files.sync_dir(&self.dir)?;
        Ok(file)
    }
}

impl Mark {
    /// Overwrites the older generation.
    fn write(&self, file: &dyn File, store: &[u8; 16], lane: u16) -> io::Result<()> {
        let slot = self.encode(store, lane);
        (0..2).try_for_each(|copy| file.write_at(&slot, slot_at(lane, self.generation, copy)))
    }

    fn encode(&self, store: &[u8; 16], lane: u16) -> [u8; USED_BYTES] {
        let mut slot = [0; USED_BYTES];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..24].copy_from_slice(store);
        slot[24..26].copy_from_slice(&lane.to_le_bytes());
        slot[32..40].copy_from_slice(&self.generation.to_le_bytes());
        slot[40..48].copy_from_slice(&self.before.to_le_bytes());
        slot[48..56].copy_from_slice(&self.end.to_le_bytes());
        slot[56..60].copy_from_slice(&self.handed.to_le_bytes());
        let checksum = crc32fast::hash(&slot[..60]);
        slot[60..].copy_from_slice(&checksum.to_le_bytes());
        slot
    }
}

/// What a slot, or a lane's four, turned out to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Nothing,
    Mark(Mark),
    /// Undamaged, and another store's.
    Foreign,
}

impl Slot {
    fn decode(slot: &[u8], store: &[u8; 16], lane: u16, generation: u64) -> Self {
        if slot.len() < USED_BYTES || slot[..8] != MAGIC || crc32fast::hash(&slot[..60]) != u32_at(slot, 60) {
            return Self::Nothing;
        }
        if slot[8..24] != *store {
            return Self::Foreign;
        }
        let mark = Mark {
            generation: u64_at(slot, 32),
            before: u64_at(slot, 40),
            end: u64_at(slot, 48),
            handed: u32_at(slot, 56),
        };
        let at_home = slot[24..26] == lane.to_le_bytes() && mark.generation % 2 == generation;
        if at_home { Self::Mark(mark) } else { Self::Nothing }
    }

    fn mark(self) -> Option<Mark> {
        if let Self::Mark(mark) = self { Some(mark) } else { None }
    }

    /// The newer of two marks; a mark before anything else.
    fn newer(self, other: Self) -> Self {
        match (self.mark(), other.mark()) {
            (Some(one), Some(two)) if two.generation > one.generation => other,
            (Some(_), _) => self,
            (None, Some(_)) => other,
            (None, None) => {
                if self == Self::Foreign {
                    self
                } else {
                    other
                }
            }
        }
    }
}

fn read_all(file: &dyn File, store: &[u8; 16], lanes: u16) -> io::Result<Vec<Slot>> {
    let whole = file.bytes()? >= Marks::bytes(lanes);
    (0..lanes).map(|lane| read(file, store, lane, whole)).collect()
}

/// The newest of a lane's slots. In a file that is too short, only if both generations are there to be compared.
fn read(file: &dyn File, store: &[u8; 16], lane: u16, whole: bool) -> io::Result<Slot> {
    let mut newest = [Slot::Nothing; 2];
    for (generation, newest) in (0..).zip(&mut newest) {
        for copy in 0..2 {
            let mut slot = [0; USED_BYTES];
            let read = file.read_at(&mut slot, slot_at(lane, generation, copy))?;
            *newest = newest.newer(Slot::decode(&slot[..read], store, lane, generation));
        }
    }
    let both = newest.iter().all(|slot| slot.mark().is_some());
    let found = newest[0].newer(newest[1]);
    Ok(if whole || both || found == Slot::Foreign { found } else { Slot::Nothing })
}

/// A new file. The older generation says the same.
fn write_all(files: &dyn Files, path: &Path, store: &[u8; 16], marks: &[Mark]) -> io::Result<Box<dyn File>> {
    let file = files.create(path)?;
    let mut bytes = vec![0; marks.len() * usize::try_from(SLOTS).unwrap_or_default() * SLOT_BYTES];
    for (lane, mark) in (0..).zip(marks) {
        let older = Mark { generation: mark.generation.saturating_sub(1), ..*mark };
        for (mark, copy) in [(&older, 0), (&older, 1), (mark, 0), (mark, 1)] {
            let at = usize::try_from(slot_at(lane, mark.generation, copy)).unwrap_or_default();
            bytes[at..at + USED_BYTES].copy_from_slice(&mark.encode(store, lane));
        }
    }
    file.write_at(&bytes, 0)?;
    file.sync_new()?;
    Ok(file)
}

/// Where a slot begins.
fn slot_at(lane: u16, generation: u64, copy: u64) -> u64 {
    (u64::from(lane) * SLOTS + generation % 2 * 2 + copy) * SLOT_BYTES as u64
}
