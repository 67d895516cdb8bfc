//! Overflow, measured: what memory takes while twice as much is offered as the containers can run, whether all of it comes back in order,
//! what another action feels of it, and what it costs to have it on and not need it.

use crate::Common;
use crate::fleet::{self, Place, Server, Target};
use crate::plan::{Load, Overflow, Plan};
use crate::result::{self, RunResult, median};
use crate::run;
use crate::verdict::{self, Verdict};
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Flags of `overflow`.
#[derive(Debug, Args)]
pub(crate) struct OverflowArgs {
    /// Where the excess goes, a comma list.
    #[arg(long, value_delimiter = ',', default_value = "disk")]
    store: Vec<Store>,
    /// The broker, for `kafka`: `scripts/kafka serve PORT DIR` starts one.
    #[arg(long, default_value = "127.0.0.1:9092")]
    brokers: String,
    /// librdkafka's properties, for `kafka`: TLS, a login. The router's `overflow.kafka_settings_file`.
    #[arg(long)]
    kafka_settings_file: Option<PathBuf>,
    /// Where the store on disk lies, for `disk`: a folder that is made for each run in it and removed.
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// Which to measure, a comma list; all without.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// How long twice as much is offered as can be run.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// What the containers can run per second, about.
    #[arg(long, default_value_t = 20_000.0)]
    capacity: f64,
    /// The router's limit of what it queues in memory.
    #[arg(long, default_value_t = 64)]
    memory_mib: u64,
    #[command(flatten)]
    common: Common,
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    /// The log on disk.
    Disk,
    /// A Kafka broker.
    Kafka,
}

/// Rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Memory, order and completeness.
    Flood,
    /// Another action's latency.
    Beside,
    /// What it costs where it is not needed.
    Idle,
}

/// Measures overflow and prints the table.
pub(crate) fn overflow(args: &OverflowArgs) -> anyhow::Result<()> {
    ensure!(args.common.repeat > 0, "--repeat must be at least 1");
    ensure!(args.seconds > 0.0 && args.seconds <= 600.0, "--seconds must be above 0, at most 600");
    ensure!(args.capacity >= 100.0, "--capacity must be at least 100");
    let wanted = if args.only.is_empty() { Row::value_variants() } else { &args.only };
    let mut meter = Meter { args, results: Vec::new(), verdicts: Vec::new() };
    for &store in &args.store {
        for row in wanted {
            match row {
                Row::Flood => meter.flood(store)?,
                Row::Beside => meter.beside(store)?,
                Row::Idle => meter.idle(store)?,
            }
        }
    }
    verdict::print(&meter.verdicts);
    if let Some(path) = &args.common.json {
        result::write(path, &meter.results)?;
    }
    let whole = meter.verdicts.iter().all(|verdict| verdict.met || verdict.bar != WHOLE);
    ensure!(whole, "something was lost, came out of order, or nothing overflowed");
    Ok(())
}

struct Meter<'a> {
    args: &'a OverflowArgs,
    results: Vec<RunResult>,
    verdicts: Vec<Verdict>,
}

/// What must hold whatever the machine does.
const WHOLE: &str = "completed = accepted, in order";

/// Containers of the flooded action and what each runs at once.
const CONTAINERS: u32 = 64;
const CONCURRENCY: u32 = 4;

