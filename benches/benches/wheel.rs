//! The timing wheel: arming and cancelling, however many are armed, and the whole way of a timer that comes out.

use criterion::{BatchSize, Criterion, Throughput};
use engine::time::Timestamp;
use engine::wheel::{Armed, Wheel};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    benches::run(&[arm_and_cancel, arm, expire]);
}

/// What the engine's timers carry: an action and a slot.
type Item = [u64; 2];

const ITEM: Item = [7; 2];
const MILLION: u64 = 1_000_000;
const ARMED_AT_ONCE: u64 = 10_000;
const EXPIRING: u64 = 100_000;
/// OpenWhisk's usual limit on the time of an activation.
const MINUTE: Duration = Duration::from_secs(60);

/// An activation that is queued and dispatched in time.
fn arm_and_cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/arm and cancel");
    for armed in [1, MILLION] {
        let mut wheel = filled(armed, MINUTE);
        let mut deadlines = deadlines(MINUTE);
        group.bench_function(format!("{armed} armed"), |bencher| {
            bencher.iter(|| {
                let timer = wheel.arm(black_box(deadlines()), ITEM);
                wheel.cancel(timer)
            });
        });
    }
    group.finish();
}

/// A timer more on a wheel with a million. They are cancelled off the clock, so that it stays about a million.
fn arm(criterion: &mut Criterion) {
    let mut wheel = filled(MILLION, MINUTE);
    let (mut deadlines, mut armed) = (deadlines(MINUTE), Vec::new());
    criterion.bench_function(&format!("wheel/arm/{MILLION} armed"), |bencher| {
        bencher.iter_custom(|timers| {
            let rounds = (0..timers / ARMED_AT_ONCE).map(|_| ARMED_AT_ONCE).chain([timers % ARMED_AT_ONCE]);
            rounds.map(|more| arm_more(&mut wheel, more, &mut deadlines, &mut armed)).sum()
        });
    });
}

fn arm_more(
    wheel: &mut Wheel<Item>,
    more: u64,
    deadlines: &mut impl FnMut() -> Timestamp,
    armed: &mut Vec<Armed>,
) -> Duration {
    let start = Instant::now();
    armed.extend((0..more).map(|_| wheel.arm(black_box(deadlines()), ITEM)));
    let elapsed = start.elapsed();
    armed.drain(..).for_each(|timer| _ = wheel.cancel(timer));
    elapsed
}

/// All come out at their ticks, each after it cascaded down its levels. The farther apart, the fewer share a visit of a slot.
fn expire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/expire");
    group.throughput(Throughput::Elements(EXPIRING));
    for within in [Duration::from_secs(1), MINUTE] {
        group.bench_function(format!("{EXPIRING} within {} s", within.as_secs()), |bencher| {
            bencher.iter_batched(|| filled(EXPIRING, within), run_out, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// As the driver does it: sleeps until the next expiry and takes what is due.
fn run_out(mut wheel: Wheel<Item>) -> Wheel<Item> {
    let mut expired = Vec::new();
    while let Some(at) = wheel.next_expiry() {
        while wheel.advance(at, 256, &mut expired) {}
        black_box(&mut expired).clear();
    }
    wheel
}

fn filled(armed: u64, within: Duration) -> Wheel<Item> {
    let mut wheel = Wheel::new(Timestamp::ZERO);
    let mut deadlines = deadlines(within);
    (0..armed).for_each(|_| _ = wheel.arm(deadlines(), ITEM));
    wheel
}

/// Points in time, spread evenly and without order: multiples of the golden ratio.
fn deadlines(within: Duration) -> impl FnMut() -> Timestamp {
    let mut n = 0_u64;
    move || {
        n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Timestamp::ZERO + within.mul_f64((n >> 32) as f64 / f64::from(u32::MAX))
    }
}
