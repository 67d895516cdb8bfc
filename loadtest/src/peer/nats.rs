//! NATS core: `nats-server` with a queue group and a reply subject.
//!
//! The client is our own: the crate `async-nats` hands each message through two channels and a task, which on a machine shared
//! with the server costs as much as the server does. Protocol: docs.nats.io/reference/reference-protocols/nats-protocol.

use super::line::{self, Answers, Encode, Inbox, Listen, Outbox, Requests, Roads, decimal};
use super::{About, Body, Launch};
use crate::plan::Plan;
use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use proto::v1;
use std::net::SocketAddr;
use std::process::Command;
use tokio::task::JoinSet;

/// What users should know of the comparison.
pub(crate) const ABOUT: About = About {
    program: "nats-server",
    install: "apt-get install nats-server, or scripts/peers",
    promise: "at most once, in memory: a message is dropped if nobody subscribes or a subscriber is slow",
    settings: "nats-server with its defaults but max_payload 2 MiB, no authentication, no JetStream; one queue group, one subscription for \
               each worker, a reply subject for each controller; not verbose, no headers; own client that writes what is waiting as one",
};

/// How the server is started.
pub(crate) fn launch(folder: &std::path::Path, port: u16) -> anyhow::Result<Launch> {
    let config = folder.join("nats.conf");
    std::fs::write(&config, format!("listen: 127.0.0.1:{port}\nmax_payload: 2097152\n"))?;
    let mut command = Command::new(ABOUT.program);
    command.arg("--config").arg(&config);
    Ok(Launch::of(command))
}

/// The roads of a plan's controllers.
pub(crate) async fn controllers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<Roads<Encoding, Messages>> {
    let mut roads = Vec::new();
    for number in 0..plan.controllers {
        let reply_to = format!("answers.{}.{number}", plan.run);
        let messages = Messages::subscribe(endpoint, &format!("SUB {reply_to} 1\r\n")).await?;
        let encode = Encoding { start: format!("PUB {} {reply_to} ", subject(plan)).into() };
        roads.push((Requests { outbox: messages.outbox.clone(), encode }, Answers(messages)));
    }
    Ok(roads)
}

/// The workers of a plan: each echoes what it gets.
pub(crate) async fn workers(endpoint: SocketAddr, plan: &Plan) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for _ in 0..plan.invokers {
        let mut messages = Messages::subscribe(endpoint, &format!("SUB {} workers 1\r\n", subject(plan))).await?;
        workers.spawn(async move {
            while let Ok(bodies) = messages.next().await {
                messages.outbox.write(|out| bodies.iter().for_each(|body| reply(body, out)));
            }
        });
    }
    Ok(workers)
}

fn subject(plan: &Plan) -> String {
    format!("work.{}", plan.run)
}

fn reply(body: &Body, out: &mut Vec<u8>) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(&body.reply_to);
    out.push(b' ');
    decimal(out, body.bytes.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body.bytes);
    out.extend_from_slice(b"\r\n");
}

/// Requests to one subject, with a reply subject.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    /// All that precedes the length.
    start: Bytes,
}

