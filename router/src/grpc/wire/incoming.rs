//! The frames that come in on one stream, out of the pieces of a call's body.

use super::{Inbound, Request};
use proto::wire::message::{Messages, Unreadable};
use proto::wire::read::Malformed;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, http};
use tonic::{Code, Status};

/// The body of a call, frame by frame.
#[derive(Debug)]
pub(in crate::grpc) struct Incoming<M> {
    body: Body,
    messages: Messages,
    bytes_max: usize,
    kind: PhantomData<fn() -> M>,
}

impl<M: Request> Incoming<M> {
    /// Reads frames of at most that many bytes from a call.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if it is to be compressed.
    pub(in crate::grpc) fn new(call: http::Request<Body>, bytes_max: usize) -> Result<Self, Status> {
        let encoding = call.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("grpc-encoding: frames travel as they are, not compressed"));
        }
        Ok(Self { body: call.into_body(), messages: Messages::new(bytes_max), bytes_max, kind: PhantomData })
    }

    /// The next frame; none when the peer has sent all, or has reset the call.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` if it is too long, `INVALID_ARGUMENT` if it is not what the proto files say; else what broke.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no frame is lost.
    pub(in crate::grpc) async fn message(&mut self) -> Result<Option<Inbound<M>>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Inbound<M>>, Status>> {
        loop {
            if let Some(message) = self.messages.take().map_err(|why| self.refuse(why))? {
                let frame = Inbound::read(message).map_err(|Malformed| malformed())?;
                return Poll::Ready(Ok(Some(frame)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(piece)) => match piece.into_data() {
                    Ok(data) => self.messages.add(data),
                    // Trailers, which mean nothing in a request.
                    Err(_) => continue,
                },
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(Ok(None)),
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None if self.messages.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Status::internal("frame: the stream ended within it"))),
            }
        }
    }

    fn refuse(&self, why: Unreadable) -> Status {
        match why {
            Unreadable::TooLong(bytes) => Status::out_of_range(format!(
                "frame: {bytes} bytes, at most {} are taken (frame_bytes_max)",
                self.bytes_max
            )),
            Unreadable::Compressed => Status::unimplemented("frame: it is compressed"),
        }
    }
}

fn malformed() -> Status {
    Status::invalid_argument("frame: not what the proto files say")
}
