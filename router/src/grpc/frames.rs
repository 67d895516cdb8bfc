//! The writing half of a stream: turns what waits in an outbox into frames. Never waits to fill one.

use super::Service;
use super::wire::{self, Response};
use crate::driver::Driver;
use crate::outbox::{Awaiting, Entry, Line, Outbox, Taken};
use bytes::Bytes;
use engine::hub::Pass;
use engine::input::Input;
use http_body::{Body, Frame};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::codegen::http::HeaderMap;

/// The frames of one stream, as the body of its call: trailers with a status come last. When it is dropped, the stream's reader is told.
#[derive(Debug)]
pub(super) struct Frames<M> {
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    line: Arc<Line>,
    /// Sent before all else.
    welcome: Option<Bytes>,
    ending: Ending,
    /// Taken from the outbox for the next frame.
    hands: VecDeque<Entry>,
    /// All that was owed is written, and the reader was told.
    finished: bool,
    /// The trailers are written.
    ended: bool,
    /// For handing in containers that waited for room; few streams ever need it.
    pass: Option<Box<Pass<Driver>>>,
    kind: PhantomData<fn() -> M>,
}

/// How the reader of a stream wants it to end. Unset, the outbox was closed because its peer does not read, or another stream
/// took the session over.
pub(super) type Ending = Arc<OnceLock<Result<(), Status>>>;

impl<M: Response> Frames<M> {
    pub(super) fn new(
        service: Arc<Service>,
        outbox: Arc<Outbox>,
        line: Arc<Line>,
        ending: Ending,
        welcome: &M,
    ) -> Self {
        let (welcome, hands) = (Some(wire::welcome(welcome)), VecDeque::new());
        let (finished, ended, pass, kind) = (false, false, None, PhantomData);
        Self { service, outbox, line, welcome, ending, hands, finished, ended, pass, kind }
    }

    /// The next frame; the status if the stream is over.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(welcome) = self.welcome.take() {
            return Poll::Ready(Ok(welcome));
        }
        while self.hands.is_empty() {
            match ready!(self.outbox.poll_take(&self.line, cx, &mut self.hands)) {
                // The reader ends the session before its peer hears that the stream ended: that peer may come anew at once.
                Taken::Finished => {
                    self.finished = true;
                    self.line.hang_up(true);
                    return Poll::Pending;
                }
                Taken::Over => return Poll::Ready(Err(self.status())),
                Taken::Entries(awaiting) if awaiting.is_empty() => {}
                Taken::Entries(awaiting) => self.resume(awaiting),
            }
        }
        let frame = wire::frame::<M>(&self.hands);
        self.hands.clear();
        self.outbox.wrote();
        Poll::Ready(Ok(frame))
    }

    fn status(&self) -> Status {
        if let Some(told) = self.ending.get() {
            return told.clone().err().unwrap_or_else(|| Status::ok(""));
        }
        match (self.outbox.is_closed(), self.finished) {
            (true, true) => Status::ok(""),
            (true, false) if self.service.is_cut() => {
                Status::unavailable("drain_timeout_ms: the router ends before all was written that this stream is owed")
            }
            (true, false) => Status::resource_exhausted("outbox_bytes_max or write_stall_ms: the stream was not read"),
            (false, _) => Status::aborted("hello.session: another stream goes on with this session"),
        }
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

impl<M: Response> Body for Frames<M> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match ready!(this.poll_next(cx)) {
            Ok(frame) => Frame::data(frame),
            Err(status) => {
                this.ended = true;
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers)?;
                Frame::trailers(trailers)
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl<M> Drop for Frames<M> {
    fn drop(&mut self) {
        self.line.hang_up(self.finished && !self.outbox.keeps_busy(&self.line));
    }
}
