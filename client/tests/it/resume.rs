//! A controller whose stream breaks: callers wait for as long as the router keeps their answers, and nothing is sent twice.

use crate::router::{PushPeer, Scripted, WINDOW_BYTES, session};
use bytes::Bytes;
use client::breaker::{Cause, State};
use client::{ActionKey, Controller, ControllerConfig, Invocation, Outcome, Pending};
use proto::v1;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const UNSENT: Outcome = Outcome::Unreachable { maybe_sent: false };
const MAYBE_SENT: Outcome = Outcome::Unreachable { maybe_sent: true };

/// Beside a router that keeps answers for 2 s.
async fn connected() -> (Scripted, Controller, PushPeer) {
    let mut router = Scripted::start();
    let opened = router.channel();
    let (controller, (peer, _)) =
        tokio::join!(Controller::over(opened, "me"), router.push_with(session("s1", false, 2000)));
    (router, controller.unwrap(), peer)
}

fn submit(controller: &Controller, payload: impl Into<Bytes>) -> Pending {
    let key = ActionKey::new("n", "a", "1").unwrap();
    controller.submit(Invocation::new(&key, payload).deadline(60 * SECOND))
}

fn answers(ids: impl IntoIterator<Item = Bytes>, outcome: v1::Outcome) -> v1::PushResponse {
    let answer = |id| v1::Answer { id, outcome: outcome.into(), ..Default::default() };
    v1::PushResponse { answers: ids.into_iter().map(answer).collect(), ..Default::default() }
}

fn ids(pending: &[Pending]) -> Vec<Bytes> {
    pending.iter().map(|pending| Bytes::copy_from_slice(&pending.id().bytes())).collect()
}

/// Reads until so many activations have come.
async fn read(peer: &mut PushPeer, activations: usize) {
    let mut left = activations;
    while left > 0 {
        left -= peer.frame().await.activations.len();
    }
}

