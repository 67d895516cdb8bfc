//! Where the excess goes: stores for what does not fit in memory, behind one trait.
//!
//! A store keeps opaque bodies in lanes. It knows nothing of activations, deadlines or actions, starts no runtime and never
//! decides what is spilled or read back; whoever calls it does. Its calls block, so they belong on threads of their own.

mod consumed;
#[cfg(feature = "contract")]
pub mod contract;
pub mod disk;
#[cfg(feature = "contract")]
pub mod faulty;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "contract")]
pub mod memory;
pub mod seal;

use bytes::Bytes;
use std::fmt;

/// Whose record it is among those that share a lane. Opaque to the store, and kept unsealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

/// A few bytes kept beside a record, so that the caller still knows whose the record was when the record is damaged or missing.
/// Opaque to the store, and kept unsealed. The store need not know the note once it was opened again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note(pub [u8; Note::BYTES]);

impl Note {
    /// Length of a note, in bytes.
    pub const BYTES: usize = 24;
}

/// One body on its way into a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below [`Overflow::lanes`].
    pub lane: u16,
    /// Whose it is.
    pub group: Group,
    /// What is told in place of the body, should the body be lost.
    pub note: Note,
    /// What is kept; opaque.
    pub body: Bytes,
}

/// One body on its way out of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it lies in its lane.
    pub position: u64,
    /// Whose it is, as the entry said.
    pub group: Group,
    /// The entry's body.
    pub body: Bytes,
}

/// A record that is damaged or missing, and whose note is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Where the record lay in its lane.
    pub position: u64,
    /// Whose it was.
    pub group: Group,
    /// The entry's note.
    pub note: Note,
}

/// How far a lane is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks<'a> {
    /// Every record below this position is consumed.
    pub before: u64,
    /// Of each of these groups, every record below its position is consumed.
    pub groups: &'a [(Group, u64)],
}

impl Marks<'_> {
    /// Everything below `before`, of all groups.
    pub const fn up_to(before: u64) -> Self {
        Self { before, groups: &[] }
    }
}

/// How much a read takes at most. It takes one record even if that is longer, so that a lane never stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Records, lost ones among them.
    pub records: usize,
    /// Bytes of their bodies together.
    pub bytes: usize,
}

/// What a read found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records in the order of the appends: positions ascend.
    pub records: Vec<Record>,
    /// Records that are damaged or missing and whose notes are known; positions ascend. Like a record, one is told again by
    /// every read that comes by, until it is consumed.
    pub lost: Vec<Lost>,
    /// Where the next read goes on, of the same group if one was asked for: past the last record, and past whatever was passed
    /// over behind it.
    pub next: u64,
    /// Records that could not be read and that no read of this store, since it was opened, had counted before; the lost ones
    /// are among them. Where damage hides how many they were, each gap counts as one at least.
    pub damaged: u64,
}

/// The part of a lane that is durable and not consumed: positions from `first` to below `next`. Empty if they are equal. Marks of
/// single groups do not move `first`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Of the first record that is not consumed.
    pub first: u64,
    /// Above every record there is.
    pub next: u64,
}

/// What a store takes up and what befell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes it takes up where it keeps them, as far as it knows.
    pub bytes: u64,
    /// Damaged records passed over since it was opened, those found at opening among them.
    pub damaged: u64,
    /// At opening after a crash: at most so many records had been marked as consumed and perhaps not dealt with. The largest
    /// `handed` among the lanes' last marks, for each counts over all lanes; 0 after a close.
    pub lost_in_crash_max: u64,
}

/// Why an entry was not taken. Unless it says otherwise the entry will never be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// There is no such lane.
    #[error("lane {lane} is not one of {lanes}")]
    NoSuchLane {
        /// The one asked for.
        lane: u16,
        /// How many there are.
        lanes: u16,
    },
    /// The body is longer than the store takes.
    #[error("body of {bytes} B: the store takes {limit} B")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest there may be.
        limit: usize,
    },
    /// It would pass the limit set for the store, or the device is full.
    #[error("the store is full: {0}")]
    Full(String),
    /// The store cannot be written at the moment.
    #[error("the store cannot be written: {0}")]
    Unavailable(String),
    /// It may have been taken, and may be read later: its durability could not be learnt.
    #[error("not known whether it was stored: {0}")]
    Unknown(String),
}

/// Why a lane could not be read. Nothing is consumed by that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// There is no such lane.
    #[error("lane {lane} is not one of {lanes}")]
    NoSuchLane {
        /// The one asked for.
        lane: u16,
        /// How many there are.
        lanes: u16,
    },
    /// The store cannot be read at the moment.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// What was asked for is not there any more, though nobody consumed it. Going on from `first` is the caller's decision.
    #[error("positions below {first} are gone: {why}")]
    Gone {
        /// The first position there is.
        first: u64,
        /// What the store says about it.
        why: String,
    },
    /// The record at this position is not sealed, and all are to be: read it without a key file.
    #[error("the record at {position} is not sealed: only without a key file can it be read")]
    NotSealed {
        /// Its position.
        position: u64,
    },
    /// The record at this position is sealed with a key that is not at hand.
    #[error("the record at {position} is sealed with key {key}, which is not in the key file")]
    NoKey {
        /// Its position.
        position: u64,
        /// The key's id.
        key: u32,
    },
}

