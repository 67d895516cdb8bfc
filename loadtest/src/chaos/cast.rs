//! The processes of one run: a router, callers and nodes, started, killed, stopped and started again. Signals go to processes that
//! this one started and has not yet waited for, and to no others. None outlives this one.

use super::judge::{Findings, judge};
use super::ledger::{self, Entry, Ledger, Life, Seat};
use super::part::caller::CallerPart;
use super::part::node::NodePart;
use super::part::{Ask, Cue, News, Part, Post, RouterPart, Tally};
use super::plan::Company;
use super::proxy::Link;
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Who is to be there and what they do.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    pub(crate) seed: u64,
    pub(crate) actions: u32,
    /// Each node.
    pub(crate) nodes: Vec<NodeShape>,
    pub(crate) callers: u16,
    /// Activations a second, of all callers together.
    pub(crate) rate: f64,
    pub(crate) ask: Ask,
    /// Whether processes reach the router through links that can be hurt.
    pub(crate) through_links: bool,
    /// Whether router and callers leave alone what fails again and again.
    pub(crate) breakers: bool,
    /// Where a folder for the ledgers is made.
    pub(crate) folder: PathBuf,
}

/// What one node has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeShape {
    /// Connections, each with one container for each of its actions.
    pub(crate) streams: u16,
    /// How many of the actions it has, from the first.
    pub(crate) actions: u32,
    /// Activations that a container runs at once.
    pub(crate) concurrency: u32,
}

impl Staging {
    /// Who is there to be hurt.
    pub(crate) fn company(&self) -> Company {
        Company { callers: self.callers, nodes: u16::try_from(self.nodes.len()).expect("a few processes") }
    }
}

/// The processes, the links between them, and the ledger of what is done to them.
#[derive(Debug)]
pub(crate) struct Cast {
    staging: Staging,
    folder: PathBuf,
    director: Ledger,
    router: SocketAddr,
    admin: SocketAddr,
    links: HashMap<Seat, Link>,
    players: HashMap<Seat, Player>,
    /// How many lives each seat has had.
    lives: HashMap<Seat, u32>,
    /// What callers had counted when they ended.
    counted: Tally,
}

/// How long a process may take to be ready, to leave, or to recover from what was done to another.
const READY_WITHIN: Duration = Duration::from_secs(60);
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);
const LEFT_WITHIN: Duration = Duration::from_secs(60);
/// How often the run is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// Glances over which goodput is averaged.
const GLANCES: usize = 6;
const GLANCES_BETWEEN: u32 = 5;

impl Cast {
    /// Starts everybody. Activations flow once it has `recovered`.
    pub(crate) async fn start(staging: Staging) -> anyhow::Result<Self> {
        let folder = staging.folder.join(format!("chaos-{}-{}", std::process::id(), ledger::now()));
        std::fs::create_dir_all(&folder).with_context(|| format!("no folder {}", folder.display()))?;
        let director = Ledger::of_director(&folder)?;
        let (router, admin) = (free_address(staging.seed)?, free_address(!staging.seed)?);
        let (links, players, lives) = (HashMap::new(), HashMap::new(), HashMap::new());
        let counted = Tally::default();
        let mut cast = Self { staging, folder, director, router, admin, links, players, lives, counted };
        for seat in cast.seats() {
            if cast.staging.through_links && seat != Seat::Router {
                let seed = cast.staging.seed ^ u64::from(cast.place(seat));
                cast.links.insert(seat, Link::open(router, seed)?);
            }
            cast.enter(seat).await?;
        }
        Ok(cast)
    }

    /// Everybody, in the order in which they start.
    fn seats(&self) -> Vec<Seat> {
        let Company { callers, nodes } = self.staging.company();
        let nodes = (0..nodes).map(Seat::Node);
        std::iter::once(Seat::Router).chain(nodes).chain((0..callers).map(Seat::Caller)).collect()
    }

    /// A small number of its own for each seat.
    fn place(&self, seat: Seat) -> u16 {
        match seat {
            Seat::Router => 0,
            Seat::Node(number) => 1 + number,
            Seat::Caller(number) => 1 + self.company().nodes + number,
        }
    }

    pub(crate) fn company(&self) -> Company {
        self.staging.company()
    }

    /// Where the ledgers are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The router's admin port.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The link of a process.
    pub(crate) fn link(&self, seat: Seat) -> anyhow::Result<&Link> {
        self.links.get(&seat).with_context(|| format!("{seat} has no link"))
    }

