//! The low level: frames as they stand on the wire.

use crate::router::{PAYLOAD_BYTES_MAX, Scripted};
use bytes::Bytes;
use client::{ActionKey, AppendError, OpenError, PullStream, PushStream, StreamError};
use proto::v1;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Code, Status};

fn activation(id: u8, action: u32) -> v1::Activation {
    v1::Activation { id: Bytes::from(vec![id; 16]), action, time_left_ms: 1000, ..Default::default() }
}

fn key(action: &str) -> ActionKey {
    ActionKey::new("n", action, "1").unwrap()
}

fn ids(frame: &v1::PushRequest) -> Vec<u8> {
    frame.activations.iter().map(|activation| activation.id[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn a_push_stream_says_hello_then_sends_what_waits_in_one_frame() {
    let mut router = Scripted::start();
    let (opened, (mut peer, hello)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    let (sender, mut receiver) = opened.unwrap();
    assert_eq!(hello.hello.unwrap().controller_id, "me");
    assert_eq!(receiver.welcome().payload_bytes_max, PAYLOAD_BYTES_MAX);

    sender.declare(7, key("a")).unwrap();
    sender.push_all((0..3).map(|id| activation(id, 7))).unwrap();
    let frame = peer.frame().await;
    assert_eq!((frame.declares.len(), frame.declares[0].number, ids(&frame)), (1, 7, vec![0, 1, 2]));

    let answer = v1::Answer { id: Bytes::from(vec![1; 16]), outcome: 1, ..Default::default() };
    peer.say(v1::PushResponse { answers: vec![answer.clone()], ..Default::default() });
    assert_eq!(receiver.next().await.unwrap().unwrap().answers, [answer]);

    sender.finish();
    peer.finished().await;
    assert!(matches!(sender.push(activation(9, 7)), Err(AppendError::Closed(_))));
    drop(peer);
    assert!(receiver.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_number_declared_again_does_not_overtake_activations_of_its_former_action() {
    let mut router = Scripted::start();
    let (opened, (mut peer, _)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    let (sender, _receiver) = opened.unwrap();
    sender.declare(1, key("a")).unwrap();
    sender.push(activation(0, 1)).unwrap();
    sender.declare(2, key("b")).unwrap();
    sender.push(activation(1, 2)).unwrap();
    sender.declare(1, key("c")).unwrap();
    sender.push(activation(2, 1)).unwrap();
    let (first, second) = (peer.frame().await, peer.frame().await);
    // `b` is nobody's former number and shares the frame; `c` must wait for the activation that means `a`.
    assert_eq!((first.declares.len(), ids(&first)), (2, vec![0, 1]));
    assert_eq!((second.declares.len(), ids(&second)), (1, vec![2]));
    assert_eq!(second.declares[0].key.as_ref().unwrap().action, "c");
}

#[tokio::test(start_paused = true)]
async fn a_payload_longer_than_the_router_takes_is_given_back() {
    let mut router = Scripted::start();
    let (opened, (_peer, _)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    let (sender, _receiver) = opened.unwrap();
    let payload = Bytes::from(vec![0; PAYLOAD_BYTES_MAX as usize + 1]);
    let refused = sender.push(v1::Activation { payload, ..activation(0, 1) }).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { payload_bytes_max: PAYLOAD_BYTES_MAX, .. }));
    assert_eq!(refused.into_entry().id, vec![0; 16]);
}

#[tokio::test(start_paused = true)]
async fn a_pull_streams_entries_about_a_container_keep_their_order() {
    let mut router = Scripted::start();
    let (opened, (mut peer, hello)) = tokio::join!(PullStream::open(router.channel(), "node"), router.pull());
    let (sender, _receiver) = opened.unwrap();
    assert_eq!(hello.hello.unwrap().invoker_id, "node");

    let completion = |container| v1::Completion { container, id: Bytes::from(vec![0; 16]), ..Default::default() };
    sender.register(v1::Register { container: 1, concurrency: 2, ..Default::default() }).unwrap();
    sender.complete_all([completion(1), completion(1)]).unwrap();
    sender.credit(2, 1).unwrap();
    sender.credit(1, 1).unwrap();
    sender.leave(1, false).unwrap();
    sender.give_back(v1::Return { container: 1, ..Default::default() }).unwrap();
    let shape = |frame: v1::PullRequest| {
        let [registers, credits, completions] = [frame.registers.len(), frame.credits.len(), frame.completions.len()];
        [registers, credits, completions, frame.returns.len(), frame.leaves.len()]
    };
    // Container 2's credit may be handled before container 1's completions, container 1's own may not.
    assert_eq!(shape(peer.frame().await), [1, 1, 2, 0, 0]);
    assert_eq!(shape(peer.frame().await), [0, 1, 0, 0, 1]);
    assert_eq!(shape(peer.frame().await), [0, 0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_refuses_the_stream_is_told_apart_from_one_that_is_away() {
    let mut router = Scripted::start();
    for (code, refused) in [(Code::AlreadyExists, true), (Code::InvalidArgument, true), (Code::Unavailable, false)] {
        let channel = router.channel();
        let refuse = async { router.silent_push().await.end(Status::new(code, "")) };
        let (opened, ()) = tokio::join!(PushStream::open(channel, "me"), refuse);
        assert_eq!(matches!(opened.unwrap_err(), OpenError::Refused(_)), refused, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_says_no_welcome_is_none() {
    let mut router = Scripted::start();
    let channel = router.channel();
    let answer = async { router.silent_push().await.say(v1::PushResponse::default()) };
    let (opened, ()) = tokio::join!(PushStream::open(channel, "me"), answer);
    assert!(matches!(opened.unwrap_err(), OpenError::NoWelcome));
    let (opened, _peer) = tokio::join!(PushStream::open(router.channel(), "me"), router.silent_push());
    assert!(matches!(opened.unwrap_err(), OpenError::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_told_apart_from_one_that_the_router_ended() {
    let mut router = Scripted::start();
    let (opened, (peer, _)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    let (_sender, mut receiver) = opened.unwrap();
    peer.end(Status::out_of_range("the frame is too long"));
    assert!(matches!(receiver.next().await.unwrap_err(), StreamError::Ended(_)));

    let (opened, (_peer, _)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    let (sender, mut receiver) = opened.unwrap();
    router.die();
    assert!(matches!(receiver.next().await.unwrap_err(), StreamError::Broken(_)));
    assert!(matches!(sender.push(activation(0, 1)), Err(AppendError::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_is_reset() {
    let mut router = Scripted::start();
    let opening = tokio::spawn(PushStream::open(router.channel(), "me"));
    let mut peer = router.silent_push().await;
    opening.abort();
    assert!(timeout(SOON, peer.hung_up()).await.is_ok(), "dropped before it was open");

    let (opened, (mut peer, _)) = tokio::join!(PushStream::open(router.channel(), "me"), router.push());
    drop(opened.unwrap());
    assert!(timeout(SOON, peer.hung_up()).await.is_ok(), "dropped with nothing to read");
}

/// Less than a stream takes to open at most.
const SOON: Duration = Duration::from_secs(1);