#[tokio::test(start_paused = true)]
async fn answers_follow_on_the_stream_that_resumes() {
    let (mut router, controller, mut peer) = connected().await;
    let pending = [submit(&controller, "p"), submit(&controller, "q")];
    read(&mut peer, 2).await;
    let since = Instant::now();
    peer.cut();
    let (mut peer, hello) = router.push_with(session("s2", true, 2000)).await;
    assert_eq!(hello.hello.unwrap().session, "s1");
    assert!(since.elapsed() < Duration::from_millis(50), "soon: {:?}", since.elapsed());
    assert_eq!(peer.frame().await.outstanding, ids(&pending));
    peer.say(answers(ids(&pending), v1::Outcome::Completed));
    for pending in pending {
        assert!(matches!(pending.await.outcome, Outcome::Completed(_)));
    }
    // What is asked now is declared anew, on the stream that says so.
    drop(submit(&controller, "r"));
    let frame = peer.frame().await;
    assert_eq!((frame.declares.len(), frame.activations.len(), frame.outstanding.len()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_router_that_does_not_know_the_session_has_no_answers() {
    let (mut router, controller, mut peer) = connected().await;
    let pending = submit(&controller, "p");
    read(&mut peer, 1).await;
    peer.cut();
    let (mut peer, _) = router.push_with(session("other", false, 2000)).await;
    assert_eq!(pending.await.outcome, MAYBE_SENT);
    controller.connected().await;
    drop(submit(&controller, "q"));
    let frame = peer.frame().await;
    assert_eq!((frame.outstanding.len(), frame.activations.len()), (0, 1));
    // The next stream asks for the session there is now.
    peer.cut();
    let (_, hello) = router.push_with(session("s3", true, 0)).await;
    assert_eq!(hello.hello.unwrap().session, "other");
}

#[tokio::test(start_paused = true)]
async fn callers_wait_no_longer_than_the_router_keeps_their_answers() {
    let (router, controller, mut peer) = connected().await;
    let pending = submit(&controller, "p");
    read(&mut peer, 1).await;
    let since = Instant::now();
    router.die();
    let answer = pending.await;
    assert_eq!(answer.outcome, MAYBE_SENT);
    assert!((2000..2010).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    // And who comes meanwhile does not wait at all.
    assert_eq!(submit(&controller, "q").await.outcome, UNSENT);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_stream_is_broken_hears_so_at_once() {
    let (router, controller, mut peer) = connected().await;
    let pending = submit(&controller, "p");
    read(&mut peer, 1).await;
    router.die();
    tokio::time::sleep(SECOND).await;
    let since = Instant::now();
    assert_eq!(submit(&controller, "q").await.outcome, UNSENT);
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(controller.outstanding(), 1, "the other still waits");
    assert_eq!(pending.await.outcome, MAYBE_SENT);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_sent_on_the_next_stream_and_what_did_is_not() {
    let (mut router, controller, mut peer) = connected().await;
    // Far more than fits on the way to a router that reads one frame and no more.
    let pending: Vec<_> = (0..100).map(|_| submit(&controller, vec![0; WINDOW_BYTES as usize])).collect();
    peer.frame().await;
    peer.cut();
    let (mut peer, _) = router.push_with(session("s2", true, 2000)).await;
    let stated = peer.frame().await.outstanding;
    assert!((1..50).contains(&stated.len()), "{} left", stated.len());
    let mut sent = Vec::new();
    while stated.len() + sent.len() < 100 {
        sent.extend(peer.frame().await.activations.into_iter().map(|activation| activation.id));
    }
    assert_eq!([stated, sent].concat(), ids(&pending), "each once, in order");
    peer.say(answers(ids(&pending), v1::Outcome::Completed));
    for pending in pending {
        assert!(matches!(pending.await.outcome, Outcome::Completed(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn many_outstanding_are_stated_in_frames_that_the_router_takes() {
    let (mut router, controller, mut peer) = connected().await;
    let pending: Vec<_> = (0..2500).map(|_| submit(&controller, "p")).collect();
    read(&mut peer, 2500).await;
    peer.cut();
    let welcome = v1::Welcome { frame_entries_max: 1000, ..session("s2", true, 2000) };
    let (mut peer, _) = router.push_with(welcome).await;
    let mut stated = Vec::new();
    for expected in [1000, 1000, 500] {
        let frame = peer.frame().await;
        assert_eq!((frame.outstanding.len(), frame.activations.len()), (expected, 0));
        stated.extend(frame.outstanding);
    }
    stated.sort_unstable();
    let mut expected = ids(&pending);
    expected.sort_unstable();
    assert_eq!(stated, expected);
}

#[tokio::test(start_paused = true)]
async fn who_still_waits_is_answered_though_the_controller_is_gone() {
    let (_router, controller, mut peer) = connected().await;
    let pending = submit(&controller, "p");
    drop(controller);
    read(&mut peer, 1).await;
    peer.say(answers(ids(std::slice::from_ref(&pending)), v1::Outcome::Lost));
    assert_eq!(pending.await.outcome, Outcome::Lost);
    // With the last who waited goes the stream.
    peer.gone().await;
}

#[test]
fn who_still_waits_when_the_runtime_ends_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let pending = runtime.block_on(async {
        let (_router, controller, mut peer) = connected().await;
        let pending = submit(&controller, "p");
        read(&mut peer, 1).await;
        // Not awaited here: that is the point.
        Some(pending)
    });
    drop(runtime);
    let elsewhere = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(elsewhere.block_on(pending.unwrap()).outcome, MAYBE_SENT);
}

#[tokio::test(start_paused = true)]
async fn an_action_that_fails_too_often_is_kept_back_and_says_why() {
    let (_router, controller, mut peer) = connected().await;
    let key = ActionKey::new("n", "a", "1").unwrap();
    assert_eq!(controller.breaker(&key), None);
    for _ in 0..3 {
        let pending = submit(&controller, "p");
        read(&mut peer, 1).await;
        peer.say(answers(ids(std::slice::from_ref(&pending)), v1::Outcome::PlatformFailed));
        pending.await;
    }
    let answer = submit(&controller, "p").await;
    let Outcome::CircuitOpen { cause: Cause::Failed, retry_after } = answer.outcome else { panic!("{answer:?}") };
    assert_eq!(controller.breaker(&key).unwrap().state, State::Open);
    tokio::time::advance(retry_after + Duration::from_millis(1)).await;
    let probe = submit(&controller, "p");
    read(&mut peer, 1).await;
    assert_eq!(controller.breaker(&key).unwrap().state, State::HalfOpen);
    peer.say(answers(ids(std::slice::from_ref(&probe)), v1::Outcome::Completed));
    assert!(matches!(probe.await.outcome, Outcome::Completed(_)));
}

#[tokio::test(start_paused = true)]
async fn bounds_can_be_milliseconds_and_few() {
    let mut router = Scripted::start();
    let config = ControllerConfig {
        outstanding_max: 1,
        answer_grace: Duration::ZERO,
        forced: client::ForcedCompletion {
            minimum: Duration::from_millis(5),
            factor: 2,
            addition: Duration::from_millis(10),
            ..client::ForcedCompletion::default()
        },
        ..ControllerConfig::default()
    };
    let (controller, (mut peer, _)) =
        tokio::join!(Controller::over_with(router.channel(), "me", config), router.push());
    let (controller, key) = (controller.unwrap(), ActionKey::new("n", "a", "1").unwrap());
    let since = Instant::now();
    let pending = controller.submit(Invocation::new(&key, "p").action_timeout(Duration::from_millis(1)));
    assert!(matches!(submit(&controller, "q").await.outcome, Outcome::Rejected(_)), "one at a time");
    assert_eq!(peer.frame().await.activations[0].time_left_ms, 20);
    assert_eq!(pending.await.outcome, Outcome::TimedOut);
    assert!((20..=23).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
}
