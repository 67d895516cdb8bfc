//! The consume marks of all lanes, in one file that never grows.
//!
//! ```text
//!   a lane's four slots, 4,096 B each:   even, copy 0 │ even, copy 1 │ odd, copy 0 │ odd, copy 1
//!   a slot:    0  magic "consumed"             40  everything below this position is consumed, u64
//!              8  store, 16 bytes              48  positions that had been given out, up to this one, u64
//!             24  lane, u16                    56  records in the hands of the caller, of all lanes, u64
//!             26  how many groups, u16         64  of each group: its number, u64, and the position
//!             28  four zeros                       below which its records are consumed, u64
//!             32  generation, u64                  behind them a checksum of all above, u32
//! ```
//!
//! A mark is one slot, so a lane's and those of its groups take hold together or not at all. It overwrites the older generation, both copies, and is synced; the newest valid slot counts. So a torn write falls back
//! on the mark before, which is the last one that was acknowledged, and one flipped bit takes none back. Where both copies of
//! a generation are damaged and the older one is valid, that looks like a torn write and is taken for one: two separate
//! damages within 8 KiB can take a mark back by one batch. No write shortens the file, so if it is too short, a lane of which
//! one generation is all that is left has lost its mark. A slot fills a page, so that writing one rewrites no other.
//!
//! A failed sync leaves the file in doubt, and a second one would say "done". So all marks go into a new file then, which
//! takes the place of the old one, before any other mark is acknowledged. A new file takes space, though. So where a write
//! failed for want of space, what stood there before is written over it; if that succeeds, the file is as good as it was.

use super::errors::{OpenError, deleted, is_full, unmarked};
use super::files::{Access, File, Files};
use super::record::u64_at;
use crate::consumed::Consumed;
use crate::{ConsumeError, Group};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The marks of a store, and their file. One lock: a mark waits for the sync of another at most.
#[derive(Debug)]
pub(super) struct MarksFile {
    files: Arc<dyn Files>,
    dir: PathBuf,
    store: [u8; 16],
    book: Mutex<Book>,
}

/// A lane's mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    generation: u64,
    pub consumed: Consumed,
    /// Positions below had been given out when it was set.
    pub end: u64,
    /// Records in the hands of the caller then, of all lanes.
    pub handed: u64,
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
/// Before the groups.
const FIXED_BYTES: usize = 64;
const GROUP_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
const SLOTS: u64 = 4;
/// Groups that have room in a slot: 251.
pub(super) const GROUPS_MAX: usize = (SLOT_BYTES - FIXED_BYTES - CHECKSUM_BYTES) / GROUP_BYTES;

