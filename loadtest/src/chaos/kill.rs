//! kill -9 under load: the router, a caller, a node, in an order drawn from the seed; each starts again at once, and the next is
//! killed when all is well again. In rounds, so that no ledger grows long.

use super::cast::Cast;
use super::judge::{Findings, LOST_WITHIN_NS, quantile};
use super::ledger::Seat;
use super::{Run, Scenario, Verdict, ms, plan};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Kills in a round.
const ROUND: usize = 15;
/// Activations a second.
const RATE: f64 = 25_000.0;
/// What there must have been for the bar.
const RATE_BAR: f64 = 20_000.0;
const CYCLES_BAR: usize = 200;

#[derive(Default)]
struct Seen {
    kills: usize,
    /// How long all was not well, of each kill.
    recoveries: Vec<(Seat, Duration)>,
    loaded: Duration,
}

pub(super) async fn kill(run: &mut Run, cycles: usize) -> anyhow::Result<()> {
    let (mut sum, mut seen) = (Findings::default(), Seen::default());
    for round in 0..cycles.div_ceil(ROUND) {
        let kills = ROUND.min(cycles - round * ROUND);
        let seed = run.seed.wrapping_add(round as u64);
        let mut cast = Cast::start(run.staging(seed, RATE)).await?;
        let since = Instant::now();
        if let Err(error) = one_round(&mut cast, seed, kills, &mut seen).await {
            run.fail(seed, &error);
        }
        seen.loaded += since.elapsed();
        sum.add(run.close(Scenario::Kill, kills, cast, seed).await?);
    }
    tell(&seen);
    verdicts(run, &sum, &seen);
    Ok(())
}

async fn one_round(cast: &mut Cast, seed: u64, kills: usize, seen: &mut Seen) -> anyhow::Result<()> {
    let rng = &mut ChaCha8Rng::seed_from_u64(!seed);
    cast.recovered().await?;
    for seat in plan::kills(seed, kills.div_ceil(3), cast.company()).into_iter().take(kills) {
        sleep(Duration::from_millis(rng.random_range(50..300))).await;
        let begun = Instant::now();
        cast.kill(seat).await?;
        cast.enter(seat).await?;
        cast.recovered().await?;
        seen.kills += 1;
        seen.recoveries.push((seat, begun.elapsed()));
    }
    Ok(())
}

fn tell(seen: &Seen) {
    let (router, caller, node) = (Seat::Router, Seat::Caller(0), Seat::Node(0));
    for (name, like) in [("router", router), ("caller", caller), ("node", node)] {
        let alike = |seat: &Seat| std::mem::discriminant(seat) == std::mem::discriminant(&like);
        let mut times: Vec<u64> = seen
            .recoveries
            .iter()
            .filter(|(seat, _)| alike(seat))
            .map(|(_, time)| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
            .collect();
        times.sort_unstable();
        let [p50, max] = [0.5, 1.0].map(|share| ms(quantile(&times, share)));
        println!("{} times the {name}: all well again after p50 {p50}, max {max}", times.len());
    }
}

#[allow(clippy::cast_precision_loss)]
fn verdicts(run: &mut Run, sum: &Findings, seen: &Seen) {
    let rate = sum.asked as f64 / seen.loaded.as_secs_f64().max(1e-9);
    let in_full = !run.args.short && !cfg!(debug_assertions);
    run.verdicts.push(Verdict {
        what: "kill -9 of router, callers and nodes under load",
        bar: if in_full {
            "≥ 200 cycles at ≥ 20,000/s: unanswered 0, duplicates 0"
        } else {
            "unanswered 0, duplicates 0 (in full also ≥ 200 cycles at ≥ 20,000/s)"
        },
        measured: format!(
            "{} cycles at {rate:.0}/s: {} unanswered, {} duplicates, {} untrue of {}; {} late, worst {}",
            seen.kills,
            sum.unanswered,
            sum.duplicates,
            sum.untrue,
            sum.asked,
            sum.late,
            ms(sum.worst_lateness_ns)
        ),
        met: sum.broken() == 0 && (!in_full || (seen.kills >= CYCLES_BAR && rate >= RATE_BAR)),
    });
    let lost = &sum.lost_after_ns;
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(lost, share));
    run.verdicts.push(Verdict {
        what: "callers of a killed node: from the kill to the answer",
        bar: "≤ 100 ms",
        measured: format!("p50 {}, p99 {}, max {} of {}", ms(p50), ms(p99), ms(max), lost.len()),
        met: max <= LOST_WITHIN_NS && !lost.is_empty(),
    });
}
