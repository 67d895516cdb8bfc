//! What waits to be written to one stream, without the threads and wake-ups around it: those who fill it and the stream's
//! writer take turns.

use engine::container::{ContainerKey, Room};
use engine::effect::Dispatch;
use engine::hub::Action;
use engine::outcome::{Answer, Outcome, Refusal};
use std::collections::VecDeque;
use std::sync::Arc;

/// One thing to be written.
#[derive(Debug)]
pub(crate) enum Entry {
    /// To a controller.
    Answer(Answer),
    /// To an invoker.
    Dispatch(Dispatch),
    /// To an invoker: the container of that number and epoch gets nothing more.
    Drain(u32, u32),
    /// To either.
    Refuse(Refusal),
    /// To a controller: the router is draining.
    Draining,
}

impl Entry {
    /// Bytes it holds, about.
    pub(crate) fn bytes(&self) -> usize {
        let payload = match self {
            Self::Dispatch(dispatch) => dispatch.payload.len(),
            Self::Answer(Answer { outcome, .. }) => match outcome {
                Outcome::Completed(bytes) | Outcome::ActionFailed(bytes) | Outcome::PlatformFailed(bytes) => {
                    bytes.len()
                }
                Outcome::Expired | Outcome::Rejected(_) | Outcome::Lost | Outcome::TimedOut | Outcome::Accepted(_) => 0,
            },
            Self::Refuse(refusal) => refusal.id.len(),
            Self::Drain(..) | Self::Draining => 0,
        };
        payload + size_of::<Self>()
    }
}

/// A container that waits for room, within its action.
pub(crate) type Awaiting = (Arc<Action>, ContainerKey);

/// What the writer finds.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing yet.
    Nothing,
    /// Entries are in the writer's hands; these containers waited for the room that is free now.
    Entries(Vec<Awaiting>),
    /// All that was owed is written.
    Finished,
    /// The stream is over.
    Closed,
}

/// The queue between the engine and one stream's writer.
#[derive(Debug)]
pub(crate) struct Mailbox {
    entries: VecDeque<Entry>,
    /// The engine asks this before it dispatches.
    room: Arc<Room>,
    /// Room that dispatches among the entries have taken.
    taken: usize,
    /// Bytes of all else: what no credit or room holds back.
    unasked_bytes: usize,
    unasked_bytes_max: usize,
    awaiting: Vec<Awaiting>,
    /// Activations pushed on the stream less answers. Below zero for a moment when an answer is quicker than its reader.
    owed: i64,
    /// Nothing more is to come; end once nothing is owed.
    finishing: bool,
    closed: bool,
}

/// How many times the room for dispatches answers may take: containers that complete large results in one moment must not
/// cut off a controller that reads on.
const UNASKED_TIMES: usize = 8;
/// A queue that grew past this many entries is let go when it is empty, so that a flood's memory comes back.
const CAPACITY_KEPT: usize = 4096;

impl Mailbox {
    /// Empty. Past `bytes_max` bytes nothing more is dispatched to it; past eight times that of other entries it closes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            room: Arc::new(Room::new(bytes_max)),
            taken: 0,
            unasked_bytes: 0,
            unasked_bytes_max: bytes_max.saturating_mul(UNASKED_TIMES),
            awaiting: Vec::new(),
            owed: 0,
            finishing: false,
            closed: false,
        }
    }

    /// What the engine asks before it dispatches.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it takes nothing and gives nothing any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Puts entries in, in order; `late` is shown each if the stream is over. True if they are more than it may hold: close
    /// it.
    pub(crate) fn fill(&mut self, entries: impl Iterator<Item = Entry>, mut late: impl FnMut(&Entry)) -> bool {
        if self.closed {
            entries.for_each(|entry| late(&entry));
            return false;
        }
        for entry in entries {
            match &entry {
                Entry::Dispatch(dispatch) => self.taken += Room::cost(&dispatch.payload),
                _ => self.unasked_bytes += entry.bytes(),
            }
            self.owed -= i64::from(matches!(entry, Entry::Answer(_)));
            self.entries.push_back(entry);
        }
        self.unasked_bytes > self.unasked_bytes_max
    }

    /// Notes a container that waits for room. The writer hands it back when there is some, which may be at once.
    pub(crate) fn await_room(&mut self, awaiting: Awaiting) {
        self.awaiting.push(awaiting);
    }

    /// For the writer: swaps what waits for the empty `hands`.
    pub(crate) fn take(&mut self, hands: &mut VecDeque<Entry>) -> Taken {
        debug_assert!(hands.is_empty(), "the writer writes all before it takes more");
        if self.closed {
            return Taken::Closed;
        }
        if self.finishing && self.owed == 0 && self.entries.is_empty() {
            return Taken::Finished;
        }
        if self.entries.is_empty() && self.awaiting.is_empty() {
            return Taken::Nothing;
        }
        if hands.capacity() > CAPACITY_KEPT {
            *hands = VecDeque::new();
        }
        std::mem::swap(hands, &mut self.entries);
        self.unasked_bytes = 0;
        self.room.give_back(std::mem::take(&mut self.taken));
        Taken::Entries(std::mem::take(&mut self.awaiting))
    }

    /// Notes activations that are answered here. True if the writer has to look again: those answers may have been written
    /// already, and it be waiting for this.
    pub(crate) fn owe(&mut self, answers: i64) -> bool {
        self.owed += answers;
        self.finishing
    }

    /// Nothing more is to come: the stream ends once nothing is owed.
    pub(crate) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Ends the stream: what waits is dropped, so is what comes later.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.entries = VecDeque::new();
        self.awaiting = Vec::new();
    }
}