/// Why a consume mark was not set. The records may not be handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// There is no such lane.
    #[error("lane {lane} is not one of {lanes}")]
    NoSuchLane {
        /// The one asked for.
        lane: u16,
        /// How many there are.
        lanes: u16,
    },
    /// More groups than that cannot have a mark of their own above `before`.
    #[error("{groups} groups with a mark of their own: the store keeps {limit} for a lane")]
    TooManyGroups {
        /// How many it would have been.
        groups: usize,
        /// How many there may be: [`Overflow::group_marks_max`].
        limit: usize,
    },
    /// The mark cannot be made durable at the moment.
    #[error("the consume mark cannot be written: {0}")]
    Unavailable(String),
}

/// Lanes of records: appended at the end, read in order, consumed from the front, each group for itself.
///
/// - **Durable.** An append returns a position only once the record survives the end of this process (which of machine and
///   power failure it survives is each store's to say). Positions of a lane ascend; they need not be dense.
/// - **Order.** Reading a lane gives its records in the order of their appends. Within one append, the first failure in a lane
///   fails all later entries of that lane.
/// - **Groups.** Several groups may share a lane. The records of one are consumed in their order, the groups independently of
///   each other: one that stands still holds up nobody's records, but may hold up the space that is given back.
/// - **Once.** What lies below a consume mark, the lane's or its own group's, is never read again, not after a crash either,
///   whatever else is damaged. So a caller marks first and hands out then: a crash between the two loses at most the records of
///   the last mark.
/// - **Damage** loses the records it touches. They are counted and passed over, never returned, and nothing is deleted because
///   of it. Where a note is known, it is told in the record's place ([`Batch::lost`]). Where nothing tells whose a damaged
///   record was, any read that comes by counts it, whichever group it asks for.
/// - **Lanes are apart.** A failing or slow lane holds up calls for other lanes no longer than the device does.
///
/// Every call may come from any thread and may block for as long as the device or the broker takes, within the store's own
/// timeout. A lane has at most one reader at a time; that is the caller's to keep.
pub trait Overflow: Send + Sync + fmt::Debug {
    /// How many lanes there are, at least one; fixed.
    fn lanes(&self) -> u16;

    /// Whether it is known what the store holds. Until then spans are empty and everything is refused as unavailable; it comes
    /// by itself and stays. A store that knows from the start need not say so.
    fn ready(&self) -> bool {
        true
    }

    /// Makes entries durable, as many syncs as needed and no more. A result for each, in their order: the position, or why not.
    fn append(&self, entries: &[Entry]) -> Vec<Result<u64, AppendError>>;

    /// Reads records at or above `from`, as far as they are durable and not consumed: of all groups, or of one only. Records of
    /// other groups are passed over without being looked at. None there: an empty batch. An empty batch whose `next` is above
    /// `from` is no end: there may be more behind.
    ///
    /// # Errors
    /// [`ReadError`]
    fn read(&self, lane: u16, from: u64, only: Option<Group>, most: Most) -> Result<Batch, ReadError>;

    /// Marks records as consumed, all of `marks` at once: durable on return. No mark is ever taken back. A position at or below
    /// an earlier one changes nothing, and a group that is not listed keeps its mark, until `before` has reached it. `handed` is
    /// how many records the caller has been given, in all lanes and with those of this mark, and has not yet dealt with: so many
    /// are lost at most if the process ends now ([`Usage::lost_in_crash_max`]). Space is given back in due course.
    ///
    /// # Errors
    /// [`ConsumeError`]. Nothing is consumed then, as far as this process is concerned; after a crash it may be.
    fn consume(&self, lane: u16, marks: &Marks<'_>, handed: u64) -> Result<(), ConsumeError>;

    /// How many groups may have a mark of their own above `before` in one lane at a time; at least one.
    fn group_marks_max(&self) -> usize;

    /// The groups of a lane that have a mark of their own, and how far; none for a lane that does not exist.
    fn group_marks(&self, lane: u16) -> Vec<(Group, u64)>;

    /// What was said of the record at this position when it was appended, if the store still knows. For records whose bodies
    /// turn out to be damaged above the store. `None` from a store that keeps no notes.
    fn note(&self, lane: u16, position: u64) -> Option<Note> {
        let _ = (lane, position);
        None
    }

    /// What is durable and not consumed in a lane; empty for one that does not exist.
    fn span(&self, lane: u16) -> Span;

    /// What the store takes up.
    fn usage(&self) -> Usage;

    /// Refuses all calls from now on, says durably that nothing was in the middle of being handed out, and lets go of the
    /// device. Idempotent.
    fn close(&self);
}
