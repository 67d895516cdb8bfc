//! The intake of an action: the one that was chosen against those that were not.
//!
//! `rate`: threads hand in frames, a frame of activations and one of credits in turn, and what is handed in is matched. The
//! match is the least it can be (a queue, a list of credits), so that what differs is the way in. Time is per frame of
//! activations matched, throughput per match; every contestant must have matched all in the end. `delay`: how long a thread
//! is kept by another that is at work.
//!
//! `cargo bench -p benches --bench intake`, 2026-11-23, two cores that were busy with other things (load 4): the middle of the
//! medians of three runs, which lay up to 35-fold apart with several threads; of `delay` the medians of two.
//!
//! ```text
//!                               single file        mutex   signed balance
//!   rate   frames of 1    1 x         50 ns        52 ns            64 ns
//!                         2 x         67 ns        61 ns         1,031 ns
//!                         4 x         92 ns        63 ns            84 ns
//!          frames of 64   1 x        600 ns       904 ns         2,012 ns
//!                         2 x      1,274 ns     1,344 ns         2,873 ns
//!                         4 x      1,824 ns     1,178 ns         2,632 ns
//!   delay               0.08, 0.48 us  13, 390 us     0.5, 3.0 us
//! ```
//!
//! The single file is not chosen for its rate: with next to no work to do a mutex keeps up with it, and with four threads
//! passes it. It is chosen because a stream's reader does not wait for another (short of the intake's bound); what it may have
//! to do is work on what others left.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use crossbeam_queue::SegQueue;
use engine::intake::SingleFile;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

fn main() {
    benches::run(&[rate, delay]);
}

/// How many matches a second, with no work but the way in.
fn rate(criterion: &mut Criterion) {
    for frame in [1, 64] {
        for threads in [1, 2, 4] {
            let mut group = criterion.benchmark_group(format!("intake/rate/frames of {frame}/{threads} threads"));
            group.throughput(Throughput::Elements(frame));
            measure::<SingleFile<State, Item>>("single file", &mut group, threads, frame);
            measure::<Mutex<State>>("mutex", &mut group, threads, frame);
            measure::<SignedBalance>("signed balance", &mut group, threads, frame);
            group.finish();
        }
    }
}

/// How long a thread is kept that hands in one item, while another hands in frames of 64 without pause and a match takes
/// about what it takes in the engine. Reading the clock is included, alike for all.
fn delay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("intake/delay/one beside frames of 64");
    group.bench_function("single file", |bencher| bencher.iter_custom(delayed::<SingleFile<State, Item>>));
    group.bench_function("mutex", |bencher| bencher.iter_custom(delayed::<Mutex<State>>));
    group.bench_function("signed balance", |bencher| bencher.iter_custom(delayed::<SignedBalance>));
    group.finish();
}

/// Steps of work of a match: see the matcher's benchmark.
const MATCH_STEPS: u32 = 500;
/// Steps that a thread does elsewhere between two items.
const PAUSE_STEPS: u32 = 5_000;

/// The id of an activation.
type Id = u128;
/// The container that grants a credit.
type Container = u32;

/// One thing handed in.
enum Item {
    Activation(Id),
    Credit(Container),
}

/// A way in. Calls return how many matches they made, their own items' or others'.
trait Intake: Sync {
    /// Each match takes that many steps of work.
    fn new(steps: u32) -> Self;
    /// Takes a frame, all activations or all credits, and leaves it empty.
    fn enter(&self, frame: &mut Vec<Item>) -> u64;
}

/// What waits; one side is always empty.
#[derive(Default)]
struct State {
    steps: u32,
    activations: VecDeque<Id>,
    credits: VecDeque<Container>,
}

impl State {
    /// Takes `items`; returns how many matches they made.
    fn work(&mut self, items: &mut Vec<Item>) -> u64 {
        items.drain(..).map(|item| u64::from(self.handle(item))).sum()
    }

    fn handle(&mut self, item: Item) -> bool {
        match item {
            Item::Activation(id) => match self.credits.pop_front() {
                Some(container) => hand_over(id, container, self.steps),
                None => {
                    self.activations.push_back(id);
                    false
                }
            },
            Item::Credit(container) => match self.activations.pop_front() {
                Some(id) => hand_over(id, container, self.steps),
                None => {
                    self.credits.push_back(container);
                    false
                }
            },
        }
    }
}

/// Where the engine would dispatch.
fn hand_over(id: Id, container: Container, steps: u32) -> bool {
    black_box((id, container));
    toil(steps);
    true
}

/// Work of about a nanosecond a step.
fn toil(steps: u32) {
    black_box((0..steps).fold(1_u64, |product, _| black_box(product.wrapping_mul(3))));
}

/// The engine's: try the lock; leave the items in a queue if it is taken, for its holder.
impl Intake for SingleFile<State, Item> {
    fn new(steps: u32) -> Self {
        Self::new(State { steps, ..State::default() })
    }

    fn enter(&self, frame: &mut Vec<Item>) -> u64 {
        let mut matches = 0;
        self.enter(frame, |state, items| matches += state.work(items));
        matches
    }
}

