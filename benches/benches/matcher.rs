//! The matcher through the hub, as the router's readers drive it: frames of inputs for one action, then the pass settles.
//!
//! `threads`: what else it costs if two threads drive one hub, on an action each and on the same one. Time is from the first that
//! begins to the last that ends, throughput is of all together: twice that of one thread is what free cores could give.

use benches::world::{Declared, World};
use criterion::{BatchSize, Criterion, Throughput};
use engine::input::Input;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn main() {
    benches::run(&[matched, threads, queued, round_robin, expired, registered]);
}

const CONTAINERS: u32 = 64;
const CONCURRENCY: u32 = 64;
const FRAME: u32 = 64;
const QUEUED: u32 = 1_024;
const ACTIONS: usize = 10_000;
const EXPIRING: u32 = 10_000;
/// As many as there are threads, as in the router.
const WHEELS: usize = 2;

/// Pushed, matched at once and completed, on one of 64 containers with room for 64 each.
fn matched(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher/matched and completed");
    for frame in [1, FRAME] {
        let mut world = World::default();
        let one = world.action_with_containers(0, CONTAINERS, CONCURRENCY);
        group.throughput(Throughput::Elements(frame.into()));
        group.bench_function(format!("frames of {frame}"), |bencher| {
            bencher.iter(|| world.round_trip(&one, frame));
        });
    }
    group.finish();
}

/// Pushed, matched at once and completed in frames of 64, by one thread and by two.
fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher/threads");
    for (name, threads, shared) in
        [("one", 1, false), ("two, an action each", 2, false), ("two, the same action", 2, true)]
    {
        group.throughput(Throughput::Elements(threads * u64::from(FRAME)));
        group.bench_function(name, |bencher| bencher.iter_custom(|frames| together(threads, shared, frames)));
    }
    group.finish();
}

/// The time that threads take for so many frames each.
fn together(threads: u64, shared: bool, frames: u64) -> Duration {
    let mut world = World::with_wheels(WHEELS);
    let actions = if shared { 1 } else { usize::try_from(threads).expect("few") };
    let declared: Vec<Declared> =
        (0..actions).map(|number| world.action_with_containers(number, CONTAINERS, CONCURRENCY)).collect();
    let barrier = &Barrier::new(usize::try_from(threads).expect("few"));
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let drive = |thread: u64| {
            let (mut own, one) =
                (world.beside(thread), &declared[usize::try_from(thread).expect("few") % declared.len()]);
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                (0..frames).for_each(|_| own.round_trip(one, FRAME));
                own.finish(one);
                (start, Instant::now())
            })
        };
        let driven: Vec<_> = (0..threads).map(drive).collect();
        driven.into_iter().map(|thread| thread.join().expect("no thread fails")).collect()
    });
    assert_eq!(world.hub.held(), 0, "all are completed");
    let start = spans.iter().map(|span| span.0).min().expect("one at least");
    spans.iter().map(|span| span.1 - start).max().expect("one at least")
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
            world.round_trip(next, 1);
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
    let mut one = world.action_with_containers(0, CONTAINERS, 1);
    criterion.bench_function("matcher/registered and gone", |bencher| {
        bencher.iter(|| {
            world.add_container(&mut one, CONTAINERS, 1, 1);
            let gone = one.containers.pop().expect("just added");
            world.enter(&one, Input::Gone(gone));
        });
    });
}
