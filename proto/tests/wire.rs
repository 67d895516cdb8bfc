//! What must stay true of the bytes on the wire while peers of several versions talk: numbers, types, what is skipped, what
//! is assumed, what is documented. Says nothing of what the router does with a message.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use prost_types::{FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto};
use proto::v1;
use std::collections::BTreeSet;
use std::fmt::Debug;

// Round trips.

/// Any value that the type can hold, whether or not a router would take it.
trait Sample: Debug + Sized {
    fn any() -> BoxedStrategy<Self>;
}

macro_rules! sample {
    ($($type:ty),*) => { $(
        impl Sample for $type {
            fn any() -> BoxedStrategy<Self> {
                proptest::arbitrary::any::<$type>().boxed()
            }
        }
    )* };
}

// An `i32` is the number of an enum's value: any, since a newer peer may know more of them.
sample!(bool, i32, u32, u64);

impl Sample for Bytes {
    fn any() -> BoxedStrategy<Self> {
        vec(proptest::arbitrary::any::<u8>(), 0..40).prop_map(Self::from).boxed()
    }
}

impl<T: Sample + 'static> Sample for Vec<T> {
    fn any() -> BoxedStrategy<Self> {
        vec(T::any(), 0..4).boxed()
    }
}

impl<T: Sample + 'static> Sample for Option<T> {
    fn any() -> BoxedStrategy<Self> {
        proptest::option::of(T::any()).boxed()
    }
}

impl<T: Sample + 'static> Sample for Box<T> {
    fn any() -> BoxedStrategy<Self> {
        T::any().prop_map(Self::new).boxed()
    }
}

/// Calls `$each!` with every message and all of its fields: with one missing it does not compile.
macro_rules! every_message {
    ($each:ident) => {
        $each! {
            action_key: ActionKey { namespace, action, revision }
            rejection: Rejection { reason, field, limit, retry_after_ms }
            refusal: Refusal { reason, field, limit, number, id }
            push_request: PushRequest { hello, declares, activations, outstanding }
            controller_hello: ControllerHello { controller_id, session }
            declare_action: DeclareAction { number, key }
            activation: Activation { id, action, time_left_ms, payload, reply, maybe_sent }
            push_response: PushResponse { welcome, answers, refusals, draining }
            answer: Answer { id, outcome, result, queue_us, dispatch_us, run_us, rejection, durability }
            welcome: Welcome {
                router_id, payload_bytes_max, frame_entries_max, frame_bytes_max, session, resumed, grace_ms
            }
            invoke_request: InvokeRequest { key, id, time_left_ms, payload, reply }
            invoke_response: InvokeResponse { answer }
            pull_request: PullRequest {
                hello, registers, credits, completions, returns, leaves, rejoined, audits
            }
            invoker_hello: InvokerHello { invoker_id, session }
            register: Register { container, key, concurrency, credits, warm, epoch, held }
            credit: Credit { container, credits, epoch }
            audit: Audit { container, epoch, credits, received }
            completion: Completion { container, id, status, result, run_us, credits, epoch }
            give_back: Return { container, id, payload, epoch }
            leave: Leave { container, gone, epoch }
            pull_response: PullResponse { welcome, dispatches, refusals, drains }
            dispatch: Dispatch { container, id, time_left_ms, payload, attempt, epoch }
            drain: Drain { container, epoch }
        }
    };
}

