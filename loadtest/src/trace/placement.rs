//! Places the counts of a trace inside their minutes: one arrival per invocation, with its instant and service time.
//!
//! A trace says how many invocations a minute had, not when in the minute. Two answers bracket the truth, and a replay
//! reports both. The same trace, seed and choices give the same arrivals; service times come from a random stream of
//! their own, so leaving them out moves no arrival.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Count, Trace, Trigger};

/// One invocation to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival {
    // Nanoseconds keep it at 24 bytes where two `Duration` would make 40; field order is sorting order.
    at_ns: u64,
    function: u32,
    service_time_ns: u64,
}

impl Arrival {
    /// The intended offset from the start of the replay, in replay time.
    pub(crate) fn at(&self) -> Duration {
        Duration::from_nanos(self.at_ns)
    }

    /// Index into [`Trace::functions`].
    pub(crate) fn function(&self) -> u32 {
        self.function
    }

    /// How long the run takes, in replay time; zero with [`ServiceTimes::None`].
    pub(crate) fn service_time(&self) -> Duration {
        Duration::from_nanos(self.service_time_ns)
    }
}

/// Where in its minute an invocation arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Anywhere, all instants alike: the gentle end.
    Uniform,
    /// The harsh end: a function's whole minute falls into 1 to 3 random seconds, and functions with a timer all fire in
    /// second 0. Inside a second all instants are alike.
    Clumped,
}

/// How long the runs take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceTimes {
    /// As the trace says.
    Trace,
    /// No time at all: the router alone is measured.
    None,
}

/// All arrivals of `trace`, the earliest first. Offset 0 is the start of the first minute that has an invocation.
///
/// `speed` compresses time: at 60 a minute of the trace takes a second, and so does a run of a minute.
///
/// # Panics
/// When `speed` is not a finite number above 0; whoever reads it from a user checks it first.
pub(crate) fn place(
    trace: &Trace,
    placement: Placement,
    service_times: ServiceTimes,
    seed: u64,
    speed: f64,
) -> Vec<Arrival> {
    assert!(speed.is_finite() && speed > 0.0, "speed must be finite and above 0, not {speed}");
    let mut placer = Placer::new(trace, placement, service_times, seed, speed);
    let mut arrivals = Vec::new();
    for cell in &trace.counts {
        placer.place_cell(cell, &mut arrivals);
    }
    arrivals.sort_unstable();
    arrivals
}

struct Placer<'a> {
    trace: &'a Trace,
    placement: Placement,
    service_times: ServiceTimes,
    speed: f64,
    minute_first: u32,
    instants: ChaCha8Rng,
    durations: ChaCha8Rng,
}

impl<'a> Placer<'a> {
    fn new(trace: &'a Trace, placement: Placement, service_times: ServiceTimes, seed: u64, speed: f64) -> Self {
        let minute_first = trace.counts.iter().map(|cell| cell.minute).min().unwrap_or_default();
        let instants = ChaCha8Rng::seed_from_u64(seed);
        let mut durations = instants.clone();
        durations.set_stream(1);
        Self { trace, placement, service_times, speed, minute_first, instants, durations }
    }

    fn place_cell(&mut self, cell: &Count, arrivals: &mut Vec<Arrival>) {
        let clumps = self.clumps(cell);
        let minute_s = f64::from(cell.minute - self.minute_first) * MINUTE_S;
        for _ in 0..cell.count {
            let offset_s = minute_s + clumps.draw(&mut self.instants);
            let service_time = self.service_time(cell.function);
            arrivals.push(Arrival {
                at_ns: self.replay_ns(offset_s),
                function: cell.function,
                service_time_ns: self.replay_ns(service_time.as_secs_f64()),
            });
        }
    }

    fn clumps(&mut self, cell: &Count) -> Clumps {
        if self.placement == Placement::Uniform {
            return Clumps { starts_s: [0.0; 3], used: 1, length_s: MINUTE_S };
        }
        if self.trace.functions[cell.function as usize].trigger == Trigger::Timer {
            return Clumps { starts_s: [0.0; 3], used: 1, length_s: 1.0 };
        }
        let used = self.instants.random_range(1..=3);
        let starts_s = std::array::from_fn(|_| f64::from(self.instants.random_range(0..60_u32)));
        Clumps { starts_s, used, length_s: 1.0 }
    }

