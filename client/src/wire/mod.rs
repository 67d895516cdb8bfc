//! How frames travel: in the bodies of a call, which are read and written here and not by tonic's codec, which would copy each once
//! more. Entries of which there are many are read and written without what prost does for each; see [`proto::wire`]. The bytes are the
//! same, and a test holds it to that. It may not look into what it carries.

mod draft;
mod incoming;

pub(crate) use draft::Draft;
pub(crate) use incoming::Incoming;

use crate::inlet::FRAME_READ_BYTES_MAX;
use crate::outlet::{self, Body};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::v1;
use proto::wire::read::{self, Malformed, Span, split};
use proto::wire::room;
use proto::wire::write::{Entry, ID_BYTES_MAX};
use std::fmt::Debug;
use std::future::poll_fn;
use tonic::Status;
use tonic::codegen::Service;
use tonic::codegen::http::header::{CONTENT_TYPE, TE};
use tonic::codegen::http::{HeaderValue, Method, Request, Uri, Version};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::transport::Channel;

/// Opens a stream.
///
/// # Cancel safety
/// Dropping it half-way resets the stream; so does dropping what it returns, once the outlet is closed and empty.
pub(crate) async fn call<Up: UpFrame>(
    mut channel: Channel,
    body: Body<Draft<Up>>,
) -> Result<Incoming<Up::Answer>, Status> {
    let ready = poll_fn(|cx| channel.poll_ready(cx)).await;
    ready.map_err(|error| Status::unknown(format!("the connection was not ready: {error}")))?;
    let answer = channel.call(request(Up::PATH, body)).await;
    Incoming::new(answer.map_err(|error| Status::from_error(error.into()))?, FRAME_READ_BYTES_MAX)
}

/// As gRPC has it; the channel adds where to and who asks.
fn request(path: &'static str, body: Body<impl outlet::Frame>) -> Request<tonic::body::Body> {
    let mut request = Request::new(tonic::body::Body::new(body));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    request
}

/// A message that goes up.
pub(crate) trait UpFrame: Message + Default + Debug + PartialEq + Unpin + 'static {
    /// The call it is for.
    const PATH: &'static str;
    /// What comes down.
    type Answer: DownFrame;
    /// What it is made of.
    type Entry: outlet::Entry + Debug + Send + 'static;
    /// What it has many of.
    type Frequent: Frequent;

    /// Adds `entry` to a frame, or gives it back when the receiver would handle it before an earlier one that must come first. An
    /// empty frame takes anything.
    fn put(draft: &mut Draft<Self>, entry: Self::Entry, to: &mut BytesMut) -> Result<(), Self::Entry>;
}

/// An entry of which there are many.
pub(crate) trait Frequent: Message {
    /// The field of their list.
    const FIELD: u8;
    /// Bytes that it takes at most, besides its payload.
    const OVERHEAD: usize = Entry::<1, 1, 3>::OVERHEAD;

    /// The number of what it is about, by which it keeps its place among other entries.
    fn about(&self) -> u32;

    /// Writes it, unless that is left to prost.
    fn write(&self, to: &mut impl BufMut) -> Result<(), LeaveToProst>;
}

/// It is such as nobody who means well sends.
pub(crate) struct LeaveToProst;

impl Frequent for v1::Activation {
    const FIELD: u8 = 3;

    fn about(&self) -> u32 {
        self.action
    }

    fn write(&self, to: &mut impl BufMut) -> Result<(), LeaveToProst> {
        let Self { id, action, time_left_ms, payload, reply, maybe_sent } = self;
        let behind = [(5, number(*reply)?), (6, (*maybe_sent).into())];
        let before = [(2, *action), (3, *time_left_ms)];
        Entry { first: [], id: (1, usual(id)?), before, payload: (4, payload), behind }.write(Self::FIELD, to);
        Ok(())
    }
}

impl Frequent for v1::Completion {
    const FIELD: u8 = 4;

    fn about(&self) -> u32 {
        self.container
    }

    fn write(&self, to: &mut impl BufMut) -> Result<(), LeaveToProst> {
        let Self { container, id, status, result, run_us, credits, epoch } = self;
        let (first, before) = ([(1, *container)], [(3, number(*status)?)]);
        let behind = [(5, *run_us), (6, *credits), (7, *epoch)];
        Entry { first, id: (2, usual(id)?), before, payload: (4, result), behind }.write(Self::FIELD, to);
        Ok(())
    }
}

fn usual(id: &Bytes) -> Result<&[u8], LeaveToProst> {
    if (1..=ID_BYTES_MAX).contains(&id.len()) { Ok(id) } else { Err(LeaveToProst) }
}

fn number(value: i32) -> Result<u32, LeaveToProst> {
    u32::try_from(value).map_err(|_| LeaveToProst)
}

/// A message that comes down.
pub(crate) trait DownFrame: Message + Default {
    /// The field of the list of which it has many.
    const LIST: u32;

    /// Makes room for the list of a frame of that many bytes.
    fn reserve(&mut self, frame_bytes: usize);

    /// Reads one that stands there.
    fn put(&mut self, frame: &Bytes, span: Span) -> Result<(), Malformed>;
}

impl DownFrame for v1::PushResponse {
    const LIST: u32 = 2;

    fn reserve(&mut self, frame_bytes: usize) {
        self.answers.reserve(room(frame_bytes));
    }

    fn put(&mut self, frame: &Bytes, span: Span) -> Result<(), Malformed> {
        let answer = read::Answer::read(frame, span)?;
        let read::Answer { id, outcome, result, queue_us, dispatch_us, run_us, rejection, durability } = answer;
        self.answers.push(if rejection == Span::default() {
            let (id, result, rejection) = (id.share(frame), result.share(frame), None);
            v1::Answer { id, outcome, result, queue_us, dispatch_us, run_us, rejection, durability }
        } else {
            v1::Answer::decode(span.share(frame)).map_err(|_| Malformed)?
        });
        Ok(())
    }
}