    /// Starts a process in an empty seat. A router listens when this returns; others look for it themselves.
    pub(crate) async fn enter(&mut self, seat: Seat) -> anyhow::Result<()> {
        ensure!(!self.players.contains_key(&seat), "{seat} is taken");
        let lives = self.lives.entry(seat).or_default();
        let life = Life { seat, number: *lives };
        *lives += 1;
        let part = self.part(life);
        let player = Player::start(life, &part)?;
        if seat == Seat::Router {
            player.ready().await?;
        }
        self.players.insert(seat, player);
        Ok(())
    }

    fn part(&self, life: Life) -> Part {
        let Staging { seed, actions, callers, rate, ask, breakers, .. } = self.staging;
        let endpoint = self.links.get(&life.seat).map_or(self.router, Link::address);
        let seed = seed ^ (u64::from(self.place(life.seat)) << 32) ^ (u64::from(life.number) << 48);
        let post = Post { life, endpoint, folder: self.folder.clone(), actions, seed };
        match life.seat {
            Seat::Router => {
                let strikes = Some(("breaker.strikes", "0")).filter(|_| !breakers);
                let settings = [("log", "error")].into_iter().chain(strikes);
                let settings = settings.map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
                Part::Router(RouterPart { listen: self.router, admin: self.admin, settings })
            }
            Seat::Caller(_) => Part::Caller(CallerPart { post, rate: rate / f64::from(callers), ask, breakers }),
            Seat::Node(number) => {
                let NodeShape { streams, actions, concurrency } = self.staging.nodes[usize::from(number)];
                Part::Node(NodePart { post: Post { actions, ..post }, streams, concurrency })
            }
        }
    }

    fn player(&self, seat: Seat) -> anyhow::Result<&Player> {
        self.players.get(&seat).with_context(|| format!("nobody is in the seat of {seat}"))
    }

    /// kill -9, and waits until it is dead.
    pub(crate) async fn kill(&mut self, seat: Seat) -> anyhow::Result<()> {
        let mut player = self.players.remove(&seat).with_context(|| format!("nobody is in the seat of {seat}"))?;
        // Before it is done: whoever it is measured against can only have learnt of it later.
        self.director.write(Entry::Killed { life: player.life });
        player.signal(Signal::KILL)?;
        player.ended(READY_WITHIN).await?;
        self.counted.add(player.news.borrow().tally);
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self, seat: Seat) -> anyhow::Result<()> {
        let player = self.player(seat)?;
        self.director.write(Entry::Stopped { life: player.life });
        player.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, seat: Seat) -> anyhow::Result<()> {
        let player = self.player(seat)?;
        player.signal(Signal::CONT)?;
        // Behind it: until now it may have slept.
        self.director.write(Entry::Continued { life: player.life });
        Ok(())
    }

    /// SIGTERM to the router.
    pub(crate) fn tell_router_to_stop(&self) -> anyhow::Result<()> {
        self.player(Seat::Router)?.signal(Signal::TERM)
    }

