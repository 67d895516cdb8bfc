//! A made-up trace with the skew and burstiness of a measured one, to replay where no file is at hand.
//!
//! Nothing of a measured trace is copied: a few rounded figures say how one looks, and a seed fills in the rest.
//!
//! - Skew: five functions have 84 % of all invocations, the first 63 %; the rest follows a power law.
//! - Burstiness: population variance over mean of the per-minute counts, among functions with at least one invocation in ten
//!   minutes, is 0.8 at the median, 7 at p90, 116 at p99.
//! - Service times, weighted by invocation: 155 ms at the median, 682 ms at p90, 2.5 s at p99.
//!
//! These are the figures aimed at. The tests say how near [`Shape::default`] comes for a range of seeds; another shape keeps
//! the manner and not the figures.

use std::f64::consts::TAU;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{COUNT_MAX, Count, Function, MINUTE_MAX, ServiceTime, Trace, Trigger};

/// How large a generated trace is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    /// How many functions; the busiest is number 0.
    pub(crate) functions: u32,
    /// How many minutes, numbered from 1; at most one year's.
    pub(crate) minutes: u32,
    /// Mean invocations per minute of all functions together.
    pub(crate) rate_per_minute: f64,
}

impl Default for Shape {
    /// A busy hour of a platform with 500 functions.
    fn default() -> Self {
        Self { functions: 500, minutes: 60, rate_per_minute: 6_600.0 }
    }
}

/// A trace of this shape; the same for the same shape and seed.
pub(crate) fn generate(shape: Shape, seed: u64) -> Trace {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shares = shares(shape.functions);
    let mut trace = Trace { functions: Vec::new(), counts: Vec::new() };
    for (rank, share) in (0..).zip(shares) {
        let habit = Habit::draw(rank, share * shape.rate_per_minute, &mut random);
        let counts = habit.rhythm.counts(shape.minutes.min(MINUTE_MAX), &mut random);
        let cells = (1..).zip(counts).map(|(minute, count)| Count { minute, function: rank, count });
        trace.counts.extend(cells.filter(|cell| cell.count > 0));
        trace.functions.push(habit.function(rank));
    }
    trace.counts.sort_unstable_by_key(|cell| (cell.minute, cell.function));
    trace
}