macro_rules! messages {
    ($($test:ident: $message:ident { $($field:ident),* })*) => {
        $(
            impl Sample for v1::$message {
                fn any() -> BoxedStrategy<Self> {
                    $(let $field = Sample::any();)*
                    ($($field,)*).prop_map(|($($field,)*)| Self { $($field),* }).boxed()
                }
            }
        )*

        const MESSAGES: &[&str] = &[$(stringify!($message)),*];

        mod round_trip {
            use super::*;

            proptest! { $(
                #[test]
                fn $test(message in v1::$message::any()) {
                    let bytes = message.encode_to_vec();
                    prop_assert_eq!(bytes.len(), message.encoded_len());
                    prop_assert_eq!(v1::$message::decode(&bytes[..]), Ok(message));
                }
            )* }
        }

        mod fields_of_a_newer_peer_are_skipped {
            use super::*;

            proptest! { $(
                #[test]
                fn $test(message in v1::$message::any(), before in unknown_fields(), behind in unknown_fields()) {
                    let bytes = [before, message.encode_to_vec(), behind].concat();
                    prop_assert_eq!(v1::$message::decode(&bytes[..]), Ok(message));
                }
            )* }
        }

        mod an_older_peer_sent_nothing {
            use super::*;

            $(
                #[test]
                fn $test() {
                    assert_eq!(v1::$message::decode(&[][..]), Ok(v1::$message::default()));
                    assert_eq!(v1::$message::default().encode_to_vec(), [0_u8; 0], "defaults cost nothing");
                }
            )*
        }

        mod a_decoder_survives {
            use super::*;

            proptest! { $(
                #[test]
                fn $test(noise in vec(proptest::arbitrary::any::<u8>(), 0..300)) {
                    survives::<v1::$message>(&noise);
                }
            )* }
        }
    };
}

every_message!(messages);

#[test]
fn every_message_of_the_files_is_tested_here() {
    let files = files();
    let declared: BTreeSet<&str> =
        files.iter().flat_map(|file| &file.message_type).map(DescriptorProto::name).collect();
    assert_eq!(declared, MESSAGES.iter().copied().collect());
}

/// Fields under numbers that no message has, of every wire type: varint, 64 bits, bytes, group, 32 bits.
fn unknown_fields() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![10..=15_u32, Just(16), 100..20_000_u32, Just((1 << 29) - 1)];
    let field = (number, proptest::arbitrary::any::<u64>(), 0..5_u32).prop_map(|(number, value, kind)| {
        let tag = |wire_type| varint(u64::from(number << 3 | wire_type));
        match kind {
            0 => [tag(0), varint(value)].concat(),
            1 => [tag(1), value.to_le_bytes().to_vec()].concat(),
            2 => [tag(2), varint(8), value.to_le_bytes().to_vec()].concat(),
            3 => [tag(3), vec![0x08, 0x2a], tag(4)].concat(),
            _ => [tag(5), vec![1, 2, 3, 4]].concat(),
        }
    });
    vec(field, 0..4).prop_map(|fields| fields.concat())
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

// Bytes that mean nothing.

/// Reads bytes as a message. What can be read, can be written and read again; the rest is an error, never a panic.
fn survives<M: Message + Default + PartialEq + Debug>(noise: &[u8]) {
    if let Ok(message) = M::decode(noise) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]), Ok(message));
    }
}

proptest! {
    /// Noise alone rarely gets past the first tag: here are frames with one byte changed, cut off anywhere.
    #[test]
    fn a_decoder_survives_damaged_frames(
        push in v1::PushRequest::any(),
        pull in v1::PullRequest::any(),
        at in proptest::arbitrary::any::<prop::sample::Index>(),
        cut in proptest::arbitrary::any::<prop::sample::Index>(),
        change in 1..=255_u8,
    ) {
        let damage = |mut bytes: Vec<u8>| {
            bytes.push(0);
            let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
            bytes[at] ^= change;
            [bytes[..cut].to_vec(), bytes]
        };
        damage(push.encode_to_vec()).iter().for_each(|bytes| survives::<v1::PushRequest>(bytes));
        damage(pull.encode_to_vec()).iter().for_each(|bytes| survives::<v1::PullRequest>(bytes));
    }
}

#[test]
fn groups_in_groups_end_in_an_error_not_in_a_full_stack() {
    // Tag 0x5b opens a group under number 11.
    assert!(v1::PushRequest::decode(&[0x5b; 1 << 20][..]).is_err());
}

