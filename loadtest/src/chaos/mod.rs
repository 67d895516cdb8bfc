//! Chaos: real processes on loopback, killed, stopped, cut off and slowed down under load, and ledgers outside the router by which
//! they are judged. Start reading here, then `judge` (what counts as broken) and the scenarios.
//!
//! | file | is |
//! |---|---|
//! | `ledger` | what callers and containers write down before they act |
//! | `judge` | what the ledgers say |
//! | `plan` | faults, drawn from a seed |
//! | `proxy` | links between processes and the router that can be hurt |
//! | `cast` | the processes, and what is done to them |
//! | `part` | what the processes do |
//! | `kill`, `freeze`, `neighbour`, `drain`, `mix` | the scenarios |

mod cast;
mod drain;
mod freeze;
mod judge;
mod kill;
mod ledger;
mod mix;
mod neighbour;
mod part;
mod plan;
mod proxy;

pub(crate) use part::play;

use crate::verdict::{self, Verdict};
use anyhow::ensure;
use cast::{Cast, NodeShape, Staging};
use clap::{Args, ValueEnum};
use judge::Findings;
use part::Ask;
use plan::Kind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Flags of `chaos`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChaosArgs {
    /// Of all that is drawn; printed with what came of it. Without, another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How often each scenario goes round: kills, freezes, pairs of windows, drains, mixes. Without, as often as its bar asks for.
    #[arg(long)]
    cycles: Option<usize>,
    /// Length of a measured window, and of the time in which faults of a mix fall.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Kinds of faults a mix draws from, a comma list; all without.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Which scenarios, a comma list; all without.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Activations a second. Without, each scenario's own: 25,000 for kills; a tenth, and 1,000 at most, in a build without optimisation.
    #[arg(long)]
    rate: Option<f64>,
    /// Each scenario once or a few times: less than a minute.
    #[arg(long)]
    short: bool,
    /// Where the ledgers are written, about 3 MB a second. Those of a run that broke something are kept.
    #[arg(long, value_name = "FOLDER")]
    ledgers: Option<PathBuf>,
}

/// One way to hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Router, callers and nodes are killed with -9 under load, one after the other, and start again.
    Kill,
    /// The router is stopped with 10,000 outstanding.
    Freeze,
    /// One container of 64 stops reading.
    Neighbour,
    /// The router is told to stop under load, by a signal and by its operator.
    Drain,
    /// Two to four faults together.
    Mix,
}

impl Scenario {
    /// As on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Neighbour => "neighbour",
            Self::Drain => "drain",
            Self::Mix => "mix",
        }
    }

    /// How often it goes round.
    fn cycles(self, args: &ChaosArgs) -> usize {
        let (long, short) = match self {
            Self::Kill => (210, 6),
            Self::Freeze => (3, 1),
            Self::Neighbour => (5, 0),
            Self::Drain => (10, 2),
            Self::Mix => (20, 1),
        };
        args.cycles.unwrap_or(if args.short { short } else { long })
    }
}

/// Runs the scenarios and prints what came of them; exit status 1 if a promise was broken.
pub(crate) fn chaos(args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.seconds >= 0.5 && args.seconds <= 600.0, "--seconds must be 0.5 to 600");
    ensure!(args.cycles.is_none_or(|cycles| (1..=100_000).contains(&cycles)), "--cycles must be 1 to 100000");
    ensure!(args.rate.is_none_or(|rate| (1.0..=1e6).contains(&rate)), "--rate must be 1 to 1000000");
    let left_out = args.only.iter().find(|scenario| scenario.cycles(args) == 0);
    ensure!(
        left_out.is_none(),
        "--only {}: --short leaves it out; say --cycles",
        left_out.map_or("", |named| named.name())
    );
    crate::part::block_on(all(args.clone()))?
}

