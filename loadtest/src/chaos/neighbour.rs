//! One node stops reading beside 63 good ones. It has a container of the action that they all run, and the only one of an action
//! that is asked for as often: its outbox and a queue are full all the time. What do those feel that the others run? Windows
//! with and without it take turns; without it, its own action queues and expires likewise.

use super::cast::{Cast, NodeShape, Staging};
use super::judge::{Findings, quantile};
use super::ledger::{self, Ending, Seat};
use super::part::Ask;
use super::plan::Way;
use super::proxy::Flow;
use super::{Run, Scenario, Verdict, ms};
use crate::result::median;
use std::time::Duration;
use tokio::time::sleep;

const RATE: f64 = 5_000.0;
const GOOD: Seat = Seat::Node(0);
const BAD: Seat = Seat::Node(1);
/// Before a window: what was outstanding for another reason is over.
const CALM: Duration = Duration::from_secs(2);

/// From when to when, with it or without.
struct Window {
    with: bool,
    from: u64,
    to: u64,
}

impl Window {
    fn holds(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }
}

pub(super) async fn neighbour(run: &mut Run, cycles: usize) -> anyhow::Result<()> {
    let seed = run.seed;
    let staging = Staging {
        nodes: vec![
            NodeShape { streams: 63, actions: 1, concurrency: 64 },
            NodeShape { streams: 1, actions: 2, concurrency: 4096 },
        ],
        actions: 2,
        callers: 2,
        // Four times what an outbox holds would fit into the credits of the bad one.
        ask: Ask { timeout_ms: (1000, 1500), service_us: (0, 2000), payload_bytes: 8 << 10 },
        through_links: true,
        // They would leave the bad one alone: here it is to be asked all the time.
        breakers: false,
        ..run.staging(seed, RATE)
    };
    let mut cast = Cast::start(staging).await?;
    let mut windows = Vec::new();
    for _ in 0..cycles {
        if let Err(error) = pair(&mut cast, run.window(), &mut windows).await {
            run.fail(seed, &error);
            break;
        }
    }
    let findings = run.close(Scenario::Neighbour, cycles, cast, seed).await?;
    verdict(run, &findings, &windows);
    Ok(())
}

async fn pair(cast: &mut Cast, length: Duration, windows: &mut Vec<Window>) -> anyhow::Result<()> {
    cast.recovered().await?;
    cast.link(BAD)?.flow(Way::Down, Flow::Stalled);
    windows.push(window(true, length).await);
    cast.kill(BAD).await?;
    cast.link(BAD)?.heal();
    windows.push(window(false, length).await);
    cast.enter(BAD).await
}

async fn window(with: bool, length: Duration) -> Window {
    sleep(CALM).await;
    let from = ledger::now();
    sleep(length).await;
    Window { with, from, to: ledger::now() }
}

#[allow(clippy::cast_precision_loss)]
fn verdict(run: &mut Run, findings: &Findings, windows: &[Window]) {
    let p99 = |with: bool| {
        let of = |window: &Window| {
            let p99 = quantile(&latencies(findings, window), 0.99) as f64;
            println!("{} it: p99 {:.2} ms", if with { "with" } else { "without" }, p99 / 1e6);
            p99
        };
        median(windows.iter().filter(|window| window.with == with).map(of))
    };
    let (with, without) = (p99(true), p99(false));
    let stuck = findings.stories.values().filter(|story| {
        story.started.is_none() && windows.iter().any(|window| window.with && window.holds(story.asked))
    });
    let stuck = stuck.count();
    run.verdicts.push(Verdict {
        what: "a container that stops reading beside 63 good ones: the others' p99, with / without it",
        bar: "≤ 1.2",
        measured: format!(
            "{:.2} ({:.2} / {:.2} ms, medians of {} windows each; {stuck} activations stuck with it, {} unanswered, worst {} late)",
            with / without,
            with / 1e6,
            without / 1e6,
            windows.len() / 2,
            findings.unanswered,
            ms(findings.worst_lateness_ns)
        ),
        met: with / without <= 1.2 && stuck > 0,
    });
}

/// Round trips of what the good containers ran, asked within the window.
fn latencies(findings: &Findings, window: &Window) -> Vec<u64> {
    let of = |story: &super::judge::Story| {
        let (at, ending) = story.answered?;
        let good = story.started.is_some_and(|(_, by)| by.seat == GOOD) && ending == Ending::Completed;
        (good && window.holds(story.asked)).then(|| at - story.asked)
    };
    let mut latencies: Vec<u64> = findings.stories.values().filter_map(of).collect();
    latencies.sort_unstable();
    latencies
}