/// The plain alternative: a lock around the state; who finds it taken waits.
impl Intake for Mutex<State> {
    fn new(steps: u32) -> Self {
        Self::new(State { steps, ..State::default() })
    }

    fn enter(&self, frame: &mut Vec<Item>) -> u64 {
        self.lock().work(frame)
    }
}

/// The alternative without a single state: two queues and a count of activations less credits. The count says whether the
/// other side has something waiting, and one add to it claims as much of that as a frame can use. What is claimed may not
/// be in its queue yet, as it is counted first and pushed then: so this waits too, for a thread that was put off the
/// processor between the two. And it can do no more than pair the first of each: no choice of a container, no order across
/// threads, nothing that is taken out of the middle.
struct SignedBalance {
    steps: u32,
    balance: AtomicI64,
    activations: SegQueue<Id>,
    credits: SegQueue<Container>,
}

impl Intake for SignedBalance {
    fn new(steps: u32) -> Self {
        Self { steps, balance: AtomicI64::new(0), activations: SegQueue::new(), credits: SegQueue::new() }
    }

    fn enter(&self, frame: &mut Vec<Item>) -> u64 {
        let claimed = self.claim(frame);
        for (at, item) in frame.drain(..).enumerate() {
            match item {
                Item::Activation(id) if at < claimed => _ = hand_over(id, pop(&self.credits), self.steps),
                Item::Credit(container) if at < claimed => _ = hand_over(pop(&self.activations), container, self.steps),
                Item::Activation(id) => self.activations.push(id),
                Item::Credit(container) => self.credits.push(container),
            }
        }
        claimed as u64
    }
}

impl SignedBalance {
    /// Counts a frame; returns for how many of it something waits.
    fn claim(&self, frame: &[Item]) -> usize {
        let len = i64::try_from(frame.len()).expect("a frame is short");
        // AcqRel: what is claimed was pushed, or is about to be, by whoever counted it.
        let waiting = match frame.first() {
            Some(Item::Activation(_)) => -self.balance.fetch_add(len, Ordering::AcqRel),
            Some(Item::Credit(_)) => self.balance.fetch_sub(len, Ordering::AcqRel),
            None => 0,
        };
        usize::try_from(waiting.clamp(0, len)).expect("clamped")
    }
}

/// Takes what was claimed, waiting for the one who counted it to push it.
fn pop<T>(queue: &SegQueue<T>) -> T {
    loop {
        if let Some(item) = queue.pop() {
            return item;
        }
        std::thread::yield_now();
    }
}

fn measure<I: Intake>(name: &str, group: &mut BenchmarkGroup<'_, WallTime>, threads: u64, frame: u64) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| contest(&I::new(0), iterations, threads, frame));
    });
}

/// The time `threads` take to hand in so many frames of activations, and as many of credits, and to match them all: from the
/// first that begins to the last that ends.
fn contest(intake: &impl Intake, frames: u64, threads: u64, frame: u64) -> Duration {
    let barrier = &Barrier::new(usize::try_from(threads).expect("few"));
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let hand_in = |thread: u64| {
            let share = frames / threads + u64::from(thread < frames % threads);
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                let matches = hand_in(intake, thread, share, frame);
                Run { start, end: Instant::now(), matches }
            })
        };
        let threads: Vec<_> = (0..threads).map(hand_in).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread fails")).collect()
    });
    assert_eq!(runs.iter().map(|run| run.matches).sum::<u64>(), frames * frame, "all are matched");
    let start = runs.iter().map(|run| run.start).min().expect("one at least");
    runs.iter().map(|run| run.end - start).max().expect("one at least")
}

/// One thread's part.
struct Run {
    start: Instant,
    end: Instant,
    matches: u64,
}

/// One thread's frames: activations and credits in turn, so that never much is waiting.
fn hand_in(intake: &impl Intake, thread: u64, frames: u64, frame: u64) -> u64 {
    let mut items = Vec::new();
    let container = Container::try_from(thread).expect("few threads");
    let activations = |n: u64| (0..frame).map(move |at| Item::Activation(Id::from(n * frame + at)));
    let credits = || (0..frame).map(|_| Item::Credit(container));
    let mut matches = 0;
    for n in 0..frames {
        items.extend(credits());
        matches += intake.enter(&mut items);
        items.extend(activations(n));
        matches += intake.enter(&mut items);
    }
    matches
}

/// The time that so many calls took together.
fn delayed<I: Intake>(calls: u64) -> Duration {
    let (intake, done, barrier) = (&I::new(MATCH_STEPS), &AtomicBool::new(false), &Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            barrier.wait();
            while !done.load(Ordering::Relaxed) {
                hand_in(intake, 1, 1, 64);
            }
        });
        barrier.wait();
        let elapsed = (0..calls).map(|call| delay_of(intake, call)).sum();
        done.store(true, Ordering::Relaxed);
        elapsed
    })
}

/// Credits and activations in turn.
fn delay_of(intake: &impl Intake, call: u64) -> Duration {
    let item = if call.is_multiple_of(2) { Item::Credit(0) } else { Item::Activation(call.into()) };
    let mut items = vec![item];
    toil(PAUSE_STEPS);
    let start = Instant::now();
    intake.enter(&mut items);
    start.elapsed()
}
