//! The history of a run, kept outside the router: one append-only file for each life of a process. Whoever is about to ask,
//! start or answer writes that down first, with one write(2), so that a kill -9 in the next moment loses nothing. It may not judge.
//!
//! Times are nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.

use anyhow::{Context, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Now, in nanoseconds of the clock that all processes share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
}

/// What a process is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seat {
    /// The router. There is one.
    Router,
    /// A process with a controller, by number.
    Caller(u16),
    /// A process with invokers, by number.
    Node(u16),
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => write!(f, "router"),
            Self::Caller(number) => write!(f, "caller-{number}"),
            Self::Node(number) => write!(f, "node-{number}"),
        }
    }
}

/// One life of a process: a seat, and how many had it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Life {
    pub(crate) seat: Seat,
    pub(crate) number: u32,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.seat, self.number)
    }
}

/// An activation as its caller names it, in the payload: the router's ids need not be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) caller: u16,
    pub(crate) life: u32,
    pub(crate) number: u64,
}

impl Name {
    /// Bytes it takes in a payload.
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..2].copy_from_slice(&self.caller.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.life.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Reads it from the front of a payload.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let caller = u16::from_be_bytes(bytes.get(0..2)?.try_into().ok()?);
        let life = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        let number = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
        Some(Self { caller, life, number })
    }

    /// Who asked for it.
    pub(crate) fn asker(self) -> Life {
        Life { seat: Seat::Caller(self.caller), number: self.life }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.asker(), self.number)
    }
}

/// How an activation ended, as its caller heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ending {
    Completed,
    ActionFailed,
    PlatformFailed,
    Expired,
    Rejected,
    Lost,
    Accepted,
    TimedOut,
    /// Unreachable, and it never left the caller.
    Unsent,
    /// Unreachable, and it may have left.
    MaybeSent,
    CircuitOpen,
    /// Refused, since it may have been taken before: whether it ran is unknown.
    Unknown,
    /// Completed, with what another one returned.
    Swapped,
}

impl Ending {
    /// All of them, in the order of their numbers in a ledger.
    pub(crate) const ALL: [Self; 13] = [
        Self::Completed,
        Self::ActionFailed,
        Self::PlatformFailed,
        Self::Expired,
        Self::Rejected,
        Self::Lost,
        Self::Accepted,
        Self::TimedOut,
        Self::Unsent,
        Self::MaybeSent,
        Self::CircuitOpen,
        Self::Unknown,
        Self::Swapped,
    ];

    /// Whether it says that a container ran it.
    pub(crate) fn says_it_ran(self) -> bool {
        matches!(self, Self::Completed | Self::ActionFailed | Self::Swapped)
    }

    /// Whether it promises that it never started.
    pub(crate) fn says_it_never_started(self) -> bool {
        matches!(self, Self::Expired | Self::Rejected | Self::Unsent | Self::CircuitOpen)
    }

    /// Whether the caller's side may have given it without the router, so that the router's own may still come, once. (After
    /// `MaybeSent` none can: it belonged to a stream that is over.)
    pub(crate) fn may_be_the_callers_own(self) -> bool {
        self == Self::TimedOut
    }
}

/// One thing that happened, or is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A caller asks, and must have its answer within this many microseconds.
    Asked { name: Name, timeout_us: u32 },
    /// It has it.
    Answered { name: Name, ending: Ending },
    /// A container starts it.
    Started { name: Name, attempt: u16 },
    /// The container is done and says so next.
    Ended { name: Name },
    /// The container hands it back, not started.
    Returned { name: Name },
    /// A caller leaves in order; that many answers came that nobody waited for.
    Left { late_answers: u32 },
    /// A process is killed.
    Killed { life: Life },
    /// A process is stopped.
    Stopped { life: Life },
    /// A process that was stopped goes on.
    Continued { life: Life },
}

/// An entry and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at: u64,
    pub(crate) entry: Entry,
}