impl MarksFile {
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
        let found: Vec<Option<Mark>> = found.iter().map(|slot| slot.mark().cloned()).collect();
        let marks = found.iter().map(|mark| mark.clone().unwrap_or_default()).collect();
        let book = Book { file, marks, closed: false };
        Ok((Self { files, dir: dir.to_owned(), store, book: Mutex::new(book) }, found))
    }

    /// Makes the file of a new store, durable but for its name.
    pub(super) fn create(files: &dyn Files, dir: &Path, store: [u8; 16], lanes: u16) -> Result<(), OpenError> {
        let path = dir.join(NAME);
        let marks = vec![Mark { generation: 1, ..Mark::default() }; usize::from(lanes)];
        write_all(files, &path, &store, &marks).map(drop).map_err(OpenError::io("write", &path))
    }

    /// Moves a lane's marks up, durably, none of them beyond `end`. `None` if they are there already.
    pub(super) fn set(
        &self,
        lane: u16,
        marks: &crate::Marks<'_>,
        end: u64,
        handed: u64,
    ) -> Result<Option<Consumed>, ConsumeError> {
        let mut book = self.book.lock();
        let old = &book.marks[usize::from(lane)];
        let Some(consumed) = old.consumed.up(marks, end, GROUPS_MAX)? else { return Ok(None) };
        let mark = Mark { generation: old.generation + 1, consumed: consumed.clone(), end, handed };
        self.write(&mut book, vec![(lane, mark)])?;
        Ok(Some(consumed))
    }

    /// Says that nothing is being handed out, with marks where they are: `(lane, end)`.
    pub(super) fn settle(&self, ends: &[(u16, u64)]) -> Result<(), ConsumeError> {
        let mut book = self.book.lock();
        let mark = |&(lane, end): &(u16, u64)| {
            let old = book.marks[usize::from(lane)].clone();
            (lane, Mark { generation: old.generation + 1, end, handed: 0, ..old })
        };
        let marks = ends.iter().map(mark).collect();
        self.write(&mut book, marks)
    }

    /// Sets marks in place of lost ones, `(lane, before, end)`, and writes a new file of all: the old one is damaged.
    pub(super) fn restore(&self, lost: &[(u16, u64, u64)]) -> io::Result<()> {
        let mut book = self.book.lock();
        for &(lane, before, end) in lost {
            book.marks[usize::from(lane)] = Mark { generation: 1, consumed: Consumed::up_to(before), end, handed: 0 };
        }
        book.file = Some(self.renew(&book.marks)?);
        Ok(())
    }

    /// A lane's mark, as acknowledged.
    pub(super) fn mark(&self, lane: u16) -> Mark {
        self.book.lock().marks[usize::from(lane)].clone()
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

    fn write(&self, book: &mut Book, marks: Vec<(u16, Mark)>) -> Result<(), ConsumeError> {
        if book.closed {
            return Err(ConsumeError::Closed);
        }
        let path = self.dir.join(NAME);
        self.write_in(book, &marks).map_err(|error| unmarked("write", &path, &error))?;
        for (lane, mark) in marks {
            book.marks[usize::from(lane)] = mark;
        }
        Ok(())
    }

    fn write_in(&self, book: &mut Book, marks: &[(u16, Mark)]) -> io::Result<()> {
        if book.file.is_none() {
            book.file = Some(self.renew(&book.marks)?);
        }
        let Some(file) = &book.file else { return Ok(()) };
        let written = marks.iter().try_for_each(|(lane, mark)| mark.write(&**file, &self.store, *lane));
        if let Err(error) = &written
            && is_full(error)
            && self.take_back(&**file, book, marks).is_ok()
        {
            return written;
        }
        let synced = written.and_then(|()| file.sync()).and_then(|()| file.is_linked());
        let result = synced.and_then(|linked| if linked { Ok(()) } else { Err(deleted()) });
        if result.is_err() {
            book.file = None;
        }
        result
    }

    /// Writes into the slots of marks that were not written to the end what may have stood there, so that none of the marks
    /// comes to count by another one's sync.
    fn take_back(&self, file: &dyn File, book: &Book, marks: &[(u16, Mark)]) -> io::Result<()> {
        marks.iter().try_for_each(|(lane, _)| book.marks[usize::from(*lane)].older().write(file, &self.store, *lane))
    }

    /// A new file in place of the failed one, with the marks that were acknowledged.
    fn renew(&self, marks: &[Mark]) -> io::Result<Box<dyn File>> {
        let (new, path) = (self.dir.join(NAME_NEW), self.dir.join(NAME));
        match self.files.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = write_all(&*self.files, &new, &self.store, marks);
        let Ok(file) = written else {
            // Where space is short, what was written so far is in the way of others.
            let _ = self.files.remove(&new);
            return written;
        };
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

    /// The same as the generation before.
    fn older(&self) -> Self {
        Self { generation: self.generation.saturating_sub(1), ..self.clone() }
    }

    fn encode(&self, store: &[u8; 16], lane: u16) -> Vec<u8> {
        let groups = self.consumed.groups();
        let count = u16::try_from(groups.len()).expect("there are at most GROUPS_MAX");
        let mut slot = Vec::with_capacity(used_bytes(groups.len()));
        slot.extend_from_slice(&MAGIC);
        slot.extend_from_slice(store);
        slot.extend_from_slice(&lane.to_le_bytes());
        slot.extend_from_slice(&count.to_le_bytes());
        slot.extend_from_slice(&[0; 4]);
        for number in [self.generation, self.consumed.before, self.end, self.handed] {
            slot.extend_from_slice(&number.to_le_bytes());
        }
        for (Group(group), position) in groups {
            slot.extend_from_slice(&group.to_le_bytes());
            slot.extend_from_slice(&position.to_le_bytes());
        }
        let checksum = crc32fast::hash(&slot);
        slot.extend_from_slice(&checksum.to_le_bytes());
        slot
    }
}

/// Bytes of a slot with so many groups.
fn used_bytes(groups: usize) -> usize {
    FIXED_BYTES + groups * GROUP_BYTES + CHECKSUM_BYTES
}

/// What a slot, or a lane's four, turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Nothing,
    Mark(Mark),
    /// Undamaged, and another store's.
    Foreign,
}

