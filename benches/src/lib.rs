//! What benchmarks share: the router's allocator, how long to measure, and a hub to drive ([`world`]). What they measure is in
//! `benches/`, one file for each part of the engine, one for frames and one for the whole round trip; `instructions` is counted, not
//! timed.
//!
//! `cargo bench -p benches` measures, in a few minutes; with `-- --test` each runs once. A name filters: `-- matcher/expire`.

pub mod world;

use criterion::Criterion;
// For its allocator, in those benchmarks too that name nothing of it.
use router as _;
use std::time::Duration;

/// The `main` of a benchmark: measures `parts` as the command line says.
pub fn run(parts: &[fn(&mut Criterion)]) {
    let modest = Criterion::default().sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURED);
    let mut criterion = modest.configure_from_args();
    parts.iter().for_each(|part| part(&mut criterion));
    criterion.final_summary();
}

/// Enough to fill caches and to grow what grows.
const WARM_UP: Duration = Duration::from_millis(500);
/// For 20 samples together, so that the whole suite takes minutes.
const MEASURED: Duration = Duration::from_secs(2);
