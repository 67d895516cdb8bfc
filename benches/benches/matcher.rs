//! The matcher through the hub, as the router's readers drive it: frames of inputs for one action, then the pass settles.
//! Effects go to a performer that keeps just enough of them to go on. Payloads have 256 bytes.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use engine::container::{ContainerKey, Registration};
use engine::effect::{Effect, Perform};
use engine::hub::{Action, Hub, Pass};
use engine::id::{ActionKey, ActivationId, StreamId};
use engine::input::{Completion, Input, Push};
use engine::limits::Limits;
use engine::outcome::{Reply, RunStatus};
use engine::time::Timestamp;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

fn main() {
    benches::run(&[matched, queued, round_robin, expired, registered]);
}

const PAYLOAD_BYTES: usize = 256;
const CONTROLLER: StreamId = StreamId(1);
const INVOKER: StreamId = StreamId(2);
const CONTAINERS: u32 = 64;
const CONCURRENCY: u32 = 64;
const QUEUED: u32 = 1_024;
const ACTIONS: usize = 10_000;
const EXPIRING: u32 = 10_000;
/// OpenWhisk's usual limit on the time of an activation.
const TIME_LEFT: Duration = Duration::from_secs(60);
/// What the router's timer task works on at once.
const TIMERS_AT_ONCE: usize = 256;

/// Pushed, matched at once and completed, on one of 64 containers with room for 64 each.
fn matched(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher/matched and completed");
    for frame in [1, 64] {
        let mut world = World::new();
        let mut one = world.action(0);
        (0..CONTAINERS).for_each(|number| world.add_container(&mut one, number, CONCURRENCY, CONCURRENCY));
        group.throughput(Throughput::Elements(frame.into()));
        group.bench_function(format!("frames of {frame}"), |bencher| {
            bencher.iter(|| {
                world.push(&one, frame);
                world.complete(&one, 1);
            });
        });
    }
    group.finish();
}

/// Pushed and queued in frames of 64, then dispatched with one grant of credits and completed in frames of 64.
fn queued(criterion: &mut Criterion) {
    let mut world = World::new();
    let mut one = world.action(0);
    world.add_container(&mut one, 0, QUEUED, 0);
    let mut group = criterion.benchmark_group("matcher/queued, drained and completed");
    group.throughput(Throughput::Elements(QUEUED.into()));
    group.bench_function(QUEUED.to_string(), |bencher| {
        bencher.iter(|| {
            (0..QUEUED / 64).for_each(|_| world.push(&one, 64));
            world.enter(&one, Input::Credit(one.containers[0], QUEUED));
            world.complete(&one, 0);
        });
    });
    group.finish();
}

/// Matched at once and completed, each on the next of many actions: nothing of an action is in a cache when its turn comes.
fn round_robin(criterion: &mut Criterion) {
    let mut world = World::new();
    let actions: Vec<Declared> = (0..ACTIONS).map(|number| world.action_with_container(number)).collect();
    let mut turn = actions.iter().cycle();
    let mut group = criterion.benchmark_group("matcher/round robin");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{ACTIONS} actions"), |bencher| {
        bencher.iter(|| {
            let next = turn.next().expect("it cycles");
            world.push(next, 1);
            world.complete(next, 1);
        });
    });
    group.finish();
}

/// All queued activations of an action expire in one moment.
fn expired(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher/expired");
    group.throughput(Throughput::Elements(EXPIRING.into()));
    group.bench_function(EXPIRING.to_string(), |bencher| {
        bencher.iter_batched(with_queue, expire_all, BatchSize::PerIteration);
    });
    group.finish();
}

fn with_queue() -> World {
    let mut world = World::new();
    let one = world.action(0);
    (0..EXPIRING / 100).for_each(|_| world.push(&one, 100));
    assert_eq!(world.hub.held(), EXPIRING as usize);
    world
}

fn expire_all(mut world: World) -> World {
    world.pass.now = world.pass.now + TIME_LEFT + Duration::from_secs(1);
    while world.hub.advance(TIMERS_AT_ONCE, &mut world.pass) {}
    world.hub.settle(&mut world.pass);
    assert_eq!(world.hub.held(), 0);
    world
}