#[test]
fn a_length_beyond_the_frame_is_an_error_and_reserves_nothing() {
    // Field 3, and 2^62 bytes of it.
    let bytes = [vec![0x1a], varint(1 << 62)].concat();
    assert!(v1::PushRequest::decode(&bytes[..]).is_err());
}

// Golden bytes.

/// Both ways between a message and bytes written as hex, with comments behind `#`.
#[track_caller]
fn golden<M: Message + Default + PartialEq + Debug>(message: &M, hex: &str) {
    let bytes = bytes_of(hex);
    assert_eq!(M::decode(&bytes[..]).as_ref(), Ok(message), "read");
    assert_eq!(message.encode_to_vec(), bytes, "written");
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let codes = hex.lines().map(|line| line.split('#').next().unwrap_or_default()).flat_map(str::split_whitespace);
    codes.map(|code| u8::from_str_radix(code, 16).expect("two hex digits")).collect()
}

fn key() -> Option<v1::ActionKey> {
    Some(v1::ActionKey { namespace: "ns".into(), action: "a".into(), revision: "r1".into() })
}

#[test]
fn golden_push_request() {
    let frame = v1::PushRequest {
        hello: Some(v1::ControllerHello { controller_id: "c1".into(), session: "s".into() }),
        declares: vec![v1::DeclareAction { number: 7, key: key() }],
        activations: vec![v1::Activation {
            id: (0..16).collect(),
            action: 7,
            time_left_ms: 60_000,
            payload: "{}".into(),
            reply: v1::Reply::Accepted as i32,
            maybe_sent: true,
        }],
        outstanding: vec![vec![0xaa].into()],
    };
    golden(&frame, PUSH_REQUEST);
}

/// A tag is the field's number times 8, plus 0 for a varint and 2 for bytes with their length in front.
const PUSH_REQUEST: &str = "
    0a 07               # 1 hello, 7 bytes
      0a 02 63 31       #   1 controller_id: c1
      12 01 73          #   2 session: s
    12 0f               # 2 declares, 15 bytes
      08 07             #   1 number: 7
      12 0b             #   2 key, 11 bytes
        0a 02 6e 73     #     1 namespace: ns
        12 01 61        #     2 action: a
        1a 02 72 31     #     3 revision: r1
    1a 20               # 3 activations, 32 bytes
      0a 10             #   1 id, 16 bytes
        00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
      10 07             #   2 action: 7
      18 e0 d4 03       #   3 time_left_ms: 0x60 + (0x54 << 7) + (3 << 14) = 60,000
      22 02 7b 7d       #   4 payload: {}
      28 01             #   5 reply: ACCEPTED
      30 01             #   6 maybe_sent: true
    22 01 aa            # 4 outstanding: aa
";

#[test]
fn golden_push_response() {
    let frame = v1::PushResponse {
        welcome: Some(v1::Welcome {
            router_id: "r0".into(),
            payload_bytes_max: 1,
            frame_entries_max: 2,
            frame_bytes_max: 3,
            session: "s".into(),
            resumed: true,
            grace_ms: 4,
        }),
        answers: vec![v1::Answer {
            id: vec![0xaa].into(),
            outcome: v1::Outcome::Rejected as i32,
            result: "ok".into(),
            queue_us: 1,
            dispatch_us: 2,
            run_us: 300,
            rejection: Some(Box::new(v1::Rejection {
                reason: v1::Reason::QueueFull as i32,
                field: "f".into(),
                limit: 1 << 35,
                retry_after_ms: 9,
            })),
            durability: v1::Durability::Durable as i32,
        }],
        refusals: vec![v1::Refusal {
            reason: v1::Reason::Repeated as i32,
            field: "f".into(),
            limit: 1,
            number: 2,
            id: vec![0xbb].into(),
        }],
        draining: true,
    };
    golden(&frame, PUSH_RESPONSE);
}

