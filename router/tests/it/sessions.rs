//! Sessions: who comes back finds what it left, who does not is forgotten in time, and nothing is answered twice or run twice.

use crate::peers::{
    Controller, Invoker, activation, completion, connect, container_of, heavy, id, pull_hello, push_hello, refused,
    rejection, within,
};
use crate::proxy::Proxy;
use crate::scene::{CONCURRENCY, GOOD, Scene};
use bytes::Bytes;
use proto::v1::{self, Reason};
use router::config::Config;
use router::drain::Left;
use tonic::Code;

fn parked(kind: &str) -> String {
    format!("router_sessions{{kind=\"{kind}\",state=\"parked\"}}")
}

fn happened(kind: &str, event: &str) -> String {
    format!("router_sessions_total{{kind=\"{kind}\",event=\"{event}\"}}")
}

fn event(name: &str) -> String {
    format!("router_activations_total{{event=\"{name}\"}}")
}

/// The controller of a scene breaks its stream. Returns the token of its session once the router has noticed.
async fn controller_breaks(scene: &mut Scene) -> Bytes {
    let session = scene.controller.welcome().await.session;
    scene.lines[0].cut();
    scene.controller = Controller::open(&scene.router, "stand-in").await;
    scene.router.metric_is(&parked("controller"), |n| n == 1).await;
    session
}

fn comes_back(session: &Bytes, outstanding: impl IntoIterator<Item = Bytes>) -> v1::PushRequest {
    let hello = v1::ControllerHello { controller_id: "controller".into(), session: session.clone() };
    let declares = vec![v1::DeclareAction { number: GOOD, key: Some(crate::peers::key("good")) }];
    v1::PushRequest {
        hello: Some(hello),
        declares,
        outstanding: outstanding.into_iter().collect(),
        ..Default::default()
    }
}

/// Opens the scene's controller again; whether the session went on.
async fn open_again(scene: &mut Scene, first: v1::PushRequest) -> bool {
    scene.controller = Controller::open_with(connect(&scene.router).await, first).await.unwrap();
    scene.controller.welcome().await.resumed
}

async fn assert_answer(controller: &mut Controller, id: &Bytes, outcome: v1::Outcome) {
    let answer = controller.answer().await;
    assert_eq!((&answer.id, answer.outcome()), (id, outcome), "{answer:?}");
}

// Controllers.

#[tokio::test]
async fn a_controller_that_comes_back_hears_what_came_meanwhile_and_what_is_lost() {
    let mut scene = Scene::start(|_| ()).await;
    let welcome = scene.controller.welcome().await;
    assert_eq!((welcome.resumed, welcome.grace_ms), (false, 10_000));
    assert!((1..=64).contains(&welcome.session.len()));
    let (meanwhile, later) = (scene.in_flight().await, scene.in_flight().await);
    let session = controller_breaks(&mut scene).await;
    scene.invoker.complete(completion(&meanwhile));
    scene.router.metric_is(&event("completed"), |n| n == 1).await;

    let outstanding = [meanwhile.id.clone(), later.id.clone(), id(77)];
    assert!(open_again(&mut scene, comes_back(&session, outstanding)).await);
    assert_eq!(scene.controller.welcome().await.session, session);
    assert_answer(&mut scene.controller, &meanwhile.id, v1::Outcome::Completed).await;
    assert_answer(&mut scene.controller, &id(77), v1::Outcome::Lost).await;
    scene.invoker.complete(completion(&later));
    scene.completed(&later).await;
    // What is lost to its controller does not run any more.
    scene.controller.push([activation(77, GOOD)]);
    let answer = scene.controller.answer().await;
    assert_eq!(rejection(&answer).0, Reason::IdEnded);
    scene.round_trip().await;
    assert_eq!(scene.router.metric(&happened("controller", "resumed")).await, 1);
    assert_eq!(scene.router.metric("router_answers_dropped_total").await, 0);
}

