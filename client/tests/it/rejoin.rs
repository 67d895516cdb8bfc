//! An invoker whose stream breaks: its runs go on, and their ends are told where the router waits for them.

use crate::router::{PullPeer, Scripted, session};
use bytes::Bytes;
use client::{ActionKey, Activation, Container, ContainerSpec, Failure, Gone, Invoker, InvokerConfig};
use proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const AUDIT_EVERY: Duration = Duration::from_secs(3);

/// One container of 3, whose runs end when the gate lets them, beside a router that waits for 50 ms.
struct Scene {
    router: Scripted,
    invoker: Invoker,
    handle: Container,
    registered: v1::Register,
    gate: Arc<Semaphore>,
    /// One permit for each run that has begun.
    begun: Arc<Semaphore>,
}

async fn scene() -> (Scene, PullPeer) {
    let mut router = Scripted::start();
    let (config, channel) = (InvokerConfig { audit_every: AUDIT_EVERY }, router.channel());
    let (invoker, (mut peer, _)) =
        tokio::join!(Invoker::over_with(channel, "node", config), router.pull_with(session("s1", false, 50)));
    let invoker = invoker.unwrap();
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let spec = ContainerSpec { key: ActionKey::new("n", "a", "1").unwrap(), concurrency: 3, warm: false };
    let handle = invoker.register(spec, held(&gate, &begun)).unwrap();
    let registered = peer.frame().await.registers.remove(0);
    (Scene { router, invoker, handle, registered, gate, begun }, peer)
}

fn held(
    gate: &Arc<Semaphore>,
    begun: &Arc<Semaphore>,
) -> impl Fn(Activation) -> futures_util::future::BoxFuture<'static, Result<Bytes, Failure>> + use<> {
    let (gate, begun) = (gate.clone(), begun.clone());
    move |activation| {
        let gate = gate.clone();
        begun.add_permits(1);
        Box::pin(async move {
            gate.acquire().await.unwrap().forget();
            if activation.payload == "back" { Err(Failure::Unstarted) } else { Ok(activation.payload) }
        })
    }
}

fn id(id: u8) -> Bytes {
    Bytes::from(vec![id; 16])
}

fn welcome(peer: &PullPeer, resumed: bool) {
    peer.say(v1::PullResponse { welcome: Some(session("s2", resumed, 50)), ..Default::default() });
}

impl Scene {
    fn dispatch(&self, peer: &PullPeer, number: u8, payload: &'static str, epoch: u32) {
        let (container, id) = (self.registered.container, id(number));
        let payload = Bytes::from(payload);
        let dispatch = v1::Dispatch { container, id, time_left_ms: 60_000, payload, attempt: 1, epoch };
        peer.say(v1::PullResponse { dispatches: vec![dispatch], ..Default::default() });
    }

    /// Dispatches and waits until it runs.
    async fn run(&self, peer: &PullPeer, number: u8, payload: &'static str) {
        self.dispatch(peer, number, payload, self.registered.epoch);
        self.begun.acquire().await.unwrap().forget();
    }

