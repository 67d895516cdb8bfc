//! The drain: every caller hears something before its stream ends, and the router says what was left.

use crate::overflow::{Folder, started};
use crate::peers::{Controller, activation, completion, connect_narrow, heavy, push_hello, rejection};
use crate::scene::{GOOD, Scene};
use proto::v1::{self, Durability, Outcome, Reason};
use router::drain::Left;
use tonic::Code;

/// A scene whose router drains for that long.
async fn draining_within(drain_timeout_ms: u64) -> Scene {
    Scene::start(|config| config.drain_timeout_ms = drain_timeout_ms).await
}

#[tokio::test]
async fn who_waits_when_the_time_is_over_hears_that_it_never_started_or_is_lost() {
    let mut scene = draining_within(600).await;
    scene.controller.declare(1, "without containers");
    scene.controller.push((1..=3).map(|number| activation(number, 1)));
    let in_flight = scene.in_flight().await;
    scene.router.stop();
    let (mut rejected, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let answer = scene.controller.answer().await;
        match answer.outcome() {
            Outcome::Rejected => {
                assert_eq!(rejection(&answer).0, Reason::Draining);
                assert_eq!(answer.rejection.unwrap().retry_after_ms, 1_000);
                rejected.push(answer.id);
            }
            Outcome::Lost => lost.push(answer.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rejected.len(), lost), (3, vec![in_flight.id]));
    scene.controller.end().await.expect("it has heard all that it is owed");
    assert_eq!(scene.router.stopped().await, Left { queued: 3, in_flight: 1, ..Left::default() });
}

#[tokio::test]
async fn what_stays_in_the_store_is_acknowledged_as_durable() {
    let folder = Folder::new("parting");
    let small = folder.small();
    let mut router = started(|config| {
        small(config);
        config.drain_timeout_ms = 1_000;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "without containers");
    controller.push((0..1_500).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 1_490).await;
    router.stop();
    let (mut rejected, mut durable) = (0, 0);
    for _ in 0..1_500 {
        let answer = controller.answer().await;
        match answer.outcome() {
            Outcome::Rejected => rejected += 1,
            Outcome::Accepted => {
                assert_eq!(answer.durability(), Durability::Durable);
                durable += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((rejected, durable), (10, 1_490));
    controller.end().await.expect("it has heard all that it is owed");
    assert_eq!(router.stopped().await, Left { queued: 10, stored: 1_490, ..Left::default() });
}

#[tokio::test]
async fn answers_whose_controller_stays_away_are_left() {
    let mut scene = draining_within(1_000).await;
    let mut in_flight = Vec::new();
    for _ in 0..4 {
        in_flight.push(scene.in_flight().await);
    }
    scene.lines[0].cut();
    scene.router.metric_is("router_sessions{kind=\"controller\",state=\"parked\"}", |n| n == 1).await;
    in_flight.iter().for_each(|dispatch| scene.invoker.complete(completion(dispatch)));
    scene.router.metric_is("router_held", |held| held == 0).await;
    scene.router.stop();
    assert_eq!(scene.router.stopped().await, Left { unread: 4, ..Left::default() });
}

#[tokio::test]
async fn a_stream_that_is_not_read_in_time_ends_with_unavailable() {
    const LARGE: usize = 100_000;
    let mut scene = draining_within(700).await;
    let mut slow =
        Controller::open_with(connect_narrow(&scene.router).await, push_hello("does not read")).await.unwrap();
    slow.declare(GOOD, "good");
    slow.push((1..=8).map(|number| heavy(number, GOOD, 10)));
    for _ in 0..8 {
        let dispatch = scene.invoker.dispatch().await;
        let large = v1::Completion { result: vec![0; LARGE].into(), credits: 1, ..completion(&dispatch) };
        scene.invoker.complete(large);
    }
    scene.router.metric_is("router_held", |held| held == 0).await;
    scene.router.stop();
    scene.router.metric_is("router_answers_dropped_total", |dropped| dropped > 0).await;
    let ended = slow.end().await.expect_err("not all of it was written");
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(ended.message().contains("drain_timeout_ms"), "{ended:?}");
    let left = scene.router.stopped().await;
    assert!(left.unread > 0, "{left}");
}