const PUSH_RESPONSE: &str = "
    0a 11               # 1 welcome, 17 bytes
      0a 02 72 30       #   1 router_id: r0
      10 01             #   2 payload_bytes_max: 1
      18 02             #   3 frame_entries_max: 2
      20 03             #   4 frame_bytes_max: 3
      2a 01 73          #   5 session: s
      30 01             #   6 resumed: true
      38 04             #   7 grace_ms: 4
    12 22               # 2 answers, 34 bytes
      0a 01 aa          #   1 id: aa
      10 05             #   2 outcome: REJECTED
      1a 02 6f 6b       #   3 result: ok
      20 01             #   4 queue_us: 1
      28 02             #   5 dispatch_us: 2
      30 ac 02          #   6 run_us: 0x2c + (2 << 7) = 300
      3a 0e             #   7 rejection, 14 bytes
        08 0b           #     1 reason: QUEUE_FULL
        12 01 66        #     2 field: f
        18 80 80 80 80 80 01    # 3 limit: 1 << 35
        20 09           #     4 retry_after_ms: 9
      40 02             #   8 durability: DURABLE
    1a 0c               # 3 refusals, 12 bytes
      08 19             #   1 reason: REPEATED
      12 01 66          #   2 field: f
      18 01             #   3 limit: 1
      20 02             #   4 number: 2
      2a 01 bb          #   5 id: bb
    20 01               # 4 draining: true
";

#[test]
fn golden_pull_request() {
    let frame = v1::PullRequest {
        hello: Some(v1::InvokerHello { invoker_id: "i1".into(), session: "s".into() }),
        registers: vec![v1::Register {
            container: 1,
            key: key(),
            concurrency: 2,
            credits: 3,
            warm: true,
            epoch: 4,
            held: vec![vec![0xaa].into()],
        }],
        credits: vec![v1::Credit { container: 1, credits: 4, epoch: 5 }],
        completions: vec![v1::Completion {
            container: 1,
            id: vec![0xaa].into(),
            status: v1::RunStatus::PlatformFailed as i32,
            result: "ok".into(),
            run_us: 5,
            credits: 6,
            epoch: 7,
        }],
        returns: vec![v1::Return { container: 1, id: vec![0xbb].into(), payload: "{}".into(), epoch: 4 }],
        leaves: vec![v1::Leave { container: 1, gone: true, epoch: 3 }],
        rejoined: true,
        audits: vec![v1::Audit { container: 1, epoch: 2, credits: 3, received: 4 }],
    };
    golden(&frame, PULL_REQUEST);
}

const PULL_REQUEST: &str = "
    0a 07               # 1 hello, 7 bytes
      0a 02 69 31       #   1 invoker_id: i1
      12 01 73          #   2 session: s
    12 1a               # 2 registers, 26 bytes
      08 01             #   1 container: 1
      12 0b             #   2 key, 11 bytes
        0a 02 6e 73     #     1 namespace: ns
        12 01 61        #     2 action: a
        1a 02 72 31     #     3 revision: r1
      18 02             #   3 concurrency: 2
      20 03             #   4 credits: 3
      28 01             #   5 warm: true
      30 04             #   6 epoch: 4
      3a 01 aa          #   7 held: aa
    1a 06               # 3 credits, 6 bytes
      08 01             #   1 container: 1
      10 04             #   2 credits: 4
      18 05             #   3 epoch: 5
    22 11               # 4 completions, 17 bytes
      08 01             #   1 container: 1
      12 01 aa          #   2 id: aa
      18 02             #   3 status: PLATFORM_FAILED
      22 02 6f 6b       #   4 result: ok
      28 05             #   5 run_us: 5
      30 06             #   6 credits: 6
      38 07             #   7 epoch: 7
    2a 0b               # 5 returns, 11 bytes
      08 01             #   1 container: 1
      12 01 bb          #   2 id: bb
      1a 02 7b 7d       #   3 payload: {}
      20 04             #   4 epoch: 4
    32 06               # 6 leaves, 6 bytes
      08 01             #   1 container: 1
      10 01             #   2 gone: true
      18 03             #   3 epoch: 3
    38 01               # 7 rejoined: true
    42 08               # 8 audits, 8 bytes
      08 01             #   1 container: 1
      10 02             #   2 epoch: 2
      18 03             #   3 credits: 3
      20 04             #   4 received: 4
