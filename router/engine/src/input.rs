//! What can happen to an action. Closed: the matcher handles each of these and nothing else.

use crate::container::ContainerKey;
use crate::effect::Spilled;
use crate::hub::Action;
use crate::id::{ActivationId, StreamId};
use crate::lanes::Lane;
use crate::outcome::{Reply, RunStatus};
use crate::slab::Key;
use crate::time::Timestamp;
use bytes::Bytes;
use std::sync::Arc;

/// One thing that happens to an action.
#[derive(Debug)]
pub enum Input {
    /// A controller pushes an activation.
    Push(Push),
    /// A container grants credits.
    Credit(ContainerKey, u32),
    /// A container says how an activation ended.
    Complete(ContainerKey, Completion),
    /// A container hands an activation back unstarted, with its payload.
    Return(ContainerKey, ActivationId, Bytes),
    /// A container takes no more; what it has in flight it may finish. Answered with
    /// [`Entry::Drain`](crate::effect::Entry::Drain), behind the last dispatch to it.
    Retire(ContainerKey),
    /// A container is gone; what it has in flight is lost.
    Gone(ContainerKey),
    /// The stream that carries the container broke: nothing is dispatched to it until it has rejoined. Its node may come back;
    /// if it does not, `Gone` follows. Hand it in with [`Hub::enter_and_wait`](crate::hub::Hub::enter_and_wait) where the outbox
    /// is emptied after it: see `Unsent`.
    Suspend(ContainerKey),
    /// A dispatch to the container provably never left the router, with its payload: it is queued again where it was, its attempt
    /// is not raised, and its credit is the container's again. The room it took is the driver's to give back.
    ///
    /// The driver's order: suspend each container of the stream and wait for it, then empty the outbox, then hand all of this in,
    /// then `Rejoin` or `Gone`, which answer as lost what is still in flight. If it did not wait, another thread that is at the
    /// action could yet dispatch to the container, into the outbox that was just emptied: the activation would be answered as
    /// lost, and go out with the node's next stream. If it did not suspend, what is queued would go out the same way at once.
    Unsent(ContainerKey, ActivationId, Bytes),
    /// The container is back under its registration, on another stream of the same session.
    Rejoin(ContainerKey, Rejoin),
    /// What the container believes: credits granted that no dispatch has used, and dispatches received since it was
    /// registered or last rejoined, modulo 2^32. The credits known here are made to be the same.
    Audit(ContainerKey, u32, u32),
    /// The outbox of the container's stream has room again.
    Resume(ContainerKey),
    /// The deadline of a queued activation has come.
    Expire(Key),
    /// It is time to look at what the container has in flight.
    Look(ContainerKey),
    /// What came of an [`Effect::Spill`](crate::effect::Effect::Spill). In the order of the effects, and before what was stored is
    /// handed in again.
    Stored(Key, Result<u64, Unstored>),
    /// What was stored and is handed back, its consume mark durable.
    Refilled(Box<Refilled>),
    /// A lane holds activations of an earlier life, up to below that position: the action is to ask for them, and what is pushed to it
    /// goes behind them.
    Recall(Lane, u64),
    /// A newer revision of the action is current from now on.
    Supersede(Arc<Action>),
    /// To the revision that took over, from one that has no containers: it has activations back from the store and waits with them until
    /// nothing is queued here. Answered with `MoveOn`, or handed on.
    Behind(Arc<Action>),
    /// What is queued may go to the revision that took over.
    MoveOn,
}

/// An activation, its fields checked against [`Limits`](crate::limits::Limits).
///
/// In this order its id is, in an [`Input`], at a multiple of 16 bytes. So whoever reads it after a move, which copies 16 bytes at a
/// time, gets it from one store and need not wait until two have reached the cache.
#[derive(Debug)]
#[repr(C)]
pub struct Push {
    /// Who asked and gets the answer.
    pub controller: StreamId,
    /// When it came to the router.
    pub accepted_at: Timestamp,
    /// Nothing is dispatched at or after this point.
    pub deadline: Timestamp,
    /// Its id.
    pub id: ActivationId,
    /// What the action gets.
    pub payload: Bytes,
    /// 1, or more after it was returned unstarted.
    pub attempt: u32,
    /// What the controller wants to hear.
    pub reply: Reply,
    /// Taken before: it comes from a superseded revision, and its id is taken. It is not counted, acknowledged or refused again.
    pub accepted: bool,
    /// It came back from the store, and has been queued ever since.
    pub refilled: bool,
}

/// A container that is back.
#[derive(Debug)]
pub struct Rejoin {
    /// Credits it has, in place of those known here.
    pub credits: u32,
    /// Activations it has received and not completed. What else it has in flight is lost.
    pub held: Vec<ActivationId>,
}

/// Why an activation was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstored {
    /// The store did not take it and never will hand it back.
    Refused,
    /// It is longer than the store takes, in bytes.
    TooLarge(u64),
    /// It may have been stored.
    Unknown,
}

/// Activations that come back from the store.
#[derive(Debug)]
pub struct Refilled {
    /// In their order.
    pub records: Vec<Spilled>,
    /// Everything of this action that lies below it in its lane was handed in, or is lost. None: more of what was asked for follows, or
    /// they are of another lane and were not asked for.
    pub cursor: Option<u64>,
    /// The action's offer of another lane ends with these records, or with none; the next lane may offer.
    pub offer_over: bool,
}

impl Refilled {
    /// The same in pieces of so many records, at least 1, to be handed in one after the other. Only with the last one the action learns
    /// how far its lane is, and may ask for more.
    pub fn pieces(self, records: usize) -> impl Iterator<Item = Self> {
        let Self { records: all, cursor, offer_over } = self;
        let mut all = all.into_iter();
        let mut over = false;
        std::iter::from_fn(move || {
            let records = (!over).then(|| all.by_ref().take(records.max(1)).collect())?;
            over = all.len() == 0;
            Some(Self { records, cursor: cursor.filter(|_| over), offer_over: offer_over && over })
        })
    }
}

/// How an activation ended, as its container says.
#[derive(Debug)]
pub struct Completion {
    /// The activation.
    pub id: ActivationId,
    /// How it ended.
    pub status: RunStatus,
    /// What it returned.
    pub result: Bytes,
    /// Microseconds it ran.
    pub run_us: u32,
    /// When it came to the router.
    pub arrived_at: Timestamp,
    /// Credits granted along with it.
    pub credits: u32,
}
