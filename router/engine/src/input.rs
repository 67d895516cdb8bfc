//! What can happen to an action. Closed: the matcher handles each of these and nothing else.

use crate::container::ContainerKey;
use crate::hub::Action;
use crate::id::{ActivationId, StreamId};
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
    /// [`Effect::Drain`](crate::effect::Effect::Drain), behind the last dispatch to it.
    Retire(ContainerKey),
    /// A container is gone; what it has in flight is lost.
    Gone(ContainerKey),
    /// The outbox of the container's stream has room again.
    Resume(ContainerKey),
    /// The deadline of a queued activation has come.
    Expire(Key),
    /// A newer revision of the action is current from now on.
    Supersede(Arc<Action>),
}

/// An activation, its fields checked against [`Limits`](crate::limits::Limits).
#[derive(Debug)]
pub struct Push {
    /// Its id.
    pub id: ActivationId,
    /// Who asked and gets the answer.
    pub controller: StreamId,
    /// What the controller wants to hear.
    pub reply: Reply,
    /// 1, or more after it was returned unstarted.
    pub attempt: u32,
    /// When it came to the router.
    pub accepted_at: Timestamp,
    /// Nothing is dispatched at or after this point.
    pub deadline: Timestamp,
    /// What the action gets.
    pub payload: Bytes,
    /// Taken before: it comes from a superseded revision, and its id is taken. It is not counted, acknowledged or refused again.
    pub accepted: bool,
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
    /// Credits granted along with it.
    pub credits: u32,
}