#[tokio::test]
async fn an_outstanding_activation_is_answered_once_though_its_answer_is_written_first() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let session = controller_breaks(&mut scene).await;
    scene.invoker.complete(completion(&dispatch));
    scene.router.metric_is(&event("completed"), |n| n == 1).await;
    assert!(open_again(&mut scene, comes_back(&session, [])).await);
    scene.completed(&dispatch).await;
    // It asks only now; the answer has crossed the question.
    let outstanding = vec![dispatch.id.clone(), id(78)];
    scene.controller.send(v1::PushRequest { outstanding, ..Default::default() });
    assert_answer(&mut scene.controller, &id(78), v1::Outcome::Lost).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn bad_outstanding_ids_are_refused_one_by_one() {
    let mut scene = Scene::start(|config| config.limits.frame_entries_max = 3).await;
    let session = controller_breaks(&mut scene).await;
    let outstanding = [Bytes::from_static(b"short"), id(1), id(2)];
    assert!(open_again(&mut scene, comes_back(&session, outstanding)).await);
    assert_eq!(refused(&scene.controller.refusal().await), (Reason::IdLength, "outstanding".to_owned(), 16));
    let too_long = (Reason::FrameTooLong, "outstanding".to_owned(), 3);
    assert_eq!(refused(&scene.controller.refusal().await), too_long);
    assert_answer(&mut scene.controller, &id(1), v1::Outcome::Lost).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn an_id_is_answered_once_however_often_it_is_named() {
    let mut scene = Scene::start(|_| ()).await;
    let session = controller_breaks(&mut scene).await;
    assert!(open_again(&mut scene, comes_back(&session, [id(1), id(2), id(1), id(1)])).await);
    // Named again in a later frame of the same question.
    let outstanding = vec![id(2), id(3)];
    scene.controller.send(v1::PushRequest { outstanding, ..Default::default() });
    for number in 1..=3 {
        assert_answer(&mut scene.controller, &id(number), v1::Outcome::Lost).await;
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn who_has_pushed_again_may_not_ask_any_more() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let session = controller_breaks(&mut scene).await;
    assert!(open_again(&mut scene, comes_back(&session, [])).await);
    // A frame without a question ends the asking; its answer and that of before are said.
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.round_trip().await;
    let outstanding = vec![dispatch.id.clone()];
    scene.controller.send(v1::PushRequest { outstanding, ..Default::default() });
    let refusal = scene.controller.refusal().await;
    assert_eq!(refused(&refusal), (Reason::Repeated, "outstanding".to_owned(), 0));
    assert_eq!(refusal.id, dispatch.id);
    scene.round_trip().await;
}

#[tokio::test]
async fn who_resumed_nothing_may_not_ask() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.send(v1::PushRequest { outstanding: vec![id(5)], ..Default::default() });
    let refusal = scene.controller.refusal().await;
    assert_eq!(refused(&refusal), (Reason::OutcomeUnknown, "outstanding".to_owned(), 0));
    // It is not taken for ended by that.
    scene.controller.push([activation(5, GOOD)]);
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!(dispatch.id, id(5));
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
}

#[tokio::test]
async fn a_number_without_a_key_is_given_back() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.send(v1::PushRequest {
        declares: vec![v1::DeclareAction { number: GOOD, key: None }],
        activations: vec![activation(1, GOOD)],
        ..Default::default()
    });
    assert_eq!(rejection(&scene.controller.answer().await).0, Reason::ActionUnknown);
    scene.controller.declare(GOOD, "good");
    scene.round_trip().await;
}

#[tokio::test]
async fn what_was_answered_on_the_broken_stream_is_lost_and_so_is_what_only_timed_out_there() {
    let mut scene = Scene::start(|_| ()).await;
    let done = scene.in_flight().await;
    scene.invoker.complete(completion(&done));
    scene.completed(&done).await;
    let silent = v1::Activation { time_left_ms: 20, ..scene.good() };
    scene.controller.push([silent.clone()]);
    assert_eq!(scene.invoker.dispatch().await.id, silent.id);
    assert_answer(&mut scene.controller, &silent.id, v1::Outcome::TimedOut).await;
    let session = controller_breaks(&mut scene).await;
    assert!(open_again(&mut scene, comes_back(&session, [done.id.clone(), silent.id.clone()])).await);
    assert_answer(&mut scene.controller, &done.id, v1::Outcome::Lost).await;
    assert_answer(&mut scene.controller, &silent.id, v1::Outcome::Lost).await;
}

