//! Peers that do not read, and floods: they hurt nobody else, hold little memory, and are cut off in time.

use crate::peers::{
    Controller, Invoker, activation, completion, connect_narrow, heavy, id, pull_hello, push_hello, rejection, within,
};
use crate::router::Router;
use crate::scene::Scene;
use proto::v1::{self, Reason};
use router::config::Config;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tonic::Code;

/// The number of the action that is not `good`.
const HEAVY: u32 = 1;
const LARGE: usize = 1_000_000;

/// An invoker that reads nothing, with a container of the action `heavy` that takes all.
async fn sloth(router: &Router) -> Invoker {
    let sloth = Invoker::open_with(connect_narrow(router).await, pull_hello("sloth")).await.unwrap();
    sloth.register(HEAVY, "heavy", 4_096);
    sloth
}

/// The shortest time a stream may refuse to be written to.
fn impatient(config: &mut Config) {
    config.http2.write_stall_ms = 1_000;
}

// Nobody else is kept waiting.

#[tokio::test]
async fn an_invoker_that_never_reads_blocks_nobody_and_in_time_each_of_its_is_lost_or_goes_elsewhere() {
    let mut scene = Scene::start(impatient).await;
    let _sloth = sloth(&scene.router).await;
    let mut other = Controller::open(&scene.router, "heavy").await;
    other.declare(HEAVY, "heavy");
    for number in 0..10 {
        other.push([heavy(number, HEAVY, LARGE)]);
        scene.round_trip().await;
    }
    assert_lost_or_elsewhere(&mut other, &scene.router, 10).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn an_invoker_that_stops_reading_is_cut_off_though_nothing_more_comes_for_it() {
    let mut scene = Scene::start(impatient).await;
    let _sloth = sloth(&scene.router).await;
    scene.router.metric_is("router_containers", |n| n == 2).await;
    scene.controller.declare(HEAVY, "heavy");
    scene.controller.push((0..4).map(|number| heavy(number, HEAVY, LARGE)));
    assert_lost_or_elsewhere(&mut scene.controller, &scene.router, 4).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn a_stream_is_cut_about_when_it_was_said() {
    let mut scene = Scene::start(|config| {
        impatient(config);
        config.invoker_grace_ms = 0;
    })
    .await;
    let _sloth = sloth(&scene.router).await;
    scene.router.metric_is("router_containers", |n| n == 2).await;
    scene.controller.declare(HEAVY, "heavy");
    let pushed = Instant::now();
    scene.controller.push((0..4).map(|number| heavy(number, HEAVY, LARGE)));
    // What was written of it is lost.
    assert_eq!(scene.controller.answer().await.outcome(), v1::Outcome::Lost);
    let cut = pushed.elapsed();
    // A tenth more and 100 ms, and what it takes to write and to answer.
    assert!((Duration::from_millis(1_000)..Duration::from_millis(1_400)).contains(&cut), "{cut:?}");
}

#[tokio::test]
async fn a_controller_that_never_reads_blocks_nobody_and_is_cut_off_in_time() {
    let mut scene = Scene::start(impatient).await;
    let mut sloth = Controller::open_with(connect_narrow(&scene.router).await, push_hello("sloth")).await.unwrap();
    sloth.declare(0, "good");
    for number in 0..10 {
        sloth.push([activation(number, 0)]);
        let dispatch = scene.invoker.dispatch().await;
        scene.invoker.complete(v1::Completion { result: vec![0; LARGE].into(), ..completion(&dispatch) });
        scene.round_trip().await;
    }
    // Its name is free again, though it never ended its stream; when it reads at last, it is told why.
    within("the sloth's end", async {
        while Controller::open_with(connect_narrow(&scene.router).await, push_hello("sloth")).await.is_err() {
            scene.round_trip().await;
        }
    })
    .await;
    let status = sloth.end().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("write_stall_ms"), "{status:?}");
}

#[tokio::test]
async fn a_slow_reader_that_reads_on_is_not_cut_off() {
    let mut scene = Scene::start(impatient).await;
    let mut slow = sloth(&scene.router).await;
    scene.controller.declare(HEAVY, "heavy");
    let pushed = 16;
    scene.controller.push((0..3).map(|number| heavy(number, HEAVY, LARGE)));
    for batch in (3..pushed).collect::<Vec<_>>().chunks(3) {
        scene.controller.push(batch.iter().map(|&number| heavy(number, HEAVY, LARGE)));
    }
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(250));
    for number in 0..pushed {
        pace.tick().await;
        assert_eq!(slow.dispatch().await.id, id(number));
    }
    scene.round_trip().await;
}

