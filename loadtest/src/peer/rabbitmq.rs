//! RabbitMQ: `rabbitmq-server` with a transient queue for the action and direct reply-to for the answers.
//!
//! The client is our own, as NATS's is and for the same reason: it writes all messages that are waiting as one.

use super::line::{self, Answers, Encode, Inbox, Listen, Outbox, Requests, Roads};
use super::{About, Body, Launch, amqp, host, program};
use crate::plan::Plan;
use anyhow::Context;
use bytes::Bytes;
use proto::v1;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::task::JoinSet;

/// What users should know of the comparison.
pub(crate) const ABOUT: About = About {
    program: "rabbitmq-server",
    install: "apt-get install rabbitmq-server, or scripts/peers",
    promise: "at most once, in memory: no acknowledgements, transient messages, no publisher confirms",
    settings: "rabbitmq-server with its defaults but no plugins; a transient classic queue, consumed with no-ack; answers by direct reply-to \
               (amq.rabbitmq.reply-to); default exchange; one channel on one connection for each part; own client that writes what is waiting as one",
};

/// Where a controller's answers go without a queue: rabbitmq.com/docs/direct-reply-to.
const DIRECT: &[u8] = b"amq.rabbitmq.reply-to";

/// How the server is started: an Erlang port mapper of its own, and the node.
pub(crate) fn launch(folder: &Path, port: u16) -> anyhow::Result<Launch> {
    let config = folder.join("rabbitmq.conf");
    std::fs::write(&config, format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.console.level = error\n"))?;
    let plugins = folder.join("enabled_plugins");
    std::fs::write(&plugins, "[].\n")?;
    let epmd_port = host::free_port()?.to_string();
    let mut epmd = Command::new("epmd");
    epmd.args(["-address", "127.0.0.1", "-port", &epmd_port]);

    // Rather than Debian's in /usr/sbin: that changes user and writes to the system's log folder.
    let script = Some(PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")).filter(|script| script.is_file());
    let mut node = Command::new(script.or_else(|| program(ABOUT.program)).context(ABOUT.program)?);
    node.env("HOME", folder)
        .env("ERL_EPMD_PORT", &epmd_port)
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("loadtest-{}@localhost", std::process::id()))
        .env("RABBITMQ_DIST_PORT", host::free_port()?.to_string())
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONFIG_FILE", &config)
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("rabbitmq-env.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins)
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder.join("log.d"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", folder.join("pid"));
    Ok(Launch { commands: vec![epmd, node] })
}

/// The installed version: its libraries' folder has it in its name. The program itself takes seconds to say it.
pub(crate) fn version() -> String {
    let folders = std::fs::read_dir("/usr/lib/rabbitmq/lib").into_iter().flatten().flatten();
    let name = folders
        .filter_map(|folder| folder.file_name().into_string().ok())
        .find(|name| name.starts_with("rabbitmq_server-"));
    name.map_or_else(|| "unknown".to_owned(), |name| name.replace("rabbitmq_server-", "RabbitMQ "))
}

/// The roads of a plan's controllers.
pub(crate) async fn controllers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<Roads<Encoding, Delivered>> {
    let mut roads = Vec::new();
    for _ in 0..plan.controllers {
        let mut delivered = Delivered::connect(endpoint).await?;
        delivered.consume(DIRECT).await?;
        let outbox = delivered.outbox.clone();
        roads.push((Requests { outbox, encode: Encoding { queue: queue(plan) } }, Answers(delivered)));
    }
    Ok(roads)
}

/// The workers of a plan: each echoes what it gets.
pub(crate) async fn workers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for _ in 0..plan.invokers {
        let mut delivered = Delivered::connect(endpoint).await?;
        amqp::declare(&delivered.outbox, &mut delivered.inbox, &queue(plan)).await?;
        delivered.consume(&queue(plan)).await?;
        workers.spawn(async move {
            while let Ok(bodies) = delivered.next().await {
                delivered.outbox.write(|out| {
                    bodies.iter().for_each(|body| amqp::publish(out, &body.reply_to, b"", [&body.bytes, b""]));
                });
            }
        });
    }
    Ok(workers)
}

fn queue(plan: &Plan) -> Bytes {
    format!("work-{}", plan.run).into()
}

/// Requests to one queue.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    queue: Bytes,
}

impl Encode for Encoding {
    fn requests(&self, batch: &[v1::Activation], out: &mut Vec<u8>) {
        for v1::Activation { id, payload, .. } in batch {
            amqp::publish(out, &self.queue, DIRECT, [id, payload]);
        }
    }
}

/// What is delivered on one channel.
#[derive(Debug)]
pub(crate) struct Delivered {
    outbox: Outbox,
    inbox: Inbox,
    deliveries: amqp::Deliveries,
}

impl Delivered {
    async fn connect(endpoint: SocketAddr) -> anyhow::Result<Self> {
        let (outbox, mut inbox) = line::connect(endpoint).await?;
        amqp::open(&outbox, &mut inbox).await?;
        Ok(Self { outbox, inbox, deliveries: amqp::Deliveries::default() })
    }

    async fn consume(&mut self, queue: &[u8]) -> anyhow::Result<()> {
        amqp::consume(&self.outbox, &mut self.inbox, queue).await
    }
}

impl Listen for Delivered {
    async fn next(&mut self) -> anyhow::Result<Vec<Body>> {
        let mut bodies = Vec::new();
        loop {
            while let Some(body) = self.deliveries.next(self.inbox.bytes())? {
                bodies.push(body);
            }
            if !bodies.is_empty() {
                return Ok(bodies);
            }
            self.inbox.more().await?;
        }
    }
}
