//! What waits to be written in one session. Filled by whoever performs effects, emptied by the writer of the session's stream.
//!
//! The writer takes what is there and never waits for more, so a frame has one entry at low load and hundreds at high load.
//! An outbox never makes the one who fills it wait: dispatches are bounded by credits and by [`Room`]; a peer that lets
//! answers pile up past eight times that bound is cut off, as is one that reads nothing for a while.

pub use engine::effect::Entry;
pub use engine::mailbox::Awaiting;

use engine::container::Room;
use engine::effect::Dispatch;
use engine::id::ActivationId;
use engine::mailbox::{self, Mailbox};
use engine::sessions::Attachment;
use engine::time::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// The queue between the engine and the writer of one session.
#[derive(Debug)]
pub struct Outbox {
    /// Held for a few instructions by one who fills or the one who empties.
    waiting: Mutex<Waiting>,
    /// The engine asks this before it dispatches.
    room: Arc<Room>,
    /// Frames written, for those who look whether any is.
    frames: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    mailbox: Mailbox,
    /// The frames that were written when a watcher looked last and saw a new one, or nothing to write; and when that was.
    seen: Option<(u64, Timestamp)>,
    /// The writer, while it has nothing to write.
    writer: Option<Waker>,
    line: Arc<Line>,
}

/// One stream of the session, as its reader and its writer know it.
#[derive(Debug)]
pub struct Line {
    attachment: Attachment,
    /// Told when the stream is over for its writer or for the outbox, for its reader.
    over: Notify,
    /// All that was owed is written.
    finished: AtomicBool,
}

impl Line {
    fn new(attachment: Attachment) -> Arc<Self> {
        Arc::new(Self { attachment, over: Notify::new(), finished: AtomicBool::new(false) })
    }

    /// Its number.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Resolves when there is no writer any more, or the outbox was parked or closed, or has another stream. For one task
    /// only. Cancel safe.
    pub async fn over(&self) {
        self.over.notified().await;
    }

    /// For the writer: it is done, and has written all that was owed or not.
    pub fn hang_up(&self, finished: bool) {
        // Read by the reader once it is told.
        self.finished.store(finished, Ordering::Relaxed);
        self.over.notify_one();
    }

    /// Whether all that was owed is written.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

/// What the writer finds.
#[derive(Debug)]
pub enum Taken {
    /// A frame's worth of entries is in the writer's hands; these containers waited for the room that is free now.
    Entries(Vec<Awaiting>),
    /// All that was owed is written. The writer is woken when the stream is over.
    Finished,
    /// The stream is over.
    Over,
}

impl Outbox {
    /// Empty, for the session's first stream. Past `bytes_max` bytes nothing more is dispatched to it; past eight times that
    /// of other entries it closes.
    pub fn new(bytes_max: usize) -> Self {
        let mailbox = Mailbox::new(bytes_max);
        let room = mailbox.room().clone();
        let waiting = Waiting { mailbox, seen: None, writer: None, line: Line::new(Attachment::FIRST) };
        Self { waiting: Mutex::new(waiting), room, frames: AtomicU64::new(0) }
    }

    /// What the engine asks before it dispatches.
    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// The session's stream.
    pub fn line(&self) -> Arc<Line> {
        self.waiting.lock().line.clone()
    }

    /// Puts entries in, in order. Returns how many answers were dropped: the session is over.
    pub fn fill(&self, entries: impl Iterator<Item = Entry>) -> u64 {
        let mut waiting = self.waiting.lock();
        let filled = waiting.mailbox.fill(entries);
        if filled.closed {
            waiting.line.over.notify_one();
        }
        wake(waiting);
        filled.answers_dropped
    }

    /// Notes a container that waits for room. The writer hands it back when there is some, which may be at once.
    pub fn await_room(&self, awaiting: Awaiting) {
        let mut waiting = self.waiting.lock();
        waiting.mailbox.await_room(awaiting);
        wake(waiting);
    }

