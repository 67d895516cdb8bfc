//! Starting and watching the parts of a run: processes of this very program, or threads of this process.

use crate::cores;
use crate::part::{self, Event, Report};
use crate::peer::{self, Peer};
use crate::plan::Plan;
use crate::tree;
use anyhow::{Context, bail, ensure};
use router::config::{Config, Setting};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What serves the data plane in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The activation router.
    Router,
    /// The same with its breakers disabled: what they cost.
    RouterWithoutBreakers,
    /// A bare server that forwards the same frames: the limit.
    Pipe,
    /// NATS core: a queue group and a reply subject.
    Nats,
    /// Redis, by lists.
    RedisLists,
    /// Redis, by streams with a consumer group.
    RedisStreams,
    /// RabbitMQ, by direct reply-to.
    Rabbitmq,
    /// Kafka as OpenWhisk uses it.
    Kafka,
    /// Kafka, tuned for this.
    KafkaTuned,
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::RouterWithoutBreakers => "router_without_breakers",
            Self::Pipe => "pipe",
            Self::Nats => "nats",
            Self::RedisLists => "redis-lists",
            Self::RedisStreams => "redis-streams",
            Self::Rabbitmq => "rabbitmq",
            Self::Kafka => "kafka",
            Self::KafkaTuned => "kafka-tuned",
        }
    }

    /// What it is, if it is not ours.
    pub(crate) fn peer(self) -> Option<Peer> {
        match self {
            Self::Router | Self::RouterWithoutBreakers | Self::Pipe => None,
            Self::Nats => Some(Peer::Nats),
            Self::RedisLists => Some(Peer::RedisLists),
            Self::RedisStreams => Some(Peer::RedisStreams),
            Self::Rabbitmq => Some(Peer::Rabbitmq),
            Self::Kafka => Some(Peer::Kafka),
            Self::KafkaTuned => Some(Peer::KafkaTuned),
        }
    }
}

/// Where parts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each in a process of its own.
    Processes,
    /// Each on a thread of this process.
    Threads,
}

/// A started part. Told to stop when dropped, and waited for.
#[derive(Debug)]
pub(crate) struct Part {
    running: Running,
    events: Receiver<Event>,
}

#[derive(Debug)]
enum Running {
    Process { child: Child, stdin: Option<ChildStdin> },
    Thread { stop: Option<tokio::sync::oneshot::Sender<()>>, thread: Option<std::thread::JoinHandle<()>> },
}

/// A server part and where it listens.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) part: Part,
    pub(crate) address: SocketAddr,
    /// A router's admin port.
    pub(crate) admin: Option<SocketAddr>,
    peer: Option<Peer>,
}

/// How long a part may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

impl Server {
    pub(crate) fn start(target: Target, workers: usize, place: Place) -> anyhow::Result<Self> {
        Self::start_with(target, workers, place, &[])
    }

    /// Starts a server; a router with these keys of its configuration set so.
    pub(crate) fn start_with(
        target: Target,
        workers: usize,
        place: Place,
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        Self::play(target, place, &Role::Server { target, workers, cores: 0, settings: settings.to_vec() })
    }

    /// Starts a server that runs on so many cores and no others.
    pub(crate) fn start_on(target: Target, workers: usize, cores: usize, place: Place) -> anyhow::Result<Self> {
        Self::play(target, place, &Role::Server { target, workers, cores, settings: Vec::new() })
    }

    fn play(target: Target, place: Place, role: &Role) -> anyhow::Result<Self> {
        let part = Part::start(place, role)?;
        match part.events.recv_timeout(START_TIMEOUT).context("the server did not start")? {
            Event::Listening { address, admin } => Ok(Self { part, address, admin, peer: target.peer() }),
            Event::Failed(why) => bail!("the server did not start: {why}"),
            other => bail!("the server said {other:?} instead of where it listens"),
        }
    }

    /// The invokers that a plan wants, as this server's clients.
    pub(crate) fn invokers(&self, plan: &Plan) -> Role {
        let (endpoint, plan) = (self.address, plan.clone());
        match self.peer {
            Some(peer) => Role::PeerWorkers { peer, endpoint, plan },
            None => Role::Invokers { endpoint, plan },
        }
    }

    /// The controllers that a plan wants, as this server's clients.
    pub(crate) fn controllers(&self, plan: &Plan) -> Role {
        let (endpoint, plan) = (self.address, plan.clone());
        match self.peer {
            Some(peer) => Role::PeerControllers { peer, endpoint, plan },
            None => Role::Controllers { endpoint, plan },
        }
    }