#[tokio::test]
async fn a_stream_that_is_not_known_to_be_broken_is_taken_over() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let session = scene.controller.welcome().await.session;
    let first = comes_back(&session, [dispatch.id.clone()]);
    let next = Controller::open_with(connect(&scene.router).await, first).await.unwrap();
    let mut old = std::mem::replace(&mut scene.controller, next);
    assert!(scene.controller.welcome().await.resumed);
    assert_eq!(old.end().await.unwrap_err().code(), Code::Aborted);
    drop(old);
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.round_trip().await;
    let router = &scene.router;
    assert_eq!(router.metric(&happened("controller", "taken_over")).await, 1);
    assert_eq!((router.metric(&parked("controller")).await, router.metric("router_streams").await), (0, 2));
}

#[tokio::test]
async fn a_controller_without_its_token_begins_anew_and_the_answers_are_dropped() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let session = controller_breaks(&mut scene).await;
    assert!(!open_again(&mut scene, comes_back(&Bytes::new(), [])).await);
    assert_ne!(scene.controller.welcome().await.session, session);
    scene.invoker.complete(completion(&dispatch));
    scene.router.metric_is("router_answers_dropped_total", |n| n == 1).await;
    scene.round_trip().await;
}

#[tokio::test]
async fn a_controller_that_comes_too_late_begins_anew() {
    let mut scene = Scene::start(|config| config.controller_grace_ms = 20).await;
    assert_eq!(scene.controller.welcome().await.grace_ms, 20);
    let session = scene.controller.welcome().await.session;
    scene.lines[0].cut();
    scene.router.metric_is(&happened("controller", "expired"), |n| n == 1).await;
    assert!(!open_again(&mut scene, comes_back(&session, [])).await);
    // It was here that it may have sent it.
    scene.controller.push([v1::Activation { maybe_sent: true, ..activation(5, GOOD) }]);
    assert_eq!(scene.invoker.dispatch().await.id, id(5));
}

#[tokio::test]
async fn what_may_have_been_sent_elsewhere_is_refused() {
    let mut elsewhere = Scene::start(|_| ()).await;
    let session = elsewhere.controller.welcome().await.session;
    let mut scene = Scene::start(|_| ()).await;
    for session in [Bytes::new(), session, Bytes::from_static(b"no token")] {
        let hello = v1::ControllerHello { controller_id: "other".into(), session };
        let first = v1::PushRequest { hello: Some(hello), ..push_hello("") };
        let mut other = Controller::open_with(connect(&scene.router).await, first).await.unwrap();
        assert!(!other.welcome().await.resumed);
        other.declare(GOOD, "good");
        other.push([v1::Activation { maybe_sent: true, ..activation(5, GOOD) }]);
        assert_eq!(rejection(&other.answer().await), (Reason::OutcomeUnknown, "maybe_sent".to_owned(), 0));
        other.finish();
        other.end().await.unwrap();
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn who_hears_that_its_stream_ended_may_come_anew_at_once() {
    let mut scene = Scene::start(|_| ()).await;
    for _ in 0..200 {
        let mut other = Controller::open(&scene.router, "other").await;
        other.finish();
        other.end().await.unwrap();
    }
    scene.round_trip().await;
}

#[tokio::test]
async fn answers_beyond_the_bound_end_a_session_that_waits() {
    const RESULT: u32 = 16 * 1024;
    let mut scene = Scene::start(|config| {
        config.limits.payload_bytes_max = RESULT;
        config.limits.frame_bytes_max = RESULT + 64 * 1024;
        config.limits.outbox_bytes_max = config.limits.frame_bytes_max.into();
    })
    .await;
    scene.invoker.register(1, "many", 64);
    scene.controller.declare(1, "many");
    scene.controller.push((0..64).map(|number| activation(number, 1)));
    let mut dispatches = Vec::new();
    for _ in 0..64 {
        dispatches.push(scene.invoker.dispatch().await);
    }
    let session = controller_breaks(&mut scene).await;
    for dispatch in &dispatches {
        let result = vec![0; RESULT as usize].into();
        scene.invoker.complete(v1::Completion { result, ..completion(dispatch) });
    }
    scene.router.metric_is("router_answers_dropped_total", |n| n == 64).await;
    assert!(!open_again(&mut scene, comes_back(&session, [])).await);
    scene.round_trip().await;
}

#[tokio::test]
async fn sessions_beyond_the_bound_are_refused_by_name() {
    let mut scene = Scene::start(|config| config.limits.sessions_max = 1).await;
    let status = Controller::open_with(connect(&scene.router).await, push_hello("other")).await.err().unwrap();
    let said = "sessions_max: router_full (limit 1)";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, said));
    let status = Invoker::open_with(connect(&scene.router).await, pull_hello("other")).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, said));
    scene.round_trip().await;
}