impl DownFrame for v1::PullResponse {
    const LIST: u32 = 2;

    fn reserve(&mut self, frame_bytes: usize) {
        self.dispatches.reserve(room(frame_bytes));
    }

    fn put(&mut self, frame: &Bytes, span: Span) -> Result<(), Malformed> {
        let read::Dispatch { container, id, time_left_ms, payload, attempt, epoch } =
            read::Dispatch::read(frame, span)?;
        let (id, payload) = (id.share(frame), payload.share(frame));
        self.dispatches.push(v1::Dispatch { container, id, time_left_ms, payload, attempt, epoch });
        Ok(())
    }
}

fn read<Down: DownFrame>(frame: &Bytes) -> Result<Down, Malformed> {
    let mut message = Down::default();
    message.reserve(frame.len());
    let rest = split(frame, Down::LIST, |span| message.put(frame, span))?;
    if !rest.bytes.is_empty() {
        message.merge(rest.bytes).map_err(|_| Malformed)?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlet::Frame;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..most).prop_map(Bytes::from)
    }

    /// Short ones too, since most are.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0..200_u32, any::<u32>()]
    }

    fn choice() -> impl Strategy<Value = i32> {
        prop_oneof![0..9_i32, any::<i32>()]
    }

    prop_compose! {
        fn activation()(
            id in bytes(20), action in number(), time_left_ms in number(), payload in bytes(300), reply in choice(),
            maybe_sent in any::<bool>(),
        ) -> v1::Activation {
            v1::Activation { id, action, time_left_ms, payload, reply, maybe_sent }
        }
    }

    prop_compose! {
        fn completion()(
            container in number(), id in bytes(20), status in choice(), result in bytes(300), run_us in number(),
            credits in number(), epoch in number(),
        ) -> v1::Completion {
            v1::Completion { container, id, status, result, run_us, credits, epoch }
        }
    }

    prop_compose! {
        fn answer()(
            id in bytes(20), outcome in choice(), result in bytes(300), queue_us in number(), dispatch_us in number(),
            run_us in number(), limit in prop::option::of(any::<u64>()), durability in choice(),
        ) -> v1::Answer {
            let rejection = limit.map(|limit| Box::new(v1::Rejection { limit, field: "id".into(), ..Default::default() }));
            v1::Answer { id, outcome, result, queue_us, dispatch_us, run_us, rejection, durability }
        }
    }

    prop_compose! {
        fn dispatch()(
            container in number(), id in bytes(20), time_left_ms in number(), payload in bytes(300), attempt in number(),
            epoch in number(),
        ) -> v1::Dispatch {
            v1::Dispatch { container, id, time_left_ms, payload, attempt, epoch }
        }
    }

    prop_compose! {
        fn push_response()(answers in vec(answer(), 0..4), draining in any::<bool>()) -> v1::PushResponse {
            v1::PushResponse { answers, draining, ..Default::default() }
        }
    }

    prop_compose! {
        fn pull_response()(dispatches in vec(dispatch(), 0..4), welcome in any::<bool>()) -> v1::PullResponse {
            let welcome = welcome.then(|| v1::Welcome { router_id: Bytes::from_static(b"r"), ..Default::default() });
            v1::PullResponse { dispatches, welcome, ..Default::default() }
        }
    }

    fn written<Up: UpFrame>(entries: &[Up::Frequent], rest: Up) -> Bytes {
        let (mut draft, mut to) = (Draft::default(), BytesMut::new());
        draft.rest = rest;
        entries.iter().for_each(|entry| draft.write(entry, &mut to));
        draft.finish(&mut to);
        assert!(draft.is_empty());
        to.freeze()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_prost(
            activations in vec(activation(), 0..4), completions in vec(completion(), 0..4), numbers in vec(number(), 0..3),
        ) {
            let declares = numbers.iter().map(|&number| v1::DeclareAction { number, key: None }).collect();
            let rest = v1::PushRequest { declares, ..Default::default() };
            let bytes = written(&activations, rest.clone());
            prop_assert_eq!(v1::PushRequest::decode(bytes), Ok(v1::PushRequest { activations, ..rest }));
            let credits = numbers.iter().map(|&container| v1::Credit { container, ..Default::default() }).collect();
            let rest = v1::PullRequest { credits, ..Default::default() };
            let bytes = written(&completions, rest.clone());
            prop_assert_eq!(v1::PullRequest::decode(bytes), Ok(v1::PullRequest { completions, ..rest }));
        }

        /// As they are, and with one byte changed, cut off anywhere, noise behind: taken alike or refused alike.
        #[test]
        fn frames_are_read_as_prost_reads_them(
            push in push_response(), pull in pull_response(), at in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(), change in 1..=255_u8, noise in vec(any::<u8>(), 0..20),
        ) {
            let damaged = |whole: Vec<u8>| {
                let mut bytes = [&whole[..], &noise, &[0]].concat();
                let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
                bytes[at] ^= change;
                [whole, bytes[..cut].to_vec(), bytes].map(Bytes::from)
            };
            for bytes in damaged(push.encode_to_vec()) {
                prop_assert_eq!(read(&bytes), v1::PushResponse::decode(bytes).map_err(|_| Malformed));
            }
            for bytes in damaged(pull.encode_to_vec()) {
                prop_assert_eq!(read(&bytes), v1::PullResponse::decode(bytes).map_err(|_| Malformed));
            }
        }
    }
}
