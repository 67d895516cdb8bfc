//! How frames travel: between the bodies of a call and what readers and writers have. tonic would put a message of its own making, a copy
//! and an allocation in between, in either direction. Their frequent entries (activations and completions in, dispatches and answers out) are read in place and
//! written from what the engine has, all else goes by way of the messages that prost makes of the proto files. The bytes are the
//! same; what is saved is a struct, two reference counts and an allocation for each entry and direction.

mod incoming;
mod write;

pub(super) use incoming::Incoming;
pub(super) use proto::wire::read::{Activation, Completion, Span};

use super::convert;
use crate::outbox::Entry;
use bytes::{BufMut, Bytes};
use engine::id::ActivationId;
use prost::Message;
use proto::v1;
use proto::wire::message::message;
use proto::wire::read::{Field, Fields, Malformed, Value, split};
use proto::wire::room;
use std::collections::VecDeque;

/// A frame that came in.
#[derive(Debug)]
pub(super) struct Inbound<M: Request> {
    /// All of it, for the spans of its entries.
    pub(super) bytes: Bytes,
    /// Its frequent entries, which are missing in `rest`.
    pub(super) entries: Vec<M::Entry>,
    /// All else.
    pub(super) rest: M,
}

/// A message that comes in, with one list of frequent entries.
pub(super) trait Request: Message + Default {
    /// One of them.
    type Entry: Send;
    /// The list's field.
    const FIELD: u32;

    fn entry(frame: &[u8], message: Span) -> Result<Self::Entry, Malformed>;

    /// How many entries there are within the other entries, of which `rest` is made up.
    fn nested(_rest: &[u8]) -> Result<usize, Malformed> {
        Ok(0)
    }
}

impl Request for v1::PushRequest {
    type Entry = Activation;
    const FIELD: u32 = 3;

    fn entry(frame: &[u8], message: Span) -> Result<Activation, Malformed> {
        Activation::read(frame, message)
    }
}

impl Request for v1::PullRequest {
    type Entry = Completion;
    const FIELD: u32 = 4;

    fn entry(frame: &[u8], message: Span) -> Result<Completion, Malformed> {
        Completion::read(frame, message)
    }

    /// Ids that registrations state: an empty one takes 32 bytes where it took two on the wire.
    fn nested(rest: &[u8]) -> Result<usize, Malformed> {
        const REGISTERS: u32 = 2;
        const HELD: u32 = 7;
        let (mut fields, mut held) = (Fields::of(rest, Span::whole(rest)?), 0);
        while let Some(field) = fields.read()? {
            let Field { number: REGISTERS, value: Value::Bytes(register), .. } = field else { continue };
            let mut fields = Fields::of(rest, register);
            while let Some(field) = fields.read()? {
                held += usize::from(field.number == HELD);
            }
        }
        Ok(held)
    }
}

/// How large a frame may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes.
    pub(super) bytes_max: usize,
    /// Entries that are taken. Some more are refused one by one; with [`TIMES_TOO_MANY`] times as many it is not read: each takes more
    /// memory than its two bytes.
    pub(super) entries_max: usize,
}

const TIMES_TOO_MANY: usize = 16;

/// Why a frame is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    Malformed,
    TooManyEntries,
}