// Nodes.

/// Ample time for a node to come back.
fn patient(config: &mut Config) {
    config.invoker_grace_ms = 60_000;
}

/// The node of a scene breaks its stream. Returns the token of its session once the router has noticed.
async fn node_breaks(scene: &mut Scene) -> Bytes {
    let session = scene.invoker.welcome().await.session;
    scene.lines[1].cut();
    scene.router.metric_is(&parked("invoker"), |n| n == 1).await;
    session
}

async fn node_comes_back(scene: &mut Scene, session: &Bytes, registers: Vec<v1::Register>) -> bool {
    let hello = v1::InvokerHello { invoker_id: "node".into(), session: session.clone() };
    let first = v1::PullRequest { hello: Some(hello), registers, rejoined: true, ..Default::default() };
    scene.invoker = Invoker::open_with(connect(&scene.router).await, first).await.unwrap();
    scene.invoker.welcome().await.resumed
}

#[tokio::test]
async fn a_node_that_comes_back_keeps_what_it_holds_and_the_rest_is_lost() {
    let mut scene = Scene::start(patient).await;
    assert_eq!(scene.invoker.welcome().await.grace_ms, 60_000);
    let (held, lost) = (scene.in_flight().await, scene.in_flight().await);
    let session = node_breaks(&mut scene).await;
    // It stays queued: there is no container that takes it.
    let queued = scene.good();
    scene.controller.push([queued.clone()]);
    scene.router.metric_is("router_queue_depth", |n| n == 1).await;
    let again = v1::Register { credits: 1, held: vec![held.id.clone()], ..container_of(GOOD, "good", CONCURRENCY) };
    assert!(node_comes_back(&mut scene, &session, vec![again]).await);
    assert_answer(&mut scene.controller, &lost.id, v1::Outcome::Lost).await;
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!((&dispatch.id, dispatch.attempt), (&queued.id, 1));
    // That was its one credit.
    let waiting = scene.good();
    scene.controller.push([waiting.clone()]);
    scene.router.metric_is("router_queue_depth", |n| n == 1).await;
    for dispatch in [&held, &dispatch] {
        scene.invoker.complete(v1::Completion { credits: 0, ..completion(dispatch) });
        scene.completed(dispatch).await;
    }
    scene.invoker.credit(GOOD, 4);
    assert_eq!(scene.invoker.dispatch().await.id, waiting.id);
    scene.round_trip().await;
    assert_eq!(scene.router.metric(&event("lost")).await, 1);
}

#[tokio::test]
async fn what_has_not_left_the_router_is_queued_again_in_order() {
    const LARGE: usize = 1_000_000;
    let mut scene = Scene::start(patient).await;
    let line = Proxy::before(scene.router.address).await;
    let sloth = Invoker::open_with(line.connect_narrow().await, pull_hello("sloth")).await.unwrap();
    sloth.register(1, "heavy", 64);
    scene.router.metric_is("router_containers", |n| n == 2).await;
    scene.controller.declare(1, "heavy");
    for number in 0..6 {
        scene.controller.push([heavy(number, 1, LARGE)]);
    }
    scene.router.metric_is(&event("dispatched"), |n| n == 6).await;
    line.cut();
    scene.router.metric_is(&parked("invoker"), |n| n == 1).await;
    scene.router.metric_is(&event("unsent"), |n| n > 0).await;
    let unsent = scene.router.metric(&event("unsent")).await;
    scene.invoker.register(1, "heavy", 64);
    for number in 6 - unsent..6 {
        let dispatch = scene.invoker.dispatch().await;
        assert_eq!((&dispatch.id, dispatch.attempt), (&id(number), 1));
        scene.invoker.complete(completion(&dispatch));
        scene.completed(&dispatch).await;
    }
}

