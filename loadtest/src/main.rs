//! (to be written)

mod trace;

use std::path::Path;
use std::time::{Duration, Instant};

use trace::{Placement, ServiceTimes, Shape, Trace};

/// Shows what a trace holds: `loadtest [counts functions [minute_first minute_last]]`.
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let trace = match &args[..] {
        [counts, functions, minutes @ ..] => {
            println!("{}", trace::ATTRIBUTION);
            let trace = trace::read(Path::new(counts), Path::new(functions))?;
            match minutes {
                [first, last] => trace.minutes(first.parse()?..=last.parse()?),
                _ => trace,
            }
        }
        _ => trace::generate(Shape::default(), 1),
    };
    show(&trace);
    Ok(())
}

fn show(trace: &Trace) {
    println!("{} invocations of {} active functions", trace.invocations(), trace.active_functions());
    for top in [1, 5, 10] {
        println!("{} without the top {top}", trace.clone().without_top(top).invocations());
    }
    if let Some(function) = trace.functions.first() {
        println!("first: {} of app {}, owner {}, {:?}", function.id, function.app, function.owner, function.trigger);
    }
    for placement in [Placement::Uniform, Placement::Clumped] {
        for service_times in [ServiceTimes::Trace, ServiceTimes::None] {
            let start = Instant::now();
            let arrivals = trace::place(trace, placement, service_times, 1, 60.0);
            let took = start.elapsed();
            let mut times: Vec<Duration> = arrivals.iter().map(trace::Arrival::service_time).collect();
            times.sort_unstable();
            let last = arrivals.last().map(|arrival| (arrival.at(), arrival.function()));
            let at = |permille: usize| times.get(times.len() * permille / 1_000).map(|time| *time * 60);
            println!(
                "{placement:?} {service_times:?}: {} in {took:?}, last {last:?}, p50 {:?} p90 {:?} p99 {:?} p99.9 {:?}",
                arrivals.len(),
                at(500),
                at(900),
                at(990),
                at(999)
            );
        }
    }
}