    /// CPU time so far, in microseconds. Of a peer, all processes that its keeper started.
    pub(crate) fn cpu_us(&self) -> anyhow::Result<f64> {
        match self.peer {
            Some(_) => tree::cpu_us_below(self.part.pid()),
            None => cpu_us(self.part.pid()),
        }
    }

    /// Of that, what a server of our own spent in the kernel; 0 of a peer, and of a thread of this process.
    pub(crate) fn kernel_cpu_us(&self) -> anyhow::Result<f64> {
        let known = self.peer.is_none() && self.part.pid() != std::process::id();
        if known { tree::kernel_cpu_us(self.part.pid()) } else { Ok(0.0) }
    }

    /// The most memory that was resident, in bytes.
    pub(crate) fn rss_bytes_max(&self) -> anyhow::Result<u64> {
        match self.peer {
            Some(_) => tree::rss_bytes_max_below(self.part.pid()),
            None => memory_bytes(self.part.pid(), "VmHWM"),
        }
    }

    /// Begins a run: what a peer's server took in one before is forgotten.
    pub(crate) fn begin(&self) -> anyhow::Result<()> {
        if self.peer.is_some() { tree::forget_peaks(self.part.pid()) } else { Ok(()) }
    }
}

/// What a part is.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// `cores`: 0 for all there are.
    Server {
        target: Target,
        workers: usize,
        cores: usize,
        settings: Vec<(String, String)>,
    },
    Invokers {
        endpoint: SocketAddr,
        plan: Plan,
    },
    Controllers {
        endpoint: SocketAddr,
        plan: Plan,
    },
    PeerWorkers {
        peer: Peer,
        endpoint: SocketAddr,
        plan: Plan,
    },
    PeerControllers {
        peer: Peer,
        endpoint: SocketAddr,
        plan: Plan,
    },
}

impl Part {
    /// Starts a part.
    pub(crate) fn start(place: Place, role: &Role) -> anyhow::Result<Self> {
        let (sender, events) = channel();
        let running = match place {
            Place::Processes => start_process(role, sender)?,
            Place::Threads => start_thread(role.clone(), sender)?,
        };
        Ok(Self { running, events })
    }

    /// The next event; fails if the part did.
    pub(crate) fn event(&self) -> anyhow::Result<Event> {
        match self.events.recv().context("a part of the run ended without a word")? {
            Event::Failed(why) => bail!("a part of the run failed: {why}"),
            event => Ok(event),
        }
    }

    /// As `event`, but gives up after a while.
    pub(crate) fn event_within(&self, timeout: Duration) -> anyhow::Result<Event> {
        match self.events.recv_timeout(timeout).context("a part of the run is too slow")? {
            Event::Failed(why) => bail!("a part of the run failed: {why}"),
            event => Ok(event),
        }
    }

    /// Tells the part to stop and returns its last words.
    pub(crate) fn stop(mut self) -> Vec<Event> {
        self.running.stop();
        self.events.iter().collect()
    }

    /// The process whose CPU and memory the part takes: this one if it is a thread.
    pub(crate) fn pid(&self) -> u32 {
        match &self.running {
            Running::Process { child, .. } => child.id(),
            Running::Thread { .. } => std::process::id(),
        }
    }
}

impl Running {
    fn stop(&mut self) {
        match self {
            Self::Process { child, stdin } => {
                // The end of its input tells it to stop.
                drop(stdin.take());
                let _ = child.wait();
            }
            Self::Thread { stop, thread } => {
                drop(stop.take());
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn start_process(role: &Role, events: Sender<Event>) -> anyhow::Result<Running> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["part", &serde_json::to_string(role)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a part of the run")?;
    let stdout = child.stdout.take().context("it was asked for")?;
    let stdin = child.stdin.take();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Event::Failed(format!("it said: {line}")));
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(Running::Process { child, stdin })
}

fn start_thread(role: Role, events: Sender<Event>) -> anyhow::Result<Running> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let report: Report = Arc::new(move |event| drop(events.send(event)));
    let thread = std::thread::Builder::new().name(part_name(&role).to_owned()).spawn(move || {
        let stopped = async { stopped.await.unwrap_or(()) };
        play(role, report, stopped);
    })?;
    Ok(Running::Thread { stop: Some(stop), thread: Some(thread) })
}

fn part_name(role: &Role) -> &'static str {
    match role {
        Role::Server { .. } => "server",
        Role::Invokers { .. } | Role::PeerWorkers { .. } => "invokers",
        Role::Controllers { .. } | Role::PeerControllers { .. } => "controllers",
    }
}

/// The whole life of a process that was started as a part.
pub(crate) fn play_as_process(role: &str) -> anyhow::Result<()> {
    let role = serde_json::from_str(role).context("a part is described in JSON")?;
    let (told, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Parents do not write; they go away.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = told.send(());
    });
    play(role, part::report_lines(), async { stopped.await.unwrap_or(()) });
    Ok(std::io::stdout().flush()?)
}