impl Meter<'_> {
    /// Twice the capacity, then half of it until all is done.
    #[allow(clippy::cast_precision_loss)]
    fn flood(&mut self, store: Store) -> anyhow::Result<()> {
        let folder = Folder::new(&self.args.directory)?;
        let settings = self.settings(store, &folder, true);
        let server = Server::start_with(Target::Router, self.args.common.workers, Place::Processes, &settings)?;
        let admin = server.admin.context("a router has an admin port")?;
        fleet::await_metric(admin, "router_overflow_open", 1)?;
        let base = fleet::memory_bytes(server.part.pid(), "VmRSS")?;
        let watched = Watched::begin(server.part.pid());
        let plan = self.plan(2.0, Some(0.5), None);
        let (result, seen) = run::watch(&server, Target::Router, &plan, Place::Processes)?;
        println!("{}", run::line(&result));
        let top = watched.end();
        fleet::await_metric(admin, "router_overflow_stored", 0)?;

        let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        let limit = base + (self.args.memory_mib << 20) + (32 << 20);
        let what = name(store, ["disk: RSS while 2x is offered", "Kafka: RSS while 2x is offered"]);
        self.verdicts.push(Verdict {
            what,
            bar: "≤ base + limit + 32 MiB",
            measured: format!("{:.1} MiB at the top, base {:.1} + {} + 32", mib(top), mib(base), self.args.memory_mib),
            met: top <= limit,
        });
        let counts = result.counts;
        let whole =
            counts.completed == counts.submitted && counts.duplicates + seen.duplicates + seen.out_of_order == 0;
        let what = name(store, ["disk: then drained", "Kafka: then drained"]);
        self.verdicts.push(Verdict {
            what,
            bar: WHOLE,
            measured: format!(
                "{} of {} completed, {} spilled, {} refilled, {} out of order, {} started twice, {} unanswered",
                counts.completed,
                counts.submitted,
                result.spilled,
                result.refilled,
                seen.out_of_order,
                seen.duplicates,
                counts.unanswered
            ),
            met: whole && result.spilled > 0,
        });
        self.results.push(result);
        Ok(())
    }

    /// Another action at 5,000/s beside the flood, with overflow and with memory enough for all.
    fn beside(&mut self, store: Store) -> anyhow::Result<()> {
        let (mut p99, mut spilled) = ([Vec::new(), Vec::new()], 0);
        for _ in 0..self.args.common.repeat {
            for (overflows, p99) in [true, false].into_iter().zip(&mut p99) {
                let folder = Folder::new(&self.args.directory)?;
                let settings = self.settings(store, &folder, overflows);
                let server = Server::start_with(Target::Router, self.args.common.workers, Place::Processes, &settings)?;
                if overflows {
                    fleet::await_metric(server.admin.context("a router has one")?, "router_overflow_open", 1)?;
                }
                let plan = Plan { actions: 2, controllers: 2, ..self.plan(2.0, None, Some(5_000.0)) };
                let result = run::run_on(&server, Target::Router, &plan, Place::Processes)?;
                println!("{}", run::line(&result));
                ensure!(
                    overflows == (result.spilled > 0),
                    "{} spilled: --seconds or --memory-mib does not fit",
                    result.spilled
                );
                spilled = spilled.max(result.spilled);
                p99.push(result.latency_us.p99);
                self.results.push(result);
            }
        }
        let [with, without] = p99.map(median);
        let ratio = with / without;
        let names = [
            "disk: another action's p99 beside an overflowing one",
            "Kafka: another action's p99 beside an overflowing one",
        ];
        let what = name(store, names);
        let measured = format!("{ratio:.2} ({with:.0} / {without:.0} us; {spilled} spilled)");
        self.verdicts.push(Verdict { what, bar: "≤ 1.2 times that in memory", measured, met: ratio <= 1.2 });
        Ok(())
    }

    /// Saturated, with overflow on and nothing overflowing, and with it off.
    fn idle(&mut self, store: Store) -> anyhow::Result<()> {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..self.args.common.repeat {
            for (on, rates) in [true, false].into_iter().zip(&mut rates) {
                let folder = Folder::new(&self.args.directory)?;
                let settings = if on { self.store(store, &folder) } else { Vec::new() };
                let server = Server::start_with(Target::Router, self.args.common.workers, Place::Processes, &settings)?;
                let plan = Plan::closed(4096, self.args.seconds.min(5.0));
                let result = run::run_on(&server, Target::Router, &plan, Place::Processes)?;
                println!("{}", run::line(&result));
                rates.push(result.achieved_per_s);
                self.results.push(result);
            }
        }
        let [on, off] = rates.map(median);
        let what = name(
            store,
            ["disk: saturated, with overflow on and not needed", "Kafka: saturated, with overflow on and not needed"],
        );
        let measured = format!("{:.3} ({on:.0} / {off:.0}/s)", on / off);
        self.verdicts
            .push(Verdict { what, bar: "≥ 0.99 of the throughput without", measured, met: on / off >= 0.99 });
        Ok(())
    }

    fn plan(&self, times: f64, then: Option<f64>, beside: Option<f64>) -> Plan {
        let OverflowArgs { capacity, seconds, .. } = self.args;
        let slots = f64::from(CONTAINERS * CONCURRENCY);
        let load = Load::Overflow(Overflow {
            rate: capacity * times,
            seconds: *seconds,
            then_rate: then.map(|then| capacity * then),
            service_time_us: micros(slots / capacity),
            beside,
        });
        let containers = CONTAINERS * if beside.is_some() { 2 } else { 1 };
        Plan {
            load,
            containers,
            concurrency: CONCURRENCY,
            check_starts: true,
            time_left_ms: 1_800_000,
            ..Plan::closed(1, *seconds)
        }
    }

    /// Settings of a router that queues so much in memory, or all of it.
    fn settings(&self, store: Store, folder: &Folder, overflows: bool) -> Vec<(String, String)> {
        if !overflows {
            return Vec::new();
        }
        let bytes = (self.args.memory_mib << 20).to_string();
        let keys =
            ["limits.action_queued_bytes_max", "limits.tenant_queued_bytes_max", "limits.router_queued_bytes_max"];
        let mut settings: Vec<(String, String)> = keys.map(|key| (key.to_owned(), bytes.clone())).into();
        settings.extend(self.store(store, folder));
        settings
    }

    fn store(&self, store: Store, folder: &Folder) -> Vec<(String, String)> {
        let topic = format!("overflow-{}", folder.number);
        let pairs = match store {
            Store::Disk => vec![("store", "disk".to_owned()), ("directory", folder.path.display().to_string())],
            Store::Kafka => {
                let file = self.args.kafka_settings_file.as_ref().map(|path| path.display().to_string());
                let mut pairs = vec![
                    ("store", "kafka".to_owned()),
                    ("kafka_brokers", self.args.brokers.clone()),
                    ("kafka_topic", topic),
                    ("lanes", "8".to_owned()),
                ];
                pairs.extend(file.map(|path| ("kafka_settings_file", path)));
                pairs
            }
        };
        pairs.into_iter().map(|(key, value)| (format!("overflow.{key}"), value)).collect()
    }
}

/// One of two names, by the store.
fn name(store: Store, names: [&'static str; 2]) -> &'static str {
    match store {
        Store::Disk => names[0],
        Store::Kafka => names[1],
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// The most memory of a process that is resident, looked at ten times a second.
struct Watched {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watched {
    #[allow(clippy::disallowed_methods)]
    fn begin(pid: u32) -> Self {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, told) = (most.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                seen.fetch_max(fleet::memory_bytes(pid, "VmRSS").unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { most, over, thread }
    }

    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}

/// A folder of one run, gone with it.
struct Folder {
    path: PathBuf,
    number: u64,
}

impl Folder {
    fn new(parent: &Path) -> anyhow::Result<Self> {
        let number: u64 = rand::random();
        let path = parent.join(format!("overflow-{number:016x}"));
        if !parent.is_dir() {
            bail!("--directory {}: no such folder", parent.display());
        }
        Ok(Self { path, number })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
