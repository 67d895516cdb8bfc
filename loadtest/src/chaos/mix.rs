//! Two to four faults together, drawn from the seed; then all is healed, everything must be answered, and all must be well again.

use super::cast::{Cast, Staging};
use super::judge::Findings;
use super::plan::{self, Fault, Kind, Step};
use super::proxy::Flow;
use super::{Run, Scenario, Verdict, ms};
use clap::ValueEnum;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const RATE: f64 = 5_000.0;
/// After the last fault everything must be as before within this.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn mix(run: &mut Run, cycles: usize) -> anyhow::Result<()> {
    let kinds = if run.args.faults.is_empty() { Kind::value_variants().to_vec() } else { run.args.faults.clone() };
    let (mut sum, mut slowest, mut healed, mut faults) = (Findings::default(), Duration::ZERO, 0, 0);
    for cycle in 0..cycles {
        let seed = run.seed.wrapping_add(cycle as u64);
        let staging = Staging { through_links: true, ..run.staging(seed, RATE) };
        let steps = plan::together(seed, &kinds, staging.company(), run.window());
        let story: Vec<String> = steps.iter().map(Step::to_string).collect();
        println!("seed {seed}: {}", story.join("; "));
        let mut cast = Cast::start(staging).await?;
        faults += steps.len();
        match one(&mut cast, &steps).await {
            Ok(time) => {
                println!("seed {seed}: all well again after {:.1} s", time.as_secs_f64());
                slowest = slowest.max(time);
                healed += usize::from(time <= HEALED_WITHIN);
            }
            Err(error) => run.fail(seed, &error),
        }
        sum.add(run.close(Scenario::Mix, 1, cast, seed).await?);
    }
    run.verdicts.push(Verdict {
        what: "2 to 4 faults together, then healed",
        bar: "unanswered 0, duplicates 0, worst ≤ 250 ms late, well again within 10 s",
        measured: format!(
            "{faults} faults in {cycles} mixes: {} unanswered, {} duplicates, {} untrue of {}; worst {} late; {healed} of {cycles} well again in time, {:.1} s at most",
            sum.unanswered,
            sum.duplicates,
            sum.untrue,
            sum.asked,
            ms(sum.worst_lateness_ns),
            slowest.as_secs_f64()
        ),
        met: sum.broken() + sum.late == 0 && healed == cycles,
    });
    Ok(())
}

/// Does it all, and says how long it took afterwards until all was well.
async fn one(cast: &mut Cast, steps: &[Step]) -> anyhow::Result<Duration> {
    cast.recovered().await?;
    let start = Instant::now();
    let mut moments: Vec<(Duration, bool, Fault)> = Vec::new();
    for step in steps {
        moments.push((step.at, true, step.fault));
        moments.push((step.at + step.lasts, false, step.fault));
    }
    moments.sort_by_key(|(at, ..)| *at);
    for (at, begins, fault) in moments {
        sleep_until(start + at).await;
        if begins { begin(cast, fault).await? } else { end(cast, fault).await? }
    }
    cast.recovered().await
}

async fn begin(cast: &mut Cast, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(seat) => cast.kill(seat).await?,
        Fault::Stop(seat) => cast.stop(seat)?,
        Fault::Cut { link, reset } => cast.link(link)?.cut(reset),
        Fault::Stall { link, way } => cast.link(link)?.flow(way, Flow::Stalled),
        Fault::Slow { link, way, bytes_per_second } => cast.link(link)?.flow(way, Flow::Slow { bytes_per_second }),
        Fault::HalfOpen { link, silent } => cast.link(link)?.half_open(silent),
    }
    Ok(())
}

async fn end(cast: &mut Cast, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill(seat) => cast.enter(seat).await?,
        Fault::Stop(seat) => cast.resume(seat)?,
        Fault::Cut { link, .. }
        | Fault::Stall { link, .. }
        | Fault::Slow { link, .. }
        | Fault::HalfOpen { link, .. } => {
            cast.link(link)?.heal();
        }
    }
    Ok(())
}
