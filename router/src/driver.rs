//! The one place that carries out the engine's effects: each goes into the outbox of its stream, to the threads of overflow, or wakes
//! the timer.

use crate::outbox::{Awaiting, Entry, Outbox};
use crate::overflow::Handoff;
use dashmap::DashMap;
use engine::effect::{Effect, Perform};
use engine::id::StreamId;
use engine::time::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// All live streams, by id. One of a session lives as long as the session.
#[derive(Debug, Default)]
pub struct Streams {
    outboxes: DashMap<StreamId, Arc<Outbox>>,
    next: AtomicU64,
    answers_dropped: AtomicU64,
    sooner: Notify,
}

impl Streams {
    /// A name for a stream, used once.
    pub fn reserve(&self) -> StreamId {
        StreamId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a stream under a name reserved for it.
    pub fn open_as(&self, id: StreamId, outbox_bytes_max: usize) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(outbox_bytes_max));
        self.outboxes.insert(id, outbox.clone());
        outbox
    }

    /// Ends a stream. What is sent to it from now on is dropped.
    pub fn close(&self, id: StreamId) {
        if let Some((_, outbox)) = self.outboxes.remove(&id) {
            self.count_dropped(outbox.close());
        }
    }

    /// Live streams, sessions that wait for their peers among them, and calls.
    pub fn live(&self) -> usize {
        self.outboxes.len()
    }

    /// Answers that came when their controller's stream was over.
    pub fn answers_dropped(&self) -> u64 {
        self.answers_dropped.load(Ordering::Relaxed)
    }

    /// Puts an entry into every outbox.
    pub fn announce(&self, entry: impl Fn() -> Entry) {
        self.outboxes.iter().for_each(|outbox| {
            outbox.fill(std::iter::once(entry()));
        });
    }

    /// Ends every stream once what waits for it is written.
    pub fn forgive_all(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.forgive());
    }

    /// Ends every stream. What waits for it is dropped.
    pub fn close_all(&self) {
        self.outboxes.iter().for_each(|outbox| self.count_dropped(outbox.close()));
    }

    /// Ends the streams whose peers have not read for that long. Returns how many.
    pub fn close_stalled(&self, now: Timestamp, write_stall: Duration) -> usize {
        let stalled = self.outboxes.iter().filter(|outbox| outbox.stalls_for(now) > write_stall);
        stalled.map(|outbox| self.count_dropped(outbox.close())).count()
    }

    /// Whether much waits for a peer that is there: more answers than half of what closes its stream.
    pub fn is_crowded(&self) -> bool {
        self.outboxes.iter().any(|outbox| outbox.is_crowded())
    }

    /// Something is due sooner than the timer task may think.
    pub fn wake_timer(&self) {
        self.sooner.notify_one();
    }

    /// Resolves when something is due sooner than the timer task thinks. For that task only. Cancel safe.
    pub async fn sooner(&self) {
        self.sooner.notified().await;
    }

    fn count_dropped(&self, answers: u64) {
        if answers > 0 {
            self.answers_dropped.fetch_add(answers, Ordering::Relaxed);
        }
    }

    fn find(&self, id: StreamId) -> Option<Arc<Outbox>> {
        self.outboxes.get(&id).map(|outbox| outbox.clone())
    }
}

/// Performs effects for one stream's reader, or for the timer.
#[derive(Debug)]
pub struct Driver {
    streams: Arc<Streams>,
    handoff: Arc<Handoff>,
    /// Outboxes found before, by the low bits of their stream's id. Those of ended streams are closed, so they do no harm.
    found: Box<[Found; FOUND]>,
}

/// An outbox found before.
type Found = Option<(StreamId, Arc<Outbox>)>;

/// Outboxes remembered by a driver. A power of two; about as many streams as one action usually spreads over.
const FOUND: usize = 128;

impl Driver {
    /// Performs effects on these streams, and leaves there what overflows.
    pub(crate) fn new(streams: Arc<Streams>, handoff: Arc<Handoff>) -> Self {
        Self { streams, handoff, found: Box::new([const { None }; FOUND]) }
    }

    /// The outbox of a stream, borrowed: to count a reference up and down for each activation costs as much as to match it.
    fn outbox(&mut self, id: StreamId) -> Option<&Outbox> {
        let place = &mut self.found[usize::try_from(id.0 % FOUND as u64).expect("below 128")];
        if place.as_ref().is_none_or(|(of, _)| *of != id) {
            *place = Some((id, self.streams.find(id)?));
        }
        place.as_ref().map(|(_, outbox)| &**outbox)
    }

    fn fill(&mut self, stream: StreamId, entries: impl Iterator<Item = Entry>) {
        let dropped = match self.outbox(stream) {
            Some(outbox) => outbox.fill(entries),
            None => entries.filter(|entry| matches!(entry, Entry::Answer(_))).count() as u64,
        };
        self.streams.count_dropped(dropped);
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Write(stream, entry) => self.fill(stream, std::iter::once(entry)),
            Effect::AwaitRoom(stream, action, container) => self.await_room(stream, (action, container)),
            Effect::Spill(spill) => self.handoff.spill(*spill),
            Effect::Refill(refill) => self.handoff.refill(*refill),
            Effect::WakeAt(_) => self.streams.wake_timer(),
        }
    }

    fn await_room(&mut self, stream: StreamId, awaiting: Awaiting) {
        // Without a stream there is nothing to wait for: its containers are being taken off their actions.
        if let Some(outbox) = self.outbox(stream) {
            outbox.await_room(awaiting);
        }
    }
}

impl Perform for Driver {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        let mut effects = effects.drain(..);
        while let Some(first) = effects.as_slice().first() {
            if let Some(stream) = first.stream() {
                // Its neighbours for the same stream go in with it: one lock, one wake-up.
                let alike = effects.as_slice().iter().take_while(|effect| effect.stream() == Some(stream)).count();
                self.fill(stream, effects.by_ref().take(alike).filter_map(Effect::into_entry));
            } else {
                effects.next().into_iter().for_each(|effect| self.perform_one(effect));
            }
        }
    }
}
