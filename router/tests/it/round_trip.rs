//! What goes right, from push to answer, and what becomes of activations whose containers or time go away.

use crate::peers::{
    Controller, Invoker, activation, completion, connect, container_of, id, key, pull_hello, push_hello, revision_of,
    within,
};
use crate::router::Router;
use crate::scene::{GOOD, Scene};
use bytes::Bytes;
use proto::v1;
use proto::v1::router_client::RouterClient;
use std::collections::HashSet;
use tokio::task::JoinSet;

#[tokio::test]
async fn an_activation_goes_to_a_container_and_its_result_comes_back_with_times() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    assert_eq!((dispatch.container, dispatch.attempt), (GOOD, 1));
    assert!((50_000..=60_000).contains(&dispatch.time_left_ms), "{}", dispatch.time_left_ms);
    scene.invoker.complete(v1::Completion { result: "done".into(), ..completion(&dispatch) });
    let answer = scene.controller.answer().await;
    assert_eq!((&answer.id, answer.outcome()), (&dispatch.id, v1::Outcome::Completed));
    assert_eq!((&answer.result[..], answer.run_us), (&b"done"[..], 7));
    assert!(answer.dispatch_us > 0, "it took some time to get there and back: {answer:?}");
    assert_eq!((answer.rejection, answer.durability), (None, 0));
}

#[tokio::test]
async fn each_way_a_run_can_end_is_told_with_its_result() {
    let mut scene = Scene::start(|_| ()).await;
    for (status, outcome) in [
        (v1::RunStatus::Succeeded, v1::Outcome::Completed),
        (v1::RunStatus::ActionFailed, v1::Outcome::ActionFailed),
        (v1::RunStatus::PlatformFailed, v1::Outcome::PlatformFailed),
    ] {
        let dispatch = scene.in_flight().await;
        scene.invoker.complete(v1::Completion { status: status as i32, result: "why".into(), ..completion(&dispatch) });
        let answer = scene.controller.answer().await;
        assert_eq!((answer.outcome(), &answer.result[..]), (outcome, &b"why"[..]));
    }
}

#[tokio::test]
async fn the_router_introduces_itself() {
    let mut scene = Scene::start(|config| config.router_id = "it-1".to_owned()).await;
    let welcome = scene.controller.welcome().await;
    assert_eq!((&welcome.router_id[..], welcome.payload_bytes_max), (&b"it-1"[..], 1_054_644));
    assert_eq!((welcome.frame_entries_max, welcome.frame_bytes_max), (4_096, 4 << 20));
}

#[tokio::test]
async fn an_invoke_goes_the_same_way_with_and_without_an_id() {
    let mut scene = Scene::start(|_| ()).await;
    let channel = connect(&scene.router).await;
    for sent in [Bytes::new(), id(9)] {
        let request =
            v1::InvokeRequest { key: Some(key("good")), id: sent.clone(), time_left_ms: 60_000, ..Default::default() };
        let mut client = RouterClient::new(channel.clone());
        let call = tokio::spawn(async move { client.invoke(request).await });
        let dispatch = scene.invoker.dispatch().await;
        assert!(dispatch.id.len() == 16 && (sent.is_empty() || sent == dispatch.id));
        scene.invoker.complete(v1::Completion { result: "done".into(), ..completion(&dispatch) });
        let answer = within("the answer", call).await.unwrap().unwrap().into_inner().answer.unwrap();
        assert_eq!((answer.id, &answer.result[..]), (dispatch.id, &b"done"[..]));
    }
}

#[tokio::test]
async fn who_asks_for_no_more_hears_only_that_it_was_taken() {
    let mut scene = Scene::start(|_| ()).await;
    let accepted = v1::Activation { reply: v1::Reply::Accepted as i32, ..scene.good() };
    scene.controller.push([accepted.clone()]);
    let answer = scene.controller.answer().await;
    assert_eq!((&answer.id, answer.outcome()), (&accepted.id, v1::Outcome::Accepted));
    assert_eq!(answer.durability(), v1::Durability::Memory);
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!(dispatch.id, accepted.id);
    scene.invoker.complete(completion(&dispatch));
    // The next word is about the next activation.
    scene.round_trip().await;
}

#[tokio::test]
async fn what_no_container_takes_in_time_expires() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.declare(1, "without containers");
    scene.controller.push([v1::Activation { time_left_ms: 50, ..activation(1, 1) }]);
    let answer = scene.controller.answer().await;
    assert_eq!((answer.id.clone(), answer.outcome()), (id(1), v1::Outcome::Expired));
    assert!(answer.queue_us >= 50_000, "{answer:?}");
    scene.invoker.register(1, "without containers", 1);
    scene.round_trip().await;
}