    /// Waits until the router has ended by itself.
    pub(crate) async fn router_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut router = self.players.remove(&Seat::Router).context("there is no router")?;
        router.ended(LEFT_WITHIN).await
    }

    /// Tells one caller, or all of them.
    pub(crate) async fn cue(&mut self, seat: Option<Seat>, cue: Cue) -> anyhow::Result<()> {
        for (at, player) in &mut self.players {
            if seat.map_or(matches!(at, Seat::Caller(_)), |seat| seat == *at) {
                player.cue(cue).await?;
            }
        }
        Ok(())
    }

    /// What all callers have counted, those that are gone included.
    pub(crate) fn tally(&self) -> Tally {
        let mut sum = self.counted;
        self.players.values().for_each(|player| sum.add(player.news.borrow().tally));
        sum
    }

    /// Waits until everybody is there, the router has all containers and no others, and what is asked is completed; says how
    /// long that took.
    pub(crate) async fn recovered(&mut self) -> anyhow::Result<Duration> {
        let since = Instant::now();
        let mut glances = Vec::<Tally>::new();
        loop {
            if since.elapsed() > RECOVERED_WITHIN {
                let (seen, expected) = (self.containers().await, self.containers_expected());
                bail!("not recovered after {RECOVERED_WITHIN:?}: containers {seen:?} of {expected}, {glances:?}");
            }
            sleep(GLANCE).await;
            glances.push(self.tally());
            if glances.len() > GLANCES {
                glances.remove(0);
            }
            if glances.len() == GLANCES && self.is_whole().await? && self.flows(&glances) {
                return Ok(since.elapsed());
            }
        }
    }

    async fn is_whole(&mut self) -> anyhow::Result<bool> {
        for player in self.players.values_mut() {
            player.check()?;
        }
        let ready = self.players.values().all(|player| player.news.borrow().ready);
        Ok(ready && self.containers().await == Some(self.containers_expected()))
    }

    fn containers_expected(&self) -> u64 {
        let containers = self.players.keys().map(|seat| match seat {
            Seat::Node(number) => {
                let NodeShape { streams, actions, .. } = self.staging.nodes[usize::from(*number)];
                u64::from(streams) * u64::from(actions)
            }
            Seat::Router | Seat::Caller(_) => 0,
        });
        containers.sum()
    }

    /// Whether nearly all that is asked completes, at nearly the rate there should be.
    #[allow(clippy::cast_precision_loss)]
    fn flows(&self, glances: &[Tally]) -> bool {
        let (Some(first), Some(last)) = (glances.first(), glances.last()) else { return false };
        let (asked, completed) = ((last.asked - first.asked) as f64, (last.completed - first.completed) as f64);
        let expected = self.staging.rate * (GLANCE * GLANCES_BETWEEN).as_secs_f64();
        asked >= 0.5 * expected && completed >= 0.95 * asked
    }

    async fn containers(&self) -> Option<u64> {
        self.metric("router_containers").await
    }

    /// What the router says of itself; none if it does not. It steers the run and judges nothing.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let page = timeout(Duration::from_secs(1), request(self.admin, "GET", "/metrics")).await.ok()?.ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Nobody is asked anything more; waits until everything is answered, ends everybody, and judges.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Findings> {
        self.links.values().for_each(Link::heal);
        self.cue(None, Cue::Finish).await?;
        let callers: Vec<Seat> = self.players.keys().copied().filter(|seat| matches!(seat, Seat::Caller(_))).collect();
        for seat in callers {
            let mut caller = self.players.remove(&seat).context("it was there")?;
            let status = caller.ended(LEFT_WITHIN).await?;
            ensure!(status.success(), "{} ended with {status}", caller.life);
        }
        for (_, mut player) in self.players.drain() {
            player.end().await?;
        }
        let findings = judge(&ledger::read_all(&self.folder)?);
        Ok(findings)
    }
}

/// A process of the cast. Killed when dropped.
#[derive(Debug)]
struct Player {
    life: Life,
    child: Child,
    stdin: Option<ChildStdin>,
    news: watch::Receiver<Known>,
}

/// What is known of a process by its own word.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    ready: bool,
    tally: Tally,
}

impl Player {
    fn start(life: Life, part: &Part) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["act", &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {life}"))?;
        let stdout = child.stdout.take().context("it was asked for")?;
        let (sender, news) = watch::channel(Known::default());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(News::Tally(tally)) => sender.send_modify(|known| known.tally = tally),
                    Ok(News::Ready) => sender.send_modify(|known| known.ready = true),
                    Ok(News::Done) => {}
                    // A router speaks plainly.
                    Err(_) if line.starts_with("listening on ") => sender.send_modify(|known| known.ready = true),
                    Err(_) => eprintln!("{life}: {line}"),
                }
            }
        });
        let stdin = child.stdin.take();
        Ok(Self { life, child, stdin, news })
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let mut news = self.news.clone();
        let ready = timeout(READY_WITHIN, news.wait_for(|known| known.ready)).await;
        ready.with_context(|| format!("{} is not ready", self.life))?.with_context(|| format!("{} died", self.life))?;
        Ok(())
    }

    /// Fails if it has ended, though nobody told it to.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} died by itself: {status}", self.life),
            None => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // None once it was waited for: its id may be another's by then.
        let id = self.child.id().with_context(|| format!("{} has ended", self.life))?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process has the id 0")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.life))
    }

    async fn cue(&mut self, cue: Cue) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("it has an input until it is told to end")?;
        let line = serde_json::to_string(&cue)? + "\n";
        stdin.write_all(line.as_bytes()).await.with_context(|| format!("{} does not listen", self.life))
    }

    async fn ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end", self.life))??)
    }

    /// The end of its input is the end of it.
    async fn end(&mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        self.ended(READY_WITHIN).await.map(drop)
    }
}

/// One request to the router's admin port, answered with the whole page.
pub(crate) async fn request(admin: SocketAddr, method: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(admin).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: router\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

/// A loopback address that is free now, below the ports that the system gives to those who ask for any: a router that is started
/// again must find it free.
fn free_address(seed: u64) -> anyhow::Result<SocketAddr> {
    let start = (seed ^ u64::from(std::process::id())).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 51;
    for offset in 0..1000 {
        let port = u16::try_from(20_000 + (start + offset * 7) % 12_000)?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no free port between 20000 and 32000")
}
