//! Redis streams: `redis-server`, one stream with a consumer group for the action, one stream for each controller's answers.
//!
//! Requests and answers are added one by one, as XADD has it, but all that are waiting in one write; XREADGROUP and XREAD take many,
//! and wait only if there are none. The client is our own, as NATS's is and for the same reason.

use super::{INSTALL, PROGRAM, answers, requests, resp, work};
use crate::peer::line::{self, Answers, Encode, Inbox, Listen, Outbox, Requests, Roads};
use crate::peer::{About, Body};
use crate::plan::Plan;
use bytes::Bytes;
use proto::v1;
use std::net::SocketAddr;
use tokio::task::JoinSet;

/// What users should know of the comparison.
pub(crate) const ABOUT: About = About {
    program: PROGRAM,
    install: INSTALL,
    promise: "at most once, in memory: a consumer group with NOACK; all is gone with the server, and the oldest beyond 100,000 entries",
    settings: "redis-server with its defaults but no persistence (save \"\", appendonly no); XADD MAXLEN ~ 100000 in one write, XREADGROUP \
               NOACK COUNT 1024 by workers, XREAD COUNT 1024 by controllers; a connection for each worker, two for each controller; own client",
};

/// The roads of a plan's controllers.
pub(crate) async fn controllers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<Roads<Encoding, Entries>> {
    let mut roads = Vec::new();
    for number in 0..plan.controllers {
        let outbox = requests(endpoint).await?;
        let reading = Reading::Stream { name: answers(plan, number), last: Bytes::from_static(b"0-0") };
        let entries = Entries::connect(endpoint, reading).await?;
        roads.push((Requests { outbox, encode: Encoding { stream: work(plan) } }, Answers(entries)));
    }
    Ok(roads)
}

/// The workers of a plan: each echoes what it gets.
pub(crate) async fn workers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<JoinSet<()>> {
    let (outbox, mut inbox) = line::connect(endpoint).await?;
    let stream = work(plan);
    let create = ["XGROUP", "CREATE", std::str::from_utf8(&stream)?, "workers", "0", "MKSTREAM"];
    resp::ask(&outbox, &mut inbox, &create).await?;
    let mut workers = JoinSet::new();
    for number in 0..plan.invokers {
        let reading = Reading::Group { name: stream.clone(), consumer: format!("worker-{number}") };
        let mut entries = Entries::connect(endpoint, reading).await?;
        let plan = plan.clone();
        workers.spawn(async move {
            // The next XREADGROUP goes out behind the answers: on a connection, commands are worked off in turn.
            while let Ok(bodies) = entries.taken().await {
                entries.outbox.write(|out| {
                    bodies.iter().for_each(|body| add(out, &answers(&plan, body.controller()), [&body.bytes, &[]]));
                    entries.reading.ask(out);
                });
            }
        });
    }
    Ok(workers)
}

/// Most entries of a stream, about: many more than are out at a time, so that none goes unread.
const ENTRIES_MAX: &[u8] = b"100000";

/// `XADD stream MAXLEN ~ n * m body`, the body in two parts.
fn add(out: &mut Vec<u8>, stream: &[u8], body: [&[u8]; 2]) {
    resp::command(out, 8);
    for word in [b"XADD", stream, b"MAXLEN", b"~", ENTRIES_MAX, b"*", b"m"] {
        resp::word(out, &[word]);
    }
    resp::word(out, &body);
}

/// Requests to one stream.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    stream: Bytes,
}

impl Encode for Encoding {
    fn requests(&self, batch: &[v1::Activation], out: &mut Vec<u8>) {
        batch.iter().for_each(|activation| add(out, &self.stream, [&activation.id, &activation.payload]));
    }
}

/// Who reads, and from where.
#[derive(Debug)]
enum Reading {
    /// A worker: what nobody of its group has got.
    Group { name: Bytes, consumer: String },
    /// A controller: what comes behind the last it has.
    Stream { name: Bytes, last: Bytes },
}

impl Reading {
    /// Appends the command that asks for the next.
    fn ask(&self, out: &mut Vec<u8>) {
        let words: &[&[u8]] = match self {
            Self::Group { name, consumer } => &[
                b"XREADGROUP",
                b"GROUP",
                b"workers",
                consumer.as_bytes(),
                b"COUNT",
                b"1024",
                b"BLOCK",
                b"0",
                b"NOACK",
                b"STREAMS",
                name,
                b">",
            ],
            Self::Stream { name, last } => &[b"XREAD", b"COUNT", b"1024", b"BLOCK", b"0", b"STREAMS", name, last],
        };
        resp::command(out, words.len());
        words.iter().for_each(|word| resp::word(out, &[word]));
    }
}

/// The entries of one stream.
#[derive(Debug)]
pub(crate) struct Entries {
    outbox: Outbox,
    inbox: Inbox,
    reading: Reading,
}

impl Entries {
    /// Connects and asks for the first.
    async fn connect(endpoint: SocketAddr, reading: Reading) -> anyhow::Result<Self> {
        let (outbox, inbox) = line::connect(endpoint).await?;
        outbox.write(|out| reading.ask(out));
        Ok(Self { outbox, inbox, reading })
    }

    /// Waits for what was asked for, past the replies to what else was sent.
    async fn taken(&mut self) -> anyhow::Result<Vec<Body>> {
        loop {
            // Streams, of which there is one: its name, and its entries.
            let stream = self.inbox.take(resp::reply).await?.items().into_iter().next();
            let Some(entries) = stream.and_then(|stream| stream.items().into_iter().nth(1)) else { continue };
            return Ok(entries.items().into_iter().map(|entry| self.body(entry)).collect());
        }
    }

    /// An entry is its id and its fields: here a name and a value.
    fn body(&mut self, entry: resp::Reply) -> Body {
        let mut parts = entry.items().into_iter();
        let id = parts.next().map(resp::Reply::bytes).unwrap_or_default();
        if let Reading::Stream { last, .. } = &mut self.reading {
            *last = id;
        }
        let value = parts.next().and_then(|fields| fields.items().into_iter().nth(1));
        Body::of(value.map(resp::Reply::bytes).unwrap_or_default())
    }
}

impl Listen for Entries {
    async fn next(&mut self) -> anyhow::Result<Vec<Body>> {
        let bodies = self.taken().await?;
        self.outbox.write(|out| self.reading.ask(out));
        Ok(bodies)
    }
}
