//! What the engine asks its driver to do. The engine decides; it never does any of it.

use crate::container::ContainerKey;
use crate::hub::Action;
use crate::id::{ActivationId, StreamId};
use crate::lanes::Lane;
use crate::matcher::compact;
use crate::outcome::{Answer, Outcome, Refusal, Reply};
use crate::slab::Key;
use crate::time::Timestamp;
use bytes::Bytes;
use std::sync::Arc;

/// One thing to be done, in the order given.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Write this to a stream. If it is an answer and the stream is gone, it is dropped and counted.
    Write(StreamId, Entry),
    /// The stream's outbox is full and this container of the action waits for room there: once there is, hand in
    /// [`Input::Resume`](crate::input::Input::Resume).
    AwaitRoom(StreamId, Arc<Action>, ContainerKey),
    /// Put an activation into a lane of the store, behind those before it, and say with [`Input::Stored`](crate::input::Input::Stored)
    /// what came of it.
    Spill(Box<Spill>),
    /// Read back what the action has in a lane, as [`Backlog`](crate::backlog::Backlog) says, and hand it in with
    /// [`Input::Refilled`](crate::input::Input::Refilled).
    Refill(Box<Refill>),
    /// Call [`Hub::advance`](crate::hub::Hub::advance) at that point, which is earlier than said before.
    WakeAt(Timestamp),
}

impl Effect {
    /// The stream it is written to, if it is.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Write(stream, _) => Some(*stream),
            Self::AwaitRoom(..) | Self::Spill(_) | Self::Refill(_) | Self::WakeAt(_) => None,
        }
    }

    /// What is written there.
    pub fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Write(_, entry) => Some(entry),
            Self::AwaitRoom(..) | Self::Spill(_) | Self::Refill(_) | Self::WakeAt(_) => None,
        }
    }
}

/// One thing to be written to a stream.
#[derive(Debug, Clone)]
pub enum Entry {
    /// To a controller.
    Answer(Answer),
    /// To an invoker.
    Dispatch(Dispatch),
    /// To an invoker: nothing more is dispatched to its container of that number and epoch. The router has no more use for it, or
    /// it asked for that itself.
    Drain(u32, u32),
    /// To either: an entry of its was refused.
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

    /// The same with a payload of its own, which is no part of a frame.
    pub(crate) fn compact(mut self) -> Self {
        match &mut self {
            Self::Dispatch(dispatch) => dispatch.payload = compact(&dispatch.payload),
            Self::Answer(answer) => match &mut answer.outcome {
                Outcome::Completed(bytes) | Outcome::ActionFailed(bytes) | Outcome::PlatformFailed(bytes) => {
                    *bytes = compact(bytes);
                }
                Outcome::Expired | Outcome::Rejected(_) | Outcome::Lost | Outcome::TimedOut | Outcome::Accepted(_) => {}
            },
            Self::Refuse(_) | Self::Drain(..) | Self::Draining => {}
        }
        self
    }
}

/// An activation on its way to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The container's number on its stream.
    pub container: u32,
    /// The epoch it was registered with.
    pub epoch: u32,
    /// The activation.
    pub id: ActivationId,
    /// Milliseconds until the answer is worthless, at least 1.
    pub time_left_ms: u32,
    /// What the controller sent.
    pub payload: Bytes,
    /// 1 for the first, one more for each time it was returned unstarted.
    pub attempt: u32,
}

/// An activation on its way into the store.
#[derive(Debug, Clone)]
pub struct Spill {
    /// Where it goes.
    pub lane: Lane,
    /// Whose it is.
    pub action: Arc<Action>,
    /// To be said with [`Input::Stored`](crate::input::Input::Stored).
    pub slot: Key,
    /// What is to be kept.
    pub record: Spilled,
}

/// An activation as it is kept outside of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spilled {
    /// Its id.
    pub id: ActivationId,
    /// Who asked and gets the answer.
    pub controller: StreamId,
    /// What the controller wants to hear.
    pub reply: Reply,
    /// 1, or more after it was returned unstarted.
    pub attempt: u32,
    /// Its place in the order of admission; None: it comes from an earlier life of the router.
    pub sequence: Option<u32>,
    /// When it came to the router.
    pub accepted_at: Timestamp,
    /// Nothing is dispatched at or after this point.
    pub deadline: Timestamp,
    /// What the action gets.
    pub payload: Bytes,
}

/// What an action may be given back.
#[derive(Debug, Clone)]
pub struct Refill {
    /// Where from.
    pub lane: Lane,
    /// Whose.
    pub action: Arc<Action>,
    /// How much at most.
    pub want: Want,
    /// What the action knows to have been handed in.
    pub cursor: u64,
}

/// How much an action may be given back: one activation at least, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Activations.
    pub records: u32,
    /// Payload bytes.
    pub bytes: u32,
}

/// Carries out effects.
pub trait Perform {
    /// Carries out all of `effects` in order and leaves it empty. Called while the action is held single-file, so that
    /// effects of one action keep their order across threads: it must be quick and may neither wait nor call the hub.
    fn perform(&mut self, effects: &mut Vec<Effect>);
}
