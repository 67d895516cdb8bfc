//! Redis lists: `redis-server`, one list for the action, one for each controller's answers.
//!
//! Requests and answers are pushed many with one RPUSH and taken many with one BLMPOP, which waits only if there is nothing: what has
//! come meanwhile is taken as one, as on the router's streams. The client is our own, as NATS's is and for the same reason.

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
    promise: "at most once, in memory: what a worker has taken is gone with it, and all is gone with the server",
    settings: "redis-server with its defaults but no persistence (save \"\", appendonly no); RPUSH of all that is waiting, BLMPOP COUNT 1024; \
               a connection for each worker, two for each controller; own client that writes what is waiting as one",
};

/// The roads of a plan's controllers.
pub(crate) async fn controllers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<Roads<Encoding, Popped>> {
    let mut roads = Vec::new();
    for number in 0..plan.controllers {
        let outbox = requests(endpoint).await?;
        let popped = Popped::connect(endpoint, &answers(plan, number)).await?;
        roads.push((Requests { outbox, encode: Encoding { list: work(plan) } }, Answers(popped)));
    }
    Ok(roads)
}

/// The workers of a plan: each echoes what it gets.
pub(crate) async fn workers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for _ in 0..plan.invokers {
        let mut popped = Popped::connect(endpoint, &work(plan)).await?;
        let plan = plan.clone();
        workers.spawn(async move {
            // The next BLMPOP goes out behind the answers: on a connection, commands are worked off in turn.
            while let Ok(bodies) = popped.taken().await {
                popped.outbox.write(|out| {
                    reply(&plan, &bodies, out);
                    out.extend_from_slice(&popped.pop);
                });
            }
        });
    }
    Ok(workers)
}

/// One RPUSH for each controller in a row.
fn reply(plan: &Plan, bodies: &[Body], out: &mut Vec<u8>) {
    for alike in bodies.chunk_by(|a, b| a.controller() == b.controller()) {
        push(out, &answers(plan, alike[0].controller()), alike.iter().map(|body| [&body.bytes[..], &[]]));
    }
}

/// `RPUSH list body...`, each body in two parts.
fn push<'a>(out: &mut Vec<u8>, list: &[u8], bodies: impl ExactSizeIterator<Item = [&'a [u8]; 2]>) {
    resp::command(out, 2 + bodies.len());
    resp::word(out, &[b"RPUSH"]);
    resp::word(out, &[list]);
    bodies.for_each(|body| resp::word(out, &body));
}

/// Requests to one list.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    list: Bytes,
}

impl Encode for Encoding {
    fn requests(&self, batch: &[v1::Activation], out: &mut Vec<u8>) {
        if !batch.is_empty() {
            push(out, &self.list, batch.iter().map(|activation| [&activation.id[..], &activation.payload[..]]));
        }
    }
}

/// What is popped off a list.
#[derive(Debug)]
pub(crate) struct Popped {
    outbox: Outbox,
    inbox: Inbox,
    /// The command.
    pop: Vec<u8>,
}

impl Popped {
    /// Connects and asks for the first.
    async fn connect(endpoint: SocketAddr, list: &[u8]) -> anyhow::Result<Self> {
        let (outbox, inbox) = line::connect(endpoint).await?;
        let pop = resp::whole(&["BLMPOP", "0", "1", std::str::from_utf8(list)?, "LEFT", "COUNT", "1024"]);
        outbox.write(|out| out.extend_from_slice(&pop));
        Ok(Self { outbox, inbox, pop })
    }

    /// Waits for what was asked for, past the replies to what else was sent.
    async fn taken(&mut self) -> anyhow::Result<Vec<Body>> {
        loop {
            // The list's name, and what was on it.
            let items = self.inbox.take(resp::reply).await?.items();
            if let Some(bodies) = items.into_iter().nth(1) {
                return Ok(bodies.items().into_iter().map(|item| Body::of(item.bytes())).collect());
            }
        }
    }
}

impl Listen for Popped {
    async fn next(&mut self) -> anyhow::Result<Vec<Body>> {
        let bodies = self.taken().await?;
        self.outbox.write(|out| out.extend_from_slice(&self.pop));
        Ok(bodies)
    }
}