#[tokio::test]
async fn what_is_in_flight_is_lost_when_its_container_goes() {
    let scene = &mut Scene::start(|_| ()).await;
    for (gone, n) in ["said so", "half-closed", "stream reset", "connection cut"].into_iter().zip(1..) {
        let channel = connect(&scene.router).await;
        let mut node = Invoker::open_with(channel.clone(), pull_hello("short-lived")).await.unwrap();
        node.register(5, "fleeting", 1);
        scene.controller.declare(1, "fleeting");
        scene.controller.push([activation(n, 1)]);
        let dispatch = node.dispatch().await;
        let kept = match gone {
            "said so" => {
                node.leave(5, true);
                (Some(node), Some(channel))
            }
            "half-closed" => {
                node.finish();
                (Some(node), Some(channel))
            }
            "stream reset" => {
                drop(node);
                (None, Some(channel))
            }
            _ => {
                drop((node, channel));
                (None, None)
            }
        };
        let answer = scene.controller.answer().await;
        assert_eq!((&answer.id, answer.outcome()), (&dispatch.id, v1::Outcome::Lost), "{gone}");
        drop(kept);
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn a_container_that_takes_no_more_may_finish_what_it_has() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    scene.invoker.leave(GOOD, false);
    scene.invoker.register(1, "good", 1);
    scene.router.metric_is("router_containers", |n| n == 2).await;
    let other = scene.in_flight().await;
    assert_eq!(other.container, 1);
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.invoker.leave(GOOD, true);
    scene.invoker.register(GOOD, "good", 1);
    scene.invoker.complete(completion(&other));
    scene.completed(&other).await;
}

#[tokio::test]
async fn what_is_returned_unstarted_goes_elsewhere_as_its_second_attempt() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    scene.invoker.leave(GOOD, false);
    let mut other = Invoker::open(&scene.router, "other node").await;
    other.register(3, "good", 1);
    scene.invoker.give_back(dispatch.clone());
    let again = other.dispatch().await;
    assert_eq!((&again.id, &again.payload), (&dispatch.id, &dispatch.payload));
    assert_eq!((again.container, again.attempt), (3, 2));
    other.complete(completion(&again));
    scene.completed(&again).await;
}

#[tokio::test]
async fn a_half_closed_controller_gets_its_answers_and_then_the_end() {
    let mut scene = Scene::start(|_| ()).await;
    let (first, second) = (scene.in_flight().await, scene.in_flight().await);
    scene.controller.finish();
    for dispatch in [first, second] {
        scene.invoker.complete(completion(&dispatch));
        scene.completed(&dispatch).await;
    }
    scene.controller.end().await.unwrap();
}

#[tokio::test]
async fn a_new_revision_takes_over_and_the_old_containers_may_go() {
    let mut scene = Scene::start(|_| ()).await;
    let old = scene.in_flight().await;
    scene.controller.declare_key(1, revision_of("good", "2"));
    assert_eq!(scene.invoker.drain().await, GOOD);
    let newer = v1::Register { key: Some(revision_of("good", "2")), ..container_of(1, "good", 1) };
    scene.invoker.send(v1::PullRequest { registers: vec![newer], ..Default::default() });
    // Who still means the old one gets the current one.
    for action in [GOOD, 1] {
        scene.controller.push([activation(action.into(), action)]);
        let dispatch = scene.invoker.dispatch().await;
        assert_eq!((dispatch.container, &dispatch.id), (1, &id(action.into())));
        scene.invoker.complete(completion(&dispatch));
        scene.completed(&dispatch).await;
    }
    scene.invoker.complete(v1::Completion { credits: 0, ..completion(&old) });
    scene.completed(&old).await;
}

#[tokio::test]
async fn many_controllers_nodes_and_containers_each_get_their_own() {
    const CONTROLLERS: u64 = 20;
    const NODES: usize = 5;
    const CONTAINERS: u32 = 50;
    const PUSHED: u64 = 250;
    const ACTIONS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let router = Router::start(|_| ());
    let mut nodes = JoinSet::new();
    for _ in 0..NODES {
        let of = |container: u32| container_of(container, ACTIONS[container as usize % ACTIONS.len()], 2);
        let first = v1::PullRequest { registers: (0..CONTAINERS).map(of).collect(), ..pull_hello("node") };
        nodes.spawn(Invoker::open_with(connect(&router).await, first).await.unwrap().run_all());
    }
    let mut controllers = JoinSet::new();
    for number in 0..CONTROLLERS {
        let name = Bytes::from(format!("controller {number}"));
        let mut controller = Controller::open_with(connect(&router).await, push_hello(name)).await.unwrap();
        controllers.spawn(async move {
            ACTIONS.iter().zip(0..).for_each(|(action, number)| controller.declare(number, action));
            let ids = number * PUSHED..(number + 1) * PUSHED;
            ids.clone().for_each(|id| controller.push([activation(id, (id % 10).try_into().unwrap())]));
            let mut open: HashSet<Bytes> = ids.map(id).collect();
            while !open.is_empty() {
                let answer = controller.answer().await;
                assert_eq!((answer.outcome(), &answer.result), (v1::Outcome::Completed, &answer.id));
                assert!(open.remove(&answer.id), "not pushed here, or answered before");
            }
            controller.finish();
            controller.end().await.unwrap();
        });
    }
    within("all answers", controllers.join_all()).await;
    router.metric_is("router_activations_total{event=\"completed\"}", |n| n == CONTROLLERS * PUSHED).await;
}
