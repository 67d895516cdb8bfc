//! What waits to be written to one stream. Filled by whoever performs effects, emptied by the stream's own writer.
//!
//! The writer takes what is there and never waits for more, so a frame has one entry at low load and hundreds at high load.
//! An outbox never makes the one who fills it wait: dispatches are bounded by credits and by [`Room`]; a peer that lets
//! answers pile up past eight times that bound is cut off, as is one that reads nothing for a while.

use engine::container::{ContainerKey, Room};
use engine::effect::Dispatch;
use engine::hub::Action;
use engine::outcome::{Answer, Outcome, Refusal};
use engine::time::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// One thing to be written.
#[derive(Debug)]
pub enum Entry {
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
    pub fn bytes(&self) -> usize {
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
pub type Awaiting = (Arc<Action>, ContainerKey);

/// The queue between the engine and one stream's writer.
#[derive(Debug)]
pub struct Outbox {
    /// Held for a few instructions by one who fills or the one who empties.
    waiting: Mutex<Waiting>,
    /// The engine asks this before it dispatches.
    room: Arc<Room>,
    unasked_bytes_max: usize,
    /// Entries in the writer's hands.
    in_hands: AtomicUsize,
    /// Frames written, for those who look whether any is.
    frames: AtomicU64,
    /// Told when the outbox closes, for the stream's reader.
    closed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Room that dispatches among them have taken.
    taken: usize,
    /// Bytes of all else: what no credit or room holds back.
    unasked_bytes: usize,
    /// The frames that were written when a watcher looked last and saw a new one, or nothing to write; and when that was.
    seen: Option<(u64, Timestamp)>,
    /// The writer, while it has nothing to write.
    writer: Option<Waker>,
    awaiting: Vec<Awaiting>,
    /// Activations pushed on the stream less answers. Below zero for a moment when an answer is quicker than its reader.
    owed: i64,
    /// Nothing more is to come; end once nothing is owed.
    finishing: bool,
    closed: bool,
}

/// What the writer finds.
#[derive(Debug)]
pub enum Taken {
    /// Entries are in the writer's hands; these containers waited for the room that is free now.
    Entries(Vec<Awaiting>),
    /// All that was owed is written.
    Finished,
    /// The stream is over.
    Closed,
}

/// How many times the room for dispatches answers may take: containers that complete large results in one moment must not
/// cut off a controller that reads on.
const UNASKED_TIMES: usize = 8;
/// A queue that grew past this many entries is let go when it is empty, so that a flood's memory comes back.
const CAPACITY_KEPT: usize = 4096;

impl Outbox {
    /// Empty. Past `bytes_max` bytes nothing more is dispatched to it; past eight times that of other entries it closes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            room: Arc::new(Room::new(bytes_max)),
            unasked_bytes_max: bytes_max.saturating_mul(UNASKED_TIMES),
            in_hands: AtomicUsize::new(0),
            frames: AtomicU64::new(0),
            closed: Notify::new(),
        }
    }

    /// What the engine asks before it dispatches.
    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// Puts entries in, in order; `late` is shown each if the stream is over.
    pub fn fill(&self, entries: impl Iterator<Item = Entry>, mut late: impl FnMut(&Entry)) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return entries.for_each(|entry| late(&entry));
        }
        for entry in entries {
            match &entry {
                Entry::Dispatch(dispatch) => waiting.taken += Room::cost(&dispatch.payload),
                _ => waiting.unasked_bytes += entry.bytes(),
            }
            waiting.owed -= i64::from(matches!(entry, Entry::Answer(_)));
            waiting.entries.push_back(entry);
        }
        let overfull = waiting.unasked_bytes > self.unasked_bytes_max;
        let writer = waiting.writer.take();
        drop(waiting);
        if overfull {
            self.close();
        }
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Notes a container that waits for room. The writer hands it back when there is some, which may be at once.
    pub fn await_room(&self, awaiting: Awaiting) {
        let mut waiting = self.waiting.lock();
        waiting.awaiting.push(awaiting);
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// For the writer: swaps what waits for the empty `hands`, or waits for something.
    pub fn poll_take(&self, cx: &mut Context<'_>, hands: &mut VecDeque<Entry>) -> Poll<Taken> {
        debug_assert!(hands.is_empty(), "the writer writes all before it takes more");
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Poll::Ready(Taken::Closed);
        }
        if waiting.finishing && waiting.owed == 0 && waiting.entries.is_empty() {
            return Poll::Ready(Taken::Finished);
        }
        if waiting.entries.is_empty() && waiting.awaiting.is_empty() {
            waiting.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if hands.capacity() > CAPACITY_KEPT {
            *hands = VecDeque::new();
        }
        std::mem::swap(hands, &mut waiting.entries);
        self.in_hands.store(hands.len(), Ordering::Relaxed);
        waiting.unasked_bytes = 0;
        self.room.give_back(std::mem::take(&mut waiting.taken));
        Poll::Ready(Taken::Entries(std::mem::take(&mut waiting.awaiting)))
    }

    /// For the writer: a frame is written, that many entries are still in its hands.
    pub fn wrote(&self, in_hands: usize) {
        self.in_hands.store(in_hands, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes activations that are answered here.
    pub fn owe(&self, answers: i64) {
        let mut waiting = self.waiting.lock();
        waiting.owed += answers;
        // Those answers may have been written already, and the writer be waiting for this.
        let writer = if waiting.finishing { waiting.writer.take() } else { None };
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Nothing more is to come: the stream ends once nothing is owed.
    pub fn finish(&self) {
        let mut waiting = self.waiting.lock();
        waiting.finishing = true;
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the stream: what waits is dropped, so is what comes later.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        let left = std::mem::take(&mut *waiting);
        waiting.closed = true;
        drop(waiting);
        self.closed.notify_one();
        if let Some(writer) = &left.writer {
            writer.wake_by_ref();
        }
    }

    /// Resolves when the outbox closes. For one task only. Cancel safe.
    pub async fn closed(&self) {
        self.closed.notified().await;
    }

    /// How long there has been something to write, and no frame was, as far as calls of this have seen.
    pub fn stalls_for(&self, now: Timestamp) -> Duration {
        let mut waiting = self.waiting.lock();
        let frames = self.frames.load(Ordering::Relaxed);
        let nothing = waiting.entries.is_empty() && self.in_hands.load(Ordering::Relaxed) == 0;
        match waiting.seen {
            Some((seen, since)) if seen == frames && !nothing && !waiting.closed => since.until(now),
            _ => {
                waiting.seen = Some((frames, now));
                Duration::ZERO
            }
        }
    }
}
