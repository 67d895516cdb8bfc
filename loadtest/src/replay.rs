//! Replays a trace against the router and says whether every activation got its one answer.

use crate::Common;
use crate::fleet::Target;
use crate::part::Orders;
use crate::plan::{Load, Plan, Replay};
use crate::trace;
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Invocations per minute and function, CSV, gzipped or not: minute,fn,count.
    #[arg(long, requires = "functions")]
    counts: Option<PathBuf>,
    /// The functions and their durations, CSV, gzipped or not. Without files a trace of the same skew is generated.
    #[arg(long, requires = "counts")]
    functions: Option<PathBuf>,
    /// First and last minute to replay, as A-B; all without.
    #[arg(long, value_parser = minutes)]
    minutes: Option<(u32, u32)>,
    /// How many times faster than it was.
    #[arg(long, default_value_t = 60.0)]
    speed: f64,
    /// Leave out the busiest functions.
    #[arg(long, default_value_t = 0)]
    without_top: usize,
    /// Where invocations lie within their minute: anywhere, or in 1 to 3 of its seconds (timers in second 0).
    #[arg(long, value_enum, default_value_t = Placement::Uniform)]
    placement: Placement,
    /// Whether containers run for the trace's durations, divided by the speed.
    #[arg(long, value_enum, default_value_t = ServiceTime::Trace)]
    service_time: ServiceTime,
    /// Of the placement, and of the generated trace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Containers of each function.
    #[arg(long, default_value_t = 4)]
    containers: u32,
    /// Activations a container runs at once.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Bytes of each payload and each result, at least 16.
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Placement {
    Uniform,
    Clumped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServiceTime {
    Trace,
    None,
}

fn minutes(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.filter(|(a, b)| a <= b).ok_or_else(|| format!("{text:?} is not A-B with A at most B"))
}

/// Replays and reports; fails if an activation had no answer, or two.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let plan = plan(args)?;
    let Load::Replay(replay) = &plan.load else { bail!("a replay plan replays") };
    let trace = trace::load(replay)?;
    if replay.files.is_some() {
        println!("{}", trace::ATTRIBUTION);
    }
    println!(
        "{} invocations of {} functions, {} times as fast",
        trace.invocations(),
        trace.active_functions(),
        args.speed
    );
    let results = args.common.measure(&[Target::Router], &plan)?;
    let unaccounted: u64 = results.iter().map(|result| result.counts.unanswered + result.counts.duplicates).sum();
    ensure!(unaccounted == 0, "{unaccounted} activations were not answered exactly once");
    Ok(())
}

fn plan(args: &ReplayArgs) -> anyhow::Result<Plan> {
    ensure!(args.speed.is_finite() && args.speed > 0.0, "--speed must be above 0");
    ensure!(args.containers > 0, "--containers must be at least 1");
    ensure!(args.payload_bytes >= Orders::BYTES, "--payload-bytes must be at least {}", Orders::BYTES);
    let replay = Replay {
        files: args.counts.clone().zip(args.functions.clone()),
        minutes: args.minutes,
        speed: args.speed,
        without_top: args.without_top,
        clumped: args.placement == Placement::Clumped,
        service_times: args.service_time == ServiceTime::Trace,
        seed: args.seed,
    };
    let functions = u32::try_from(trace::load(&replay)?.functions.len()).context("more functions than numbers")?;
    Ok(Plan {
        load: Load::Replay(replay),
        payload_bytes: args.payload_bytes,
        actions: functions,
        containers: functions * args.containers,
        concurrency: args.concurrency,
        time_left_ms: 600_000,
        check_starts: true,
        // It lasts as long as its arrivals do.
        ..Plan::closed(1, 0.0)
    })
}
