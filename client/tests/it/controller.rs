//! Every activation is answered exactly once, whatever the router does.

use crate::router::{PAYLOAD_BYTES_MAX, PushPeer, Scripted, WINDOW_BYTES};
use bytes::Bytes;
use client::{ActionKey, Answer, Controller, Durability, Outcome, Reason, Stages};
use proto::v1;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const UNSENT: Outcome = Outcome::Unreachable { maybe_sent: false };
const MAYBE_SENT: Outcome = Outcome::Unreachable { maybe_sent: true };

async fn connected() -> (Scripted, Controller, PushPeer) {
    let mut router = Scripted::start();
    let (controller, (peer, _)) = tokio::join!(Controller::over(router.channel(), "me"), router.push());
    (router, controller.unwrap(), peer)
}

fn key(action: &str) -> ActionKey {
    ActionKey::new("n", action, "1").unwrap()
}

/// Invokes `a` in a task of its own.
fn invoke(controller: &Controller, payload: impl Into<Bytes>, timeout: Duration) -> JoinHandle<Answer> {
    let (controller, payload) = (controller.clone(), payload.into());
    tokio::spawn(async move { controller.invoke(&key("a"), payload, timeout).await })
}

fn answer(id: Bytes, outcome: v1::Outcome) -> v1::PushResponse {
    let (result, outcome) = (Bytes::from_static(b"r"), outcome.into());
    let answer = v1::Answer { id, outcome, result, queue_us: 1, dispatch_us: 2, run_us: 3, ..Default::default() };
    v1::PushResponse { answers: vec![answer], ..Default::default() }
}

/// The id of the next activation the router gets.
async fn next_id(peer: &mut PushPeer) -> Bytes {
    peer.frame().await.activations.remove(0).id
}

#[tokio::test(start_paused = true)]
async fn what_is_invoked_first_thing_is_sent() {
    let (_router, controller, mut peer) = connected().await;
    let action = key("a");
    let router = async {
        let id = next_id(&mut peer).await;
        peer.say(answer(id, v1::Outcome::Completed));
    };
    let (invoked, ()) = tokio::join!(controller.invoke(&action, Bytes::new(), SECOND), router);
    assert_eq!(invoked.outcome, Outcome::Completed("r".into()));
}

#[tokio::test(start_paused = true)]
async fn an_invocation_is_declared_sent_and_answered_with_its_stages() {
    let (_router, controller, mut peer) = connected().await;
    let invoked = invoke(&controller, "p", SECOND);
    let frame = peer.frame().await;
    assert_eq!(v1::ActionKey::from(key("a")), frame.declares[0].key.clone().unwrap());
    let sent = &frame.activations[0];
    assert_eq!((sent.action, sent.time_left_ms, &sent.payload[..]), (frame.declares[0].number, 1000, &b"p"[..]));
    assert_eq!(controller.outstanding(), 1);
    peer.say(answer(sent.id.clone(), v1::Outcome::Completed));
    let answer = invoked.await.unwrap();
    assert_eq!((&answer.id.bytes()[..], answer.outcome), (&sent.id[..], Outcome::Completed("r".into())));
    let micros = Duration::from_micros;
    assert_eq!(answer.stages, Stages { queue: micros(1), dispatch: micros(2), run: micros(3) });
    assert_eq!(controller.outstanding(), 0);

    drop(invoke(&controller, "q", SECOND));
    assert!(peer.frame().await.declares.is_empty(), "an action is declared once");
}

#[tokio::test(start_paused = true)]
async fn fire_hears_that_it_was_taken() {
    let (_router, controller, mut peer) = connected().await;
    let action = key("a");
    let router = async {
        let sent = peer.frame().await.activations.remove(0);
        assert_eq!(sent.reply(), v1::Reply::Accepted);
        peer.say(answer(sent.id, v1::Outcome::Accepted));
    };
    let (fired, ()) = tokio::join!(controller.fire(&action, Bytes::new(), SECOND), router);
    assert_eq!(fired.outcome, Outcome::Accepted(Durability::Memory));
}