impl From<Malformed> for Unfit {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl<M: Request> Inbound<M> {
    fn read(bytes: Bytes, bounds: Bounds) -> Result<Self, Unfit> {
        let most = bounds.entries_max.saturating_mul(TIMES_TOO_MANY);
        let mut entries = Vec::with_capacity(room(bytes.len()));
        let rest = split(&bytes, M::FIELD, |span| {
            if entries.len() == most {
                return Err(Unfit::TooManyEntries);
            }
            entries.push(M::entry(&bytes, span)?);
            Ok(())
        })?;
        if rest.fields > most || M::nested(&rest.bytes)? > most {
            return Err(Unfit::TooManyEntries);
        }
        let rest = if rest.fields == 0 { M::default() } else { M::decode(rest.bytes).map_err(|_| Unfit::Malformed)? };
        Ok(Self { bytes, entries, rest })
    }
}

impl<M: Request> From<M> for Inbound<M> {
    /// A frame of which nothing came in, without frequent entries.
    fn from(rest: M) -> Self {
        Self { bytes: Bytes::new(), entries: Vec::new(), rest }
    }
}

/// The id that stands there, if it is as long as one.
pub(super) fn id(span: Span, frame: &Bytes) -> Option<ActivationId> {
    span.of(frame).try_into().ok().map(ActivationId)
}

/// A message that goes out.
pub(super) trait Response: Message {
    /// Writes an entry, which is of a kind that goes to this peer, into a frame of these messages.
    fn write(entry: &Entry, to: &mut impl BufMut);
}

impl Response for v1::PushResponse {
    fn write(entry: &Entry, to: &mut impl BufMut) {
        match entry {
            Entry::Answer(answer) => write::answer(2, answer, to),
            Entry::Refuse(refusal) => prost::encoding::message::encode(3, &convert::refusal(refusal.clone()), to),
            Entry::Draining => prost::encoding::bool::encode(4, &true, to),
            Entry::Dispatch(_) | Entry::Drain(..) => unreachable!("controllers run nothing"),
        }
    }
}

impl Response for v1::PullResponse {
    fn write(entry: &Entry, to: &mut impl BufMut) {
        match entry {
            Entry::Dispatch(dispatch) => write::dispatch(2, dispatch, to),
            Entry::Refuse(refusal) => prost::encoding::message::encode(3, &convert::refusal(refusal.clone()), to),
            Entry::Drain(container, epoch) => {
                prost::encoding::message::encode(4, &v1::Drain { container: *container, epoch: *epoch }, to);
            }
            // The router finishes what it has; its containers are told one by one when they are done with.
            Entry::Draining => {}
            Entry::Answer(_) => unreachable!("invokers ask for nothing"),
        }
    }
}

/// The frame that opens a stream, as it goes out.
pub(super) fn welcome(welcome: &impl Message) -> Bytes {
    message(welcome.encoded_len(), |to| welcome.encode_raw(to))
}

/// A frame of these entries, in this order, as it goes out.
pub(super) fn frame<M: Response>(entries: &VecDeque<Entry>) -> Bytes {
    message(entries.iter().map(Entry::bytes).sum(), |to| entries.iter().for_each(|entry| M::write(entry, to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::effect::Dispatch;
    use engine::id::ActivationId;
    use engine::outcome::{Answer, Outcome, Stages};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..most).prop_map(Bytes::from)
    }

    prop_compose! {
        fn activation()(
            id in bytes(20), action in any::<u32>(), time_left_ms in any::<u32>(), payload in bytes(300),
            reply in any::<i32>(), maybe_sent in any::<bool>(),
        ) -> v1::Activation {
            v1::Activation { id, action, time_left_ms, payload, reply, maybe_sent }
        }
    }

    prop_compose! {
        fn completion()(
            container in any::<u32>(), id in bytes(20), status in any::<i32>(), result in bytes(300), run_us in any::<u32>(),
            credits in any::<u32>(), epoch in any::<u32>(),
        ) -> v1::Completion {
            v1::Completion { container, id, status, result, run_us, credits, epoch }
        }
    }

    prop_compose! {
        fn push_request()(
            activations in vec(activation(), 0..4), numbers in vec(any::<u32>(), 0..3), outstanding in vec(bytes(20), 0..3),
        ) -> v1::PushRequest {
            let declares = numbers.into_iter().map(|number| v1::DeclareAction { number, key: None }).collect();
            v1::PushRequest { hello: None, declares, activations, outstanding }
        }
    }

    prop_compose! {
        fn pull_request()(
            completions in vec(completion(), 0..4), numbers in vec(any::<u32>(), 0..3), rejoined in any::<bool>(),
        ) -> v1::PullRequest {
            let credits = numbers.into_iter().map(|container| v1::Credit { container, ..Default::default() }).collect();
            v1::PullRequest { completions, credits, rejoined, ..Default::default() }
        }
    }

    fn read<M: Request>(bytes: Bytes) -> Result<Inbound<M>, Malformed> {
        let bounds = Bounds { bytes_max: usize::MAX, entries_max: usize::MAX };
        Inbound::read(bytes, bounds).map_err(|why| {
            assert_eq!(why, Unfit::Malformed);
            Malformed
        })
    }

    /// As prost would have read it.
    fn pushed(bytes: Bytes) -> Result<v1::PushRequest, Malformed> {
        let Inbound { bytes, entries, rest } = read::<v1::PushRequest>(bytes)?;
        assert!(rest.activations.is_empty());
        let activations = entries.into_iter().map(|entry| {
            let Activation { id, action, time_left_ms, payload, reply, maybe_sent } = entry;
            v1::Activation {
                id: id.share(&bytes),
                action,
                time_left_ms,
                payload: payload.share(&bytes),
                reply,
                maybe_sent,
            }
        });
        Ok(v1::PushRequest { activations: activations.collect(), ..rest })
    }

    fn pulled(bytes: Bytes) -> Result<v1::PullRequest, Malformed> {
        let Inbound { bytes, entries, rest } = read::<v1::PullRequest>(bytes)?;
        assert!(rest.completions.is_empty());
        let completions = entries.into_iter().map(|entry| {
            let Completion { container, id, status, result, run_us, credits, epoch } = entry;
            let (id, result) = (id.share(&bytes), result.share(&bytes));
            v1::Completion { container, id, status, result, run_us, credits, epoch }
        });
        Ok(v1::PullRequest { completions: completions.collect(), ..rest })
    }

    fn same<M: Message + Default + PartialEq + std::fmt::Debug>(
        bytes: Vec<u8>,
        read: fn(Bytes) -> Result<M, Malformed>,
    ) {
        let bytes = Bytes::from(bytes);
        assert_eq!(read(bytes.clone()), M::decode(bytes).map_err(|_| Malformed));
    }

    #[test]
    fn registrations_that_state_far_too_many_ids_are_not_read() {
        let bounds = Bounds { bytes_max: usize::MAX, entries_max: 2 };
        for (ids, fits) in [(2 * TIMES_TOO_MANY, true), (2 * TIMES_TOO_MANY + 1, false)] {
            let halves = [ids / 2, ids - ids / 2];
            let register = |ids| v1::Register { held: vec![Bytes::new(); ids], ..Default::default() };
            let frame = v1::PullRequest { registers: halves.map(register).into(), ..Default::default() };
            let read = Inbound::<v1::PullRequest>::read(frame.encode_to_vec().into(), bounds);
            assert_eq!(read.err(), (!fits).then_some(Unfit::TooManyEntries), "{ids} ids");
        }
    }

    proptest! {
        #[test]
        fn frames_are_read_as_prost_reads_them(push in push_request(), pull in pull_request()) {
            same(push.encode_to_vec(), pushed);
            same(pull.encode_to_vec(), pulled);
        }

        /// One byte changed, cut off anywhere, noise behind: both take it alike or both refuse it.
        #[test]
        fn damaged_frames_are_refused_when_prost_refuses_them(
            push in push_request(), pull in pull_request(), at in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(), change in 1..=255_u8, noise in vec(any::<u8>(), 0..20),
        ) {
            let damage = |mut bytes: Vec<u8>| {
                bytes.extend(&noise);
                bytes.push(0);
                let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
                bytes[at] ^= change;
                [bytes[..cut].to_vec(), bytes]
            };
            damage(push.encode_to_vec()).into_iter().for_each(|bytes| same(bytes, pushed));
            damage(pull.encode_to_vec()).into_iter().for_each(|bytes| same(bytes, pulled));
        }

        #[test]
        fn answers_are_written_as_prost_writes_them(
            id in any::<[u8; 16]>(), result in bytes(300), which in 0..6_usize, stages in any::<[u32; 3]>(),
            small in any::<bool>(),
        ) {
            let outcomes = [
                Outcome::Completed(result.clone()), Outcome::ActionFailed(result.clone()),
                Outcome::PlatformFailed(result), Outcome::Expired, Outcome::Lost, Outcome::TimedOut,
            ];
            let [queue_us, dispatch_us, run_us] = stages.map(|us| if small { us % 200 } else { us });
            let stages = Stages { queue_us, dispatch_us, run_us };
            let answer = Answer { id: ActivationId(id), outcome: outcomes[which].clone(), stages };
            let message = v1::PushResponse { answers: vec![convert::answer(answer.clone())], ..Default::default() };
            let mut written = Vec::new();
            v1::PushResponse::write(&Entry::Answer(answer), &mut written);
            prop_assert_eq!(written, message.encode_to_vec());
        }

        #[test]
        fn dispatches_are_written_as_prost_writes_them(
            id in any::<[u8; 16]>(), payload in bytes(300), numbers in any::<[u32; 4]>(), small in any::<bool>(),
        ) {
            let [container, epoch, time_left_ms, attempt] = numbers.map(|number| if small { number % 200 } else { number });
            let wire_id = Bytes::copy_from_slice(&id);
            let dispatch = v1::Dispatch { container, id: wire_id, time_left_ms, payload: payload.clone(), attempt, epoch };
            let message = v1::PullResponse { dispatches: vec![dispatch], ..Default::default() };
            let dispatch = Dispatch { container, epoch, id: ActivationId(id), time_left_ms, payload, attempt };
            let mut written = Vec::new();
            v1::PullResponse::write(&Entry::Dispatch(dispatch), &mut written);
            prop_assert_eq!(written, message.encode_to_vec());
        }
    }
}
