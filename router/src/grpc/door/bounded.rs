//! The body of a unary call, refused in our words if its message is too long.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body as Inner;

/// Passes a body on. tonic bounds it too, but names no setting.
#[derive(Debug)]
pub(super) struct Bounded {
    body: Inner,
    bytes_max: usize,
    /// The bytes of the message's head so far: a flag, and the length in four bytes.
    head: Vec<u8>,
}

const HEAD_BYTES: usize = 5;

impl Bounded {
    pub(super) fn new(body: Inner, bytes_max: usize) -> Self {
        Self { body, bytes_max, head: Vec::with_capacity(HEAD_BYTES) }
    }

    fn check(&mut self, piece: &Bytes) -> Result<(), Status> {
        let missing = HEAD_BYTES - self.head.len();
        if missing == 0 {
            return Ok(());
        }
        self.head.extend_from_slice(&piece[..missing.min(piece.len())]);
        let [_, length @ ..] = &self.head[..] else { return Ok(()) };
        let Ok(length) = <[u8; 4]>::try_from(length) else { return Ok(()) };
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > self.bytes_max {
            return Err(Status::out_of_range(format!(
                "call: {bytes} bytes, at most {} are taken (frame_bytes_max)",
                self.bytes_max
            )));
        }
        Ok(())
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(piece) = frame.data_ref()
        {
            this.check(piece)?;
        }
        Poll::Ready(frame)
    }
}
