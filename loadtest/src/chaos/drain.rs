//! The router is told to stop under load, by SIGTERM and by its operator in turn: what it had taken must be completed, and it
//! must end in order. Then another takes its place.

use super::cast::{Cast, request};
use super::judge::Findings;
use super::ledger::{Ending, Seat};
use super::{Run, Scenario, Verdict};
use anyhow::ensure;
use std::time::Duration;
use tokio::time::sleep;

const RATE: f64 = 20_000.0;
/// A moment after it has ended: those who ask now are refused, which is no loss.
const GONE_FOR: Duration = Duration::from_millis(100);

/// Who tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Signal,
    Operator,
}

pub(super) async fn drain(run: &mut Run, cycles: usize) -> anyhow::Result<()> {
    for by in [By::Signal, By::Operator] {
        let many = if by == By::Signal { cycles.div_ceil(2) } else { cycles / 2 };
        let (mut sum, mut clean) = (Findings::default(), 0);
        for cycle in 0..many {
            let seed = run.seed.wrapping_add(cycle as u64);
            let mut cast = Cast::start(run.staging(seed, RATE)).await?;
            match one(&mut cast, by).await {
                Ok(()) => clean += 1,
                Err(error) => run.fail(seed, &error),
            }
            sum.add(run.close(Scenario::Drain, 2, cast, seed).await?);
        }
        run.broken +=
            [Ending::Lost, Ending::MaybeSent, Ending::TimedOut].map(|ending| sum.of(ending)).iter().sum::<u64>();
        if many > 0 {
            run.verdicts.push(verdict(by, many, clean, &sum));
        }
    }
    Ok(())
}

fn verdict(by: By, many: usize, clean: usize, sum: &Findings) -> Verdict {
    let [lost, unknown, timed_out, expired] =
        [Ending::Lost, Ending::MaybeSent, Ending::TimedOut, Ending::Expired].map(|ending| sum.of(ending));
    Verdict {
        what: match by {
            By::Signal => "drain of a loaded router by SIGTERM",
            By::Operator => "drain of a loaded router by POST /drain",
        },
        bar: "0 lost, 0 timed out, exit status 0",
        measured: format!(
            "{clean} of {many} ended with 0; {lost} lost, {unknown} of unknown outcome, {timed_out} timed out, {expired} expired, {} completed, {} told that it drains, {} that nobody is there",
            sum.of(Ending::Completed),
            sum.of(Ending::Rejected),
            sum.of(Ending::Unsent)
        ),
        met: clean == many && lost + unknown + timed_out + sum.broken() == 0,
    }
}

async fn one(cast: &mut Cast, by: By) -> anyhow::Result<()> {
    cast.recovered().await?;
    match by {
        By::Signal => cast.tell_router_to_stop()?,
        By::Operator => {
            let page = request(cast.admin(), "POST", "/drain").await?;
            let status = page.lines().next().unwrap_or_default().to_owned();
            ensure!(status.starts_with("HTTP/1.1 2"), "POST /drain was answered {status}");
        }
    }
    let status = cast.router_ended().await?;
    sleep(GONE_FOR).await;
    // In any case: the load is to go on.
    cast.enter(Seat::Router).await?;
    cast.recovered().await?;
    ensure!(status.success(), "the router ended with {status}");
    Ok(())
}
