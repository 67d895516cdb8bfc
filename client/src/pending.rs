//! Waiting for an answer. It may not decide anything: going away is all that one who waits can do.

use crate::controller::{Controller, Line};
use crate::id::ActivationId;
use crate::invocation::Invocation;
use crate::outcome::{Answer, Outcome};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// The answer to come of one activation that was submitted. Dropping it gives the answer up; the activation may still run.
///
/// # Cancel safety
/// A future by reference: waiting may be broken off and taken up again.
#[derive(Debug)]
pub struct Pending {
    line: Arc<Line>,
    id: ActivationId,
    answer: oneshot::Receiver<Box<Answer>>,
}

impl Pending {
    pub(crate) fn new(line: Arc<Line>, id: ActivationId, answer: oneshot::Receiver<Box<Answer>>) -> Self {
        Self { line, id, answer }
    }

    /// The activation's id.
    pub fn id(&self) -> ActivationId {
        self.id
    }
}

impl Future for Pending {
    type Output = Answer;

    /// Panics if polled again after the answer.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let heard = ready!(Pin::new(&mut self.answer).poll(cx));
        // The desk never drops a caller that it has not answered.
        Poll::Ready(
            heard.map_or_else(|_| Answer::own(self.id, Outcome::Unreachable { maybe_sent: true }), |heard| *heard),
        )
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // One that was answered has no seat any more.
        if !self.answer.is_terminated() && self.answer.try_recv().is_err() {
            self.line.give_up(self.id);
        }
    }
}

/// An invocation that is submitted when it is polled first, and then its answer to come.
#[derive(Debug)]
#[must_use = "nothing is sent before it is polled"]
pub struct Invoke<'a> {
    controller: &'a Controller,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Asked(Invocation),
    Waiting(Pending),
    Moving,
}

impl<'a> Invoke<'a> {
    pub(crate) fn new(controller: &'a Controller, invocation: Invocation) -> Self {
        Self { controller, stage: Stage::Asked(invocation) }
    }
}

impl Future for Invoke<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        if let Stage::Asked(_) = this.stage {
            let Stage::Asked(invocation) = std::mem::replace(&mut this.stage, Stage::Moving) else { unreachable!() };
            this.stage = Stage::Waiting(this.controller.submit(invocation));
        }
        match &mut this.stage {
            Stage::Waiting(pending) => Pin::new(pending).poll(cx),
            Stage::Asked(_) | Stage::Moving => unreachable!("submitted above"),
        }
    }
}
