//! The frames that come down on one stream, out of the pieces of an answer's body, and how it ended: the status as tonic reads it.
//! It may not look into the frames.

use super::DownFrame;
use parking_lot::Mutex;
use proto::wire::message::{Messages, Unreadable};
use proto::wire::read::Malformed;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::body::Body;
use tonic::codegen::Body as HttpBody;
use tonic::codegen::http::{HeaderMap, Response, StatusCode};
use tonic::{Code, Status};

/// The body of an answer, frame by frame.
#[derive(Debug)]
pub(crate) struct Incoming<M> {
    /// Never locked: it makes a receiver `Sync`, which a body by itself is not.
    body: Mutex<Body>,
    messages: Messages,
    bytes_max: usize,
    end: End,
    kind: PhantomData<fn() -> M>,
}

/// What says how the stream ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The trailers. Without a status in them, the answer's status in HTTP has to do.
    Trailers(StatusCode),
    /// The headers said already that it did in order.
    Headers,
    /// All is said.
    Past,
}

impl<M: DownFrame> Incoming<M> {
    /// Reads frames of at most that many bytes from an answer.
    ///
    /// # Errors
    /// The status, if the answer is nothing else; `UNIMPLEMENTED` if it is to be compressed.
    pub(super) fn new(answer: Response<Body>, bytes_max: usize) -> Result<Self, Status> {
        let encoding = answer.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("grpc-encoding: frames are taken as they are, not compressed"));
        }
        let end = match Status::from_header_map(answer.headers()) {
            Some(status) if status.code() == Code::Ok => End::Headers,
            Some(status) => return Err(status),
            None => End::Trailers(answer.status()),
        };
        let (body, messages) = (Mutex::new(answer.into_body()), Messages::new(bytes_max));
        Ok(Self { body, messages, bytes_max, end, kind: PhantomData })
    }

    /// The next frame; none once the stream has ended in order, and behind an error.
    ///
    /// # Errors
    /// The status that the router ended it with, or `UNKNOWN` if it said none; what broke; `OUT_OF_RANGE` for a frame that is too
    /// long, `INTERNAL` for one that cannot be read.
    ///
    /// # Cancel safety
    /// May be dropped half-way: no frame is lost.
    pub(crate) async fn message(&mut self) -> Result<Option<M>, Status> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        if let End::Past = self.end {
            return Poll::Ready(Ok(None));
        }
        let next = ready!(self.poll_next(cx));
        if !matches!(next, Ok(Some(_))) {
            self.end = End::Past;
        }
        Poll::Ready(next)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let Some(message) = self.messages.take().map_err(|why| self.refuse(why))? {
                return Poll::Ready(super::read(&message).map(Some).map_err(|Malformed| malformed()));
            }
            match ready!(Pin::new(self.body.get_mut()).poll_frame(cx)?) {
                Some(piece) => match piece.into_data() {
                    Ok(data) => self.messages.add(data),
                    Err(piece) => return Poll::Ready(self.ended(piece.into_trailers().ok().as_ref())),
                },
                None => return Poll::Ready(self.ended(None)),
            }
        }
    }

    /// Whether it ended in order, with these trailers.
    fn ended(&self, trailers: Option<&HeaderMap>) -> Result<Option<M>, Status> {
        let told = trailers.and_then(Status::from_header_map);
        match (told, self.end) {
            (Some(status), End::Trailers(_)) if status.code() != Code::Ok => Err(status),
            _ if !self.messages.is_empty() => Err(Status::internal("frame: the stream ended within it")),
            (None, End::Trailers(http)) => Err(untold(http)),
            _ => Ok(None),
        }
    }

    fn refuse(&self, why: Unreadable) -> Status {
        match why {
            Unreadable::TooLong(bytes) => {
                Status::out_of_range(format!("frame: {bytes} bytes, at most {} are taken", self.bytes_max))
            }
            Unreadable::Compressed => Status::internal("frame: it is compressed"),
        }
    }
}

fn malformed() -> Status {
    Status::internal("frame: not what the proto files say")
}

