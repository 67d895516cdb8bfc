//! What waits to be written to one stream. Filled by whoever performs effects, emptied by the stream's own writer.
//!
//! The writer takes what is there and never waits for more, so a frame has one entry at low load and hundreds at high load.
//! An outbox never makes the one who fills it wait: dispatches are bounded by credits and by [`Room`]; a peer that lets
//! answers pile up past eight times that bound is cut off, as is one that reads nothing for a while.

pub use engine::mailbox::{Awaiting, Entry};

use engine::container::Room;
use engine::mailbox::{self, Mailbox};
use engine::time::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// The queue between the engine and one stream's writer.
#[derive(Debug)]
pub struct Outbox {
    /// Held for a few instructions by one who fills or the one who empties.
    waiting: Mutex<Waiting>,
    /// The engine asks this before it dispatches.
    room: Arc<Room>,
    /// Entries in the writer's hands.
    in_hands: AtomicUsize,
    /// Frames written, for those who look whether any is.
    frames: AtomicU64,
    /// Told when the outbox closes, for the stream's reader.
    closed: Notify,
}

#[derive(Debug)]
struct Waiting {
    mailbox: Mailbox,
    /// The frames that were written when a watcher looked last and saw a new one, or nothing to write; and when that was.
    seen: Option<(u64, Timestamp)>,
    /// The writer, while it has nothing to write.
    writer: Option<Waker>,
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

impl Outbox {
    /// Empty. Past `bytes_max` bytes nothing more is dispatched to it; past eight times that of other entries it closes.
    pub fn new(bytes_max: usize) -> Self {
        let mailbox = Mailbox::new(bytes_max);
        let room = mailbox.room().clone();
        Self {
            waiting: Mutex::new(Waiting { mailbox, seen: None, writer: None }),
            room,
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
    pub fn fill(&self, entries: impl Iterator<Item = Entry>, late: impl FnMut(&Entry)) {
        let mut waiting = self.waiting.lock();
        let overfull = waiting.mailbox.fill(entries, late);
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
        waiting.mailbox.await_room(awaiting);
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// For the writer: swaps what waits for the empty `hands`, or waits for something.
    pub fn poll_take(&self, cx: &mut Context<'_>, hands: &mut VecDeque<Entry>) -> Poll<Taken> {
        let mut waiting = self.waiting.lock();
        let taken = match waiting.mailbox.take(hands) {
            mailbox::Taken::Nothing => {
                waiting.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            mailbox::Taken::Entries(awaiting) => Taken::Entries(awaiting),
            mailbox::Taken::Finished => Taken::Finished,
            mailbox::Taken::Closed => Taken::Closed,
        };
        self.in_hands.store(hands.len(), Ordering::Relaxed);
        Poll::Ready(taken)
    }

    /// For the writer: a frame is written, that many entries are still in its hands.
    pub fn wrote(&self, in_hands: usize) {
        self.in_hands.store(in_hands, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes activations that are answered here.
    pub fn owe(&self, answers: i64) {
        let mut waiting = self.waiting.lock();
        let writer = if waiting.mailbox.owe(answers) { waiting.writer.take() } else { None };
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Nothing more is to come: the stream ends once nothing is owed.
    pub fn finish(&self) {
        let mut waiting = self.waiting.lock();
        waiting.mailbox.finish();
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Ends the stream: what waits is dropped, so is what comes later.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.mailbox.close();
        let writer = waiting.writer.take();
        drop(waiting);
        self.closed.notify_one();
        if let Some(writer) = writer {
            writer.wake();
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
        let nothing = waiting.mailbox.is_empty() && self.in_hands.load(Ordering::Relaxed) == 0;
        match waiting.seen {
            Some((seen, since)) if seen == frames && !nothing && !waiting.mailbox.is_closed() => since.until(now),
            _ => {
                waiting.seen = Some((frames, now));
                Duration::ZERO
            }
        }
    }
}