/// The share of all invocations that each function has, the busiest first; they add up to 1.
fn shares(functions: u32) -> Vec<f64> {
    let head = HEAD.iter().map(|head| head.share);
    let tail = (1_u32..).skip(HEAD.len()).map(|place| TAIL_SHARE / f64::from(place).powf(TAIL_EXPONENT));
    let weights: Vec<f64> = head.chain(tail).take(functions as usize).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// All that is drawn for one function.
struct Habit {
    trigger: Trigger,
    rhythm: Rhythm,
    median_ms: f64,
}

impl Habit {
    /// `mean` is in invocations per minute.
    fn draw(rank: u32, mean: f64, random: &mut ChaCha8Rng) -> Self {
        if let Some(head) = HEAD.get(rank as usize) {
            let rhythm = Rhythm::Steady { mean, dispersion: head.dispersion };
            return Self { trigger: head.trigger, rhythm, median_ms: head.median_ms };
        }
        let trigger = draw_trigger(random);
        Self { trigger, rhythm: Rhythm::draw(rank, mean, trigger, random), median_ms: draw_median_ms(rank, random) }
    }

    fn function(&self, rank: u32) -> Function {
        // Every seventh function shares its owner with the one before: few tenants have more than one.
        let owner = rank - rank / 7;
        let service_time = ServiceTime::from_millis(SERVICE_POINTS.map(|point| point * self.median_ms));
        Function { id: rank, app: owner, owner, trigger: self.trigger, service_time }
    }
}

fn draw_trigger(random: &mut ChaCha8Rng) -> Trigger {
    let mut left = random.random::<f64>();
    for (trigger, share) in TRIGGERS {
        if left < share {
            return trigger;
        }
        left -= share;
    }
    Trigger::Others
}

/// Busy functions are seldom slow, and a slow one among them would decide the percentiles alone.
fn draw_median_ms(rank: u32, random: &mut ChaCha8Rng) -> f64 {
    if rank < WARM_RANKS.end { log_uniform(2.0, 800.0, random) } else { log_uniform(5.0, 7_000.0, random) }
}

/// How a function's invocations spread over the minutes. `mean` is per minute and over all minutes, silent ones too.
enum Rhythm {
    /// About the same each minute, with the given variance over mean. For means that are large against it.
    Steady { mean: f64, dispersion: f64 },
    /// Evenly spaced, as a timer does it: the counts of two minutes differ by 1 at most.
    Even { mean: f64 },
    /// Each invocation on its own, in the given share of the minutes; the others are silent.
    Bursts { mean: f64, share: f64 },
}

impl Rhythm {
    fn draw(rank: u32, mean: f64, trigger: Trigger, random: &mut ChaCha8Rng) -> Self {
        if trigger == Trigger::Timer {
            return Self::Even { mean };
        }
        if WARM_RANKS.contains(&rank) && random.random_bool(BURSTY_WARM) {
            return Self::Bursts { mean, share: log_uniform(LOUD_WARM.0, LOUD_WARM.1, random) };
        }
        if rank >= WARM_RANKS.end && random.random_bool(BURSTY_COOL) {
            return Self::Bursts { mean, share: log_uniform(LOUD_COOL.0, LOUD_COOL.1, random) };
        }
        if mean >= STEADY_MEAN_MIN {
            return Self::Steady { mean, dispersion: log_uniform(0.05, 4.0, random) };
        }
        if random.random_bool(EVEN_COOL) { Self::Even { mean } } else { Self::Bursts { mean, share: 1.0 } }
    }

    fn counts(&self, minutes: u32, random: &mut ChaCha8Rng) -> Vec<u32> {
        match *self {
            Self::Steady { mean, dispersion } => {
                (0..minutes).map(|_| whole(normal(mean, mean * dispersion, random))).collect()
            }
            Self::Even { mean } => even(minutes, mean, random.random()),
            Self::Bursts { mean, share } => bursts(minutes, mean, share, random),
        }
    }
}

/// Steps of a straight line: `phase` in `0.0..1.0` shifts where it crosses whole numbers.
fn even(minutes: u32, mean: f64, phase: f64) -> Vec<u32> {
    let until = |minute: u32| (f64::from(minute) * mean + phase).floor();
    (0..minutes).map(|minute| whole(until(minute + 1) - until(minute))).collect()
}

/// Exactly the share of minutes has invocations, rounded to one minute at least, so that a trace has all of its
/// invocations whatever the seed.
fn bursts(minutes: u32, mean: f64, share: f64, random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut loud_left = whole(f64::from(minutes) * share).clamp(1, minutes.max(1));
    let loud_mean = mean * f64::from(minutes) / f64::from(loud_left);
    let mut count = |minutes_left: u32| {
        if random.random_range(0..minutes_left) >= loud_left {
            return 0;
        }
        loud_left -= 1;
        poisson(loud_mean, random)
    };
    (1..=minutes).rev().map(&mut count).collect()
}

/// Number of independent events when `mean` are expected.
fn poisson(mean: f64, random: &mut ChaCha8Rng) -> u32 {
    // Counting arrivals costs `mean` draws, and its threshold leaves the range of f64 near 700.
    if mean > 50.0 {
        return whole(normal(mean, mean, random));
    }
    let (mut events, mut left) = (0, random.random::<f64>());
    let end = (-mean).exp();
    while left > end {
        events += 1;
        left *= random.random::<f64>();
    }
    events
}

fn normal(mean: f64, variance: f64, random: &mut ChaCha8Rng) -> f64 {
    // Box and Muller; 1 - u keeps the logarithm away from 0.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    mean + variance.sqrt() * radius * (TAU * random.random::<f64>()).cos()
}

fn log_uniform(low: f64, high: f64, random: &mut ChaCha8Rng) -> f64 {
    low * (high / low).powf(random.random())
}

/// The nearest count; what is below 0 is 0, and nothing goes over [`COUNT_MAX`].
#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits just before")]
fn whole(count: f64) -> u32 {
    count.round().clamp(0.0, f64::from(COUNT_MAX)) as u32
}

/// One of the few functions that have most invocations: too heavy to be left to chance.
struct Head {
    share: f64,
    trigger: Trigger,
    /// Variance over mean of the per-minute counts.
    dispersion: f64,
    median_ms: f64,
}

const HEAD: [Head; 5] = [
    Head { share: 0.63, trigger: Trigger::Event, dispersion: 10.0, median_ms: 155.0 },
    Head { share: 0.09, trigger: Trigger::Queue, dispersion: 6.0, median_ms: 840.0 },
    Head { share: 0.06, trigger: Trigger::Event, dispersion: 3.0, median_ms: 50.0 },
    Head { share: 0.03, trigger: Trigger::Queue, dispersion: 0.1, median_ms: 400.0 },
    Head { share: 0.025, trigger: Trigger::Queue, dispersion: 2.5, median_ms: 20.0 },
];

/// The power law behind the head: the share of the function in place `p`, from 1, is `TAIL_SHARE / p ^ TAIL_EXPONENT`.
const TAIL_SHARE: f64 = 0.51;
const TAIL_EXPONENT: f64 = 1.8;

/// Behind the head, but still with hundreds of invocations in an hour: only these can burst hard.
const WARM_RANKS: std::ops::Range<u32> = 12..50;

// Found by trial against the figures above and the tests below; each moves one of them.

/// Among functions that no timer invokes: the share of bursty ones, warm and cooler. The second sets p90 of the burstiness.
const BURSTY_WARM: f64 = 0.6;
const BURSTY_COOL: f64 = 0.42;
/// The least and largest share of minutes in which a bursty function is invoked. The first sets p99 of the burstiness.
const LOUD_WARM: (f64, f64) = (0.055, 0.25);
const LOUD_COOL: (f64, f64) = (0.03, 0.5);
/// From this mean per minute on, a function that is not bursty is steady; below, a normal distribution would give
/// negative counts.
const STEADY_MEAN_MIN: f64 = 16.0;
/// Below it, the share of functions that something regular invokes though not a timer. Sets the median burstiness.
const EVEN_COOL: f64 = 0.9;

/// The share of functions, not of invocations, that each trigger has behind the head; the rest is `Others`.
const TRIGGERS: [(Trigger, f64); 6] = [
    (Trigger::Timer, 0.30),
    (Trigger::Http, 0.38),
    (Trigger::Queue, 0.19),
    (Trigger::Orchestration, 0.07),
    (Trigger::Event, 0.04),
    (Trigger::Storage, 0.015),
];

/// `min` to `max` of a run time as multiples of its median: a short left side, a long right one.
const SERVICE_POINTS: [f64; 7] = [0.5, 0.6, 0.82, 1.0, 1.36, 3.2, 40.0];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Placement, ServiceTimes, place};
    use super::*;

    const SEEDS: std::ops::Range<u64> = 0..20;

    fn check(seed: u64, what: &str, value: f64, range: std::ops::RangeInclusive<f64>) {
        assert!(range.contains(&value), "seed {seed}: {what} is {value:.3}, not in {range:?}");
    }

    fn at(sorted: &[f64], share: f64) -> f64 {
        sorted[whole(share * (sorted.len() - 1) as f64) as usize]
    }

    fn variance_over_mean(counts: &[f64]) -> f64 {
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64 / mean
    }

    /// Of the functions with at least one invocation in ten minutes, in order.
    fn dispersions(trace: &Trace) -> Vec<f64> {
        let mut counts = vec![vec![0.0; 60]; trace.functions.len()];
        for cell in &trace.counts {
            counts[cell.function as usize][cell.minute as usize - 1] = f64::from(cell.count);
        }
        counts.retain(|counts| counts.iter().sum::<f64>() >= 6.0);
        let mut dispersions: Vec<f64> = counts.iter().map(|counts| variance_over_mean(counts)).collect();
        dispersions.sort_unstable_by(f64::total_cmp);
        dispersions
    }

    #[test]
    fn size_and_skew() {
        for seed in SEEDS {
            let trace = generate(Shape::default(), seed);
            let total = trace.invocations() as f64;
            let left = |top| trace.clone().without_top(top).invocations() as f64 / total;
            check(seed, "rate per minute", total / 60.0, 6_270.0..=6_930.0);
            check(seed, "active functions", trace.active_functions() as f64, 350.0..=500.0);
            check(seed, "share of the top function", 1.0 - left(1), 0.61..=0.65);
            check(seed, "share of the top 5", 1.0 - left(5), 0.82..=0.86);
            check(seed, "share left without the top 10", left(10), 0.07..=0.13);
        }
    }

    #[test]
    fn burstiness() {
        for seed in SEEDS {
            let dispersions = dispersions(&generate(Shape::default(), seed));
            check(seed, "median variance over mean", at(&dispersions, 0.5), 0.7..=0.95);
            check(seed, "p90 of variance over mean", at(&dispersions, 0.9), 4.0..=12.0);
            check(seed, "p99 of variance over mean", at(&dispersions, 0.99), 60.0..=220.0);
        }
    }

    #[test]
    fn service_times() {
        // Four, because drawing and sorting every arrival takes a second without optimisation.
        for seed in SEEDS.take(4) {
            let trace = generate(Shape::default(), seed);
            let arrivals = place(&trace, Placement::Uniform, ServiceTimes::Trace, seed, 1.0);
            let mut times: Vec<Duration> = arrivals.iter().map(|arrival| arrival.service_time()).collect();
            times.sort_unstable();
            let millis = |share: f64| times[whole(share * times.len() as f64) as usize].as_secs_f64() * 1e3;
            check(seed, "median service time", millis(0.5), 140.0..=170.0);
            check(seed, "p90 of service time", millis(0.9), 600.0..=765.0);
            check(seed, "p99 of service time", millis(0.99), 2_100.0..=3_000.0);
        }
    }

    #[test]
    fn triggers() {
        for seed in SEEDS {
            let trace = generate(Shape::default(), seed);
            let timers = trace.functions.iter().filter(|function| function.trigger == Trigger::Timer).count();
            check(seed, "share of timers", timers as f64 / 500.0, 0.22..=0.38);
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(generate(Shape::default(), 7), generate(Shape::default(), 7));
        assert_ne!(generate(Shape::default(), 7), generate(Shape::default(), 8));
    }

    #[test]
    fn any_shape_gives_a_trace() {
        let shape = |functions, minutes, rate_per_minute| Shape { functions, minutes, rate_per_minute };
        assert_eq!(generate(shape(0, 60, 100.0), 1).functions.len(), 0);
        assert_eq!(generate(shape(10, 0, 100.0), 1).invocations(), 0);
        assert_eq!(generate(shape(10, 5, 0.0), 1).invocations(), 0);
        let one = generate(shape(1, 10, 1_000.0), 1);
        check(1, "the only function's rate", one.invocations() as f64 / 10.0, 800.0..=1_200.0);
    }
}
