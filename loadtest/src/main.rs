//! `loadtest`: the measuring instrument. `demo` shows the router at work, `run` measures closed and open loops, `replay` plays
//! a trace, `compare` measures what users would pick instead, `scaling` what grows with what, `chaos` hurts everybody. It never takes the
//! router's word for what became of an activation: it keeps its own books.

mod bars;
mod book;
mod chaos;
mod compare;
mod cores;
mod demo;
mod fleet;
mod machine;
mod medians;
mod overflow;
mod part;
mod peer;
mod plan;
mod replay;
mod report;
mod result;
mod run;
mod scaling;
mod trace;
mod tree;
mod verdict;
mod wanted;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use fleet::{Place, Target};
use plan::{Load, Plan};
use std::path::PathBuf;
use std::process::ExitCode;
use wanted::Wanted;

/// Measures the activation router and what it is compared with.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a router, an invoker node and a controller, and show them at work. Needs nothing.
    Demo,
    /// A closed loop, or an open one with --rate, over one or several targets in turn.
    Run(RunArgs),
    /// The arrivals of a trace, against the router.
    Replay(replay::ReplayArgs),
    /// The same round trip on the router and on what a user would pick instead, interleaved; medians, ratios, bars.
    Compare(compare::CompareArgs),
    /// Result files made into a page with pictures: one file of HTML, no script.
    Report(report::ReportArgs),
    /// The bars this router is held to, measured one by one, as a table. Takes about a quarter of an hour with --repeat 5.
    Bars(bars::BarsArgs),
    /// What an activation costs, by the number of actions, containers, streams and cores, by what is in flight, queued and carried: one at
    /// a time, as tables with lines fitted to them. About ten minutes with --repeat 3.
    Scaling(scaling::ScalingArgs),
    /// Offer twice of what the containers can run, then half of it until all is done, with the excess on disk or in Kafka; as a table.
    /// Some minutes.
    Overflow(overflow::OverflowArgs),
    /// Kill, stop, cut off and slow down real processes under load, and judge by ledgers kept outside the router that everything
    /// was answered once and nothing ran twice. A quarter of an hour in full.
    Chaos(chaos::ChaosArgs),
    /// Play a part of a chaos run; this program starts itself so.
    #[command(hide = true)]
    Act { part: String },
    /// Play a part of a run; this program starts itself so.
    #[command(hide = true)]
    Part { role: String },
}

/// What all runs share.
#[derive(Debug, Args)]
struct Common {
    /// Runs of each target, interleaved.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Threads that serve streams in the target; 0: half of the cores.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Parts are threads of this process, not processes. The server's CPU is then that of its threads, memory that of all.
    #[arg(long)]
    in_process: bool,
    /// Write the results there, as an array with one object per run.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Common {
    fn place(&self) -> Place {
        if self.in_process { Place::Threads } else { Place::Processes }
    }

    /// Runs every target in turn, prints and writes what came of it.
    fn measure(&self, targets: &[Target], plan: &Plan) -> anyhow::Result<Vec<result::RunResult>> {
        ensure!(self.repeat > 0, "--repeat must be at least 1");
        let one = |&target: &Target| run::run(target, plan, self.workers, self.place());
        let results = run::interleave(targets, self.repeat, one)?;
        if results.len() > 1 {
            println!("{}", run::summary(&results));
        }
        if let Some(path) = &self.json {
            result::write(path, &results)?;
        }
        Ok(results)
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What to measure, a comma list: interleaved, repeat by repeat.
    #[arg(long, alias = "targets", value_delimiter = ',', default_value = "router,pipe", value_parser = Wanted::parser())]
    target: Vec<Wanted>,
    /// Activations in flight: a closed loop.
    #[arg(long, default_value_t = 64, conflicts_with = "rate")]
    in_flight: u32,
    /// Activations per second: an open loop. Latency counts from the intended send time.
    #[arg(long)]
    rate: Option<f64>,
    /// Push that many in all and stop; otherwise --seconds count.
    #[arg(long)]
    count: Option<u64>,
    /// The measured window; a warm-up of a fifth of it, at most 2 s, comes before.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of each payload and each result, at least 16.
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
    /// Actions, taken in turn.
    #[arg(long, default_value_t = 1)]
    actions: u32,
    /// Containers, at least one for each action.
    #[arg(long, default_value_t = 64)]
    containers: u32,
    /// Activations that a container runs at once.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Controller streams.
    #[arg(long, default_value_t = 1)]
    controllers: u32,
    /// Invoker nodes.
    #[arg(long, default_value_t = 1)]
    invokers: u32,
    #[command(flatten)]
    common: Common,
}

impl RunArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(self.actions > 0, "--actions must be at least 1");
        ensure!(self.containers >= self.actions, "--containers must be at least --actions ({})", self.actions);
        ensure!(self.controllers > 0, "--controllers must be at least 1");
        ensure!(self.invokers > 0, "--invokers must be at least 1");
        ensure!((1..=4096).contains(&self.concurrency), "--concurrency must be 1 to 4096");
        ensure!(self.in_flight > 0, "--in-flight must be at least 1");
        ensure!(self.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
        ensure!(self.seconds > 0.0 && self.seconds <= 3600.0, "--seconds must be above 0, at most 3600");
        ensure!(self.payload_bytes >= part::Orders::BYTES, "--payload-bytes must be at least {}", part::Orders::BYTES);
        let load = match self.rate {
            Some(rate) => Load::Open { rate },
            None => Load::Closed { in_flight: self.in_flight },
        };
        Ok(Plan {
            load,
            count: self.count,
            payload_bytes: self.payload_bytes,
            actions: self.actions,
            containers: self.containers,
            concurrency: self.concurrency,
            controllers: self.controllers,
            invokers: self.invokers,
            ..Plan::closed(self.in_flight, self.seconds)
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Demo => demo::demo()?,
        Command::Run(args) => args.common.measure(&Wanted::targets(&args.target), &args.plan()?).map(drop)?,
        Command::Replay(args) => replay::replay(&args)?,
        Command::Compare(args) => compare::compare(&args)?,
        Command::Report(args) => report::report(&args)?,
        Command::Bars(args) => bars::bars(&args)?,
        Command::Scaling(args) => scaling::scaling(&args)?,
        Command::Overflow(args) => overflow::overflow(&args)?,
        Command::Chaos(args) => return chaos::chaos(&args),
        Command::Act { part } => return chaos::play(&part),
        Command::Part { role } => fleet::play_as_process(&role)?,
    }
    Ok(ExitCode::SUCCESS)
}
