//! The frames that come in on one stream, out of the pieces of a call's body.

use super::{Bounds, Inbound, Request, TIMES_TOO_MANY, Unfit};
use proto::wire::message::{Messages, Unreadable};
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
    bounds: Bounds,
    kind: PhantomData<fn() -> M>,
}

impl<M: Request> Incoming<M> {
    /// Reads frames within these bounds from a call.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` if it is to be compressed.
    pub(in crate::grpc) fn new(call: http::Request<Body>, bounds: Bounds) -> Result<Self, Status> {
        let encoding = call.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("grpc-encoding: frames travel as they are, not compressed"));
        }
        Ok(Self { body: call.into_body(), messages: Messages::new(bounds.bytes_max), bounds, kind: PhantomData })
    }

    /// The next frame; none when the peer has sent all, or has reset the call.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` if it is too long or has far too many entries, `INVALID_ARGUMENT` if it is not what the proto files say; else what broke.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no frame is lost.
    pub(in crate::grpc) async fn message(&mut self) -> Result<Option<Inbound<M>>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Inbound<M>>, Status>> {
        loop {
            if let Some(message) = self.messages.take().map_err(|why| self.refuse(why))? {
                let frame = Inbound::read(message, self.bounds).map_err(|why| self.unfit(why))?;
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
                self.bounds.bytes_max
            )),
            Unreadable::Compressed => Status::unimplemented("frame: it is compressed"),
        }
    }

    fn unfit(&self, why: Unfit) -> Status {
        match why {
            Unfit::Malformed => Status::invalid_argument("frame: not what the proto files say"),
            Unfit::TooManyEntries => Status::out_of_range(format!(
                "frame: more than {TIMES_TOO_MANY} times as many entries as the {} that are taken (frame_entries_max)",
                self.bounds.entries_max
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body::Frame;
    use prost::Message;
    use proto::v1;
    use proto::wire::message::message;
    use std::collections::VecDeque;

    /// A body in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    const BOUNDS: Bounds = Bounds { bytes_max: 100, entries_max: 2 };

    fn incoming(pieces: impl IntoIterator<Item = Bytes>) -> Incoming<v1::PushRequest> {
        let call = http::Request::new(Body::new(Pieces(pieces.into_iter().collect())));
        Incoming::new(call, BOUNDS).expect("not compressed")
    }

    fn frame(controller_id: &'static [u8]) -> Bytes {
        let hello = v1::ControllerHello { controller_id: Bytes::from_static(controller_id), ..Default::default() };
        let request = v1::PushRequest { hello: Some(hello), ..Default::default() };
        message(0, |to| request.encode_raw(to))
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_were_cut() {
        let body = [frame(b"one"), frame(b"two"), frame(b"three")].concat();
        for cut in 1..=body.len() {
            let mut incoming = incoming(body.chunks(cut).map(Bytes::copy_from_slice));
            for expected in [&b"one"[..], b"two", b"three"] {
                let frame = incoming.message().await.unwrap().expect("three frames");
                assert_eq!(frame.rest.hello.unwrap().controller_id, expected, "pieces of {cut}");
            }
            assert!(incoming.message().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_named() {
        let whole = frame(b"me");
        let status = incoming([whole.slice(..whole.len() - 1)]).message().await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::Internal, "frame: the stream ended within it"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named_with_the_limit() {
        let long = incoming([message(0, |to| to.extend_from_slice(&[0; 101]))]).message().await.err().unwrap();
        assert_eq!(long.code(), Code::OutOfRange);
        assert_eq!(long.message(), "frame: 101 bytes, at most 100 are taken (frame_bytes_max)");
        let compressed = incoming([Bytes::from_static(&[1, 0, 0, 0, 0])]).message().await.err().unwrap();
        assert_eq!(compressed.code(), Code::Unimplemented);
        for field in [0x1a, 0x12] {
            let many = incoming([message(0, |to| to.extend_from_slice(&[field, 0].repeat(33)))])
                .message()
                .await
                .err()
                .unwrap();
            assert_eq!(many.code(), Code::OutOfRange);
            assert!(many.message().contains("as the 2 that are taken (frame_entries_max)"), "{many:?}");
            let some = incoming([message(0, |to| to.extend_from_slice(&[field, 0].repeat(32)))]).message().await;
            assert!(some.is_ok());
        }
        let noise = incoming([message(0, |to| to.extend_from_slice(&[0xff]))]).message().await.err().unwrap();
        assert_eq!(noise.code(), Code::InvalidArgument);
    }

    #[test]
    fn a_call_that_is_to_be_compressed_is_refused() {
        let call = http::Request::builder().header("grpc-encoding", "gzip").body(Body::empty()).unwrap();
        let status = Incoming::<v1::PushRequest>::new(call, BOUNDS).err().unwrap();
        assert_eq!(status.code(), Code::Unimplemented);
        let call = http::Request::builder().header("grpc-encoding", "identity").body(Body::empty()).unwrap();
        assert!(Incoming::<v1::PushRequest>::new(call, BOUNDS).is_ok());
    }
}