async fn all(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    println!(
        "chaos, seed {seed}{}",
        if cfg!(debug_assertions) { "; not optimised: a tenth of the load, 1,000/s at most" } else { "" }
    );
    let mut run = Run { args, seed, verdicts: Vec::new(), broken: 0, failed: false };
    let wanted = if run.args.only.is_empty() { Scenario::value_variants().to_vec() } else { run.args.only.clone() };
    for scenario in wanted {
        let cycles = scenario.cycles(&run.args);
        if cycles == 0 {
            println!("\n== {}: left out with --short", scenario.name());
            continue;
        }
        println!("\n== {}: {cycles} cycles", scenario.name());
        match scenario {
            Scenario::Kill => kill::kill(&mut run, cycles).await?,
            Scenario::Freeze => freeze::freeze(&mut run, cycles).await?,
            Scenario::Neighbour => neighbour::neighbour(&mut run, cycles).await?,
            Scenario::Drain => drain::drain(&mut run, cycles).await?,
            Scenario::Mix => mix::mix(&mut run, cycles).await?,
        }
    }
    verdict::print(&run.verdicts);
    println!("\nseed {seed}; {} promises broken or rounds not finished", run.broken);
    Ok(if run.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Activations a second in a build without optimisation: such that a machine with other work to do keeps up.
const DEBUG_RATE_MAX: f64 = 1_000.0;
/// Actions of most scenarios.
const ACTIONS: u32 = 16;

/// One call of the command.
struct Run {
    args: ChaosArgs,
    seed: u64,
    verdicts: Vec<Verdict>,
    broken: u64,
    /// The round in hand did not get to its end.
    failed: bool,
}

impl Run {
    /// What scenarios start from: four nodes of 16 containers, three callers, about 250 activations at a time.
    fn staging(&self, seed: u64, rate: f64) -> Staging {
        let rate =
            self.args.rate.unwrap_or(if cfg!(debug_assertions) { (rate / 10.0).min(DEBUG_RATE_MAX) } else { rate });
        Staging {
            seed,
            // Little more than what runs at a time, so that no node is idle, and three are enough.
            nodes: vec![NodeShape { streams: 1, actions: ACTIONS, concurrency: 6 }; 4],
            callers: 3,
            actions: ACTIONS,
            rate,
            ask: Ask { timeout_ms: (1000, 2000), service_us: (0, service_us_max(rate)), payload_bytes: 64 },
            through_links: false,
            breakers: true,
            folder: self.args.ledgers.clone().unwrap_or_else(std::env::temp_dir),
        }
    }

    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.args.seconds)
    }

    /// Ends a round: everything is answered and judged. What broke is said, with the command that does it again.
    async fn close(&mut self, scenario: Scenario, cycles: usize, cast: Cast, seed: u64) -> anyhow::Result<Findings> {
        let folder = cast.folder().to_owned();
        let findings = cast.finish().await.unwrap_or_else(|error| {
            self.fail(seed, &error);
            Findings::default()
        });
        println!("seed {seed}: {}", findings.line());
        let broken = findings.broken();
        self.broken += broken;
        let failed = std::mem::take(&mut self.failed);
        if broken + findings.late == 0 && !failed {
            std::fs::remove_dir_all(&folder)?;
            return Ok(findings);
        }
        findings.troubles.iter().for_each(|trouble| println!("  {trouble}"));
        println!("  ledgers: {}", folder.display());
        self.say_again(scenario, cycles, seed);
        Ok(findings)
    }

    /// A round that did not get to its end.
    fn fail(&mut self, seed: u64, error: &anyhow::Error) {
        self.broken += 1;
        self.failed = true;
        println!("seed {seed}: FAILED: {error:#}");
    }

    fn say_again(&self, scenario: Scenario, cycles: usize, seed: u64) {
        let mut flags = format!("--only {} --cycles {cycles} --seconds {}", scenario.name(), self.args.seconds);
        if let Some(rate) = self.args.rate {
            flags += &format!(" --rate {rate}");
        }
        if !self.args.faults.is_empty() {
            let names =
                self.args.faults.iter().filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()));
            flags += &format!(" --faults {}", names.collect::<Vec<_>>().join(","));
        }
        println!("  again: loadtest chaos --seed {seed} {flags}");
    }
}

/// Such that about 250 run at a time, whatever the rate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn service_us_max(rate: f64) -> u32 {
    (2.0 * 250.0 * 1e6 / rate).min(200_000.0) as u32
}

/// Nanoseconds as milliseconds, for people.
#[allow(clippy::cast_precision_loss)]
fn ms(nanos: u64) -> String {
    format!("{:.1} ms", nanos as f64 / 1e6)
}
