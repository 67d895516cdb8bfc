//! The whole way in one process, over loopback: a controller pushes, the router dispatches, an invoker echoes, the answer
//! comes back. Router, invoker and controller each have threads of their own. Payloads have 256 bytes.
//!
//! With 1 in flight the time is that of one round trip, with 1,024 it is the reciprocal of the rate.

use bytes::Bytes;
use client::{ActionKey, PullReceiver, PullSender, PullStream, PushReceiver, PushSender, PushStream};
use criterion::{Criterion, Throughput};
use proto::v1;
use router::app::App;
use router::config::Config;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

fn main() {
    benches::run(&[round_trip]);
}

const PAYLOAD_BYTES: usize = 256;
const ACTION: u32 = 0;
const IN_FLIGHT: [u64; 2] = [1, 1_024];
/// The invoker has room for all that is in flight: nothing waits for a credit.
const CONCURRENCY: u32 = 1_024;

fn round_trip(criterion: &mut Criterion) {
    let router = start_router();
    start_invoker(router);
    let runtime = runtime();
    let mut controller = runtime.block_on(Controller::open(router));
    let mut group = criterion.benchmark_group("roundtrip");
    group.throughput(Throughput::Elements(1));
    for in_flight in IN_FLIGHT {
        group.bench_function(format!("{in_flight} in flight"), |bencher| {
            bencher.iter_custom(|activations| runtime.block_on(controller.drive(activations, in_flight)));
        });
    }
    group.finish();
}

/// Runs a router until the process ends; says where it listens.
fn start_router() -> SocketAddr {
    let (bound, address) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let config = Config { listen: any, admin_listen: any, ..Config::default() };
            let app = App::bind(config).await.expect("some port is free");
            bound.send(app.address().expect("it is bound")).expect("the bench waits for it");
            app.run(router::stop::once(std::future::pending())).await
        })
    });
    address.recv().expect("the router is bound")
}

/// Runs an invoker until the process ends; returns when its container is on its way to the router.
fn start_invoker(router: SocketAddr) {
    let (registered, ready) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let channel = client::connect(&router.to_string()).await.expect("the router listens");
            let (sender, receiver) = PullStream::open(channel, "invoker").await.expect("the router is up");
            sender.register(container()).expect("nothing else waits");
            registered.send(()).expect("the bench waits for it");
            echo(&sender, receiver).await;
        });
    });
    ready.recv().expect("the invoker is registered");
}

async fn echo(sender: &PullSender, mut receiver: PullReceiver) {
    while let Some(frame) = receiver.next().await.expect("the router stays up") {
        sender.complete_all(frame.dispatches.into_iter().map(completion)).expect("credits bound what waits");
    }
}

/// A controller's stream. It keeps so many activations in flight and no track of which.
struct Controller {
    sender: PushSender,
    receiver: PushReceiver,
    payload: Bytes,
    next_id: u128,
}

impl Controller {
    async fn open(router: SocketAddr) -> Self {
        let channel = client::connect(&router.to_string()).await.expect("the router listens");
        let (sender, receiver) = PushStream::open(channel, "controller").await.expect("the router is up");
        sender.declare(ACTION, key()).expect("nothing else waits");
        Self { sender, receiver, payload: vec![7; PAYLOAD_BYTES].into(), next_id: 0 }
    }

    /// Has `activations` run, `in_flight` at a time: each answer makes room for the next.
    async fn drive(&mut self, activations: u64, in_flight: u64) -> Duration {
        let start = Instant::now();
        let mut unsent = activations - self.push(activations.min(in_flight));
        let mut unanswered = activations;
        while unanswered > 0 {
            let answered = self.answers().await;
            unanswered -= answered;
            unsent -= self.push(answered.min(unsent));
        }
        start.elapsed()
    }

    fn push(&mut self, count: u64) -> u64 {
        let (payload, next_id) = (&self.payload, &mut self.next_id);
        let activations = (0..count).map(|_| {
            *next_id += 1;
            activation(*next_id, payload)
        });
        self.sender.push_all(activations).expect("what is in flight bounds what waits");
        count
    }

    /// The number of answers that came together.
    async fn answers(&mut self) -> u64 {
        let frame = self.receiver.next().await.expect("the router stays up").expect("and keeps the stream open");
        assert!(
            frame.answers.iter().all(|answer| answer.outcome() == v1::Outcome::Completed && frame.refusals.is_empty())
        );
        frame.answers.len() as u64
    }
}

fn activation(id: u128, payload: &Bytes) -> v1::Activation {
    let id = Bytes::copy_from_slice(&id.to_le_bytes());
    let reply = v1::Reply::Outcome.into();
    v1::Activation { id, action: ACTION, time_left_ms: 60_000, payload: payload.clone(), reply, ..Default::default() }
}

fn completion(dispatch: v1::Dispatch) -> v1::Completion {
    let v1::Dispatch { container, id, payload, .. } = dispatch;
    let status = v1::RunStatus::Succeeded.into();
    v1::Completion { container, id, status, result: payload, credits: 1, ..Default::default() }
}

fn container() -> v1::Register {
    v1::Register {
        key: Some(key().into()),
        concurrency: CONCURRENCY,
        credits: CONCURRENCY,
        warm: true,
        ..Default::default()
    }
}

fn key() -> ActionKey {
    ActionKey::new("tenant", "echo", "").expect("a good name")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the system has resources")
}
