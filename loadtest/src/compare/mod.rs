//! The same round trip on the router and on what a user would pick instead: interleaved repetitions, in one call.
//!
//! A repetition goes over all scenarios, and each scenario over all targets that start in no time, each with a server of its own. Servers
//! that take seconds to start and to warm up are then started once in a repetition, and run all its scenarios.

mod bars;
mod table;

pub(crate) use bars::verdicts;
pub(crate) use table::scenario;

use crate::Common;
use crate::fleet::{Server, Target};
use crate::machine;
use crate::part::Orders;
use crate::plan::{Load, Plan};
use crate::result::{self, RunResult};
use crate::run;
use crate::wanted::Wanted;
use anyhow::ensure;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Flags of `compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What to measure, a comma list; without it the router, the pipe and all peers that are installed.
    #[arg(long, alias = "target", value_delimiter = ',', value_parser = Wanted::parser())]
    targets: Vec<Wanted>,
    /// Closed loops: activations in flight, a comma list.
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024,4096")]
    in_flight: Vec<u32>,
    /// Open loops: activations per second, a comma list. Latency counts from the intended send time.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,20000")]
    rates: Vec<f64>,
    /// Bytes of each payload and each result, at least 16.
    #[arg(long, default_value_t = 256)]
    payload_bytes: usize,
    /// Payloads of closed loops with 16 in flight, for the router and the pipe only; a comma list.
    #[arg(long, value_delimiter = ',', default_value = "65536,1048576")]
    large_payloads: Vec<usize>,
    /// The measured window; a warm-up of a fifth of it, at most 2 s, comes before.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Controllers, each with connections of its own.
    #[arg(long, default_value_t = 1)]
    controllers: u32,
    /// Workers, each with a connection of its own; of the router, invoker nodes, with 64 containers of 64 credits together.
    #[arg(long, default_value_t = 1)]
    invokers: u32,
    /// Write more than the published schema into the JSON: keys `curve`, `series`, `about` and more, for `loadtest
    /// report`.
    #[arg(long, requires = "json")]
    details: bool,
    #[command(flatten)]
    common: Common,
}

/// Measures, and prints the medians and the bars.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let (targets, plans) = (args.targets(), args.plans()?);
    ensure!(!targets.is_empty(), "none of the targets is installed");
    println!("{}\n", introduction(&targets));
    let mut measured = Measured { args, results: Vec::new(), runs: 0, failed: Vec::new() };
    for repetition in 1..=args.common.repeat {
        println!("repetition {repetition} of {}", args.common.repeat);
        measured.repetition(&targets, &plans);
    }
    println!("\n{}", table::medians(&measured.results));
    println!("{}", bars::table(&measured.results, args.payload_bytes));
    match &args.common.json {
        Some(path) if args.details => result::write_with_details(path, &measured.results)?,
        Some(path) => result::write(path, &measured.results)?,
        None => {}
    }
    let failed: Vec<&str> = measured.failed.iter().map(|target| target.name()).collect();
    ensure!(failed.is_empty(), "not measured to the end: {}", failed.join(", "));
    Ok(())
}

/// Payloads this large are for the servers that have our frames: brokers take them, but are not made for them.
const LARGE_IN_FLIGHT: u32 = 16;

impl CompareArgs {
    /// Those that can be run; the others are named.
    fn targets(&self) -> Vec<Target> {
        let all = || Target::value_variants().iter().filter(|target| **target != Target::RouterWithoutBreakers);
        let wanted = if self.targets.is_empty() { all().copied().collect() } else { Wanted::targets(&self.targets) };
        let (here, absent): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|target| target.peer().is_none_or(crate::peer::Peer::is_installed));
        for peer in absent.iter().filter_map(|target| Some((target.name(), target.peer()?.about()))) {
            println!("{}: left out, there is no {}; to install it: {}", peer.0, peer.1.program, peer.1.install);
        }
        here
    }

    fn plans(&self) -> anyhow::Result<Vec<Plan>> {
        let seconds = self.seconds;
        ensure!(seconds > 0.0 && seconds <= 3600.0, "--seconds must be above 0, at most 3600");
        ensure!(self.common.repeat > 0, "--repeat must be at least 1");
        ensure!(self.controllers > 0 && self.invokers > 0, "--controllers and --invokers must be at least 1");
        ensure!(self.in_flight.iter().all(|n| *n > 0), "--in-flight must be at least 1");
        ensure!(self.rates.iter().all(|rate| *rate > 0.0), "--rates must be above 0");
        let payloads = self.large_payloads.iter().chain([&self.payload_bytes]);
        ensure!(payloads.min() >= Some(&Orders::BYTES), "a payload must have at least {} bytes", Orders::BYTES);
        let base = Plan {
            payload_bytes: self.payload_bytes,
            controllers: self.controllers,
            invokers: self.invokers,
            ..Plan::closed(1, seconds)
        };
        let closed = self.in_flight.iter().map(|&in_flight| Plan { load: Load::Closed { in_flight }, ..base.clone() });
        let open = self.rates.iter().map(|&rate| Plan { load: Load::Open { rate }, ..base.clone() });
        let large = self.large_payloads.iter().map(|&payload_bytes| {
            let load = Load::Closed { in_flight: LARGE_IN_FLIGHT };
            Plan { load, payload_bytes, ..base.clone() }
        });
        Ok(closed.chain(open).chain(large).collect())
    }

    fn is_large(&self, plan: &Plan) -> bool {
        plan.payload_bytes != self.payload_bytes && self.large_payloads.contains(&plan.payload_bytes)
    }
}

