//! Containers get what they granted credits for, and say how it ended exactly once.

use crate::router::{PAYLOAD_BYTES_MAX, PullPeer, Scripted};
use bytes::Bytes;
use client::{ActionKey, Activation, ContainerSpec, Failure, Gone, Invoker, Reason, RegisterError};
use proto::v1;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;

async fn connected() -> (Scripted, Invoker, PullPeer) {
    let mut router = Scripted::start();
    let (invoker, (peer, _)) = tokio::join!(Invoker::over(router.channel(), "node"), router.pull());
    (router, invoker.unwrap(), peer)
}

fn spec(concurrency: u32) -> ContainerSpec {
    ContainerSpec { key: ActionKey::new("n", "a", "1").unwrap(), concurrency, warm: false }
}

fn dispatch(container: u32, id: u8, payload: &'static str) -> v1::PullResponse {
    let (id, payload) = (Bytes::from(vec![id; 16]), Bytes::from(payload));
    let dispatch = v1::Dispatch { container, id, time_left_ms: 1000, payload, attempt: 1, ..Default::default() };
    v1::PullResponse { dispatches: vec![dispatch], ..Default::default() }
}

/// The one registration of the next frame.
async fn registration(peer: &mut PullPeer) -> v1::Register {
    let mut frame = peer.frame().await;
    assert_eq!(frame.registers.len(), 1, "{frame:?}");
    frame.registers.remove(0)
}

/// The one completion of the next frame.
async fn completion(peer: &mut PullPeer) -> v1::Completion {
    let mut frame = peer.frame().await;
    assert_eq!(frame.completions.len(), 1, "{frame:?}");
    frame.completions.remove(0)
}

/// What the router says behind its last dispatch to a container that leaves.
fn drain(container: u32, epoch: u32) -> v1::PullResponse {
    v1::PullResponse { drains: vec![v1::Drain { container, epoch }], ..Default::default() }
}

fn leave(container: u32, epoch: u32, gone: bool) -> v1::Leave {
    v1::Leave { container, gone, epoch }
}

