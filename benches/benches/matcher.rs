//! The matcher through the hub, as the router's readers drive it: frames of inputs for one action, then the pass settles.

use benches::world::{Declared, World};
use criterion::{BatchSize, Criterion, Throughput};
use engine::input::Input;

fn main() {
    benches::run(&[matched, queued, round_robin, expired, registered]);
}

const CONTAINERS: u32 = 64;
const CONCURRENCY: u32 = 64;
const QUEUED: u32 = 1_024;
const ACTIONS: usize = 10_000;
const EXPIRING: u32 = 10_000;

/// Pushed, matched at once and completed, on one of 64 containers with room for 64 each.
fn matched(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher/matched and completed");
    for frame in [1, 64] {
        let mut world = World::default();
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
    let mut world = World::default();
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
    let mut world = World::default();
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
    let mut world = World::default();
    let one = world.action(0);
    (0..EXPIRING / 100).for_each(|_| world.push(&one, 100));
    assert_eq!(world.hub.held(), EXPIRING as usize);
    world
}

fn expire_all(mut world: World) -> World {
    world.expire_all();
    world
}

/// A container comes and is gone again, beside 64 others.
fn registered(criterion: &mut Criterion) {
    let mut world = World::default();
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