";

#[test]
fn golden_pull_response() {
    let frame = v1::PullResponse {
        welcome: Some(v1::Welcome { router_id: "r0".into(), ..Default::default() }),
        dispatches: vec![v1::Dispatch {
            container: 1,
            id: vec![0xaa].into(),
            time_left_ms: 1000,
            payload: "{}".into(),
            attempt: 2,
            epoch: 3,
        }],
        refusals: vec![v1::Refusal { reason: v1::Reason::CreditOverflow as i32, ..Default::default() }],
        drains: vec![v1::Drain { container: 3, epoch: 4 }],
    };
    golden(&frame, PULL_RESPONSE);
}

const PULL_RESPONSE: &str = "
    0a 04               # 1 welcome, 4 bytes
      0a 02 72 30       #   1 router_id: r0
    12 10               # 2 dispatches, 16 bytes
      08 01             #   1 container: 1
      12 01 aa          #   2 id: aa
      18 e8 07          #   3 time_left_ms: 0x68 + (7 << 7) = 1,000
      22 02 7b 7d       #   4 payload: {}
      28 02             #   5 attempt: 2
      30 03             #   6 epoch: 3
    1a 02               # 3 refusals, 2 bytes
      08 12             #   1 reason: CREDIT_OVERFLOW
    22 04               # 4 drains, 4 bytes
      08 03             #   1 container: 3
      10 04             #   2 epoch: 4
";

#[test]
fn golden_invoke() {
    let request = v1::InvokeRequest {
        key: key(),
        id: vec![0xaa].into(),
        time_left_ms: 1000,
        payload: "{}".into(),
        reply: v1::Reply::Accepted as i32,
    };
    golden(&request, INVOKE_REQUEST);
    let answer = v1::Answer { outcome: v1::Outcome::Completed as i32, ..Default::default() };
    golden(&v1::InvokeResponse { answer: Some(answer) }, INVOKE_RESPONSE);
}

const INVOKE_REQUEST: &str = "
    0a 0b               # 1 key, 11 bytes
      0a 02 6e 73       #   1 namespace: ns
      12 01 61          #   2 action: a
      1a 02 72 31       #   3 revision: r1
    12 01 aa            # 2 id: aa
    18 e8 07            # 3 time_left_ms: 1,000
    22 02 7b 7d         # 4 payload: {}
    28 01               # 5 reply: ACCEPTED
";

const INVOKE_RESPONSE: &str = "
    0a 02               # 1 answer, 2 bytes
      10 01             #   2 outcome: COMPLETED
";

// Peers of another version.

#[test]
fn fields_of_a_newer_peer_are_skipped_within_entries_too() {
    let newer = "
        12 08               # 2 answers, 8 bytes
          10 01             #   2 outcome: COMPLETED
          52 02 72 31       #   10, unknown: 2 bytes
          58 07             #   11, unknown: 7
        12 02               # 2 answers, the next
          10 06             #   2 outcome: LOST
    ";
    let outcome = |outcome| v1::Answer { outcome: outcome as i32, ..Default::default() };
    let answers = vec![outcome(v1::Outcome::Completed), outcome(v1::Outcome::Lost)];
    let frame = v1::PushResponse { answers, ..Default::default() };
    assert_eq!(v1::PushResponse::decode(&bytes_of(newer)[..]), Ok(frame));
}

