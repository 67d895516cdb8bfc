//! Shows the path at work on any machine: a router, an invoker node and a controller, each a process, a small trace through
//! them, and where the time went.

use crate::book::Counts;
use crate::fleet::{Place, Target};
use crate::plan::{Load, Plan, Replay};
use crate::result::RunResult;
use crate::run;
use anyhow::ensure;

/// Runs the demonstration.
pub(crate) fn demo() -> anyhow::Result<()> {
    println!("controllers ──Push──▶ router ──Pull──▶ containers      each a process of its own, gRPC on loopback\n");
    println!("1. A serverless trace (generated: the skew and bursts of a real one), ten minutes in five seconds");
    let replayed = run::run(Target::Router, &trace(), 0, Place::Processes)?;
    explain(&replayed);
    answered_once(&replayed)?;
    println!(
        "\n2. One activation at a time, then as many as the machine takes; the pipe is a bare server with no queue"
    );
    for in_flight in [1, 4096] {
        let plan = Plan::closed(in_flight, 2.0);
        let results = run::interleave(&[Target::Router, Target::Pipe], 1, |&target| {
            run::run(target, &plan, 0, Place::Processes)
        })?;
        results.iter().try_for_each(answered_once)?;
    }
    println!("\nNext: `loadtest run --help`, `loadtest replay --help`, README.md");
    Ok(())
}

fn answered_once(result: &RunResult) -> anyhow::Result<()> {
    let Counts { unanswered, duplicates, .. } = result.counts;
    ensure!(
        unanswered + duplicates == 0,
        "{}: {unanswered} unanswered, {duplicates} answered or started twice",
        result.target
    );
    Ok(())
}

fn explain(result: &RunResult) {
    let RunResult { counts, latency_us, stages_us, .. } = result;
    let Counts { submitted, completed, unanswered, duplicates, .. } = counts;
    println!("   {submitted} activations of {} actions pushed, {completed} completed", result.actions);
    println!("   {unanswered} unanswered, {duplicates} answered or started twice");
    println!("   round trip   p50 {:>8.0} us   p99 {:>8.0} us", latency_us.p50, latency_us.p99);
    for (name, stage) in [("queued", stages_us.queue), ("on the way", stages_us.dispatch), ("running", stages_us.run)] {
        println!("   - {name:10} p50 {:>8.0} us   p99 {:>8.0} us", stage.p50, stage.p99);
    }
}

fn trace() -> Plan {
    let replay = Replay {
        files: None,
        minutes: Some((1, 10)),
        speed: 120.0,
        without_top: 0,
        clumped: true,
        service_times: true,
        seed: 1,
    };
    Plan { load: Load::Replay(replay), actions: 500, containers: 2000, check_starts: true, ..Plan::closed(1, 2.0) }
}