/// Bytes of a record: kind, ending, attempt, a number, time, name or life. A page of the file holds a whole number of them: between
/// two pages a kill may cut a write short.
const RECORD_BYTES: usize = 32;

impl Record {
    fn bytes(self) -> [u8; RECORD_BYTES] {
        let no_name = [0; Name::BYTES];
        let (kind, ending, attempt, name, number) = match self.entry {
            Entry::Asked { name, timeout_us } => (1, 0, 0, name.bytes(), timeout_us),
            Entry::Answered { name, ending } => (2, ending as u8, 0, name.bytes(), 0),
            Entry::Started { name, attempt } => (3, 0, attempt, name.bytes(), 0),
            Entry::Ended { name } => (4, 0, 0, name.bytes(), 0),
            Entry::Returned { name } => (5, 0, 0, name.bytes(), 0),
            Entry::Left { late_answers } => (6, 0, 0, no_name, late_answers),
            Entry::Killed { life } => (7, 0, 0, life_bytes(life), 0),
            Entry::Stopped { life } => (8, 0, 0, life_bytes(life), 0),
            Entry::Continued { life } => (9, 0, 0, life_bytes(life), 0),
        };
        let mut bytes = [0; RECORD_BYTES];
        (bytes[0], bytes[1]) = (kind, ending);
        bytes[2..4].copy_from_slice(&attempt.to_be_bytes());
        bytes[4..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.at.to_be_bytes());
        bytes[16..32].copy_from_slice(&name);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let number = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        let at = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
        let of = bytes.get(16..32)?;
        let name = Name::read(of)?;
        let entry = match bytes[0] {
            1 => Entry::Asked { name, timeout_us: number },
            2 => Entry::Answered { name, ending: *Ending::ALL.get(usize::from(bytes[1]))? },
            3 => Entry::Started { name, attempt: u16::from_be_bytes([bytes[2], bytes[3]]) },
            4 => Entry::Ended { name },
            5 => Entry::Returned { name },
            6 => Entry::Left { late_answers: number },
            7 => Entry::Killed { life: read_life(of)? },
            8 => Entry::Stopped { life: read_life(of)? },
            9 => Entry::Continued { life: read_life(of)? },
            _ => return None,
        };
        Some(Self { at, entry })
    }
}

/// As a name, with the kind of seat in its number.
fn life_bytes(life: Life) -> [u8; Name::BYTES] {
    let (kind, caller) = match life.seat {
        Seat::Router => (0, 0),
        Seat::Caller(number) => (1, number),
        Seat::Node(number) => (2, number),
    };
    Name { caller, life: life.number, number: kind }.bytes()
}

fn read_life(bytes: &[u8]) -> Option<Life> {
    let Name { caller, life, number } = Name::read(bytes)?;
    let seat = match number {
        0 => Seat::Router,
        1 => Seat::Caller(caller),
        2 => Seat::Node(caller),
        _ => return None,
    };
    Some(Life { seat, number: life })
}

/// A file to append to. From any thread.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
}

/// The file of whoever starts, kills and stops the others.
const DIRECTOR: &str = "director";

impl Ledger {
    /// The ledger of one life in a folder.
    pub(crate) fn of(life: Life, folder: &Path) -> anyhow::Result<Self> {
        Self::named(&life.to_string(), folder)
    }

    /// The ledger of what is done to processes.
    pub(crate) fn of_director(folder: &Path) -> anyhow::Result<Self> {
        Self::named(DIRECTOR, folder)
    }

    fn named(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(name);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Self { file: file.with_context(|| format!("cannot keep a ledger in {}", path.display()))? })
    }

    /// Writes an entry down before it returns, and says when that was. A process that cannot has nothing to say any more.
    pub(crate) fn write(&self, entry: Entry) -> u64 {
        let at = now();
        self.write_at(at, entry);
        at
    }

    /// As `write`, of a moment that is over.
    pub(crate) fn write_at(&self, at: u64, entry: Entry) {
        // One call: appending so little to a file is not cut short but by a full disk.
        let written = (&self.file).write(&Record { at, entry }.bytes());
        if !matches!(written, Ok(RECORD_BYTES)) {
            eprintln!("a ledger cannot be written: {written:?}");
            std::process::abort();
        }
    }
}