#[tokio::test]
async fn what_a_node_does_not_register_again_or_not_as_it_was_is_gone() {
    let mut scene = Scene::start(patient).await;
    scene.controller.declare(1, "fleeting");
    let registers =
        vec![container_of(1, "fleeting", 1), container_of(2, "fleeting", 1), container_of(3, "fleeting", 1)];
    scene.invoker.send(v1::PullRequest { registers, ..Default::default() });
    scene.controller.push([activation(1, 1), activation(2, 1), activation(3, 1)]);
    let mut dispatches = Vec::new();
    for _ in 0..3 {
        dispatches.push(scene.invoker.dispatch().await);
    }
    dispatches.sort_by_key(|dispatch| dispatch.container);
    let held = |number: usize| vec![dispatches[number - 1].id.clone()];
    let session = node_breaks(&mut scene).await;
    // The second is another one now, the third is not there any more.
    let registers = vec![
        v1::Register { credits: 0, held: held(1), ..container_of(1, "fleeting", 1) },
        v1::Register { credits: 0, held: held(2), epoch: 9, ..container_of(2, "fleeting", 1) },
    ];
    assert!(node_comes_back(&mut scene, &session, registers).await);
    let mut lost = [scene.controller.answer().await, scene.controller.answer().await];
    lost.sort_by_key(|answer| answer.id != dispatches[1].id);
    for (answer, dispatch) in lost.iter().zip(&dispatches[1..]) {
        assert_eq!((&answer.id, answer.outcome()), (&dispatch.id, v1::Outcome::Lost));
    }
    scene.invoker.complete(v1::Completion { credits: 0, ..completion(&dispatches[0]) });
    scene.completed(&dispatches[0]).await;
    scene.router.metric_is("router_containers", |n| n == 2).await;
}

