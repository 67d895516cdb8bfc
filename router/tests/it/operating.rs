//! What operators see and do: pages, health, reflection, drain, the process and its exit codes.

use crate::peers::{
    Controller, Invoker, activation, completion, connect, connect_narrow, heavy, id, key, pull_hello, push_hello,
    rejection, within,
};
use crate::router::{Router, config, metric};
use crate::scene::{GOOD, Scene};
use proto::v1::router_client::RouterClient;
use proto::v1::{self, Reason};
use router::app::App;
use router::config::Config;
use router::drain::Left;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

// Pages.

#[tokio::test]
async fn live_and_ready_say_so_until_the_drain() {
    let mut scene = draining_scene(|_| ()).await;
    let dispatch = scene.in_flight().await;
    assert_eq!(scene.router.page("/live").await, ("HTTP/1.1 200 OK".to_owned(), "live\n".to_owned()));
    assert_eq!(scene.router.page("/ready").await, ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    scene.router.stop();
    scene.controller.draining().await;
    assert_eq!(scene.router.page("/live").await.0, "HTTP/1.1 200 OK");
    let draining = ("HTTP/1.1 503 Service Unavailable".to_owned(), "draining\n".to_owned());
    assert_eq!(scene.router.page("/ready").await, draining);
    scene.invoker.complete(completion(&dispatch));
    assert_eq!(scene.router.stopped().await, Left::default());
}

#[tokio::test]
async fn the_metrics_count_each_activation_where_it_is() {
    let mut scene = Scene::start(|_| ()).await;
    scene.controller.declare(1, "without containers");
    for _ in 0..3 {
        scene.round_trip().await;
    }
    let _in_flight = (scene.in_flight().await, scene.in_flight().await);
    let expiring = v1::Activation { time_left_ms: 1, ..activation(9, 1) };
    scene.controller.push([activation(1, 1), activation(2, 1), heavy(3, 1, 968), activation(4, 5), expiring]);
    assert_eq!(scene.controller.answer().await.outcome(), v1::Outcome::Rejected);
    assert_eq!(scene.controller.answer().await.outcome(), v1::Outcome::Expired);
    scene.controller.push([v1::Activation { id: "short".into(), ..activation(5, 1) }]);
    scene.controller.refusal().await;
    // A count follows what it counts by a moment.
    for (name, count) in [
        ("router_refused_total{reason=\"id_length\"}", 1),
        ("router_activations_total{event=\"expired\"}", 1),
        ("router_activations_total{event=\"completed\"}", 3),
    ] {
        scene.router.metric_is(name, |n| n == count).await;
    }

    let (_, page) = scene.router.page("/metrics").await;
    let event = |name: &str| metric(&page, &format!("router_activations_total{{event=\"{name}\"}}"));
    assert_eq!((event("accepted"), event("dispatched"), event("matched")), (9, 5, 5));
    assert_eq!((event("completed"), event("expired"), event("lost"), event("returned")), (3, 1, 0, 0));
    assert_eq!((event("no_container"), event("backlog_first")), (1, 3));
    let ended: u64 = ["completed", "action_failed", "platform_failed", "expired", "lost"].map(event).iter().sum();
    let (queued, held) = (metric(&page, "router_queue_depth"), metric(&page, "router_held"));
    assert_eq!((queued, held, metric(&page, "router_queue_bytes")), (3, 5, 1_000 + 3 * 256));
    assert_eq!(event("accepted"), ended + held);
    assert_eq!(metric(&page, "router_rejected_total{reason=\"action_unknown\"}"), 1);
    assert_eq!((metric(&page, "router_actions"), metric(&page, "router_containers")), (2, 1));
    assert_eq!(metric(&page, "router_streams"), 2);
    assert_eq!(metric(&page, "router_connections_total{became=\"accepted\"}"), 2);
}

#[tokio::test]
async fn the_metrics_tell_where_credits_and_containers_went() {
    let mut scene = Scene::start(|_| ()).await;
    scene.round_trip().await;
    scene.invoker.leave(GOOD, true);
    let event = |name: &str| format!("router_activations_total{{event=\"{name}\"}}");
    scene.router.metric_is(&event("containers_left"), |n| n == 1).await;
    assert_eq!(scene.router.metric(&event("credits_granted")).await, 5);
    assert_eq!(scene.router.metric(&event("credits_revoked")).await, 4);
    assert_eq!(scene.router.metric("router_containers").await, 0);
}

#[tokio::test]
async fn an_open_breaker_shows_at_once() {
    let mut scene = Scene::start(|config| config.breaker.open_first_ms = 60_000).await;
    assert_eq!(scene.router.page("/breakers").await.1, "[]\n");
    for _ in 0..3 {
        let dispatch = scene.in_flight().await;
        let status = v1::RunStatus::PlatformFailed as i32;
        scene.invoker.complete(v1::Completion { status, ..completion(&dispatch) });
        assert_eq!(scene.controller.answer().await.outcome(), v1::Outcome::PlatformFailed);
    }
    let opened = Instant::now();
    let shows = async {
        while !scene.router.page("/breakers").await.1.contains("\"state\":\"open\"") {
            tokio::task::yield_now().await;
        }
    };
    within("the breaker", shows).await;
    assert_eq!(scene.router.metric("router_capacity_tripped").await, 1);
    // A page may be 100 ms old.
    assert!(opened.elapsed() < Duration::from_millis(400), "{:?}", opened.elapsed());
}

#[tokio::test]
async fn a_herd_below_the_limit_is_taken_whole_and_counted_once() {
    const HERD: u64 = 150;
    let router = Router::start(|config| {
        config.workers = 1;
        config.limits.connections_max = 150;
    });
    let mut herd = JoinSet::new();
    (0..HERD).for_each(|_| drop(herd.spawn(TcpStream::connect(router.address))));
    let mut open: Vec<TcpStream> = herd.join_all().await.into_iter().map(Result::unwrap).collect();
    let became = |became: &str| format!("router_connections_total{{became=\"{became}\"}}");
    router.metric_is(&became("accepted"), |accepted| accepted == HERD).await;
    assert_eq!((router.metric(&became("refused")).await, router.metric(&became("failed")).await), (0, 0));
    // Each is served: the server's first frame is SETTINGS.
    for socket in &mut open {
        let mut head = [0; 9];
        within("the server's greeting", socket.read_exact(&mut head)).await.unwrap();
        assert_eq!(head[3], 4);
    }
    let mut beyond = TcpStream::connect(router.address).await.unwrap();
    assert!(matches!(within("the refusal", beyond.read(&mut [0])).await, Ok(0) | Err(_)));
    router.metric_is(&became("refused"), |refused| refused == 1).await;
    assert_eq!(router.metric(&became("accepted")).await, HERD);
}

// Health and reflection.

#[tokio::test]
async fn health_is_serving_until_the_drain() {
    let mut scene = draining_scene(|_| ()).await;
    let dispatch = scene.in_flight().await;
    let mut health = HealthClient::new(connect(&scene.router).await);
    let both = ["", "router.v1.Router"];
    for service in both {
        assert_eq!(status(&mut health, service).await, ServingStatus::Serving, "{service:?}");
    }
    scene.router.stop();
    scene.controller.draining().await;
    for service in both {
        assert_eq!(status(&mut health, service).await, ServingStatus::NotServing, "{service:?}");
    }
    scene.invoker.complete(completion(&dispatch));
    assert_eq!(scene.router.stopped().await, Left::default());
}

async fn status(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    within("the health", health.check(request)).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn reflection_is_answered_only_if_asked_for() {
    assert_eq!(reflected(&Router::start(|_| ())).await, Err(Code::Unimplemented));
    let services = reflected(&Router::start(|config| config.reflection = true)).await.unwrap();
    assert!(services.contains(&"router.v1.Router".to_owned()), "{services:?}");
}

/// The services that reflection tells of.
async fn reflected(router: &Router) -> Result<Vec<String>, Code> {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse::ListServicesResponse;
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ListServices(String::new())) };
    let mut client = ServerReflectionClient::new(connect(router).await);
    let asked = within("reflection", client.server_reflection_info(tokio_stream::once(request))).await;
    let mut answers = asked.map_err(|status| status.code())?.into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(ListServicesResponse(list)) => Ok(list.service.into_iter().map(|service| service.name).collect()),
        other => panic!("no list of services: {other:?}"),
    }
}