/// What was written to the one that is cut off is lost; what never left the router goes to another container, as if for the
/// first time.
async fn assert_lost_or_elsewhere(controller: &mut Controller, router: &Router, count: u64) {
    router.metric_is("router_containers", |n| n == 1).await;
    let mut other = Invoker::open(router, "reads").await;
    other.register(HEAVY, "heavy", 4_096);
    let mut left: HashSet<_> = (0..count).map(id).collect();
    let unsent = router.metric("router_activations_total{event=\"unsent\"}").await;
    assert!((1..count).contains(&unsent), "{unsent} of {count} had not left");
    for _ in 0..unsent {
        let dispatch = other.dispatch().await;
        assert_eq!(dispatch.attempt, 1);
        other.complete(v1::Completion { result: "elsewhere".into(), ..completion(&dispatch) });
    }
    let mut lost = 0;
    while !left.is_empty() {
        let answer = controller.answer().await;
        assert!(left.remove(&answer.id));
        match answer.outcome() {
            v1::Outcome::Lost => lost += 1,
            outcome => assert_eq!((outcome, &answer.result[..]), (v1::Outcome::Completed, &b"elsewhere"[..])),
        }
    }
    assert_eq!(lost, count - unsent);
}

#[tokio::test]
async fn a_flood_on_one_action_is_refused_at_its_limit_and_blocks_nobody() {
    const QUEUED_MAX: u32 = 10_000;
    const FRAMES: u64 = 4;
    const FRAME: u64 = 4_000;
    let mut scene = Scene::start(|config| config.limits.action_queued_max = QUEUED_MAX).await;
    let mut flood = Controller::open(&scene.router, "flood").await;
    flood.declare(HEAVY, "without containers");
    for frame in 0..FRAMES {
        flood.push((frame * FRAME..(frame + 1) * FRAME).map(|number| activation(number, HEAVY)));
        scene.round_trip().await;
    }
    for _ in u64::from(QUEUED_MAX)..FRAMES * FRAME {
        let answer = flood.answer().await;
        assert_eq!(rejection(&answer), (Reason::QueueFull, "action_queued_max".to_owned(), QUEUED_MAX.into()));
        assert_eq!(answer.rejection.unwrap().retry_after_ms, 100);
    }
    scene.router.metric_is("router_queue_depth", |depth| depth == u64::from(QUEUED_MAX)).await;
    scene.round_trip().await;
}

// An outbox holds little, and what it does not hold stays queued.

const BLOCK: u32 = 16 * 1024;
const BLOCKS: u64 = 1_000;

/// The smallest outbox that takes blocks.
fn small_outbox(config: &mut Config) {
    let limits = &mut config.limits;
    limits.payload_bytes_max = BLOCK;
    limits.frame_bytes_max = BLOCK + 64 * 1024;
    limits.outbox_bytes_max = limits.frame_bytes_max.into();
}

async fn push_blocks(scene: &mut Scene) {
    scene.controller.declare(HEAVY, "heavy");
    (0..BLOCKS).for_each(|number| scene.controller.push([heavy(number, HEAVY, BLOCK as usize)]));
    let accepted = "router_activations_total{event=\"accepted\"}";
    scene.router.metric_is(accepted, |accepted| accepted >= BLOCKS).await;
}

async fn read_blocks(sloth: &mut Invoker) {
    for number in 0..BLOCKS {
        let dispatch = sloth.dispatch().await;
        assert_eq!((&dispatch.id, dispatch.container), (&id(number), HEAVY));
    }
}

#[tokio::test]
async fn what_an_outbox_does_not_hold_stays_queued_until_the_reader_reads() {
    let mut scene = Scene::start(small_outbox).await;
    let mut sloth = sloth(&scene.router).await;
    scene.router.metric_is("router_containers", |n| n == 2).await;
    push_blocks(&mut scene).await;
    let queued = scene.router.metric("router_queue_depth").await;
    assert!(queued > BLOCKS - 100, "the outbox took {} of {BLOCKS}", BLOCKS - queued);
    scene.round_trip().await;
    read_blocks(&mut sloth).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn a_backlog_larger_than_the_outbox_flows_to_a_container_that_comes_later() {
    let mut scene = Scene::start(small_outbox).await;
    push_blocks(&mut scene).await;
    let mut sloth = sloth(&scene.router).await;
    scene.router.metric_is("router_containers", |n| n == 2).await;
    scene.round_trip().await;
    read_blocks(&mut sloth).await;
    assert_eq!(scene.router.metric("router_activations_total{event=\"lost\"}").await, 0);
}