/// What is compared with what, and on what.
fn introduction(targets: &[Target]) -> String {
    let mut text = format!("commit {}, {}", machine::commit(), machine::machine());
    if cfg!(debug_assertions) {
        text += "\nThis program was built without optimisation, the peers were not: its figures say nothing.";
    }
    for target in targets {
        let about = machine::about(*target);
        text += &format!(
            "\n\n{}: {}\n  settings: {}\n  promise: {}",
            target.name(),
            about.version,
            about.settings,
            about.promise
        );
    }
    text
}

/// The runs so far.
struct Measured<'a> {
    args: &'a CompareArgs,
    results: Vec<RunResult>,
    /// Runs so far: a number for each.
    runs: u32,
    /// Targets that are not tried again.
    failed: Vec<Target>,
}

impl Measured<'_> {
    fn repetition(&mut self, targets: &[Target], plans: &[Plan]) {
        let is_slow = |target: &&Target| target.peer().is_some_and(crate::peer::Peer::starts_slowly);
        let (slow, quick): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(is_slow);
        for plan in plans {
            for &target in &quick {
                self.on_one_server(*target, std::slice::from_ref(plan));
            }
        }
        for target in slow {
            self.on_one_server(*target, plans);
        }
    }

    /// Runs the plans one after the other. A target that fails does not take the others' results with it.
    fn on_one_server(&mut self, target: Target, plans: &[Plan]) {
        let suits = |plan: &&Plan| target.peer().is_none() || !self.args.is_large(plan);
        let plans: Vec<&Plan> = plans.iter().filter(suits).collect();
        if plans.is_empty() || self.failed.contains(&target) {
            return;
        }
        let started = self.start(target);
        let ran = started.and_then(|server| plans.into_iter().try_for_each(|plan| self.run(&server, target, plan)));
        if let Err(error) = ran {
            println!("{}: left out from here on, as it failed: {error:#}", target.name());
            self.failed.push(target);
        }
    }

    /// A server that is warm.
    fn start(&mut self, target: Target) -> anyhow::Result<Server> {
        let server = Server::start(target, self.args.common.workers, self.args.common.place())?;
        let warm_up = target.peer().map_or(Duration::ZERO, crate::peer::Peer::warm_up);
        if !warm_up.is_zero() {
            let load = Plan::closed(WARM_UP_IN_FLIGHT, warm_up.as_secs_f64());
            run::run_on(&server, target, &self.of(target, &load), self.args.common.place())?;
        }
        Ok(server)
    }

    fn run(&mut self, server: &Server, target: Target, plan: &Plan) -> anyhow::Result<()> {
        let mut result = run::run_on(server, target, &self.of(target, plan), self.args.common.place())?;
        println!("{}", run::line(&result));
        if let Some(details) = &mut result.details {
            details.about = machine::about(target);
        }
        self.results.push(result);
        Ok(())
    }

    /// A plan as this target gets it.
    fn of(&mut self, target: Target, plan: &Plan) -> Plan {
        self.runs += 1;
        // A peer's worker takes what comes: it has no containers.
        let containers = if target.peer().is_some() { plan.invokers } else { plan.containers };
        Plan { run: self.runs, containers, ..plan.clone() }
    }
}

const WARM_UP_IN_FLIGHT: u32 = 256;
