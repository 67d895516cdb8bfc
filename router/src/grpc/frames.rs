//! The writing half of a stream: turns what waits in an outbox into frames. Never waits to fill one.

use super::Service;
use super::wire::Outbound;
use crate::driver::Driver;
use crate::outbox::{Awaiting, Entry, Line, Outbox, Taken};
use engine::hub::Pass;
use engine::input::Input;
use futures_util::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tonic::Status;

/// The frames of one stream. When it is dropped, the stream's reader is told.
#[derive(Debug)]
pub(super) struct Frames<M> {
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    line: Arc<Line>,
    /// Sent before all else.
    welcome: Option<M>,
    ending: Ending,
    /// Taken from the outbox for the next frame.
    hands: VecDeque<Entry>,
    /// All that was owed is written.
    finished: bool,
    /// For handing in containers that waited for room; few streams ever need it.
    pass: Option<Box<Pass<Driver>>>,
}

/// How the reader of a stream wants it to end. Unset, the outbox was closed because its peer does not read, or another stream
/// took the session over.
pub(super) type Ending = Arc<OnceLock<Result<(), Status>>>;

impl<M> Frames<M> {
    pub(super) fn new(service: Arc<Service>, outbox: Arc<Outbox>, line: Arc<Line>, ending: Ending, welcome: M) -> Self {
        let (welcome, hands) = (Some(welcome), VecDeque::new());
        Self { service, outbox, line, welcome, ending, hands, finished: false, pass: None }
    }

    fn next_frame(&mut self) -> Outbound<M> {
        self.outbox.wrote();
        Outbound { welcome: None, entries: std::mem::take(&mut self.hands) }
    }

    fn end(&self) -> Option<Result<Outbound<M>, Status>> {
        let untold = || {
            Err(if self.outbox.is_closed() {
                Status::resource_exhausted("outbox_bytes_max or write_stall_ms: the stream was not read")
            } else {
                Status::aborted("hello.session: another stream goes on with this session")
            })
        };
        self.ending.get().cloned().unwrap_or_else(untold).err().map(Err)
    }

    fn resume(&mut self, awaiting: Vec<Awaiting>) {
        let service = &self.service;
        let pass = self.pass.get_or_insert_with(|| Box::new(service.pass()));
        service.begin(pass);
        for (action, container) in awaiting {
            service.hub.enter(&action, &mut vec![Input::Resume(container)], pass);
        }
        service.hub.settle(pass);
    }
}

impl<M: Unpin> Stream for Frames<M> {
    type Item = Result<Outbound<M>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(welcome) = this.welcome.take() {
            return Poll::Ready(Some(Ok(Outbound { welcome: Some(welcome), entries: VecDeque::new() })));
        }
        while this.hands.is_empty() {
            match ready!(this.outbox.poll_take(&this.line, cx, &mut this.hands)) {
                Taken::Finished => {
                    this.finished = true;
                    return Poll::Ready(None);
                }
                Taken::Over => return Poll::Ready(this.end()),
                Taken::Entries(awaiting) if awaiting.is_empty() => {}
                Taken::Entries(awaiting) => this.resume(awaiting),
            }
        }
        Poll::Ready(Some(Ok(this.next_frame())))
    }
}

impl<M> Drop for Frames<M> {
    fn drop(&mut self) {
        self.line.hang_up(self.finished);
    }
}