/// A container comes and is gone again, beside 64 others.
fn registered(criterion: &mut Criterion) {
    let mut world = World::new();
    let mut one = world.action(0);
    (0..CONTAINERS).for_each(|number| world.add_container(&mut one, number, 1, 1));
    criterion.bench_function("matcher/registered and gone", |bencher| {
        bencher.iter(|| {
            world.add_container(&mut one, CONTAINERS, 1, 1);
            let gone = one.containers.pop().expect("just added");
            world.enter(&one, Input::Gone(gone));
        });
    });
}

/// Keeps what was dispatched, so that it can be completed.
#[derive(Default)]
struct Dispatched(Vec<(u32, ActivationId)>);

impl Perform for Dispatched {
    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Dispatch(_, dispatch) => self.0.push((dispatch.container, dispatch.id)),
                other => drop(black_box(other)),
            }
        }
    }
}

/// An action and its containers by number.
struct Declared {
    action: Arc<Action>,
    containers: Vec<ContainerKey>,
}

/// A hub, and one thread that drives it.
struct World {
    hub: Hub,
    pass: Pass<Dispatched>,
    payload: Bytes,
    inputs: Vec<Input>,
    next_id: u128,
}

impl World {
    fn new() -> Self {
        Self {
            hub: Hub::new(Limits::default(), 7, 1, Timestamp::ZERO),
            pass: Pass::new(Dispatched::default()),
            payload: vec![7; PAYLOAD_BYTES].into(),
            inputs: Vec::new(),
            next_id: 0,
        }
    }

    fn action(&mut self, number: usize) -> Declared {
        let key = ActionKey::new("tenant", &format!("action-{number}"), "");
        let action = self.hub.declare(&key, &mut self.pass).expect("within the limits");
        Declared { action, containers: Vec::new() }
    }

    fn action_with_container(&mut self, number: usize) -> Declared {
        let mut one = self.action(number);
        self.add_container(&mut one, 0, 1, 1);
        one
    }

    fn add_container(&mut self, to: &mut Declared, number: u32, concurrency: u32, credits: u32) {
        let room = Arc::new(engine::container::Room::new(usize::MAX));
        let new = Registration { stream: INVOKER, number, epoch: 0, concurrency, credits, warm: true, room };
        let registered = self.hub.register(to.action.key(), new, &mut self.pass);
        to.containers.push(registered.expect("within the limits").1);
    }

    /// A frame of activations.
    fn push(&mut self, to: &Declared, frame: u32) {
        for _ in 0..frame {
            let push = self.activation();
            self.inputs.push(Input::Push(push));
        }
        self.hand_in(to);
    }

    fn activation(&mut self) -> Push {
        self.next_id += 1;
        Push {
            id: ActivationId(self.next_id.to_le_bytes()),
            controller: CONTROLLER,
            reply: Reply::Outcome,
            attempt: 1,
            accepted_at: self.pass.now,
            deadline: self.pass.now + TIME_LEFT,
            payload: self.payload.clone(),
            accepted: false,
        }
    }

    /// Completes all that was dispatched, in frames of at most 64 that grant so many credits with each.
    fn complete(&mut self, on: &Declared, credits: u32) {
        let mut dispatched = std::mem::take(&mut self.pass.performer.0);
        for frame in dispatched.chunks(64) {
            for (container, id) in frame {
                let (result, status) = (self.payload.clone(), RunStatus::Succeeded);
                let completion =
                    Completion { id: *id, status, result, run_us: 0, arrived_at: Timestamp::ZERO, credits };
                self.inputs.push(Input::Complete(on.containers[*container as usize], completion));
            }
            self.hand_in(on);
        }
        dispatched.clear();
        self.pass.performer.0 = dispatched;
    }

    fn enter(&mut self, action: &Declared, input: Input) {
        self.inputs.push(input);
        self.hand_in(action);
    }

    fn hand_in(&mut self, to: &Declared) {
        self.hub.enter(&to.action, &mut self.inputs, &mut self.pass);
        self.hub.settle(&mut self.pass);
    }
}