#[test]
fn fields_that_an_older_peer_leaves_out_read_as_defaults() {
    let older = "
        1a 03               # 3 activations, 3 bytes
          0a 01 aa          #   1 id: aa
    ";
    let frame = v1::PushRequest::decode(&bytes_of(older)[..]).unwrap();
    assert_eq!((&frame.hello, frame.declares.len()), (&None, 0));
    let [activation] = &frame.activations[..] else { panic!("one activation: {frame:?}") };
    assert_eq!((activation.action, activation.time_left_ms), (0, 0));
    assert_eq!((&activation.id[..], &activation.payload[..]), (&[0xaa][..], &[][..]));
    assert_eq!(activation.reply(), v1::Reply::Outcome, "who asks for nothing wants to hear how it ended");
}

#[test]
fn numbers_of_unknown_enum_values_survive() {
    for (hex, number) in [("10 63", 99), ("10 ff ff ff ff ff ff ff ff ff 01", -1)] {
        let answer = v1::Answer::decode(&bytes_of(hex)[..]).unwrap();
        assert_eq!(answer.outcome, number);
        assert!(v1::Outcome::try_from(answer.outcome).is_err());
        assert_eq!(answer.outcome(), v1::Outcome::Unspecified);
        assert_eq!(answer.encode_to_vec(), bytes_of(hex));
    }
}

#[test]
fn a_name_that_is_not_utf8_does_not_fail_its_frame() {
    let hex = "
        0a 03               # 1 hello, 3 bytes
          0a 01 ff          #   1 controller_id
        12 09               # 2 declares, 9 bytes
          12 07             #   2 key, 7 bytes
            0a 02 c3 28     #     1 namespace: the second byte does not continue the first
            1a 01 80        #     3 revision: a byte that only continues
    ";
    let frame = v1::PushRequest::decode(&bytes_of(hex)[..]).unwrap();
    assert_eq!(frame.hello.unwrap().controller_id, [0xff][..]);
    let key = frame.declares[0].key.clone().unwrap();
    assert_eq!((&key.namespace[..], &key.action[..], &key.revision[..]), (&b"\xc3\x28"[..], &b""[..], &b"\x80"[..]));
}

#[test]
fn a_decoded_payload_is_a_part_of_its_frame_not_a_copy() {
    let frame = v1::PullResponse {
        dispatches: vec![v1::Dispatch { payload: vec![7; 1000].into(), ..Default::default() }],
        ..Default::default()
    };
    let bytes = Bytes::from(frame.encode_to_vec());
    let within = bytes.as_ptr_range();
    let decoded = v1::PullResponse::decode(bytes.clone()).unwrap();
    assert!(within.contains(&decoded.dispatches[0].payload.as_ptr()));
}

// What the files declare.

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("written by the build").file
}

#[test]
fn numbers_and_types_are_those_of_fields_txt() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fields.txt");
    let declared = declared().join("\n") + "\n";
    if std::env::var_os("UPDATE_FIELDS").is_some() {
        std::fs::write(path, &declared).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    let difference = difference(&checked_in, &declared);
    assert!(
        difference.is_empty(),
        "tests/fields.txt (-) and the proto files (+) differ:\n{difference}\n\
         Peers in the field read what was there. If every one of these changes is safe for them (new numbers are; a number \
         or a type that changes is not): UPDATE_FIELDS=1 cargo test -p activation-proto --test wire"
    );
}

/// Lines that only one side has. Each line stands for itself, so that is all there is to say.
fn difference(before: &str, after: &str) -> String {
    let lines = |text: &'static str, here: &str, there: &str| -> String {
        let there: BTreeSet<&str> = there.lines().collect();
        here.lines().filter(|line| !there.contains(line)).map(|line| format!("{text} {line}\n")).collect()
    };
    lines("-", before, after) + &lines("+", after, before)
}