#[tokio::test(start_paused = true)]
async fn a_router_that_keeps_silent_is_given_the_timeout_and_the_grace() {
    let (_router, controller, mut peer) = connected().await;
    let since = Instant::now();
    let invoked = invoke(&controller, "p", SECOND);
    let id = next_id(&mut peer).await;
    assert_eq!(invoked.await.unwrap().outcome, Outcome::TimedOut);
    // Rounded up to the ticks of the desk's wheel and of the runtime's.
    let late = since.elapsed() - (SECOND + Controller::ANSWER_GRACE);
    assert!(late <= Duration::from_millis(3), "{late:?}");

    // What comes later, or twice, or was never asked for, is counted and dropped.
    assert_eq!((controller.outstanding(), controller.late_answers()), (0, 0));
    peer.say(answer(id, v1::Outcome::Completed));
    peer.say(answer(Bytes::from(vec![0; 16]), v1::Outcome::Completed));
    let invoked = invoke(&controller, "p", SECOND);
    let id = next_id(&mut peer).await;
    peer.say(answer(id.clone(), v1::Outcome::Expired));
    assert_eq!(invoked.await.unwrap().outcome, Outcome::Expired);
    assert_eq!(controller.late_answers(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_answers_all_at_once_and_says_what_never_left() {
    let (_router, controller, mut peer) = connected().await;
    // Far more than fits on the way to a router that reads one frame and no more.
    let invoked: Vec<_> = (0..100).map(|_| invoke(&controller, vec![0; WINDOW_BYTES as usize], 60 * SECOND)).collect();
    peer.frame().await;
    peer.end(tonic::Status::unavailable("gone"));
    let since = Instant::now();
    let mut outcomes = Vec::new();
    for invoked in invoked {
        outcomes.push(invoked.await.unwrap().outcome);
    }
    assert!(since.elapsed() < SECOND, "at once, not at the timeout");
    let left = outcomes.iter().take_while(|outcome| **outcome == MAYBE_SENT).count();
    assert!((1..50).contains(&left), "{left} left");
    assert!(outcomes[left..].iter().all(|outcome| *outcome == UNSENT), "they left in order: {outcomes:?}");
    assert_eq!(controller.outstanding(), 0);
}

#[tokio::test(start_paused = true)]
async fn another_stream_is_opened_and_nothing_is_sent_again() {
    let (mut router, controller, mut peer) = connected().await;
    let invoked = invoke(&controller, "once", 60 * SECOND);
    let former = next_id(&mut peer).await;
    drop(peer);
    assert_eq!(invoked.await.unwrap().outcome, MAYBE_SENT);
    // Without a stream: at once.
    let since = Instant::now();
    assert_eq!(controller.invoke(&key("a"), Bytes::new(), SECOND).await.outcome, UNSENT);
    assert_eq!(since.elapsed(), Duration::ZERO);

    let (mut peer, first) = router.push().await;
    assert_eq!((first.declares.len(), first.activations.len()), (0, 0));
    controller.connected().await;
    let invoked = invoke(&controller, "new", SECOND);
    let frame = peer.frame().await;
    assert_eq!((frame.declares.len(), &frame.activations[0].payload[..]), (1, &b"new"[..]));
    peer.say(answer(former, v1::Outcome::Completed));
    peer.say(answer(frame.activations[0].id.clone(), v1::Outcome::Lost));
    assert_eq!(invoked.await.unwrap().outcome, Outcome::Lost);
    assert_eq!(controller.late_answers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_router_is_asked_again_and_never_blocks_a_caller() {
    let (router, controller, _peer) = connected().await;
    let invoked = invoke(&controller, "p", 60 * SECOND);
    tokio::task::yield_now().await;
    router.die();
    assert!(matches!(invoked.await.unwrap().outcome, Outcome::Unreachable { .. }));
    for _ in 0..100 {
        tokio::time::advance(SECOND).await;
        assert_eq!(controller.invoke(&key("a"), Bytes::new(), SECOND).await.outcome, UNSENT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_leaves_nothing_behind() {
    let (_router, controller, mut peer) = connected().await;
    let invoked = invoke(&controller, "p", SECOND);
    let id = next_id(&mut peer).await;
    invoked.abort();
    assert!(invoked.await.unwrap_err().is_cancelled());
    assert_eq!(controller.outstanding(), 0);
    peer.say(answer(id, v1::Outcome::Completed));
    let invoked = invoke(&controller, "q", SECOND);
    let id = next_id(&mut peer).await;
    peer.say(answer(id, v1::Outcome::Completed));
    assert!(matches!(invoked.await.unwrap().outcome, Outcome::Completed(_)));
    assert_eq!(controller.late_answers(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_is_rejected_by_name_without_the_router() {
    let (_router, controller, peer) = connected().await;
    let rejected = |answer: Answer| match answer.outcome {
        Outcome::Rejected(rejection) => (rejection.reason, rejection.field, rejection.limit),
        other => panic!("{other:?}"),
    };
    let too_large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX as usize + 1]);
    let limit = u64::from(PAYLOAD_BYTES_MAX);
    for (payload, timeout, reason, field, limit) in [
        (too_large, SECOND, v1::Reason::PayloadTooLarge, "payload", limit),
        (Bytes::new(), Duration::ZERO, v1::Reason::TimeLeftZero, "time_left_ms", 1),
    ] {
        let answer = controller.invoke(&key("a"), payload, timeout).await;
        assert_eq!(rejected(answer), (Reason::Router(reason), field.to_owned(), limit));
    }
    assert_eq!(controller.outstanding(), 0);

    peer.say(v1::PushResponse { draining: true, ..Default::default() });
    // The word has to arrive; what is sent before goes the usual way and hears nothing.
    while controller.invoke(&key("a"), Bytes::new(), SECOND).await.outcome == Outcome::TimedOut {}
    let answer = controller.invoke(&key("a"), Bytes::new(), SECOND).await;
    assert_eq!(rejected(answer).0, Reason::Router(v1::Reason::Draining));
}

#[tokio::test(start_paused = true)]
async fn a_refused_declaration_is_made_again() {
    let (_router, controller, mut peer) = connected().await;
    let invoked = invoke(&controller, "p", SECOND);
    let frame = peer.frame().await;
    let (number, reason) = (frame.declares[0].number, v1::Reason::TooManyActions.into());
    let refusal = v1::Refusal { reason, number, ..Default::default() };
    let rejection = v1::Rejection { reason: v1::Reason::ActionUnknown.into(), ..Default::default() };
    let id = frame.activations[0].id.clone();
    let outcome = v1::Outcome::Rejected.into();
    let answer = v1::Answer { id, outcome, rejection: Some(Box::new(rejection)), ..Default::default() };
    peer.say(v1::PushResponse { refusals: vec![refusal], answers: vec![answer], ..Default::default() });
    assert!(matches!(invoked.await.unwrap().outcome, Outcome::Rejected(_)));
    drop(invoke(&controller, "q", SECOND));
    assert_eq!(peer.frame().await.declares.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_huge_timeout_is_sent_as_the_longest_there_is() {
    let (_router, controller, mut peer) = connected().await;
    drop(invoke(&controller, "p", Duration::MAX));
    assert_eq!(peer.frame().await.activations[0].time_left_ms, u32::MAX);
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_loses_the_time_it_waits() {
    let (_router, controller, mut peer) = connected().await;
    // Far more than fits on the way to a router that reads nothing.
    let long: Vec<_> = (0..50).map(|_| invoke(&controller, vec![0; WINDOW_BYTES as usize], 60 * SECOND)).collect();
    let short = invoke(&controller, "too late", 5 * SECOND);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(short.await.unwrap().outcome, Outcome::TimedOut);
    let mut left = Vec::new();
    while left.len() < long.len() {
        left.extend(peer.frame().await.activations.iter().map(|activation| activation.time_left_ms));
    }
    assert_eq!((left[0], left[49]), (60_000, 50_000));
    assert!(tokio::time::timeout(SECOND, peer.frame()).await.map_or(true, |frame| frame.activations.is_empty()));
}
