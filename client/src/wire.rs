//! How frames travel: entries of which there are many are read and written without what prost does for each; see [`proto::wire`].
//! The bytes are the same, and a test holds it to that.

use crate::inlet::FRAME_READ_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use prost::Message;
use prost::encoding::message;
use proto::v1;
use proto::wire::read::{self, Malformed, Span, split};
use proto::wire::room;
use proto::wire::write::{Entry, ID_BYTES_MAX};
use std::marker::PhantomData;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Opens a stream of that name.
///
/// # Cancel safety
/// Dropping it half-way resets the stream.
pub(crate) async fn call<Up: UpFrame + Send + 'static, Down: DownFrame + Send + 'static>(
    channel: Channel,
    path: &'static str,
    body: impl Stream<Item = Up> + Send + 'static,
) -> Result<Response<Streaming<Down>>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(FRAME_READ_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unknown(format!("the connection was not ready: {error}")))?;
    grpc.streaming(Request::new(body), PathAndQuery::from_static(path), FrameCodec::default()).await
}

/// A message that goes up.
pub(crate) trait UpFrame: Message + Default {
    /// What it has many of.
    type Entry: Message;
    /// The field of their list.
    const FIELD: u8;

    /// Takes them out.
    fn take_entries(&mut self) -> Vec<Self::Entry>;

    /// The bytes of one's payload.
    fn payload_len(entry: &Self::Entry) -> usize;

    /// Writes one, unless that is left to prost.
    fn write(entry: &Self::Entry, to: &mut impl BufMut) -> Result<(), LeaveToProst>;
}

/// It is such as nobody who means well sends.
pub(crate) struct LeaveToProst;

impl UpFrame for v1::PushRequest {
    type Entry = v1::Activation;
    const FIELD: u8 = 3;

    fn take_entries(&mut self) -> Vec<v1::Activation> {
        std::mem::take(&mut self.activations)
    }

    fn payload_len(entry: &v1::Activation) -> usize {
        entry.payload.len()
    }

    fn write(entry: &v1::Activation, to: &mut impl BufMut) -> Result<(), LeaveToProst> {
        let v1::Activation { id, action, time_left_ms, payload, reply, maybe_sent } = entry;
        let behind = [(5, number(*reply)?), (6, (*maybe_sent).into())];
        let before = [(2, *action), (3, *time_left_ms)];
        Entry { first: [], id: (1, usual(id)?), before, payload: (4, payload), behind }.write(Self::FIELD, to);
        Ok(())
    }
}

impl UpFrame for v1::PullRequest {
    type Entry = v1::Completion;
    const FIELD: u8 = 4;

    fn take_entries(&mut self) -> Vec<v1::Completion> {
        std::mem::take(&mut self.completions)
    }

    fn payload_len(entry: &v1::Completion) -> usize {
        entry.result.len()
    }

    fn write(entry: &v1::Completion, to: &mut impl BufMut) -> Result<(), LeaveToProst> {
        let v1::Completion { container, id, status, result, run_us, credits, epoch } = entry;
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

/// Reads and writes the frames of one kind of stream.
#[derive(Debug)]
pub(crate) struct FrameCodec<Up, Down>(PhantomData<fn(Up) -> Down>);

impl<Up, Down> Default for FrameCodec<Up, Down> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Up: UpFrame + Send + 'static, Down: DownFrame + Send + 'static> Codec for FrameCodec<Up, Down> {
    type Encode = Up;
    type Decode = Down;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<Up: UpFrame, Down> Encoder for FrameCodec<Up, Down> {
    type Item = Up;
    type Error = Status;

    fn encode(&mut self, mut frame: Up, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let entries = frame.take_entries();
        let overhead = Entry::<1, 1, 3>::OVERHEAD;
        to.reserve(frame.encoded_len() + entries.iter().map(|entry| Up::payload_len(entry) + overhead).sum::<usize>());
        write(frame, &entries, to);
        Ok(())
    }
}

fn write<Up: UpFrame>(rest: Up, entries: &[Up::Entry], to: &mut impl BufMut) {
    rest.encode_raw(to);
    for entry in entries {
        if let Err(LeaveToProst) = Up::write(entry, to) {
            message::encode(Up::FIELD.into(), entry, to);
        }
    }
}

impl<Up, Down: DownFrame> Decoder for FrameCodec<Up, Down> {
    type Item = Down;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Down>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        // As prost has it.
        read(&bytes).map(Some).map_err(|Malformed| Status::internal("frame: not what the proto files say"))
    }
}

fn read<Down: DownFrame>(frame: &Bytes) -> Result<Down, Malformed> {
    let mut message = Down::default();
    message.reserve(frame.len());
    let rest = split(frame, Down::LIST, |span| message.put(frame, span))?;
    if !rest.is_empty() {
        message.merge(rest).map_err(|_| Malformed)?;
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn written<Up: UpFrame + Clone>(frame: &Up) -> Bytes {
        let (mut rest, mut to) = (frame.clone(), Vec::new());
        let entries = rest.take_entries();
        write(rest, &entries, &mut to);
        to.into()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_prost(
            activations in vec(activation(), 0..4), completions in vec(completion(), 0..4), numbers in vec(number(), 0..3),
        ) {
            let declares = numbers.iter().map(|&number| v1::DeclareAction { number, key: None }).collect();
            let push = v1::PushRequest { activations, declares, ..Default::default() };
            prop_assert_eq!(v1::PushRequest::decode(written(&push)), Ok(push));
            let credits = numbers.iter().map(|&container| v1::Credit { container, ..Default::default() }).collect();
            let pull = v1::PullRequest { completions, credits, ..Default::default() };
            prop_assert_eq!(v1::PullRequest::decode(written(&pull)), Ok(pull));
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