#[tokio::test]
async fn a_node_that_does_not_come_back_loses_its_containers() {
    let mut scene = Scene::start(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let session = scene.invoker.welcome().await.session;
    scene.lines[1].cut();
    assert_answer(&mut scene.controller, &dispatch.id, v1::Outcome::Lost).await;
    scene.router.metric_is("router_containers", |n| n == 0).await;
    let registers = vec![container_of(GOOD, "good", CONCURRENCY)];
    assert!(!node_comes_back(&mut scene, &session, registers).await);
    scene.round_trip().await;
}

#[tokio::test]
async fn a_nodes_stream_that_is_not_known_to_be_broken_is_taken_over() {
    let mut scene = Scene::start(patient).await;
    let dispatch = scene.in_flight().await;
    let session = scene.invoker.welcome().await.session;
    let hello = v1::InvokerHello { invoker_id: "node".into(), session };
    let again = v1::Register { credits: 3, held: vec![dispatch.id.clone()], ..container_of(GOOD, "good", CONCURRENCY) };
    let first = v1::PullRequest { hello: Some(hello), registers: vec![again], rejoined: true, ..Default::default() };
    let next = Invoker::open_with(connect(&scene.router).await, first).await.unwrap();
    let mut old = std::mem::replace(&mut scene.invoker, next);
    assert_eq!(old.end().await.unwrap_err().code(), Code::Aborted);
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
    scene.round_trip().await;
    assert_eq!(scene.router.metric(&happened("invoker", "taken_over")).await, 1);
}

// Epochs and audits.

#[tokio::test]
async fn entries_of_an_earlier_registration_are_refused_and_counted() {
    let mut scene = Scene::start(|_| ()).await;
    let register = v1::Register { epoch: 7, ..container_of(1, "epochs", 2) };
    scene.invoker.send(v1::PullRequest { registers: vec![register], ..Default::default() });
    scene.controller.declare(1, "epochs");
    scene.controller.push([activation(1, 1)]);
    let dispatch = scene.invoker.dispatch().await;
    assert_eq!((dispatch.container, dispatch.epoch), (1, 7));
    let epoch = 6;
    let frames = [
        v1::PullRequest { credits: vec![v1::Credit { container: 1, credits: 1, epoch }], ..Default::default() },
        v1::PullRequest { completions: vec![v1::Completion { epoch, ..completion(&dispatch) }], ..Default::default() },
        v1::PullRequest {
            returns: vec![v1::Return { container: 1, id: dispatch.id.clone(), payload: Bytes::new(), epoch }],
            ..Default::default()
        },
        v1::PullRequest { leaves: vec![v1::Leave { container: 1, gone: true, epoch }], ..Default::default() },
        v1::PullRequest {
            audits: vec![v1::Audit { container: 1, epoch, credits: 0, received: 0 }],
            ..Default::default()
        },
    ];
    let count = frames.len() as u64;
    for frame in frames {
        scene.invoker.send(frame);
        assert_eq!(refused(&scene.invoker.refusal().await), (Reason::EpochStale, "epoch".to_owned(), 7));
    }
    scene.invoker.complete(v1::Completion { epoch: 7, ..completion(&dispatch) });
    scene.completed(&dispatch).await;
    scene.router.metric_is("router_refused_total{reason=\"epoch_stale\"}", |n| n == count).await;
    scene.invoker.send(v1::PullRequest {
        leaves: vec![v1::Leave { container: 1, gone: false, epoch: 7 }],
        ..Default::default()
    });
    assert_eq!(scene.invoker.drain().await, 1);
}

#[tokio::test]
async fn credits_that_one_side_only_knows_are_found_and_counted() {
    let mut scene = Scene::start(|_| ()).await;
    let audit = |credits, received| v1::PullRequest {
        audits: vec![v1::Audit { container: GOOD, epoch: 0, credits, received }],
        ..Default::default()
    };
    let dispatch = scene.in_flight().await;
    scene.invoker.send(audit(3, 1));
    scene.router.metric_is(&event("audits"), |n| n == 1).await;
    let router = &scene.router;
    let differences = || async {
        (router.metric("router_capacity_phantom_total").await, router.metric("router_capacity_leaked_total").await)
    };
    assert_eq!(differences().await, (0, 0));
    scene.invoker.send(audit(1, 1));
    router.metric_is(&event("audits"), |n| n == 2).await;
    assert_eq!(differences().await, (2, 0));
    router.metric_is("router_capacity_credits", |n| n == 1).await;
    scene.invoker.send(audit(3, 1));
    router.metric_is(&event("audits"), |n| n == 3).await;
    assert_eq!(differences().await, (2, 2));
    router.metric_is("router_capacity_credits", |n| n == 3).await;
    assert_eq!(router.metric("router_capacity_slots").await, u64::from(CONCURRENCY));
    assert_eq!(router.metric("router_capacity_in_flight").await, 1);
    scene.invoker.complete(completion(&dispatch));
    scene.completed(&dispatch).await;
}

#[tokio::test]
async fn a_breaker_that_opens_is_shown_with_its_cause() {
    let mut scene = Scene::start(|config| config.breaker.open_first_ms = config.breaker.open_max_ms).await;
    assert_eq!(scene.router.page("/breakers").await.1, "[]\n");
    for _ in 0..3 {
        let dispatch = scene.in_flight().await;
        let status = v1::RunStatus::PlatformFailed as i32;
        scene.invoker.complete(v1::Completion { status, ..completion(&dispatch) });
        assert_answer(&mut scene.controller, &dispatch.id, v1::Outcome::PlatformFailed).await;
    }
    scene.router.metric_is("router_breakers{state=\"open\",cause=\"failed\"}", |n| n > 0).await;
    let page = scene.router.page("/breakers").await.1;
    assert!(page.contains("\"action\":\"good\"") && page.contains("\"cause\":\"failed\""), "{page}");
}

// Peers that vanish.

/// Pings as often as may be.
fn attentive(config: &mut Config) {
    config.http2.keepalive_interval_ms = 200;
    config.http2.keepalive_timeout_ms = 200;
}

#[tokio::test]
async fn a_node_that_falls_silent_is_found() {
    let mut scene = Scene::start(attentive).await;
    let proxy = Proxy::before(scene.router.address).await;
    let mut node = Invoker::open_with(proxy.connect().await, pull_hello("behind the proxy")).await.unwrap();
    node.register(1, "far away", 1);
    scene.controller.declare(1, "far away");
    scene.controller.push([activation(1, 1)]);
    node.dispatch().await;
    proxy.fall_silent();
    let silent = tokio::time::Instant::now();
    assert_answer(&mut scene.controller, &id(1), v1::Outcome::Lost).await;
    // Interval, timeout and grace make 450 ms; the rest is for a busy machine.
    assert!(silent.elapsed() < std::time::Duration::from_secs(5), "{:?}", silent.elapsed());
    scene.round_trip().await;
}

#[tokio::test]
async fn a_controller_that_falls_silent_is_found_and_comes_back_another_way() {
    let mut scene = Scene::start(attentive).await;
    let proxy = Proxy::before(scene.router.address).await;
    let mut far = Controller::open_with(proxy.connect().await, push_hello("far away")).await.unwrap();
    let session = far.welcome().await.session;
    far.declare(GOOD, "good");
    far.push([activation(1, GOOD)]);
    let dispatch = scene.invoker.dispatch().await;
    proxy.fall_silent();
    scene.router.metric_is(&parked("controller"), |n| n == 1).await;
    scene.invoker.complete(completion(&dispatch));
    let hello = v1::ControllerHello { controller_id: "far away".into(), session };
    let first = v1::PushRequest { hello: Some(hello), outstanding: vec![id(1)], ..Default::default() };
    let mut near = Controller::open_with(connect(&scene.router).await, first).await.unwrap();
    assert_answer(&mut near, &id(1), v1::Outcome::Completed).await;
    scene.round_trip().await;
}

// Draining.

#[tokio::test]
async fn a_drain_by_an_operator_under_load_loses_nothing() {
    const PUSHED: u64 = 2_000;
    let mut scene = Scene::start(|config| config.drain_timeout_ms = 10_000).await;
    let node = std::mem::replace(&mut scene.invoker, Invoker::open(&scene.router, "idle").await);
    scene.invoker.register(1, "busy", 1);
    scene.controller.declare(1, "busy");
    scene.controller.push([activation(PUSHED + 1, 1)]);
    let busy = scene.invoker.dispatch().await;
    let running = tokio::spawn(node.run_all());
    scene.controller.push((0..PUSHED).map(|number| activation(number, GOOD)));
    assert_eq!(scene.router.ask("POST", "/drain").await.0, "HTTP/1.1 202 Accepted");
    scene.controller.draining().await;
    assert_eq!(scene.router.page("/ready").await.0, "HTTP/1.1 503 Service Unavailable");
    let late = v1::Activation { id: id(PUSHED), ..activation(PUSHED, GOOD) };
    scene.controller.push([late.clone()]);
    let (mut completed, mut told) = (0, 0);
    while told <= PUSHED + 1 {
        let answer = scene.controller.answer().await;
        told += 1;
        if answer.id == late.id {
            scene.invoker.complete(v1::Completion { credits: 0, ..completion(&busy) });
        }
        match answer.outcome() {
            v1::Outcome::Completed => completed += 1,
            _ => {
                assert_eq!(rejection(&answer).0, Reason::Draining);
                assert!(answer.rejection.unwrap().retry_after_ms > 0);
            }
        }
    }
    assert!(completed > 0);
    // The queue is empty and nothing is in flight: the node is told before its stream ends.
    assert_eq!(scene.invoker.drain().await, 1);
    scene.controller.end().await.unwrap();
    scene.invoker.end().await.unwrap();
    within("the node's end", running).await.unwrap();
    assert_eq!(scene.router.stopped().await, Left::default());
}

#[tokio::test]
async fn a_drain_waits_for_a_controller_that_is_away_no_longer_than_its_grace() {
    let mut scene = Scene::start(|config| {
        config.drain_timeout_ms = 60_000;
        config.controller_grace_ms = 500;
    })
    .await;
    let dispatch = scene.in_flight().await;
    controller_breaks(&mut scene).await;
    scene.invoker.complete(completion(&dispatch));
    scene.router.metric_is(&event("completed"), |n| n == 1).await;
    scene.router.stop();
    assert_eq!(scene.router.stopped().await, Left { unread: 1, ..Left::default() });
}

#[tokio::test]
async fn a_controller_that_comes_back_to_a_router_that_drains_gets_its_answers() {
    let mut scene = Scene::start(|config| config.drain_timeout_ms = 10_000).await;
    let dispatch = scene.in_flight().await;
    let session = controller_breaks(&mut scene).await;
    scene.router.stop();
    scene.controller.draining().await;
    scene.invoker.complete(completion(&dispatch));
    scene.controller.end().await.unwrap();
    // Nothing is held any more; one answer waits for its controller.
    assert!(open_again(&mut scene, comes_back(&session, [dispatch.id.clone()])).await);
    scene.completed(&dispatch).await;
    scene.controller.end().await.unwrap();
    assert_eq!(scene.router.stopped().await, Left::default());
}
