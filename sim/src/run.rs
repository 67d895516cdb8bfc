//! Many seeds over a few threads, and what came of them.

use crate::check::{Moved, Violation};
use crate::plan::{Kind, Plan};
use crate::world::{Report, World};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Which seeds to run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// Activations of a world, about.
    pub activations: u32,
    /// Threads that run worlds.
    pub threads: usize,
}

/// What came of many seeds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Worlds that were run, not counting those run a second time.
    pub seeds: u64,
    /// Of them, worlds run twice to see whether they come out the same.
    pub twice: u64,
    /// Activations that callers asked for.
    pub activations: u64,
    /// Things that happened.
    pub events: u64,
    /// What went into stores of overflow and came back.
    pub moved: Moved,
    /// Worlds in which something did.
    pub overflowed: u64,
    /// Faults by kind.
    pub injected: [u64; Kind::ALL.len()],
    /// The first seed that broke a promise, and which.
    pub failed: Option<(u64, Failure)>,
    /// Processor time of all threads, as near as wall time comes to it.
    pub busy: Duration,
}

/// How a seed failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It broke a promise.
    Broke(Box<Violation>),
    /// It came out differently the second time.
    Differed(u64, u64),
}

/// One seed in this many is run twice.
const TWICE_ONE_IN: u64 = 100;

impl Summary {
    /// Adds what came of a world.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.activations += report.activations;
        self.events += report.events;
        self.overflowed += u64::from(report.moved.stored > 0);
        self.add_moved(report.moved);
        for (sum, count) in self.injected.iter_mut().zip(report.injected) {
            *sum += count;
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.twice += other.twice;
        self.activations += other.activations;
        self.events += other.events;
        self.overflowed += other.overflowed;
        self.add_moved(other.moved);
        self.busy += other.busy;
        for (sum, count) in self.injected.iter_mut().zip(other.injected) {
            *sum += count;
        }
        let sooner = |failed: &(u64, Failure)| self.failed.as_ref().is_none_or(|(seed, _)| failed.0 < *seed);
        if other.failed.as_ref().is_some_and(sooner) {
            self.failed = other.failed;
        }
    }

    fn add_moved(&mut self, other: Moved) {
        self.moved.stored += other.stored;
        self.moved.refilled += other.refilled;
        self.moved.recovered += other.recovered;
        self.moved.lost_in_crash += other.lost_in_crash;
        self.moved.damaged += other.damaged;
    }

    /// Faults of all kinds.
    pub fn faults(&self) -> u64 {
        self.injected.iter().sum()
    }
}

/// Runs one seed; twice if it is its turn.
pub fn run_seed(world: &mut World, seed: u64, activations: u32, summary: &mut Summary) -> Option<Failure> {
    let report = world.run(Plan::draw(seed, activations), false);
    summary.add(&report);
    if let Some(violation) = report.violation {
        return Some(Failure::Broke(Box::new(violation)));
    }
    if seed.is_multiple_of(TWICE_ONE_IN) {
        summary.twice += 1;
        let again = world.run(Plan::draw(seed, activations), false);
        if again.digest != report.digest {
            return Some(Failure::Differed(report.digest, again.digest));
        }
    }
    None
}

/// Runs a batch until its end or the first failure. `progress` is told now and then how many seeds are done, from one thread.
pub fn run_batch(batch: Batch, progress: impl Fn(u64, u64) + Sync) -> Summary {
    let (next, done, activations) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let work = |thread: usize| {
            let (next, done, activations, stop, progress) = (&next, &done, &activations, &stop, &progress);
            move || {
                let (mut world, mut own) = (World::default(), Summary::default());
                let since = std::time::Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= batch.seeds {
                        break;
                    }
                    let seed = batch.first.wrapping_add(at);
                    let before = own.activations;
                    if let Some(failure) = run_seed(&mut world, seed, batch.activations, &mut own) {
                        stop.store(true, Ordering::Relaxed);
                        own.failed = Some((seed, failure));
                    }
                    let sum = activations.fetch_add(own.activations - before, Ordering::Relaxed);
                    let seeds = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if thread == 0 {
                        progress(seeds, sum);
                    }
                }
                own.busy = since.elapsed();
                own
            }
        };
        let threads: Vec<_> = (0..batch.threads.max(1)).map(|thread| scope.spawn(work(thread))).collect();
        for thread in threads {
            match thread.join() {
                Ok(own) => summary.merge(own),
                // The panic has said which seed; the process must not end as if all were well.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    summary
}

/// The seeds that always run first: seed, activations, note.
pub fn regressions() -> impl Iterator<Item = (u64, u32, &'static str)> {
    let lines = include_str!("../regressions.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(seed), Some(activations)) = (number(), number()) else {
            panic!("not a seed and a number of activations: {line}")
        };
        let activations = u32::try_from(activations).expect("a world has fewer than 2^32 activations");
        (seed, activations, words.next().unwrap_or_default())
    })
}
