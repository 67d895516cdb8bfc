//! Parts of the router that end although they never should, each killed in turn.

use crate::overflow::Folder;
use crate::peers::{Controller, within};
use crate::router::Router;
use router::config::Config;
use router::parts::{Ended, Kill};
use router::stop::{EXIT_PART_ENDED, Stopped};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What `/live` or `/ready` says; none if nobody answers.
async fn page(router: &Router, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(router.admin).await.ok()?;
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

/// Kills that part of a router with an idle stream, and checks how the router ends.
async fn dies_in_order(folder: &Folder, part: &'static str, how: Kill) {
    let in_kafka = part.starts_with("kafka-");
    let router = Router::start(|config| {
        if in_kafka {
            out_of_reach(config)
        } else {
            folder.small()(config)
        }
        // It is not the drain that ends it.
        config.drain_timeout_ms = 3_600_000;
    });
    router.metric_is("router_overflow_open", |open| open == u64::from(!in_kafka)).await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    assert!(page(&router, "/live").await.unwrap().ends_with("live\n"));

    assert!(router.parts.kill(part, how), "there is a part {part}");
    let ended = within(part, router.parts.ended()).await;
    let since = Instant::now();
    let told = format!("{part} {}\n", if how == Kill::Panic { "panicked" } else { "ended" });
    if part != "admin" {
        for path in ["/live", "/ready"] {
            let answer = page(&router, path).await.unwrap_or_default();
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(&told), "{path} of {part}: {answer:?}");
        }
    }
    // Its worker may have been the one that died.
    let _ = within("the end of the stream", controller.end()).await;
    let stopped = router.ended().await;
    assert!(since.elapsed() < Duration::from_secs(1), "{part} {how:?}: {:?}", since.elapsed());
    let expected = Ended { part: part.into(), panicked: how == Kill::Panic };
    assert_eq!((&stopped, &ended), (&Stopped::PartEnded(expected.clone()), &expected));
    assert_eq!(stopped.exit_code(), EXIT_PART_ENDED);
}

/// One test for each, so that each is named and they run beside one another.
macro_rules! each_dies_in_order {
    ($($name:ident: $part:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            for how in [Kill::Return, Kill::Panic] {
                let folder = Folder::new(&format!("parts-{}-{how:?}", $part));
                dies_in_order(&folder, $part, how).await;
            }
        }
    )*};
}

each_dies_in_order! {
    the_timers_end_and_so_does_the_router: "timers";
    the_maintenance_ends_and_so_does_the_router: "maintenance";
    the_accept_loop_ends_and_so_does_the_router: "accept";
    the_admin_port_ends_and_so_does_the_router: "admin";
    the_sampler_ends_and_so_does_the_router: "sampler";
    the_first_worker_ends_and_so_does_the_router: "worker-0";
    the_last_worker_ends_and_so_does_the_router: "worker-1";
    the_writer_of_overflow_ends_and_so_does_the_router: "overflow-writer";
    the_reader_of_overflow_ends_and_so_does_the_router: "overflow-reader";
}

#[cfg(feature = "kafka")]
each_dies_in_order! {
    the_keeper_of_the_kafka_store_ends_and_so_does_the_router: "kafka-keeper";
    what_sets_marks_in_kafka_ends_and_so_does_the_router: "kafka-marks";
}

/// A store whose threads live without a broker.
fn out_of_reach(config: &mut Config) {
    config.overflow.store = "kafka".to_owned();
    config.overflow.kafka_brokers = "127.0.0.1:1".to_owned();
    config.overflow.kafka_topic = "parts".to_owned();
}

#[tokio::test]
async fn a_part_that_ends_during_a_drain_cuts_it_short() {
    let mut scene = crate::scene::Scene::start(|config| config.drain_timeout_ms = 3_600_000).await;
    scene.in_flight().await;
    scene.router.stop();
    scene.controller.draining().await;
    assert!(scene.router.parts.kill("timers", Kill::Panic));
    let Stopped::PartEnded(ended) = scene.router.ended().await else { panic!("a part ended") };
    assert_eq!(ended, Ended { part: "timers".into(), panicked: true });
}
