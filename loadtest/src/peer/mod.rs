//! What a user would pick instead of the router, driven by the same generator: the same round trip, the same books.
//!
//! A file or folder for each peer says how its server is started, what its client does, and what a delivery is promised. A message
//! is the activation's id and its payload, one behind the other; the answer is the same bytes. `line` is the connection that all
//! but Kafka's clients share; `host` keeps the servers.

mod amqp;
pub(crate) mod host;
mod kafka;
pub(crate) mod line;
mod nats;
mod rabbitmq;
mod redis;

use crate::part::{Event, Report, controller};
use crate::plan::Plan;
use bytes::Bytes;
use proto::v1;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One peer, set up one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    Nats,
    RedisLists,
    RedisStreams,
    Rabbitmq,
    Kafka,
    KafkaTuned,
}

/// What users should know of a peer.
#[derive(Debug)]
pub(crate) struct About {
    /// The server's program.
    pub(crate) program: &'static str,
    /// How to get it.
    pub(crate) install: &'static str,
    /// What is promised of a delivery.
    pub(crate) promise: &'static str,
    /// The server's and the client's.
    pub(crate) settings: &'static str,
}

/// How a server is started: its processes in order, of which the last one listens.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) commands: Vec<Command>,
}

impl Launch {
    fn of(command: Command) -> Self {
        Self { commands: vec![command] }
    }
}

/// One message: an id and a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// Where the answer is to go, for peers whose messages say so.
    pub(crate) reply_to: Bytes,
    pub(crate) bytes: Bytes,
}

/// Bytes of an activation's id.
const ID_BYTES: usize = 16;

impl Body {
    /// Of a message that does not say where its answer is to go.
    fn of(bytes: Bytes) -> Self {
        Self { reply_to: Bytes::new(), bytes }
    }

    /// The number of the controller that waits for the answer: the generator's ids begin with it.
    fn controller(&self) -> u32 {
        self.bytes.first_chunk().map_or(u32::MAX, |number| u32::from_be_bytes(*number))
    }

    /// As the answer to the activation whose id it starts with.
    fn answer(mut self) -> v1::Answer {
        let id = self.bytes.split_to(self.bytes.len().min(ID_BYTES));
        v1::Answer { id, outcome: v1::Outcome::Completed as i32, result: self.bytes, ..Default::default() }
    }
}

impl Peer {
    pub(crate) fn about(self) -> &'static About {
        match self {
            Self::Nats => &nats::ABOUT,
            Self::RedisLists => &redis::lists::ABOUT,
            Self::RedisStreams => &redis::streams::ABOUT,
            Self::Rabbitmq => &rabbitmq::ABOUT,
            Self::Kafka => &kafka::AS_OPENWHISK,
            Self::KafkaTuned => &kafka::TUNED,
        }
    }

    /// Whether it can be started here.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Self::Kafka | Self::KafkaTuned => kafka::is_installed(),
            Self::Nats | Self::RedisLists | Self::RedisStreams | Self::Rabbitmq => {
                program(self.about().program).is_some()
            }
        }
    }

    /// The installed server's version.
    pub(crate) fn version(self) -> String {
        match self {
            Self::Nats | Self::RedisLists | Self::RedisStreams => said_by(self.about().program, "--version"),
            Self::Rabbitmq => rabbitmq::version(),
            Self::Kafka | Self::KafkaTuned => kafka::version(),
        }
    }

    /// Whether its server takes seconds to start.
    pub(crate) fn starts_slowly(self) -> bool {
        matches!(self, Self::Rabbitmq | Self::Kafka | Self::KafkaTuned)
    }

    /// How long its server is kept busy before it is measured, once for each start: a JVM is slow until it has compiled.
    pub(crate) fn warm_up(self) -> Duration {
        match self {
            Self::Nats | Self::RedisLists | Self::RedisStreams => Duration::ZERO,
            Self::Rabbitmq => Duration::from_secs(2),
            Self::Kafka | Self::KafkaTuned => Duration::from_secs(15),
        }
    }

    fn launch(self, folder: &Path, port: u16) -> anyhow::Result<Launch> {
        match self {
            Self::Nats => nats::launch(folder, port),
            Self::RedisLists | Self::RedisStreams => redis::launch(folder, port),
            Self::Rabbitmq => rabbitmq::launch(folder, port),
            Self::Kafka | Self::KafkaTuned => kafka::launch(folder, port),
        }
    }
}

/// Runs the controllers of a plan.
pub(crate) async fn controllers(peer: Peer, endpoint: SocketAddr, plan: &Plan, report: Report) -> anyhow::Result<()> {
    match peer {
        Peer::Nats => controller::drive(nats::controllers(endpoint, plan).await?, plan, report).await,
        Peer::RedisLists => controller::drive(redis::lists::controllers(endpoint, plan).await?, plan, report).await,
        Peer::RedisStreams => controller::drive(redis::streams::controllers(endpoint, plan).await?, plan, report).await,
        Peer::Rabbitmq => controller::drive(rabbitmq::controllers(endpoint, plan).await?, plan, report).await,
        #[cfg(feature = "kafka")]
        Peer::Kafka | Peer::KafkaTuned => {
            controller::drive(kafka::clients::controllers(peer.into(), endpoint, plan).await?, plan, report).await
        }
        #[cfg(not(feature = "kafka"))]
        Peer::Kafka | Peer::KafkaTuned => anyhow::bail!(NO_KAFKA),
    }
}

/// Runs the workers of a plan until `stop` resolves.
pub(crate) async fn workers(
    peer: Peer,
    endpoint: SocketAddr,
    plan: &Plan,
    report: Report,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut workers = match peer {
        Peer::Nats => nats::workers(endpoint, plan).await?,
        Peer::RedisLists => redis::lists::workers(endpoint, plan).await?,
        Peer::RedisStreams => redis::streams::workers(endpoint, plan).await?,
        Peer::Rabbitmq => rabbitmq::workers(endpoint, plan).await?,
        // Its one worker also ends, with an error, when its consumer does.
        #[cfg(feature = "kafka")]
        Peer::Kafka | Peer::KafkaTuned => {
            return kafka::clients::workers(peer.into(), endpoint, plan, report, stop).await;
        }
        #[cfg(not(feature = "kafka"))]
        Peer::Kafka | Peer::KafkaTuned => anyhow::bail!(NO_KAFKA),
    };
    report(Event::Ready);
    stop.await;
    workers.shutdown().await;
    Ok(())
}

#[cfg(not(feature = "kafka"))]
const NO_KAFKA: &str = "this program was built without the feature `kafka`";

/// Where a program is, on the path or in the folders of system programs.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// The first line that a program prints when asked so.
fn said_by(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").to_owned()
}