/// What an answer that ended without a word comes to. A proxy may have given it, or cut the stream off.
///
/// Source: github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md.
fn untold(http: StatusCode) -> Status {
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the stream ended without a grpc-status, HTTP status {}", http.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body::Frame;
    use prost::Message;
    use proto::v1;
    use proto::wire::message::message;
    use std::collections::VecDeque;
    use tonic::codec::{Codec, Streaming};
    use tonic_prost::ProstCodec;

    /// A body that comes like this, then ends.
    struct Pieces(VecDeque<Result<Frame<Bytes>, Status>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    type Piece = Result<Frame<Bytes>, Status>;

    fn data(bytes: impl Into<Bytes>) -> Piece {
        Ok(Frame::data(bytes.into()))
    }

    fn trailers(status: &Status) -> Piece {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        Ok(Frame::trailers(trailers))
    }

    fn body(pieces: impl IntoIterator<Item = Piece>) -> Body {
        Body::new(Pieces(pieces.into_iter().collect()))
    }

    fn incoming(pieces: impl IntoIterator<Item = Piece>) -> Incoming<v1::PushResponse> {
        Incoming::new(Response::new(body(pieces)), BYTES_MAX).unwrap()
    }

    /// The code it ends with, of a stream in which no frame comes whole.
    fn code(pieces: impl IntoIterator<Item = Piece>) -> Code {
        let mut incoming = incoming(pieces);
        let first = incoming.message().now_or_never().unwrap();
        assert_eq!(incoming.message().now_or_never().unwrap().unwrap(), None, "behind the end");
        first.map_or_else(|status| status.code(), |frame| frame.map_or(Code::Ok, |frame| panic!("{frame:?}")))
    }

    fn frame(id: &'static [u8]) -> Bytes {
        let answers = vec![v1::Answer { id: Bytes::from_static(id), ..Default::default() }];
        let response = v1::PushResponse { answers, draining: true, ..Default::default() };
        message(0, |to| response.encode_raw(to))
    }

    const BYTES_MAX: usize = 100;

    #[test]
    fn frames_come_whole_however_they_were_cut() {
        let whole = [frame(b"one"), frame(b"two"), frame(b"three")].concat();
        for cut in 1..=whole.len() {
            let pieces = whole.chunks(cut).map(|piece| data(Bytes::copy_from_slice(piece)));
            let mut incoming = incoming(pieces.chain([trailers(&Status::ok(""))]));
            for expected in [&b"one"[..], b"two", b"three"] {
                let frame = incoming.message().now_or_never().unwrap().unwrap().expect("three frames");
                assert_eq!((&frame.answers[0].id[..], frame.draining), (expected, true), "pieces of {cut}");
            }
            assert_eq!(incoming.message().now_or_never().unwrap().unwrap(), None);
        }
    }

    #[test]
    fn a_payload_is_a_part_of_the_piece_it_came_in() {
        let piece = frame(b"one");
        let message = incoming([data(piece.clone())]).message().now_or_never().unwrap().unwrap().unwrap();
        assert!(piece.as_ptr_range().contains(&message.answers[0].id.as_ptr()));
    }

    #[test]
    fn the_trailers_say_how_it_ended() {
        let status = Status::already_exists("hello.controller_id: it is \"taken\"");
        let got = incoming([trailers(&status)]).message().now_or_never().unwrap().unwrap_err();
        assert_eq!((got.code(), got.message()), (status.code(), status.message()));
        assert_eq!(code([trailers(&Status::ok(""))]), Code::Ok);
    }

    #[test]
    fn headers_alone_say_it_too() {
        let answer = |status: Status| Incoming::<v1::PushResponse>::new(status.into_http(), BYTES_MAX);
        assert_eq!(answer(Status::invalid_argument("hello")).unwrap_err().code(), Code::InvalidArgument);
        let mut empty = answer(Status::ok("")).unwrap();
        assert_eq!(empty.message().now_or_never().unwrap().unwrap(), None);
    }

    #[test]
    fn a_body_that_breaks_off_is_the_connections_fault() {
        let whole = frame(b"one");
        let part = || data(whole.slice(..whole.len() - 1));
        assert_eq!(code([part()]), Code::Internal);
        // Not in order, whatever the trailers say; but why it ended they know best.
        assert_eq!(code([part(), trailers(&Status::ok(""))]), Code::Internal);
        assert_eq!(code([part(), trailers(&Status::aborted(""))]), Code::Aborted);
        assert_eq!(code([part(), Err(Status::unavailable("reset"))]), Code::Unavailable);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let long = message(0, |to| to.extend_from_slice(&[0; BYTES_MAX + 1]));
        let status = incoming([data(long)]).message().now_or_never().unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::OutOfRange, "frame: 101 bytes, at most 100 are taken"));
        assert_eq!(code([data(vec![1, 0, 0, 0, 0])]), Code::Internal);
        assert_eq!(code([data(vec![0, 0, 0, 0, 1, 0xff])]), Code::Internal);
    }

    #[test]
    fn an_answer_that_is_to_be_compressed_is_refused() {
        let answer = |encoding| Response::builder().header("grpc-encoding", encoding).body(body([])).unwrap();
        let refused = Incoming::<v1::PushResponse>::new(answer("gzip"), BYTES_MAX).unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(Incoming::<v1::PushResponse>::new(answer("identity"), BYTES_MAX).is_ok());
    }

    /// In the codes, by which a broken connection is told from what the router says.
    #[test]
    fn it_ends_as_tonic_would_have_it() {
        let endings: [fn() -> Vec<Piece>; 9] = [
            Vec::new,
            || vec![Ok(Frame::trailers(HeaderMap::new()))],
            || vec![trailers(&Status::ok(""))],
            || vec![trailers(&Status::cancelled(""))],
            || vec![Err(Status::unknown("broken"))],
            || vec![data(vec![0, 0, 0])],
            || vec![data(vec![0, 0, 0, 0, 1, 0xff])],
            || vec![data(vec![1, 0, 0, 0, 0])],
            || vec![data(vec![0, 0, 0, 0, 101])],
        ];
        for http in (200..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
            for (place, pieces) in endings.iter().enumerate() {
                assert_eq!(ours(http, pieces()), theirs(http, pieces()), "ending {place} of {http}");
            }
        }
    }

    fn ours(http: StatusCode, pieces: Vec<Piece>) -> Result<Option<v1::PushResponse>, Code> {
        let mut answer = Response::new(body(pieces));
        *answer.status_mut() = http;
        let mut incoming = Incoming::new(answer, BYTES_MAX).unwrap();
        incoming.message().now_or_never().unwrap().map_err(|status| status.code())
    }

    fn theirs(http: StatusCode, pieces: Vec<Piece>) -> Result<Option<v1::PushResponse>, Code> {
        let decoder = ProstCodec::<(), _>::default().decoder();
        let mut streaming = Streaming::new_response(decoder, body(pieces), http, None, Some(BYTES_MAX));
        streaming.message().now_or_never().unwrap().map_err(|status| status.code())
    }

    #[test]
    fn a_receiver_may_be_shared_and_sent() {
        fn shared<T: Send + Sync + Unpin>() {}
        shared::<Incoming<v1::PushResponse>>();
    }
}