    fn service_time(&mut self, function: u32) -> Duration {
        match self.service_times {
            ServiceTimes::Trace => self.trace.functions[function as usize].service_time.sample(self.durations.random()),
            ServiceTimes::None => Duration::ZERO,
        }
    }

    /// Seconds of the trace as nanoseconds of the replay. A speed close to 0 ends at the longest time there is.
    fn replay_ns(&self, trace_s: f64) -> u64 {
        let replay = Duration::try_from_secs_f64(trace_s / self.speed).unwrap_or(Duration::MAX);
        u64::try_from(replay.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The parts of a minute that a function's invocations fall into.
struct Clumps {
    starts_s: [f64; 3],
    used: usize,
    length_s: f64,
}

impl Clumps {
    fn draw(&self, instants: &mut ChaCha8Rng) -> f64 {
        let start_s =
            if self.used == 1 { self.starts_s[0] } else { self.starts_s[instants.random_range(0..self.used)] };
        start_s + self.length_s * instants.random::<f64>()
    }
}

const MINUTE_S: f64 = 60.0;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tests::trace;
    use super::*;

    fn seconds(arrivals: &[Arrival]) -> HashSet<u64> {
        arrivals.iter().map(|arrival| arrival.at().as_secs()).collect()
    }

    #[test]
    fn an_arrival_stays_small() {
        assert_eq!(size_of::<Arrival>(), 24);
    }

    #[test]
    fn uniform_fills_the_minute_in_order() {
        let trace = trace(2, Trigger::Http, &[(7, 0, 3_000), (8, 1, 10)]);
        let arrivals = place(&trace, Placement::Uniform, ServiceTimes::Trace, 1, 1.0);
        assert_eq!(arrivals.len(), 3_010);
        assert!(arrivals.is_sorted_by_key(Arrival::at));
        assert!(arrivals.iter().all(|arrival| arrival.at().as_secs() / 60 == u64::from(arrival.function())));
        assert_eq!(seconds(&arrivals[..3_000]).len(), 60);
    }

    #[test]
    fn clumped_keeps_a_minute_in_at_most_three_seconds() {
        let trace = trace(1, Trigger::Queue, &[(1, 0, 500), (2, 0, 500), (3, 0, 500), (4, 0, 500)]);
        let arrivals = place(&trace, Placement::Clumped, ServiceTimes::Trace, 1, 1.0);
        for minute in arrivals.chunks(500) {
            assert!((1..=3).contains(&seconds(minute).len()), "{:?}", seconds(minute));
        }
        assert!(seconds(&arrivals).len() > 4, "at least one minute with more than one clump");
    }

    #[test]
    fn clumped_timers_fire_in_second_0() {
        let trace = trace(2, Trigger::Timer, &[(1, 0, 9), (1, 1, 9), (2, 0, 9)]);
        let arrivals = place(&trace, Placement::Clumped, ServiceTimes::Trace, 1, 1.0);
        assert_eq!(seconds(&arrivals), HashSet::from([0, 60]));
    }

    #[test]
    fn speed_divides_offsets_and_service_times() {
        let trace = trace(1, Trigger::Http, &[(1, 0, 99), (5, 0, 1)]);
        let at = |speed| place(&trace, Placement::Uniform, ServiceTimes::Trace, 3, speed);
        for (slow, fast) in at(1.0).iter().zip(at(10.0)) {
            assert!(slow.at_ns.abs_diff(fast.at_ns * 10) <= 10, "{slow:?} {fast:?}");
            assert!(slow.service_time_ns.abs_diff(fast.service_time_ns * 10) <= 10, "{slow:?} {fast:?}");
        }
    }

    #[test]
    fn the_seed_decides_and_service_times_move_nothing() {
        let trace = trace(1, Trigger::Http, &[(1, 0, 50)]);
        let with = |times, seed| place(&trace, Placement::Clumped, times, seed, 1.0);
        let offsets = |arrivals: Vec<Arrival>| arrivals.iter().map(Arrival::at).collect::<Vec<_>>();
        assert_eq!(with(ServiceTimes::Trace, 1), with(ServiceTimes::Trace, 1));
        assert_ne!(with(ServiceTimes::Trace, 1), with(ServiceTimes::Trace, 2));
        assert_eq!(offsets(with(ServiceTimes::Trace, 1)), offsets(with(ServiceTimes::None, 1)));
        assert!(with(ServiceTimes::None, 1).iter().all(|arrival| arrival.service_time().is_zero()));
    }
}