// Stopping.

/// A scene whose router waits for what is in hand when it is told to stop.
async fn draining_scene(change: impl FnOnce(&mut Config)) -> Scene {
    Scene::start(|config| {
        config.drain_timeout_ms = 10_000;
        change(config);
    })
    .await
}

#[tokio::test]
async fn a_router_that_stops_takes_nothing_new_and_finishes_what_it_holds() {
    let mut scene = draining_scene(|_| ()).await;
    scene.controller.declare(1, "still queued");
    scene.controller.push([activation(1, 1)]);
    let in_flight = scene.in_flight().await;
    scene.router.stop();
    scene.controller.draining().await;

    scene.controller.push([activation(2, GOOD)]);
    let answer = scene.controller.answer().await;
    assert_eq!(rejection(&answer), (Reason::Draining, String::new(), 0));
    assert_eq!(answer.rejection.unwrap().retry_after_ms, 1_000);
    let request = v1::InvokeRequest { key: Some(key("good")), time_left_ms: 1_000, ..Default::default() };
    let refused = RouterClient::new(connect(&scene.router).await).invoke(request).await.err().unwrap();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "draining"));

    let mut late = Controller::open(&scene.router, "late").await;
    late.draining().await;
    assert!(!scene.router.is_stopped(), "it still holds two");

    let mut node = Invoker::open(&scene.router, "comes to help").await;
    node.register(0, "still queued", 1);
    let queued = node.dispatch().await;
    assert_eq!(queued.id, id(1));
    node.complete(completion(&queued));
    scene.completed(&queued).await;
    scene.invoker.complete(completion(&in_flight));
    scene.completed(&in_flight).await;
    assert_eq!(scene.router.stopped().await, Left::default());
}