    /// For the writer of that stream: moves a frame's worth of what waits to the empty `hands`, or waits for something.
    pub fn poll_take(&self, line: &Line, cx: &mut Context<'_>, hands: &mut VecDeque<Entry>) -> Poll<Taken> {
        let mut waiting = self.waiting.lock();
        Poll::Ready(match waiting.mailbox.take(line.attachment, hands) {
            mailbox::Taken::Nothing => {
                waiting.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            mailbox::Taken::Entries(awaiting) => Taken::Entries(awaiting),
            mailbox::Taken::Finished => {
                waiting.writer = Some(cx.waker().clone());
                Taken::Finished
            }
            mailbox::Taken::Over => Taken::Over,
        })
    }

    /// For the writer: a frame is written.
    pub fn wrote(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes activations that are answered here.
    pub fn owe(&self, answers: i64) {
        let mut waiting = self.waiting.lock();
        if waiting.mailbox.owe(answers) {
            wake(waiting);
        }
    }

    /// Nothing more is to come: the stream ends once nothing is owed.
    pub fn finish(&self) {
        let mut waiting = self.waiting.lock();
        waiting.mailbox.finish();
        wake(waiting);
    }

    /// Nothing more is to come, and of what is owed only what is here.
    pub fn forgive(&self) {
        let mut waiting = self.waiting.lock();
        waiting.mailbox.forgive();
        wake(waiting);
    }

    /// The peer of that stream is away: what comes waits for its next stream. The stream is over. False if it was not this
    /// session's any more.
    pub fn park(&self, attachment: Attachment) -> bool {
        let mut waiting = self.waiting.lock();
        let parked = waiting.mailbox.park(attachment);
        if parked {
            waiting.line.over.notify_one();
            wake(waiting);
        }
        parked
    }

    /// The peer is back with that stream; the one before is over. Nothing if the outbox is closed or had a later one before.
    pub fn attach(&self, attachment: Attachment) -> Option<Arc<Line>> {
        let mut waiting = self.waiting.lock();
        if !waiting.mailbox.attach(attachment) {
            return None;
        }
        let line = Line::new(attachment);
        let before = std::mem::replace(&mut waiting.line, line.clone());
        waiting.seen = None;
        before.over.notify_one();
        wake(waiting);
        Some(line)
    }

    /// Takes the dispatches back that have not left the router, in their order.
    pub fn unsent(&self) -> Vec<Dispatch> {
        self.waiting.lock().mailbox.unsent()
    }

    /// Drops from `ids` the activations whose answers were here when the peer came back, or have come since. False if that is not known
    /// any more; nothing is dropped then.
    pub fn drop_answered(&self, ids: &mut Vec<ActivationId>) -> bool {
        let waiting = self.waiting.lock();
        let answered: Option<Vec<bool>> = ids.iter().map(|id| waiting.mailbox.has_answered(id)).collect();
        let Some(answered) = answered else { return false };
        let mut answered = answered.into_iter();
        ids.retain(|_| !answered.next().unwrap_or(false));
        true
    }

    /// The peer that came back has asked for all that it wanted to know.
    pub fn forget_answered(&self) {
        self.waiting.lock().mailbox.forget_answered();
    }

    /// The session is over: all but unsent dispatches is dropped, so is what comes later. Returns how many answers were.
    pub fn close(&self) -> u64 {
        let mut waiting = self.waiting.lock();
        let answers_dropped = waiting.mailbox.close();
        waiting.line.over.notify_one();
        wake(waiting);
        answers_dropped
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().mailbox.is_closed()
    }

    /// Whether there is something for the writer of that stream that it has not taken.
    pub fn keeps_busy(&self, line: &Line) -> bool {
        self.waiting.lock().mailbox.keeps_busy(line.attachment)
    }

    /// Whether its peer is there and more than half as much waits for it as closes the stream.
    pub fn is_crowded(&self) -> bool {
        self.waiting.lock().mailbox.is_crowded()
    }

    /// Whether its peer is away and there is nothing to tell it, now or later.
    pub fn is_parked_in_vain(&self) -> bool {
        self.waiting.lock().mailbox.is_parked_in_vain()
    }

    /// How long there has been something to write, and no frame was, as far as calls of this have seen.
    pub fn stalls_for(&self, now: Timestamp) -> Duration {
        let mut waiting = self.waiting.lock();
        let frames = self.frames.load(Ordering::Relaxed);
        match waiting.seen {
            Some((seen, since)) if seen == frames && waiting.mailbox.keeps_writer_busy() => since.until(now),
            _ => {
                waiting.seen = Some((frames, now));
                Duration::ZERO
            }
        }
    }
}

/// Lets the writer look again, once the lock is free.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let writer = waiting.writer.take();
    drop(waiting);
    if let Some(writer) = writer {
        writer.wake();
    }
}