/// What one life wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// None: it is the director's.
    pub(crate) writer: Option<Life>,
    pub(crate) records: Vec<Record>,
}

/// All ledgers in a folder.
pub(crate) fn read_all(folder: &Path) -> anyhow::Result<Vec<History>> {
    let mut histories = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let writer = if name == DIRECTOR { None } else { Some(life_of(&name).with_context(|| name.clone())?) };
        let bytes = std::fs::read(&path)?;
        ensure!(bytes.len().is_multiple_of(RECORD_BYTES), "{} ends in the middle of a record", path.display());
        let records = bytes.chunks_exact(RECORD_BYTES).map(Record::read).collect::<Option<Vec<_>>>();
        let records = records.with_context(|| format!("{} holds what is no record", path.display()))?;
        histories.push(History { writer, records });
    }
    histories.sort_by_key(|history| history.writer);
    Ok(histories)
}

/// Reads `node-3.2`.
fn life_of(name: &str) -> Option<Life> {
    let (seat, life) = name.rsplit_once('.')?;
    let seat = match seat.rsplit_once('-') {
        Some(("caller", number)) => Seat::Caller(number.parse().ok()?),
        Some(("node", number)) => Seat::Node(number.parse().ok()?),
        _ => (seat == "router").then_some(Seat::Router)?,
    };
    Some(Life { seat, number: life.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { caller: 3, life: 2, number: 77 };

    #[test]
    fn every_entry_is_read_as_it_was_written() {
        let life = Life { seat: Seat::Node(9), number: 4 };
        let mut entries = vec![
            Entry::Asked { name: NAME, timeout_us: u32::MAX },
            Entry::Started { name: NAME, attempt: 300 },
            Entry::Ended { name: NAME },
            Entry::Returned { name: NAME },
            Entry::Left { late_answers: 5 },
            Entry::Killed { life },
            Entry::Stopped { life: Life { seat: Seat::Router, number: 0 } },
            Entry::Continued { life: Life { seat: Seat::Caller(1), number: 1 } },
        ];
        entries.extend(Ending::ALL.map(|ending| Entry::Answered { name: NAME, ending }));
        for (at, entry) in (1..).zip(entries) {
            let record = Record { at, entry };
            assert_eq!(Record::read(&record.bytes()), Some(record));
        }
        assert_eq!(Record::read(&[0; RECORD_BYTES]), None);
    }

    #[test]
    fn the_ledgers_of_a_folder_are_read_by_writer() {
        let folder = std::env::temp_dir().join(format!("ledgers-{}-{}", std::process::id(), now()));
        std::fs::create_dir(&folder).unwrap();
        let life = Life { seat: Seat::Caller(3), number: 2 };
        let (own, director) = (Ledger::of(life, &folder).unwrap(), Ledger::of_director(&folder).unwrap());
        own.write_at(5, Entry::Asked { name: NAME, timeout_us: 9 });
        director.write_at(6, Entry::Killed { life });
        assert!(Ledger::of(life, &folder).is_err(), "no life is lived twice");
        let histories = read_all(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let killed = Record { at: 6, entry: Entry::Killed { life } };
        let asked = Record { at: 5, entry: Entry::Asked { name: NAME, timeout_us: 9 } };
        let of = |writer, record| History { writer, records: vec![record] };
        assert_eq!(histories, [of(None, killed), of(Some(life), asked)]);
    }

    #[test]
    fn lives_are_read_from_their_names() {
        for seat in [Seat::Router, Seat::Caller(0), Seat::Node(12)] {
            let life = Life { seat, number: 7 };
            assert_eq!(life_of(&life.to_string()), Some(life));
        }
        assert_eq!((life_of("node-1"), life_of("cook-1.1"), life_of("x")), (None, None, None));
    }
}
