//! Breakers as controllers, nodes and operators see them: overload opens none, and a node is held back by its name.

use crate::peers::{Controller, Invoker, activation, completion, container_of, id};
use crate::router::Router;
use proto::v1;

/// With 1.1 s of 2 s gone before a container is free, half of the time is not left: three that time out say nothing of it.
#[tokio::test]
async fn overload_opens_no_breaker_of_a_healthy_container() {
    let router = Router::start(|config| config.overdue_grace_ms = 0);
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    let brief = |number| v1::Activation { time_left_ms: 2000, ..activation(number, 1) };
    controller.push((0..3).map(brief));
    let mut invoker = Invoker::open(&router, "node").await;
    let busy = v1::Register { credits: 0, ..container_of(7, "good", 4) };
    invoker.send(v1::PullRequest { registers: vec![busy], ..Default::default() });
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    invoker.credit(7, 3);
    let mut dispatched = Vec::new();
    for _ in 0..3 {
        dispatched.push(invoker.dispatch().await);
    }
    assert!(dispatched.iter().all(|dispatch| dispatch.time_left_ms < 1000), "{dispatched:?}");
    for _ in 0..3 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::TimedOut);
    }
    dispatched.iter().for_each(|dispatch| invoker.complete(completion(dispatch)));
    controller.push([v1::Activation { time_left_ms: 20_000, ..activation(9, 1) }]);
    let since = std::time::Instant::now();
    assert_eq!(invoker.dispatch().await.id, id(9));
    assert!(since.elapsed() < std::time::Duration::from_millis(400), "an open breaker takes half a second at least");
    assert_eq!(router.metric("router_activations_total{event=\"breaker_timed_out\"}").await, 0);
}

/// Takes one activation under that node's name and dies. False: it got none.
async fn take_one_and_die(router: &Router, controller: &mut Controller, number: u64) -> bool {
    let mut invoker = Invoker::open(router, "crasher").await;
    // Ever other numbers and epochs: only the name stays.
    let (container, epoch) = (u32::try_from(number).unwrap(), 100 - u32::try_from(number).unwrap());
    let register = v1::Register { epoch, ..container_of(container, "good", 1) };
    invoker.send(v1::PullRequest { registers: vec![register], ..Default::default() });
    router.metric_is("router_activations_total{event=\"containers_registered\"}", |n| n == number + 1).await;
    controller.push([v1::Activation { time_left_ms: 300, ..activation(number, 1) }]);
    let taken = tokio::select! {
        _ = invoker.dispatch() => true,
        answer = controller.answer() => {
            assert_eq!(answer.outcome(), v1::Outcome::Expired);
            return false;
        }
    };
    drop(invoker);
    assert_eq!(controller.answer().await.outcome(), v1::Outcome::Lost);
    taken
}

#[tokio::test]
async fn a_node_that_dies_at_each_run_is_held_back_by_its_name() {
    let router = Router::start(|config| config.breaker.open_first_ms = config.breaker.open_max_ms);
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    let mut taken = Vec::new();
    for number in 0..8 {
        taken.push(take_one_and_die(&router, &mut controller, number).await);
    }
    assert_eq!(taken, [true, true, true, false, false, false, false, false]);
    router.metric_is("router_breakers{state=\"open\",cause=\"failed\"}", |n| n == 1).await;
    let page = router.page("/breakers").await.1;
    assert!(page.contains("\"node\":\"crasher\",\"session\":null,\"container\":null"), "{page}");
    // Another node is none of its business.
    let mut invoker = Invoker::open(&router, "steady").await;
    invoker.register(1, "good", 1);
    controller.push([activation(9, 1)]);
    assert_eq!(invoker.dispatch().await.id, id(9));
}

/// It does not wait for the grace of the session before: its node has come back without it.
#[tokio::test]
async fn what_a_node_left_is_lost_as_soon_as_it_begins_anew() {
    let router = Router::start(|config| config.invoker_grace_ms = 60_000);
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    let mut first = Invoker::open(&router, "node").await;
    first.register(1, "good", 1);
    let mut other = Invoker::open(&router, "other").await;
    controller.push([activation(1, 1)]);
    assert_eq!(first.dispatch().await.id, id(1));
    other.register(1, "good", 1);
    controller.push([activation(2, 1)]);
    assert_eq!(other.dispatch().await.id, id(2));
    drop((first, other));
    router.metric_is("router_sessions{kind=\"invoker\",state=\"parked\"}", |n| n == 2).await;
    let _again = Invoker::open(&router, "node").await;
    let answer = controller.answer().await;
    assert_eq!((&answer.id, answer.outcome()), (&id(1), v1::Outcome::Lost), "and not that of the other");
}