/// One line for each field, enum value and method.
fn declared() -> Vec<String> {
    let mut lines = Vec::new();
    for file in files() {
        assert_eq!((file.package(), file.syntax()), ("router.v1", "proto3"), "{}", file.name());
        for message in &file.message_type {
            assert!(
                message.nested_type.is_empty() && message.enum_type.is_empty(),
                "nothing nested: {}",
                message.name()
            );
            lines.extend(message.field.iter().map(|field| field_line(message, field)));
        }
        for each in &file.enum_type {
            lines.extend(each.value.iter().map(|value| format!("{} {} {}", each.name(), value.number(), value.name())));
        }
        for service in &file.service {
            lines.extend(service.method.iter().map(|method| method_line(service, method)));
        }
    }
    lines
}

fn field_line(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("{} {} {repeated}{kind} {}", message.name(), field.number(), field.name())
}

fn method_line(service: &ServiceDescriptorProto, method: &MethodDescriptorProto) -> String {
    let stream = |streaming| if streaming { "stream " } else { "" };
    let (up, down) = (stream(method.client_streaming()), stream(method.server_streaming()));
    let (input, output) = (short(method.input_type()), short(method.output_type()));
    format!("{} {} {up}{input} -> {down}{output}", service.name(), method.name())
}

/// A name of this package without it.
fn short(name: &str) -> &str {
    name.trim_start_matches(".router.v1.")
}

#[test]
fn numbers_kept_for_owner_and_epoch_are_free() {
    let files = files();
    let frames = ["PushRequest", "PushResponse", "PullRequest", "PullResponse"];
    let messages = files.iter().flat_map(|file| &file.message_type).filter(|message| frames.contains(&message.name()));
    for frame in messages {
        let taken: Vec<&str> = frame
            .field
            .iter()
            .filter(|field| (10..=15).contains(&field.number()))
            .map(FieldDescriptorProto::name)
            .collect();
        assert!(taken.is_empty(), "{}: {taken:?}", frame.name());
    }
}

#[test]
fn everything_is_documented() {
    let undocumented: Vec<String> = files().iter().flat_map(undocumented).collect();
    assert!(undocumented.is_empty(), "without a comment in front: {undocumented:#?}");
}

/// What stands in a file without a comment in front of it.
fn undocumented(file: &FileDescriptorProto) -> Vec<String> {
    let locations = &file.source_code_info.as_ref().expect("the descriptors carry comments").location;
    let documented: BTreeSet<&[i32]> = locations
        .iter()
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| &location.path[..])
        .collect();
    let things = things(file);
    assert!(!things.is_empty(), "{} declares nothing", file.name());
    things.into_iter().filter(|(path, _)| !documented.contains(&path[..])).map(|(_, name)| name).collect()
}

/// Every message, field, enum, value, service and method of a file by its path: the numbers of lists in `descriptor.proto`
/// and places in them, as its `SourceCodeInfo` explains.
fn things(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let messages = file.message_type.iter().map(|message| {
        let fields: Vec<&str> = message.field.iter().map(FieldDescriptorProto::name).collect();
        (message.name(), fields)
    });
    let enums = file.enum_type.iter().map(|each| {
        let values: Vec<&str> = each.value.iter().map(EnumValueDescriptorProto::name).collect();
        (each.name(), values)
    });
    let services = file.service.iter().map(|service| {
        let methods: Vec<&str> = service.method.iter().map(MethodDescriptorProto::name).collect();
        (service.name(), methods)
    });
    // The lists' numbers in a file; what is in a thing of any of the three is its list number 2.
    let (messages, enums, services) = ((0..).zip(messages), (0..).zip(enums), (0..).zip(services));
    let all = messages.map(|each| (4, each)).chain(enums.map(|each| (5, each))).chain(services.map(|each| (6, each)));
    let mut things = Vec::new();
    for (list, (at, (name, members))) in all {
        things.push((vec![list, at], name.to_owned()));
        things.extend((0..).zip(members).map(|(place, member)| (vec![list, at, 2, place], format!("{name}.{member}"))));
    }
    things
}
