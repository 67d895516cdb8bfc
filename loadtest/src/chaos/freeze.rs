//! The router is stopped with 10,000 in its hands, longer than any of them may take: who asked must be answered by its own timer.
//! Then it goes on.

use super::cast::Cast;
use super::judge::{ANSWER_GRACE_NS, Findings};
use super::ledger::Seat;
use super::part::{Ask, Cue};
use super::{Run, Scenario, Verdict, ms};
use anyhow::ensure;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const OUTSTANDING: u64 = 10_000;
/// Besides those: a steady flow, to see that it goes on.
const RATE: f64 = 2_000.0;
/// None of them is done before the router stops, and all are over before it goes on.
const ASK: Ask = Ask { timeout_ms: (2500, 4000), service_us: (3_000_000, 3_500_000), payload_bytes: 64 };
const STOPPED_FOR: Duration = Duration::from_millis(4500);
/// Time to ask them all, also without optimisation.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn freeze(run: &mut Run, cycles: usize) -> anyhow::Result<()> {
    let (mut sum, mut outstanding, mut slowest) = (Findings::default(), u64::MAX, Duration::ZERO);
    for cycle in 0..cycles {
        let seed = run.seed.wrapping_add(cycle as u64);
        let mut cast = Cast::start(run.staging(seed, RATE)).await?;
        match one(&mut cast).await {
            Ok((least, recovered)) => {
                outstanding = outstanding.min(least);
                slowest = slowest.max(recovered);
                println!("stopped with {least} outstanding, all well again {recovered:.1?} after it went on");
            }
            Err(error) => run.fail(seed, &error),
        }
        sum.add(run.close(Scenario::Freeze, 1, cast, seed).await?);
    }
    run.verdicts.push(Verdict {
        what: "SIGSTOP of the router with 10,000 outstanding: lateness of the answers",
        bar: "every one answered, worst ≤ 250 ms",
        measured: format!(
            "{} at least outstanding, {} unanswered, {} late, worst {}; goes on {:.1} s after SIGCONT at most",
            if outstanding == u64::MAX { 0 } else { outstanding },
            sum.unanswered,
            sum.late,
            ms(sum.worst_lateness_ns),
            slowest.as_secs_f64()
        ),
        met: sum.broken() + sum.late == 0 && sum.worst_lateness_ns <= ANSWER_GRACE_NS && slowest > Duration::ZERO,
    });
    Ok(())
}

/// How many were outstanding, and how long the router took to be well again.
async fn one(cast: &mut Cast) -> anyhow::Result<(u64, Duration)> {
    cast.recovered().await?;
    let callers = u64::from(cast.company().callers);
    let count = u32::try_from(OUTSTANDING.div_ceil(callers))?;
    cast.cue(None, Cue::Burst { count, ask: ASK }).await?;
    let since = Instant::now();
    let mut held = 0;
    while held < OUTSTANDING {
        ensure!(since.elapsed() < ASKED_WITHIN, "the router holds only {held} after {ASKED_WITHIN:?}");
        sleep(Duration::from_millis(10)).await;
        held = cast.metric("router_held").await.unwrap_or_default();
    }
    cast.stop(Seat::Router)?;
    sleep(STOPPED_FOR).await;
    cast.resume(Seat::Router)?;
    Ok((held, cast.recovered().await?))
}