    /// Lets as many runs end, and waits until they have.
    async fn end(&self, runs: usize) {
        self.gate.add_permits(runs);
        while self.gate.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// The next stream of the node that asks to resume, and the first frame behind its hello.
    async fn resumed(&mut self, resumed: bool) -> (PullPeer, v1::PullRequest) {
        let (mut peer, hello) = self.router.pull_with(session("s2", resumed, 50)).await;
        assert_eq!(hello.hello.unwrap().session, "s1");
        let frame = peer.frame().await;
        assert_eq!((frame.completions.len(), frame.returns.len()), (0, 0), "{frame:?}");
        (peer, frame)
    }
}

#[tokio::test(start_paused = true)]
async fn runs_go_on_and_are_told_on_the_stream_that_resumes() {
    let (mut scene, peer) = scene().await;
    scene.run(&peer, 1, "one").await;
    scene.run(&peer, 2, "two").await;
    let since = Instant::now();
    peer.cut();
    let (mut peer, frame) = scene.resumed(true).await;
    assert!(since.elapsed() < Duration::from_millis(50), "before the router gives it up: {:?}", since.elapsed());
    let (again, v1::Register { container, epoch, .. }) = (&frame.registers[0], scene.registered);
    assert_eq!((again.container, again.epoch, again.credits), (container, epoch, 1), "as it was");
    assert_eq!((&again.held, frame.rejoined), (&vec![id(1), id(2)], true));
    scene.gate.add_permits(1);
    let ended = peer.frame().await.completions.remove(0);
    assert_eq!((&ended.result[..], ended.credits, ended.epoch), (&b"one"[..], 1, epoch));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_without_a_stream_is_told_behind_the_rejoin() {
    let (mut scene, peer) = scene().await;
    scene.run(&peer, 1, "one").await;
    scene.run(&peer, 2, "back").await;
    peer.cut();
    // The node knows that its stream has ended: it has opened another, which has not been welcomed yet.
    let mut peer = scene.router.silent_pull().await;
    scene.end(2).await;
    welcome(&peer, true);
    peer.frame().await;
    let frame = peer.frame().await;
    assert!(frame.rejoined && frame.completions.is_empty() && frame.returns.is_empty());
    let again = &frame.registers[0];
    assert_eq!((again.credits, &again.held), (1, &vec![id(1), id(2)]));
    let frame = peer.frame().await;
    assert_eq!((&frame.completions[0].result[..], frame.completions[0].credits), (&b"one"[..], 1));
    assert_eq!((&frame.returns[0].id, &frame.returns[0].payload[..]), (&id(2), &b"back"[..]));
    // The room of what went back is granted when its pause is over.
    let credits = peer.frame().await.credits;
    assert_eq!(credits, [v1::Credit { container: again.container, credits: 1, epoch: again.epoch }]);
}

#[tokio::test(start_paused = true)]
async fn what_the_router_gave_up_is_heard_of_no_more() {
    let (mut scene, peer) = scene().await;
    scene.run(&peer, 1, "one").await;
    scene.run(&peer, 2, "two").await;
    peer.cut();
    let mut peer = scene.router.silent_pull().await;
    scene.end(1).await;
    welcome(&peer, false);
    peer.frame().await;
    let frame = peer.frame().await;
    let again = &frame.registers[0];
    assert!(again.epoch != scene.registered.epoch && again.held.is_empty() && !frame.rejoined);
    assert_eq!(again.credits, 2, "one still runs");
    scene.gate.add_permits(1);
    let frame = peer.frame().await;
    assert_eq!((frame.credits.len(), frame.completions.len()), (1, 0), "{frame:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dispatch_to_another_registration_is_not_run() {
    let (scene, mut peer) = scene().await;
    scene.gate.add_permits(2);
    scene.dispatch(&peer, 1, "other", scene.registered.epoch + 1);
    scene.dispatch(&peer, 2, "mine", scene.registered.epoch);
    assert_eq!(peer.frame().await.completions[0].result, "mine");
    assert_eq!(scene.begun.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn credits_are_compared_now_and_then() {
    let (scene, mut peer) = scene().await;
    let v1::Register { container, epoch, .. } = scene.registered;
    let audit = |credits, received| v1::Audit { container, epoch, credits, received };
    let since = Instant::now();
    assert_eq!(peer.frame().await.audits, [audit(3, 0)]);
    assert!(since.elapsed() >= AUDIT_EVERY);
    scene.run(&peer, 1, "one").await;
    scene.run(&peer, 2, "two").await;
    assert_eq!(peer.frame().await.audits, [audit(1, 2)]);
    scene.gate.add_permits(1);
    assert_eq!(peer.frame().await.completions.len(), 1);
    assert_eq!(peer.frame().await.audits, [audit(2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_loses_nothing_when_the_stream_breaks_meanwhile() {
    let (mut scene, mut peer) = scene().await;
    scene.run(&peer, 1, "one").await;
    let v1::Register { container, epoch, .. } = scene.registered;
    let (invoker, gate) = (scene.invoker, scene.gate.clone());
    let script = async {
        assert_eq!(peer.frame().await.leaves, [v1::Leave { container, gone: false, epoch }]);
        peer.cut();
        let (mut peer, hello) = scene.router.pull_with(session("s2", true, 50)).await;
        assert_eq!(hello.hello.unwrap().session, "s1");
        let frame = peer.frame().await;
        assert_eq!((frame.registers[0].credits, &frame.registers[0].held), (0, &vec![id(1)]));
        assert!(frame.rejoined);
        // The router may not have heard it on the stream that broke.
        assert_eq!(peer.frame().await.leaves, [v1::Leave { container, gone: false, epoch }]);
        gate.add_permits(1);
        let ended = peer.frame().await.completions.remove(0);
        assert_eq!((&ended.result[..], ended.credits), (&b"one"[..], 0));
        peer.say(v1::PullResponse { drains: vec![v1::Drain { container, epoch }], ..Default::default() });
        assert_eq!(peer.frame().await.leaves, [v1::Leave { container, gone: true, epoch }]);
        peer.finished().await;
        drop(peer);
    };
    tokio::join!(invoker.drain(), script);
    assert_eq!(scene.handle.gone().await, Gone::Left);
}
