//! `sim`: runs seeds through the simulator and says whether all promises were kept.
//!
//! Exit code 0: they were; 1: one was broken, and it is printed how to see it again; 2: it was called wrongly.

use anyhow::ensure;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sim::mutants::{CAN_PLANT, Mutant, hunt};
use sim::plan::Kind;
use sim::run::{Batch, Failure, Summary, regressions, run_batch, run_seed};
use sim::story;
use sim::world::World;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs worlds in which everything goes wrong, and judges the router.
#[derive(Debug, Parser)]
#[command(name = "sim", version, about)]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many activations a world has, about.
    #[arg(long, default_value_t = 1000)]
    activations: u32,
    /// Threads; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Run this one seed and print its story.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print the whole history, not only what belongs to a broken promise.
    #[arg(long)]
    all: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plant each known bug in turn and see that it is found. Needs a build with `RUSTFLAGS="--cfg mutants"`.
    Mutants {
        /// Most seeds for one of them.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// Only these, by name.
        #[arg(long)]
        only: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    ensure!(cli.activations > 0, "a world has at least 1 activation");
    if let Some(Command::Mutants { seeds, only }) = cli.command {
        return mutants(seeds, &only, cli.activations, threads(cli.threads));
    }
    if let Some(seed) = cli.seed {
        let (text, well) = story::tell(&mut World::default(), seed, cli.activations, cli.all);
        print!("{text}");
        return Ok(code(well));
    }
    Ok(code(replay_regressions() && run(&cli)))
}

fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay_regressions() -> bool {
    let (mut world, mut summary) = (World::default(), Summary::default());
    for (seed, activations, note) in regressions() {
        if let Some(failure) = run_seed(&mut world, seed, activations, &mut summary) {
            println!("a seed of regressions.txt fails again: {seed} ({note})");
            report(seed, activations, &failure);
            return false;
        }
    }
    println!("{} seeds of regressions.txt pass", summary.seeds);
    true
}

fn run(cli: &Cli) -> bool {
    let threads = threads(cli.threads);
    let batch = Batch { first: cli.first, seeds: cli.seeds, activations: cli.activations, threads };
    let bar = if std::io::stderr().is_terminal() { bar(cli.seeds) } else { ProgressBar::hidden() };
    let lines = Lines::new(bar.is_hidden());
    let since = Instant::now();
    let summary = run_batch(batch, |seeds, activations| {
        bar.set_position(seeds);
        lines.print(seeds, activations, cli.seeds, since);
    });
    bar.finish_and_clear();
    if let Some((seed, failure)) = &summary.failed {
        report(*seed, cli.activations, failure);
    }
    sum_up(&summary, threads, since.elapsed());
    summary.failed.is_none()
}

/// As many as asked for, or one for each core.
fn threads(asked: usize) -> usize {
    if asked == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { asked }
}

fn report(seed: u64, activations: u32, failure: &Failure) {
    match failure {
        Failure::Broke(_) => print!("{}", story::tell(&mut World::default(), seed, activations, false).0),
        Failure::Differed(one, other) => {
            println!("BROKEN determinism: seed {seed} gives history {one:016x}, then {other:016x}");
        }
    }
}

fn sum_up(summary: &Summary, threads: usize, took: Duration) {
    let faults = Kind::ALL.iter().zip(summary.injected).map(|(kind, count)| format!("{} {count}", kind.label()));
    println!("faults: {}", faults.collect::<Vec<_>>().join(", "));
    let moved = summary.moved;
    println!(
        "overflow: worlds {}, stored {}, came back {}, came back after a restart {}, lost in a crash {}, damaged {}",
        summary.overflowed, moved.stored, moved.refilled, moved.recovered, moved.lost_in_crash, moved.damaged
    );
    let rate = summary.activations as f64 / summary.busy.as_secs_f64().max(1e-9);
    println!(
        "sim seeds={} twice={} activations={} events={} faults={} threads={threads} seconds={:.1} \
         activations_per_s_per_core={rate:.0} violations={}",
        summary.seeds,
        summary.twice,
        summary.activations,
        summary.events,
        summary.faults(),
        took.as_secs_f64(),
        u32::from(summary.failed.is_some()),
    );
}

fn bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Without a terminal: a line now and then.
struct Lines {
    wanted: bool,
    last: std::sync::atomic::AtomicU64,
}

impl Lines {
    fn new(wanted: bool) -> Self {
        Self { wanted, last: std::sync::atomic::AtomicU64::new(0) }
    }

    fn print(&self, seeds: u64, activations: u64, of: u64, since: Instant) {
        let step = since.elapsed().as_secs() / LINE_EACH_S;
        if self.wanted && self.last.fetch_max(step, std::sync::atomic::Ordering::Relaxed) < step {
            println!("{seeds} of {of} seeds, {activations} activations, {} s", since.elapsed().as_secs());
        }
    }
}

const LINE_EACH_S: u64 = 10;

fn mutants(seeds: u64, only: &[String], activations: u32, threads: usize) -> anyhow::Result<ExitCode> {
    ensure!(
        CAN_PLANT,
        "this build has no bugs in it: RUSTFLAGS=\"--cfg mutants\" cargo run --release -p sim --target-dir target/mutants -- mutants"
    );
    let wanted = |mutant: &&Mutant| only.is_empty() || only.iter().any(|name| name == mutant.label());
    let wanted: Vec<Mutant> = Mutant::ALL.iter().filter(wanted).copied().collect();
    ensure!(!wanted.is_empty(), "there is no bug of that name");
    // They are found by panics too; those are no news here.
    std::panic::set_hook(Box::new(|_| ()));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    match hunt(*mutant, seeds, activations) {
                        Some(found) => {
                            println!("{:<26} found after {:>5} seeds by {}", mutant.label(), found.seeds, found.by)
                        }
                        None => {
                            missed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            println!("{:<26} NOT FOUND in {seeds} seeds", mutant.label());
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner();
    println!("sim mutants={} found={} missed={missed} seeds_max={seeds}", wanted.len(), wanted.len() - missed);
    Ok(code(missed == 0))
}