impl Encode for Encoding {
    fn requests(&self, batch: &[v1::Activation], out: &mut Vec<u8>) {
        for v1::Activation { id, payload, .. } in batch {
            out.extend_from_slice(&self.start);
            decimal(out, id.len() + payload.len());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(id);
            out.extend_from_slice(payload);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The messages of one subscription.
#[derive(Debug)]
pub(crate) struct Messages {
    outbox: Outbox,
    inbox: Inbox,
}

impl Messages {
    /// Greets and subscribes; the server has taken note when this returns.
    async fn subscribe(endpoint: SocketAddr, subscription: &str) -> anyhow::Result<Self> {
        let (outbox, mut inbox) = line::connect(endpoint).await?;
        let greeting = format!("{CONNECT}\r\n{subscription}PING\r\n");
        outbox.write(|out| out.extend_from_slice(greeting.as_bytes()));
        while inbox.take(said).await? != Said::Pong {}
        Ok(Self { outbox, inbox })
    }
}

const CONNECT: &str = r#"CONNECT {"verbose":false,"pedantic":false,"headers":false,"lang":"rust","version":"0","protocol":1,"name":"loadtest"}"#;

impl Listen for Messages {
    async fn next(&mut self) -> anyhow::Result<Vec<Body>> {
        let mut bodies = Vec::new();
        loop {
            while let Some(said) = said(self.inbox.bytes())? {
                match said {
                    Said::Message(body) => bodies.push(body),
                    Said::Ping => drop(self.outbox.write(|out| out.extend_from_slice(b"PONG\r\n"))),
                    Said::Pong | Said::Info => {}
                }
            }
            if !bodies.is_empty() {
                return Ok(bodies);
            }
            self.inbox.more().await?;
        }
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Message(Body),
    Ping,
    Pong,
    Info,
}

/// The longest line without an end that is waited for: an INFO can have a few hundred bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Takes one thing said, once all of it is there.
fn said(bytes: &mut BytesMut) -> anyhow::Result<Option<Said>> {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        ensure!(bytes.len() < LINE_BYTES_MAX, "a line without an end");
        return Ok(None);
    };
    if bytes.starts_with(b"MSG ") {
        return message(bytes, end);
    }
    let line = bytes.split_to(end + 1);
    match line.trim_ascii_end() {
        b"PING" => Ok(Some(Said::Ping)),
        b"PONG" => Ok(Some(Said::Pong)),
        info if info.starts_with(b"INFO ") || info == b"+OK" => Ok(Some(Said::Info)),
        other => bail!("the server said {}", String::from_utf8_lossy(other)),
    }
}

/// `MSG subject sid [reply-to] length`, then the payload. The line ends at `end`.
fn message(bytes: &mut BytesMut, end: usize) -> anyhow::Result<Option<Said>> {
    let line = bytes[..end].trim_ascii_end();
    let length = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let length: usize = std::str::from_utf8(length)?.parse().context("the length of a message")?;
    if bytes.len() < end + 1 + length + 2 {
        return Ok(None);
    }
    let line = bytes.split_to(end + 1).freeze();
    let payload = bytes.split_to(length).freeze();
    bytes.advance(2);
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ').skip(3);
    let reply_to = match (words.next(), words.next()) {
        (Some(reply_to), Some(_)) => line.slice_ref(reply_to),
        _ => Bytes::new(),
    };
    Ok(Some(Said::Message(Body { reply_to, bytes: payload })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_once_all_of_it_is_there() {
        let whole = b"MSG work.1 1 answers.1.0 5\r\nhello\r\nPING\r\n";
        for cut in 0..34 {
            assert_eq!(said(&mut BytesMut::from(&whole[..cut])).unwrap(), None, "{cut} bytes");
        }
        let mut bytes = BytesMut::from(&whole[..]);
        let body = Body { reply_to: Bytes::from_static(b"answers.1.0"), bytes: Bytes::from_static(b"hello") };
        assert_eq!(said(&mut bytes).unwrap(), Some(Said::Message(body)));
        assert_eq!(said(&mut bytes).unwrap(), Some(Said::Ping));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_message_may_name_no_reply_subject() {
        let mut bytes = BytesMut::from(&b"MSG answers.1.0 1 2\r\nok\r\n"[..]);
        let body = Body { reply_to: Bytes::new(), bytes: Bytes::from_static(b"ok") };
        assert_eq!(said(&mut bytes).unwrap(), Some(Said::Message(body)));
    }

    #[test]
    fn an_error_ends_it() {
        let mut bytes = BytesMut::from(&b"-ERR 'Maximum Payload Violation'\r\n"[..]);
        assert!(said(&mut bytes).unwrap_err().to_string().contains("Maximum Payload"));
        assert!(said(&mut BytesMut::from(&b"MSG a 1 x\r\n"[..])).is_err());
    }
}