impl Slot {
    fn decode(slot: &[u8], store: &[u8; 16], lane: u16, generation: u64) -> Self {
        let Some(slot) = whole(slot) else { return Self::Nothing };
        if slot[8..24] != *store {
            return Self::Foreign;
        }
        let groups = slot[FIXED_BYTES..].chunks_exact(GROUP_BYTES);
        let groups = groups.map(|group| (Group(u64_at(group, 0)), u64_at(group, 8)));
        let mark = Mark {
            generation: u64_at(slot, 32),
            consumed: Consumed::new(u64_at(slot, 40), groups, u64::MAX),
            end: u64_at(slot, 48),
            handed: u64_at(slot, 56),
        };
        let at_home = slot[24..26] == lane.to_le_bytes() && mark.generation % 2 == generation;
        if at_home { Self::Mark(mark) } else { Self::Nothing }
    }

    fn mark(&self) -> Option<&Mark> {
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

/// What a slot says, without its checksum, if that is undamaged.
fn whole(slot: &[u8]) -> Option<&[u8]> {
    let groups = usize::from(u16::from_le_bytes([*slot.get(26)?, *slot.get(27)?]));
    let (said, checksum) = slot.get(..used_bytes(groups))?.split_last_chunk::<CHECKSUM_BYTES>()?;
    (said[..8] == MAGIC && crc32fast::hash(said) == u32::from_le_bytes(*checksum)).then_some(said)
}

fn read_all(file: &dyn File, store: &[u8; 16], lanes: u16) -> io::Result<Vec<Slot>> {
    let whole = file.bytes()? >= MarksFile::bytes(lanes);
    (0..lanes).map(|lane| read(file, store, lane, whole)).collect()
}

/// The newest of a lane's slots. In a file that is too short, only if both generations are there to be compared.
fn read(file: &dyn File, store: &[u8; 16], lane: u16, whole: bool) -> io::Result<Slot> {
    let newest = |generation| {
        let mut newest = Slot::Nothing;
        for copy in 0..2 {
            let mut slot = [0; SLOT_BYTES];
            let read = file.read_at(&mut slot, slot_at(lane, generation, copy))?;
            newest = newest.newer(Slot::decode(&slot[..read], store, lane, generation));
        }
        io::Result::Ok(newest)
    };
    let (even, odd) = (newest(0)?, newest(1)?);
    let both = even.mark().is_some() && odd.mark().is_some();
    let found = even.newer(odd);
    Ok(if whole || both || found == Slot::Foreign { found } else { Slot::Nothing })
}

/// A new file. The older generation says the same.
fn write_all(files: &dyn Files, path: &Path, store: &[u8; 16], marks: &[Mark]) -> io::Result<Box<dyn File>> {
    let file = files.create(path)?;
    let mut bytes = vec![0; marks.len() * usize::try_from(SLOTS).unwrap_or_default() * SLOT_BYTES];
    for (lane, mark) in (0..).zip(marks) {
        let older = mark.older();
        for (mark, copy) in [(&older, 0), (&older, 1), (mark, 0), (mark, 1)] {
            let at = usize::try_from(slot_at(lane, mark.generation, copy)).unwrap_or_default();
            let slot = mark.encode(store, lane);
            bytes[at..at + slot.len()].copy_from_slice(&slot);
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
