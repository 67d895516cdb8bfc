//! The processes of a run, each this very program: what a parent tells one to be, what it tells it to do, what it hears back. On
//! standard input and output, a line of JSON each; at the end of its input a part is gone.

pub(crate) mod caller;
pub(crate) mod node;

use super::ledger::Life;
use anyhow::Context;
use router::config::{Config, Setting};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::mpsc;

/// What a process is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Router(RouterPart),
    Caller(caller::CallerPart),
    Node(node::NodePart),
}

/// A router, the whole of `activation-router serve`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouterPart {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Keys of its configuration and their values.
    pub(crate) settings: Vec<(String, String)>,
}

/// What callers and nodes have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) life: Life,
    pub(crate) endpoint: SocketAddr,
    /// Where the ledger is kept.
    pub(crate) folder: PathBuf,
    /// Actions that it asks for or runs.
    pub(crate) actions: u32,
    pub(crate) seed: u64,
}

/// What a caller is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cue {
    /// Ask that many a second.
    Rate(f64),
    /// Ask so many at once, besides.
    Burst { count: u32, ask: Ask },
    /// Ask nothing more, wait for what is out, and leave.
    Finish,
}

/// What an activation is asked for with; both drawn evenly from a range.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) timeout_ms: (u32, u32),
    /// For how long a container is to run it.
    pub(crate) service_us: (u32, u32),
    /// Of its payload, at least what the name takes.
    pub(crate) payload_bytes: usize,
}

/// What a part tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum News {
    /// It has found the router.
    Ready,
    /// How far a caller is.
    Tally(Tally),
    /// It leaves in order.
    Done,
}

/// A caller's counts so far. They steer the run; the ledgers judge it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) completed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.completed += other.completed;
    }
}

/// The whole life of a process that was started as a part.
pub(crate) fn play(part: &str) -> anyhow::Result<ExitCode> {
    let part = serde_json::from_str(part).context("a part is described in JSON")?;
    // Even one that is stopped must not outlive its parent.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let cues = listen();
    match part {
        Part::Router(part) => {
            let settings = [("listen", part.listen.to_string()), ("admin_listen", part.admin.to_string())];
            let settings = settings.map(|(key, text)| (key.to_owned(), text)).into_iter().chain(part.settings);
            let settings = settings.map(|(key, text)| Setting::from_flag("--", &key, &text));
            let config = Config::load(None, settings).map_err(|faults| anyhow::anyhow!("{faults}"))?;
            Ok(router::serve(config))
        }
        Part::Caller(part) => crate::part::block_on(caller::run(part, cues))?,
        Part::Node(part) => crate::part::block_on(node::run(part, cues))?,
    }
}

/// Cues from standard input. Its end is the end of the process.
fn listen() -> mpsc::UnboundedReceiver<Cue> {
    let (sender, cues) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(cue) => drop(sender.send(cue)),
                Err(error) => eprintln!("no cue: {line}: {error}"),
            }
        }
        std::process::exit(1);
    });
    cues
}

fn tell(news: &News) {
    println!("{}", serde_json::to_string(news).expect("news are plain data"));
}