/// A handler that runs until the test lets it end.
fn held(
    gate: &Arc<Semaphore>,
) -> impl Fn(Activation) -> futures_util::future::BoxFuture<'static, Result<Bytes, Failure>> + use<> {
    let gate = gate.clone();
    move |activation| {
        let gate = gate.clone();
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            Ok(activation.payload)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_registered_with_its_credits_and_every_end_is_reported() {
    let (_router, invoker, mut peer) = connected().await;
    let run = |activation: Activation| async move {
        sleep(Duration::from_micros(3000)).await;
        match &activation.payload[..] {
            b"ok" => Ok(Bytes::from(format!("{} {}", activation.attempt, activation.time_left.as_millis()))),
            b"action" => Err(Failure::Action("a".into())),
            b"platform" => Err(Failure::Platform("p".into())),
            b"long" => Ok(Bytes::from(vec![0; PAYLOAD_BYTES_MAX as usize + 1])),
            _ => panic!("on purpose"),
        }
    };
    invoker.register(spec(3), run).unwrap();
    let v1::Register { container, concurrency, credits, key, .. } = registration(&mut peer).await;
    assert_eq!((concurrency, credits, key), (3, 3, Some(spec(3).key.into())));

    use v1::RunStatus::{ActionFailed, PlatformFailed, Succeeded};
    for (id, (payload, status, result)) in [
        ("ok", Succeeded, "1 1000"),
        ("action", ActionFailed, "a"),
        ("platform", PlatformFailed, "p"),
        ("panic", PlatformFailed, "the handler panicked"),
        ("long", PlatformFailed, "a result may have at most 1048576 bytes, not 1048577"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = u8::try_from(id).unwrap();
        peer.say(dispatch(container, id, payload));
        let ended = completion(&mut peer).await;
        assert_eq!((ended.container, &ended.id[..], ended.credits), (container, &[id; 16][..], 1));
        assert_eq!((ended.status(), ended.result), (status, Bytes::from(result)));
        assert!((3000..5000).contains(&ended.run_us), "{} us", ended.run_us);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unstarted_activation_goes_back_with_its_payload_and_its_credit_comes_after_a_pause() {
    let (_router, invoker, mut peer) = connected().await;
    invoker.register(spec(1), |_| ready(Err(Failure::Unstarted))).unwrap();
    let v1::Register { container, epoch, .. } = registration(&mut peer).await;
    peer.say(dispatch(container, 1, "p"));
    let frame = peer.frame().await;
    assert_eq!(frame.returns, [v1::Return { container, id: Bytes::from(vec![1; 16]), payload: "p".into(), epoch }]);
    assert!(frame.credits.is_empty() && frame.completions.is_empty());
    let since = tokio::time::Instant::now();
    assert_eq!(peer.frame().await.credits, [v1::Credit { container, credits: 1, epoch }]);
    assert!(since.elapsed() >= Duration::from_millis(90), "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_the_router_sent_before_it_knew() {
    let (_router, invoker, mut peer) = connected().await;
    let gate = Arc::new(Semaphore::new(0));
    invoker.register(spec(2), held(&gate)).unwrap();
    let v1::Register { container, epoch, .. } = registration(&mut peer).await;
    let script = async {
        assert_eq!(peer.frame().await.leaves, [leave(container, epoch, false)]);
        // Dispatched before the router heard of the leave: it must run.
        peer.say(dispatch(container, 1, "p"));
        peer.say(drain(container, epoch));
        gate.add_permits(1);
        let frame = peer.frame().await;
        assert_eq!((frame.completions[0].credits, &frame.completions[0].result[..]), (0, &b"p"[..]));
        assert_eq!(frame.leaves, [leave(container, epoch, true)]);
        peer.finished().await;
        drop(peer);
    };
    tokio::join!(invoker.drain(), script);
    assert_eq!(invoker.register(spec(1), |_| ready(Ok(Bytes::new()))).unwrap_err(), RegisterError::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever_for_a_router_that_keeps_silent() {
    let (_router, invoker, mut peer) = connected().await;
    let container = invoker.register(spec(2), |_| ready(Ok(Bytes::new()))).unwrap();
    registration(&mut peer).await;
    let since = tokio::time::Instant::now();
    invoker.drain().await;
    assert!((10..11).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    assert_eq!(container.gone().await, Gone::Left);
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_a_stream_waits_for_handlers_only() {
    let (router, invoker, mut peer) = connected().await;
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (run, starts) = (held(&gate), started.clone());
    let announced = move |activation| {
        starts.add_permits(1);
        run(activation)
    };
    invoker.register(spec(2), announced).unwrap();
    let container = registration(&mut peer).await.container;
    peer.say(dispatch(container, 1, "p"));
    started.acquire().await.unwrap().forget();
    router.die();
    let mut drained = Box::pin(invoker.drain());
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut drained).await.is_err());
    gate.add_permits(1);
    drained.await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_the_router_drains_finishes_and_leaves() {
    let (_router, invoker, mut peer) = connected().await;
    let gate = Arc::new(Semaphore::new(0));
    let handle = invoker.register(spec(2), held(&gate)).unwrap();
    let v1::Register { container, epoch, .. } = registration(&mut peer).await;
    peer.say(dispatch(container, 1, "p"));
    // What is said of another registration is not meant for this one.
    peer.say(drain(container, epoch + 1));
    peer.say(drain(container, epoch));
    let script = async {
        gate.add_permits(1);
        let frame = peer.frame().await;
        assert_eq!((frame.completions.len(), frame.leaves), (1, vec![leave(container, epoch, true)]));
    };
    let (gone, ()) = tokio::join!(handle.gone(), script);
    assert_eq!(gone, Gone::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_container_can_leave_by_itself() {
    let (_router, invoker, mut peer) = connected().await;
    let handle = invoker.register(spec(2), |_| ready(Ok(Bytes::new()))).unwrap();
    let v1::Register { container, epoch, .. } = registration(&mut peer).await;
    handle.leave();
    handle.leave();
    assert_eq!(peer.frame().await.leaves, [leave(container, epoch, false)]);
    peer.say(drain(container, epoch));
    assert_eq!(peer.frame().await.leaves, [leave(container, epoch, true)]);
    assert_eq!(handle.gone().await, Gone::Left);
}

#[tokio::test(start_paused = true)]
async fn a_refused_container_says_so() {
    let (_router, invoker, mut peer) = connected().await;
    let handle = invoker.register(spec(2), |_| ready(Ok(Bytes::new()))).unwrap();
    let number = registration(&mut peer).await.container;
    let reason = v1::Reason::TooManyContainers.into();
    let refusal = v1::Refusal { reason, number, field: "container".into(), limit: 7, ..Default::default() };
    peer.say(v1::PullResponse { refusals: vec![refusal], ..Default::default() });
    let Gone::Refused(rejection) = handle.gone().await else { panic!("it was refused") };
    assert_eq!((rejection.reason, rejection.limit), (Reason::Router(v1::Reason::TooManyContainers), 7));
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_out_of_range_is_refused_at_once() {
    let (_router, invoker, _peer) = connected().await;
    for concurrency in [0, Invoker::CONCURRENCY_MAX + 1] {
        let refused = invoker.register(spec(concurrency), |_| ready(Ok(Bytes::new()))).unwrap_err();
        assert_eq!(refused, RegisterError::ConcurrencyOutOfRange);
    }
}

#[tokio::test(start_paused = true)]
async fn on_another_stream_a_container_grants_only_what_it_has_room_for() {
    let (mut router, invoker, mut peer) = connected().await;
    let gate = Arc::new(Semaphore::new(0));
    invoker.register(spec(3), held(&gate)).unwrap();
    let v1::Register { container, epoch, .. } = registration(&mut peer).await;
    peer.say(dispatch(container, 1, "former"));
    peer.say(dispatch(container, 2, "former"));
    // Both have arrived before the stream ends: its end comes behind them.
    drop(peer);
    let (mut peer, first) = router.pull().await;
    assert!(first.completions.is_empty());
    let again = registration(&mut peer).await;
    assert_eq!((again.container, again.concurrency, again.credits), (container, 3, 1));
    assert!(again.epoch > epoch && again.held.is_empty(), "another registration");
    // They are lost to their callers already: their ends only make room.
    gate.add_permits(1);
    let frame = peer.frame().await;
    assert_eq!(
        (frame.credits, frame.completions.len()),
        (vec![v1::Credit { container, credits: 1, epoch: again.epoch }], 0)
    );
    peer.say(dispatch(container, 3, "new"));
    gate.add_permits(2);
    let (mut completions, mut credits) = (Vec::new(), 0);
    while completions.is_empty() || credits == 0 {
        let frame = peer.frame().await;
        completions.extend(frame.completions);
        credits += frame.credits.len();
    }
    assert_eq!((completions.len(), &completions[0].result[..], credits), (1, &b"new"[..], 1));
}
