//! What is wrong is refused by name, what stands next to it is served, and the stream lives on; only what leaves no stream
//! to speak of ends the call.

use crate::peers::{
    Controller, Invoker, activation, completion, connect, container_of, heavy, id, key, pull_hello, push_hello,
    refused, rejection, revision_of, within,
};
use crate::router::Router;
use crate::scene::{CONCURRENCY, GOOD, Scene};
use bytes::Bytes;
use proto::v1::router_client::RouterClient;
use proto::v1::{self, Reason};
use tonic::{Code, Status};

const PAYLOAD_BYTES_MAX: usize = 1_054_644;
const DAY_MS: u32 = 86_400_000;
/// A number under which nothing is declared or registered.
const NOTHING: u32 = 77;

/// Reason, field and limit that are to be told.
type Told = (Reason, &'static str, u64);

fn assert_told(told: (Reason, String, u64), (reason, field, limit): Told) {
    assert_eq!(told, (reason, field.to_owned(), limit));
}

/// Names that are no good, as a key.
fn bad_keys() -> Vec<(v1::ActionKey, Told)> {
    let long = |len| Bytes::from(vec![b'x'; len]);
    let not_utf8 = || Bytes::from_static(b"\xff\xfe");
    let good = || key("good");
    vec![
        (v1::ActionKey::default(), (Reason::NameEmpty, "key.namespace", 1)),
        (v1::ActionKey { namespace: Bytes::new(), ..good() }, (Reason::NameEmpty, "key.namespace", 1)),
        (v1::ActionKey { action: Bytes::new(), ..good() }, (Reason::NameEmpty, "key.action", 1)),
        (v1::ActionKey { namespace: long(257), ..good() }, (Reason::NameTooLong, "key.namespace", 256)),
        (v1::ActionKey { action: long(257), ..good() }, (Reason::NameTooLong, "key.action", 256)),
        (v1::ActionKey { revision: long(65), ..good() }, (Reason::NameTooLong, "key.revision", 64)),
        (v1::ActionKey { namespace: not_utf8(), ..good() }, (Reason::NameNotUtf8, "key.namespace", 0)),
        (v1::ActionKey { action: not_utf8(), ..good() }, (Reason::NameNotUtf8, "key.action", 0)),
        (v1::ActionKey { revision: not_utf8(), ..good() }, (Reason::NameNotUtf8, "key.revision", 0)),
    ]
}

// Push: declarations.

#[tokio::test]
async fn a_bad_declaration_is_refused_by_its_number() {
    let mut scene = Scene::start(|_| ()).await;
    let mut cases: Vec<_> = bad_keys().into_iter().map(|(key, told)| (NOTHING, key, told)).collect();
    for number in [1_000_000, u32::MAX] {
        cases.push((number, key("good"), (Reason::TooManyActions, "number", 1_000_000)));
    }
    for (number, key, told) in cases {
        let declares = vec![v1::DeclareAction { number, key: Some(key) }];
        let good = scene.good();
        scene.controller.send(v1::PushRequest { declares, activations: vec![good], ..Default::default() });
        let refusal = scene.controller.refusal().await;
        assert_eq!((refusal.number, refusal.id.len()), (number, 0));
        assert_told(refused(&refusal), told);
        finish_one(&mut scene).await;
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn the_longest_names_and_the_highest_number_are_good() {
    let scene = &mut Scene::start(|_| ()).await;
    let name = || Bytes::from(vec![b'x'; 256]);
    let longest = v1::ActionKey { namespace: name(), action: name(), revision: vec![b'x'; 64].into() };
    scene.controller.declare_key(999_999, longest.clone());
    let register = v1::Register { key: Some(longest), ..container_of(999_999, "", 4096) };
    scene.invoker.send(v1::PullRequest { registers: vec![register], ..Default::default() });
    scene.controller.push([activation(1, 999_999)]);
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!(dispatch.container, 999_999);
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
}

#[tokio::test]
async fn a_number_whose_new_declaration_is_bad_stands_for_nothing() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.declare_key(GOOD, v1::ActionKey::default());
    scene.controller.push([activation(1, GOOD)]);
    assert_told(rejection(&scene.controller.answer().await), (Reason::ActionUnknown, "action", 0));
    scene.controller.declare(GOOD, "good");
    scene.round_trip().await;
}

// Push: activations.

type Spoil = fn(&mut v1::Activation);

#[tokio::test]
async fn a_bad_activation_is_rejected_and_its_neighbour_is_served() {
    let cases: &[(Spoil, Told)] = &[
        (|bad| bad.time_left_ms = 0, (Reason::TimeLeftZero, "time_left_ms", 1)),
        (|bad| bad.time_left_ms = DAY_MS + 1, (Reason::TimeLeftTooLong, "time_left_ms", 86_400_000)),
        (|bad| bad.time_left_ms = u32::MAX, (Reason::TimeLeftTooLong, "time_left_ms", 86_400_000)),
        (|bad| bad.action = NOTHING, (Reason::ActionUnknown, "action", 0)),
        (|bad| bad.action = 1_000_000, (Reason::ActionUnknown, "action", 0)),
        (|bad| bad.reply = 2, (Reason::ValueUnknown, "reply", 1)),
        (|bad| bad.reply = -1, (Reason::ValueUnknown, "reply", 1)),
        (
            |bad| bad.payload = vec![0; PAYLOAD_BYTES_MAX + 1].into(),
            (Reason::PayloadTooLarge, "payload", PAYLOAD_BYTES_MAX as u64),
        ),
    ];
    let mut scene = Scene::start(|_| ()).await;
    for (spoil, told) in cases {
        let mut bad = activation(1, GOOD);
        spoil(&mut bad);
        let good = scene.good();
        scene.controller.push([bad, good]);
        let answer = scene.controller.answer().await;
        assert_eq!(answer.id, id(1));
        assert_told(rejection(&answer), *told);
        finish_one(&mut scene).await;
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn an_id_of_another_length_is_refused_with_64_bytes_of_it_at_most() {
    let mut scene = Scene::start(|_| ()).await;
    for len in [0, 15, 17, 64, 65, 100] {
        let bad = v1::Activation { id: vec![b'i'; len].into(), ..activation(1, GOOD) };
        let good = scene.good();
        scene.controller.push([bad, good]);
        let refusal = scene.controller.refusal().await;
        assert_told(refused(&refusal), (Reason::IdLength, "id", 16));
        assert_eq!((refusal.number, refusal.id.len()), (GOOD, len.min(64)));
        finish_one(&mut scene).await;
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn an_id_that_is_held_is_rejected_wherever_it_comes_again() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.declare(1, "without containers");
    scene.controller.push([activation(1, 1)]);
    let dispatch = scene.in_flight().await;
    let again = |action| {
        let dispatched = v1::Activation { id: dispatch.id.clone(), ..activation(0, action) };
        [activation(1, action), dispatched]
    };
    scene.controller.push(again(GOOD).into_iter().chain(again(1)));
    for _ in 0..4 {
        assert_told(rejection(&scene.controller.answer().await), (Reason::IdInFlight, "id", 0));
    }
    let mut other = Controller::open(&scene.router, "other").await;
    other.declare(GOOD, "good");
    other.push(again(GOOD));
    for _ in 0..2 {
        assert_told(rejection(&other.answer().await), (Reason::IdInFlight, "id", 0));
    }
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn the_largest_payload_and_result_and_the_longest_time_are_good() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.push([v1::Activation { time_left_ms: DAY_MS, ..heavy(1, GOOD, PAYLOAD_BYTES_MAX) }]);
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!(dispatch.payload.len(), PAYLOAD_BYTES_MAX);
    assert!((DAY_MS - 10_000..=DAY_MS).contains(&dispatch.time_left_ms), "{}", dispatch.time_left_ms);
    scene.invoker.complete(completion(&dispatch));
    let answer = scene.controller.answer().await;
    assert_eq!((answer.outcome(), answer.result.len()), (v1::Outcome::Completed, PAYLOAD_BYTES_MAX));
    scene.round_trip().await;
}

// Pull.

/// A bad entry in a frame of its own; what its refusal says; the container and the length of the id it names.
type BadEntry = (v1::PullRequest, Told, u32, usize);

fn bad_registers() -> Vec<BadEntry> {
    let good = || container_of(NOTHING, "good", 4);
    let keys = bad_keys().into_iter().map(|(key, told)| (v1::Register { key: Some(key), ..good() }, told));
    let others = [
        (container_of(GOOD, "good", 4), (Reason::ContainerTaken, "container", 0)),
        (container_of(1_000_000, "good", 4), (Reason::TooManyContainers, "container", 1_000_000)),
        (container_of(u32::MAX, "good", 4), (Reason::TooManyContainers, "container", 1_000_000)),
        (container_of(NOTHING, "good", 0), (Reason::ConcurrencyOutOfRange, "concurrency", 4096)),
        (container_of(NOTHING, "good", 4097), (Reason::ConcurrencyOutOfRange, "concurrency", 4096)),
        (v1::Register { credits: 5, ..good() }, (Reason::CreditOverflow, "credits", 4)),
        (v1::Register { credits: u32::MAX, ..good() }, (Reason::CreditOverflow, "credits", 4)),
    ];
    let entry = |(register, told): (v1::Register, Told)| {
        let number = register.container;
        (v1::PullRequest { registers: vec![register], ..Default::default() }, told, number, 0)
    };
    keys.chain(others).map(entry).collect()
}

fn bad_credits_and_leaves() -> Vec<BadEntry> {
    let credit = |container, credits, told| {
        let credits = vec![v1::Credit { container, credits, ..Default::default() }];
        (v1::PullRequest { credits, ..Default::default() }, told, container, 0)
    };
    let leave = |container, gone| {
        let leaves = vec![v1::Leave { container, gone, ..Default::default() }];
        (v1::PullRequest { leaves, ..Default::default() }, (Reason::ContainerUnknown, "container", 0), container, 0)
    };
    let overflow = (Reason::CreditOverflow, "credits", u64::from(CONCURRENCY));
    vec![
        credit(GOOD, 1, overflow),
        credit(GOOD, u32::MAX, overflow),
        credit(NOTHING, 1, (Reason::ContainerUnknown, "container", 0)),
        leave(NOTHING, false),
        leave(u32::MAX, true),
    ]
}

fn bad_completions() -> Vec<BadEntry> {
    let of = |id: &Bytes| v1::Completion { id: id.clone(), ..Default::default() };
    let over = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let with_id = |len: usize| (of(&vec![b'i'; len].into()), (Reason::IdLength, "id", 16));
    let others = [
        (of(&id(1)), (Reason::NotInFlight, "id", 0)),
        (v1::Completion { container: NOTHING, ..of(&id(1)) }, (Reason::ContainerUnknown, "container", 0)),
        (v1::Completion { status: 3, ..of(&id(1)) }, (Reason::ValueUnknown, "status", 2)),
        (v1::Completion { status: -1, ..of(&id(1)) }, (Reason::ValueUnknown, "status", 2)),
        (v1::Completion { result: over, ..of(&id(1)) }, (Reason::PayloadTooLarge, "result", PAYLOAD_BYTES_MAX as u64)),
    ];
    let entry = |(completion, told): (v1::Completion, Told)| {
        let (number, id) = (completion.container, completion.id.len().min(64));
        (v1::PullRequest { completions: vec![completion], ..Default::default() }, told, number, id)
    };
    [0, 15, 17, 100].map(with_id).into_iter().chain(others).map(entry).collect()
}

fn bad_returns() -> Vec<BadEntry> {
    let of = |id: Bytes| v1::Return { container: GOOD, id, ..Default::default() };
    let over = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let with_id = |len: usize| (of(vec![b'i'; len].into()), (Reason::IdLength, "id", 16));
    let others = [
        (of(id(1)), (Reason::NotInFlight, "id", 0)),
        (v1::Return { container: NOTHING, ..of(id(1)) }, (Reason::ContainerUnknown, "container", 0)),
        (v1::Return { payload: over, ..of(id(1)) }, (Reason::PayloadTooLarge, "payload", PAYLOAD_BYTES_MAX as u64)),
    ];
    let entry = |(back, told): (v1::Return, Told)| {
        let (number, id) = (back.container, back.id.len().min(64));
        (v1::PullRequest { returns: vec![back], ..Default::default() }, told, number, id)
    };
    [0, 15, 17, 100].map(with_id).into_iter().chain(others).map(entry).collect()
}

#[tokio::test]
async fn a_bad_entry_of_an_invoker_is_refused_and_its_neighbour_counts() {
    let mut scene = Scene::start(|_| ()).await;
    for entries in [bad_registers(), bad_credits_and_leaves(), bad_completions(), bad_returns()] {
        for (mut frame, told, container, id) in entries {
            let dispatch = scene.in_flight().await;
            frame.completions.push(completion(&dispatch));
            scene.invoker.send(frame);
            let refusal = scene.invoker.refusal().await;
            assert_told(refused(&refusal), told);
            assert_eq!((refusal.number, refusal.id.len()), (container, id));
            scene.completed(&dispatch).await;
        }
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn credits_above_the_concurrency_with_a_completion_do_not_count_but_the_completion_does() {
    let mut scene = Scene::start(|_| ()).await;
    for credits in [2, u32::MAX] {
        let dispatch = scene.in_flight().await;
        scene.invoker.complete(v1::Completion { credits, ..completion(&dispatch) });
        let refusal = scene.invoker.refusal().await;
        assert_told(refused(&refusal), (Reason::CreditOverflow, "credits", CONCURRENCY.into()));
        scene.completed(&dispatch).await;
        scene.invoker.credit(GOOD, 1);
    }
    // All four credits are there, and no more.
    for _ in 0..CONCURRENCY {
        scene.in_flight().await;
    }
    scene.invoker.credit(GOOD, 1);
    let refusal = scene.invoker.refusal().await;
    assert_told(refused(&refusal), (Reason::CreditOverflow, "credits", CONCURRENCY.into()));
}

#[tokio::test]
async fn only_the_container_it_was_dispatched_to_can_end_an_activation() {
    let mut scene = Scene::start(|_| ()).await;
    let mut other = Invoker::open(&scene.router, "other node").await;
    let dispatch = scene.in_flight().await;
    // Registered after the dispatch, so that it went to the first.
    scene.invoker.register(1, "good", 1);
    scene.invoker.register(2, "another", 1);
    other.register(GOOD, "good", 1);
    for container in [1, 2] {
        scene.invoker.complete(v1::Completion { container, ..completion(&dispatch) });
        let refusal = scene.invoker.refusal().await;
        assert_told(refused(&refusal), (Reason::NotDispatchedHere, "id", 0));
        assert_eq!((refusal.number, &refusal.id), (container, &dispatch.id));
    }
    other.complete(completion(&dispatch));
    assert_told(refused(&other.refusal().await), (Reason::NotDispatchedHere, "id", 0));
    other.give_back(dispatch.clone());
    assert_told(refused(&other.refusal().await), (Reason::NotDispatchedHere, "id", 0));
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
}

#[tokio::test]
async fn a_second_completion_and_a_late_return_are_refused() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.invoker.complete(completion(&dispatch));
    assert_told(refused(&scene.invoker.refusal().await), (Reason::NotInFlight, "id", 0));
    scene.invoker.give_back(dispatch);
    assert_told(refused(&scene.invoker.refusal().await), (Reason::NotInFlight, "id", 0));
    scene.round_trip().await;
}

#[tokio::test]
async fn a_second_hello_is_refused() {
    let mut scene = Scene::start(|_| ()).await;
    let good = scene.good();
    scene.controller.send(v1::PushRequest { activations: vec![good], ..push_hello("controller") });
    assert_told(refused(&scene.controller.refusal().await), (Reason::Repeated, "hello", 1));
    let dispatch = scene.invoker.dispatch().await;
    scene.invoker.send(v1::PullRequest { completions: vec![completion(&dispatch)], ..pull_hello("node") });
    assert_told(refused(&scene.invoker.refusal().await), (Reason::Repeated, "hello", 1));
    scene.completed(&dispatch).await;
    scene.round_trip().await;
}

// Frames with too many entries.

#[tokio::test]
async fn activations_behind_the_first_4096_entries_are_rejected_one_by_one() {
    let mut scene = Scene::start(|_| ()).await;
    scene.invoker.register(1, "many", 4096);
    let declares = vec![v1::DeclareAction { number: 1, key: Some(key("many")) }];
    let activations = (0..4_100).map(|number| activation(number, 1)).collect();
    scene.controller.send(v1::PushRequest { hello: None, declares, activations, ..Default::default() });
    for number in 4_095..4_100 {
        let answer = scene.controller.answer().await;
        assert_told(rejection(&answer), (Reason::FrameTooLong, "activations", 4_096));
        assert_eq!(answer.id, id(number));
    }
    for number in 0..4_095 {
        assert_eq!(scene.invoker.dispatch().await.id, id(number));
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn declarations_behind_the_first_4096_are_refused_by_number() {
    let mut scene = Scene::start(|_| ()).await;
    let declares = (1..=4_098).map(|number| v1::DeclareAction { number, key: Some(key("good")) }).collect();
    scene.controller.send(v1::PushRequest { declares, ..Default::default() });
    for number in [4_097, 4_098] {
        let refusal = scene.controller.refusal().await;
        assert_told(refused(&refusal), (Reason::FrameTooLong, "declares", 4_096));
        assert_eq!(refusal.number, number);
    }
    scene.controller.push([activation(1, 4_097), activation(2, 4_096)]);
    assert_eq!(scene.controller.answer().await.id, id(1));
    finish_one(&mut scene).await;
}

#[tokio::test]
async fn entries_of_an_invoker_behind_the_first_4096_change_nothing() {
    let mut scene = Scene::start(|_| ()).await;
    let (first, second) = (scene.in_flight().await, scene.in_flight().await);
    let credits = vec![v1::Credit { container: GOOD, credits: 0, ..Default::default() }; 4_095];
    let completions = vec![completion(&first), completion(&second)];
    scene.invoker.send(v1::PullRequest { credits, completions, ..Default::default() });
    let refusal = scene.invoker.refusal().await;
    assert_told(refused(&refusal), (Reason::FrameTooLong, "completions", 4_096));
    assert_eq!((refusal.number, &refusal.id), (GOOD, &second.id));
    scene.completed(&first).await;
    scene.invoker.complete(completion(&second));
    scene.completed(&second).await;
}

// What ends a call.

#[tokio::test]
async fn a_stream_that_does_not_say_who_is_there_is_ended() {
    let missing = "hello: hello_missing";
    let named = |field: &str, what: &str| format!("hello.{field}: {what}");
    let long = Bytes::from(vec![b'x'; 129]);
    let router = Router::start(|_| ());
    for (first, message) in [
        (v1::PushRequest::default(), missing.to_owned()),
        (push_hello(""), named("controller_id", "name_empty (limit 1)")),
        (push_hello(long.clone()), named("controller_id", "name_too_long (limit 128)")),
        (push_hello(&b"\xff"[..]), named("controller_id", "name_not_utf8")),
    ] {
        let status = Controller::open_with(connect(&router).await, first).await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, &*message));
    }
    for (first, message) in [
        (v1::PullRequest::default(), missing.to_owned()),
        (pull_hello(""), named("invoker_id", "name_empty (limit 1)")),
        (pull_hello(long), named("invoker_id", "name_too_long (limit 128)")),
        (pull_hello(&b"\xff"[..]), named("invoker_id", "name_not_utf8")),
    ] {
        let status = Invoker::open_with(connect(&router).await, first).await.err().unwrap();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, &*message));
    }
    let longest = Bytes::from(vec![b'x'; 128]);
    Controller::open_with(connect(&router).await, push_hello(longest.clone())).await.unwrap();
    Invoker::open_with(connect(&router).await, pull_hello(longest)).await.unwrap();
}

#[tokio::test]
async fn a_controllers_id_is_held_by_one_live_stream() {
    let mut scene = Scene::start(|_| ()).await;
    let again = || async { Controller::open_with(connect(&scene.router).await, push_hello("controller")).await };
    let status = again().await.err().unwrap();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(status.message(), "hello.controller_id: controller_connected");
    scene.controller.finish();
    scene.controller.end().await.unwrap();
    let reopened = async {
        loop {
            match again().await {
                Ok(controller) => return controller,
                Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
            }
        }
    };
    let controller = within("the id to be free", reopened).await;
    scene.controller = controller;
    scene.controller.declare(GOOD, "good");
    scene.round_trip().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_call_and_no_other() {
    let mut scene = Scene::start(|_| ()).await;
    let large = || (0..5).map(|number| heavy(number, 0, 1_000_000)).collect();
    let first = v1::PushRequest { activations: large(), ..push_hello("large") };
    let status = Controller::open_with(connect(&scene.router).await, first).await.err().unwrap();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let mut controller = Controller::open(&scene.router, "large").await;
    controller.send(v1::PushRequest { activations: large(), ..Default::default() });
    assert_ended(controller.end().await, Code::OutOfRange, "frame_bytes_max");
    let mut invoker = Invoker::open(&scene.router, "large").await;
    let returns = large().into_iter().map(|activation: v1::Activation| v1::Return {
        container: 0,
        id: activation.id,
        payload: activation.payload,
        ..Default::default()
    });
    invoker.send(v1::PullRequest { returns: returns.collect(), ..Default::default() });
    assert_ended(invoker.end().await, Code::OutOfRange, "frame_bytes_max");
    scene.round_trip().await;
}

#[tokio::test]
async fn bytes_that_are_no_message_end_their_call_and_no_other() {
    let mut scene = Scene::start(|_| ()).await;
    let hello = Bytes::from_static(b"\x0a\x03\x0a\x01m");
    let malformed = Bytes::from_static(b"\x0a\xff\xff");
    for path in ["/router.v1.Router/Push", "/router.v1.Router/Pull"] {
        for frames in [vec![malformed.clone()], vec![hello.clone(), malformed.clone()]] {
            let end = within("the end of the call", raw::call(connect(&scene.router).await, path, frames)).await;
            assert_ended(end, Code::InvalidArgument, "frame: not what the proto files say");
        }
    }
    scene.round_trip().await;
}

fn assert_ended(end: Result<(), Status>, code: Code, words: &str) {
    let status = end.expect_err("the call ends with a status");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

// Invoke.

#[tokio::test]
async fn an_invoke_that_is_no_good_ends_with_a_status_that_names_the_field() {
    let router = Router::start(|_| ());
    let good = || v1::InvokeRequest { key: Some(key("good")), time_left_ms: 60_000, ..Default::default() };
    let keys = bad_keys().into_iter().map(|(key, told)| (v1::InvokeRequest { key: Some(key), ..good() }, told));
    let over = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let others = [
        (v1::InvokeRequest { id: vec![0; 15].into(), ..good() }, (Reason::IdLength, "id", 16)),
        (v1::InvokeRequest { id: vec![0; 17].into(), ..good() }, (Reason::IdLength, "id", 16)),
        (v1::InvokeRequest { time_left_ms: 0, ..good() }, (Reason::TimeLeftZero, "time_left_ms", 1)),
        (
            v1::InvokeRequest { time_left_ms: DAY_MS + 1, ..good() },
            (Reason::TimeLeftTooLong, "time_left_ms", DAY_MS.into()),
        ),
        (v1::InvokeRequest { payload: over, ..good() }, (Reason::PayloadTooLarge, "payload", PAYLOAD_BYTES_MAX as u64)),
        (v1::InvokeRequest { reply: 2, ..good() }, (Reason::ValueUnknown, "reply", 1)),
        (v1::InvokeRequest { key: None, ..good() }, (Reason::NameEmpty, "key.namespace", 1)),
    ];
    for (request, told) in keys.chain(others) {
        assert_invoke(&router, request, Code::InvalidArgument, &message(told)).await;
    }
}

#[tokio::test]
async fn an_invoke_that_finds_no_room_or_its_id_taken_says_so() {
    let router = Router::start(|config| {
        config.limits.action_queued_max = 1;
        config.limits.router_queued_max = 2;
    });
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare_key(0, revision_of("good", ""));
    controller.push([activation(1, 0), activation(2, 0)]);
    assert_told(rejection(&controller.answer().await), (Reason::QueueFull, "action_queued_max", 1));
    let request = |number, action| v1::InvokeRequest {
        key: Some(revision_of(action, "")),
        id: id(number),
        time_left_ms: 60_000,
        ..Default::default()
    };
    let full = "action_queued_max: queue_full (limit 1)";
    assert_invoke(&router, request(3, "good"), Code::ResourceExhausted, full).await;
    assert_invoke(&router, request(1, "another"), Code::AlreadyExists, "id: id_in_flight").await;
    controller.declare_key(1, revision_of("one more", ""));
    controller.push([activation(4, 1)]);
    router.metric_is("router_queue_depth", |depth| depth == 2).await;
    let full = "router_queued_max: router_full (limit 2)";
    assert_invoke(&router, request(5, "another"), Code::ResourceExhausted, full).await;
}

async fn assert_invoke(router: &Router, request: v1::InvokeRequest, code: Code, message: &str) {
    let mut client = RouterClient::new(connect(router).await);
    let status = within("the end of an Invoke", client.invoke(request)).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (code, message));
}

fn message((reason, field, limit): Told) -> String {
    let label = reason.as_str_name().trim_start_matches("REASON_").to_lowercase();
    let limit = if limit == 0 { String::new() } else { format!(" (limit {limit})") };
    format!("{field}: {label}{limit}")
}

/// The good neighbour goes all the way.
async fn finish_one(scene: &mut Scene) {
    let dispatch = scene.invoker.dispatch().await;
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
}

/// Calls whose messages are any bytes.
mod raw {
    use bytes::{Buf, BufMut, Bytes};
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
    use tonic::transport::Channel;
    use tonic::{Request, Status};

    /// Sends `frames` on a stream of that path and leaves it open; how the router ends it.
    pub(super) async fn call(channel: Channel, path: &'static str, frames: Vec<Bytes>) -> Result<(), Status> {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let frames = futures_util::StreamExt::chain(tokio_stream::iter(frames), tokio_stream::pending());
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let mut down = client.streaming(Request::new(frames), path, Raw).await?.into_inner();
        while down.message().await?.is_some() {}
        Ok(())
    }

    #[derive(Clone, Copy)]
    struct Raw;

    impl Codec for Raw {
        type Encode = Bytes;
        type Decode = Bytes;
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            *self
        }

        fn decoder(&mut self) -> Self {
            *self
        }
    }

    impl Encoder for Raw {
        type Item = Bytes;
        type Error = Status;

        fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
            to.put(item);
            Ok(())
        }
    }

    impl Decoder for Raw {
        type Item = Bytes;
        type Error = Status;

        fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
            Ok(Some(from.copy_to_bytes(from.remaining())))
        }
    }
}