fn play(role: Role, report: Report, stop: impl Future<Output = ()>) {
    let failed = report.clone();
    let played = match role {
        Role::Server { target, workers, cores, settings } => {
            cores::keep_to(cores).and_then(|()| part::block_on(serve(target, workers, &settings, report, stop)))
        }
        Role::Invokers { endpoint, plan } => {
            part::block_on(async { part::invoker::run(&endpoint.to_string(), &plan, report, stop).await })
        }
        Role::Controllers { endpoint, plan } => {
            part::block_on(async { part::controller::run(&endpoint.to_string(), &plan, report).await })
        }
        Role::PeerWorkers { peer, endpoint, plan } => {
            part::block_on(async { peer::workers(peer, endpoint, &plan, report, stop).await })
        }
        Role::PeerControllers { peer, endpoint, plan } => {
            part::block_on(async { peer::controllers(peer, endpoint, &plan, report).await })
        }
    };
    if let Err(error) = played.and_then(|result| result) {
        failed(Event::Failed(format!("{error:#}")));
    }
}

async fn serve(
    target: Target,
    workers: usize,
    settings: &[(String, String)],
    report: Report,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    if let Some(peer) = target.peer() {
        return peer::host::serve(peer, report, stop).await;
    }
    let mut config = config(workers, settings)?;
    match target {
        Target::Router | Target::RouterWithoutBreakers => {
            if target == Target::RouterWithoutBreakers {
                config.breaker.strikes = 0;
            }
            let app = router::app::App::bind(config).await?;
            report(Event::Listening { address: app.address()?, admin: Some(app.admin_address()?) });
            app.run(router::stop::once(stop)).await?;
            Ok(())
        }
        Target::Pipe => {
            let listening = |address| report(Event::Listening { address, admin: None });
            part::pipe::serve(&config, listening, stop).await
        }
        _ => bail!("a peer has a server of its own"),
    }
}

/// The router's defaults, on free ports, with room for the largest scenarios and a short drain.
fn config(workers: usize, settings: &[(String, String)]) -> anyhow::Result<Config> {
    let workers = workers.to_string();
    let own = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", "127.0.0.1:0"),
        ("drain_timeout_ms", "100"),
        ("workers", &workers),
    ];
    let others = settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let settings = own.into_iter().chain(others).map(|(key, value)| Setting::from_flag("of the run", key, value));
    Config::load(None, settings).map_err(|faults| anyhow::anyhow!("{faults}"))
}

/// CPU time of a process so far, in microseconds: all its threads, or those of the server in this process.
pub(crate) fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let own = pid == std::process::id();
    let mut nanos = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        if own && !name.starts_with("worker-") && name.trim() != "server" {
            continue;
        }
        // Nanoseconds on a processor, then waiting for one, then turns.
        let stat = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        nanos += stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanos / 1000.0)
}

/// A line of `/proc/PID/status` in bytes: `VmRSS` now, `VmHWM` at most.
pub(crate) fn memory_bytes(pid: u32, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {line} in /proc/{pid}/status"))? * 1024)
}

/// A metric of the router, by the exact words in front of its value.
pub(crate) fn metric(admin: SocketAddr, name: &str) -> anyhow::Result<u64> {
    use std::io::Read;
    let mut stream = std::net::TcpStream::connect(admin)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    ensure!(page.starts_with("HTTP/1.1 200"), "the metrics page answered {}", page.lines().next().unwrap_or_default());
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.with_context(|| format!("no metric {name}"))
}

/// Waits until a metric has a value, at most a minute.
#[allow(clippy::disallowed_methods)]
pub(crate) fn await_metric(admin: SocketAddr, name: &str, expected: u64) -> anyhow::Result<()> {
    let mut last = 0;
    for _ in 0..6000 {
        last = metric(admin, name)?;
        if last == expected {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{name} is {last} after a minute, not {expected}")
}