#[tokio::test]
async fn answers_are_written_before_a_router_stops() {
    const LARGE: usize = 1_000_000;
    let mut scene = draining_scene(|_| ()).await;
    // One that takes in little ahead of its reader.
    let slow = Controller::open_with(connect_narrow(&scene.router).await, push_hello("slow")).await.unwrap();
    scene.controller = slow;
    scene.controller.declare(GOOD, "good");
    let mut in_flight = Vec::new();
    for _ in 0..4 {
        in_flight.push(scene.in_flight().await);
    }
    scene.router.stop();
    scene.controller.draining().await;
    for dispatch in &in_flight {
        scene.invoker.complete(v1::Completion { result: vec![0; LARGE].into(), ..completion(dispatch) });
    }
    // Nothing is held any more, but this controller has read none of it yet.
    scene.router.metric_is("router_held", |held| held == 0).await;
    let stops = async {
        while !scene.router.is_stopped() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_millis(200), stops).await.expect_err("it waits for the reader");
    for dispatch in &in_flight {
        let answer = scene.controller.answer().await;
        assert_eq!((&answer.id, answer.result.len()), (&dispatch.id, LARGE));
    }
    assert_eq!(scene.router.stopped().await, Left::default());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_tells_what_is_left() {
    let mut scene = draining_scene(|config| config.drain_timeout_ms = 100).await;
    scene.in_flight().await;
    scene.router.stop();
    assert_eq!(scene.router.stopped().await, Left { in_flight: 1, ..Left::default() });
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let router = Router::start(|_| ());
    let taken = |change: &dyn Fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        config
    };
    for (config, address) in [
        (taken(&|config| config.listen = router.address), router.address),
        (taken(&|config| config.admin_listen = router.admin), router.admin),
    ] {
        let error = App::bind(config).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

// The process.

fn process(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_activation-router"));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = within("the process's end", process(arguments).output()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A process that serves on free ports, and a channel to it.
async fn serving(environment: &[(&str, &str)]) -> (Child, Channel) {
    let mut command = process(&["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut router = command.envs(environment.iter().copied()).spawn().unwrap();
    let mut said = BufReader::new(router.stdout.take().unwrap()).lines();
    let line = within("its first line", said.next_line()).await.unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap().split(' ').next().unwrap();
    assert!(line.ends_with(')') && line.contains(" (admin on 127.0.0.1:"), "{line}");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (router, within("a connection", endpoint.connect()).await.unwrap())
}

/// Tells a process to stop and waits for it: its exit code, and what it logged.
async fn terminated(router: Child) -> (Option<i32>, String) {
    let pid = router.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let Output { status, stderr, .. } = within("the process's end", router.wait_with_output()).await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn the_process_says_where_it_listens_and_stops_when_told_to() {
    let (router, channel) = serving(&[]).await;
    assert_eq!(status(&mut HealthClient::new(channel), "").await, ServingStatus::Serving);
    assert_eq!(terminated(router).await.0, Some(0));
}

#[tokio::test]
async fn the_exit_code_tells_whether_activations_were_left() {
    for (completes, code) in [(true, 0), (false, 3)] {
        let (router, channel) = serving(&[("ACTIVATION_ROUTER_DRAIN_TIMEOUT_MS", "1000")]).await;
        let mut controller = Controller::open_with(channel.clone(), push_hello("controller")).await.unwrap();
        let mut node = Invoker::open_with(channel, pull_hello("node")).await.unwrap();
        controller.declare(GOOD, "good");
        node.register(GOOD, "good", 1);
        controller.push([activation(1, GOOD)]);
        let dispatch = node.dispatch().await;
        if completes {
            node.complete(completion(&dispatch));
            assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
        }
        let (ended, logged) = terminated(router).await;
        assert_eq!(ended, Some(code), "{logged}");
        assert_eq!(logged.contains("the drain's time is over"), !completes, "{logged}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_told_whole_and_opens_no_port() {
    let flags = ["--listen", "0.0.0.0:1", "--workers", "many", "--log", "a=b=c", "--config", "no such file.toml"];
    for command in ["serve", "check-config"] {
        let arguments: Vec<&str> = std::iter::once(command).chain(flags).collect();
        let (code, said, faults) = run(&arguments).await;
        assert_eq!((code, said.as_str()), (Some(2), ""), "{faults}");
        assert!(faults.starts_with("the configuration has 4 faults:"), "{faults}");
        for key in ["--config", "listen", "workers", "log"] {
            assert!(faults.contains(&format!("\n  {key} = ")), "{key} in {faults}");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_ends_the_process() {
    let taken = Router::start(|_| ());
    let address = taken.address.to_string();
    let (code, said, error) = run(&["serve", "--listen", &address]).await;
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(error.contains(&address), "{error}");
}

#[tokio::test]
async fn check_config_prints_what_is_in_effect() {
    let (code, toml, faults) = run(&["check-config", "--workers", "3", "--router-id", "it-1"]).await;
    assert_eq!((code, faults.as_str()), (Some(0), ""));
    for line in ["workers = 3", "router_id = \"it-1\"", "payload_bytes_max = 1054644", "[http2]"] {
        assert!(toml.lines().any(|printed| printed == line), "{line} in {toml}");
    }
}
