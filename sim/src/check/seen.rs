//! The history of a world: what can be seen from outside the engine, as small values.

use super::overflow::Told;
use engine::outcome::Reason;
use std::hash::{Hash, Hasher};

/// An activation, by the order in which callers asked.
pub type Call = u32;

/// How an activation ended, as somebody says; without what it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Said {
    /// It ran and succeeded.
    Completed,
    /// It ran and failed by its own doing.
    ActionFailed,
    /// Its container or invoker failed.
    PlatformFailed,
    /// Never started: out of time.
    Expired,
    /// Never started by this push: refused for the reason of that index in [`Reason::ALL`].
    Rejected(u8),
    /// Dispatched, and nobody knows.
    Lost,
    /// Not heard of in time.
    TimedOut,
    /// Taken; no more is asked.
    Accepted,
    /// The controller could not reach a router; whether it may have left.
    Unreachable(bool),
    /// The controller did not try.
    CircuitOpen,
}

impl Said {
    /// Rejected for that reason.
    pub fn rejected(reason: Reason) -> Self {
        Self::Rejected(u8::try_from(reason as usize).unwrap_or(u8::MAX))
    }

    /// The reason, if it is a rejection.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Rejected(index) => Reason::ALL.get(usize::from(index)).copied(),
            _ => None,
        }
    }
}

/// One thing that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Their names are the documentation; the fields are numbers of things.
pub enum Seen {
    RouterBegan { life: u32 },
    RouterDied,
    RouterDrains,
    RouterDone { held: u32 },
    SessionBegan { session: u32 },
    SessionParked { session: u32 },
    SessionResumed { session: u32 },
    SessionOver { session: u32 },
    Submitted { call: Call, controller: u16, action: u16, timeout_ms: u32 },
    Read { call: Call, session: u32, action: u16, left_ms: u32 },
    Answered { call: Call, session: u32, said: Said },
    Refused { session: u32, number: u32, reason: u8 },
    Dispatched { call: Call, session: u32, number: u32, epoch: u32, attempt: u32 },
    Written { call: Call, session: u32 },
    Unsent { call: Call, session: u32 },
    StoreOpen { open: bool },
    Spilling { call: Call, lane: u16 },
    Told { call: Call, told: Told },
    Hit { call: Call, noted: bool },
    Handing { lane: u16, many: u32 },
    Marked { lane: u16, before: u64 },
    Refilled { call: Call, recovered: bool },
    AwaitsRoom { container: u32 },
    RoomAgain { container: u32 },
    Drained { session: u32, number: u32 },
    Registered { container: u32, session: u32, number: u32, epoch: u32, action: u16, concurrency: u32, credits: u32 },
    Credited { container: u32, credits: u32 },
    CompletionRead { container: u32, call: Call, said: Said, credits: u32 },
    ReturnRead { container: u32, call: Call },
    RetireRead { container: u32 },
    Gone { container: u32 },
    Suspended { container: u32 },
    Rejoined { container: u32, credits: u32, held: u32 },
    Audited { container: u32, credits: u32, received: u32 },
    Arrived { call: Call, node: u16, number: u32 },
    Started { call: Call, node: u16, number: u32 },
    Finished { call: Call, node: u16, said: Said },
    GivenBack { call: Call, node: u16 },
    Heard { call: Call, controller: u16, said: Said },
    Resolved { call: Call, controller: u16, said: Said },
    Fault { index: u32 },
    FaultEnds { index: u32 },
    Healed,
}

impl Seen {
    /// The activation it is about, if it is about one.
    pub fn call(&self) -> Option<Call> {
        match *self {
            Self::Submitted { call, .. }
            | Self::Read { call, .. }
            | Self::Answered { call, .. }
            | Self::Dispatched { call, .. }
            | Self::Written { call, .. }
            | Self::Unsent { call, .. }
            | Self::Spilling { call, .. }
            | Self::Told { call, .. }
            | Self::Hit { call, .. }
            | Self::Refilled { call, .. }
            | Self::CompletionRead { call, .. }
            | Self::ReturnRead { call, .. }
            | Self::Arrived { call, .. }
            | Self::Started { call, .. }
            | Self::Finished { call, .. }
            | Self::GivenBack { call, .. }
            | Self::Heard { call, .. }
            | Self::Resolved { call, .. } => Some(call),
            _ => None,
        }
    }
}

/// The hash of a history as it grows: two runs of one seed must come to the same.
#[derive(Debug, Default, Clone, Copy)]
pub struct Digest(u64);

impl Digest {
    /// Adds what was seen at a moment.
    #[inline]
    pub fn add(&mut self, at: u64, seen: &Seen) {
        self.write_u64(at);
        seen.hash(self);
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    #[inline]
    fn write_isize(&mut self, n: isize) {
        self.write_u64(n.cast_unsigned() as u64);
    }
}
